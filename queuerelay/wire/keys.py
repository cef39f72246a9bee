"""Names of everything in Redis, in one place. PROTOCOL: the table in `docs/protocol.md`."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names under one pair of prefixes; all of them are text without ``:`` inside a queue."""

    #: Prefix of our own keys.
    prefix: str = "queuerelay:"
    #: Prefix of Resque's keys; Resque's own default.
    resque: str = "resque:"
    #: Prefix of the lists that take replies to jobs; no other key begins so.
    results: str = "queuerelay:results:"

    def queue(self, queue: str) -> str:
        """List: the messages that wait."""
        return f"{self.resque}queue:{queue}"

    @property
    def queues(self) -> str:
        """Set: the queues that ``QUEUE=*`` workers and resque-web know of."""
        return f"{self.resque}queues"

    @property
    def failed(self) -> str:
        """List: dead letters, appended only."""
        return f"{self.resque}failed"

    @property
    def dropped(self) -> str:
        """String, a number: dead letters that were dropped for being too many or too old."""
        return f"{self.prefix}dead_letters_dropped"

    def beginnings(self) -> list[str]:
        """How each of our own keys begins, `results` apart."""
        several = (self.inbox, self.legacy_inbox, self.node, self.orders, self.reports)
        of_queues = (self.inflight, self.leases, self.meta, self.delayed)
        of_requests = (self.gone, self.taken)
        named = [name("") for name in (*several, *of_queues, *of_requests, self.fence)]
        return [self.nodes, self.gate, self.dropped, *named]

    def inbox(self, node_id: str) -> str:
        """List: replies for one relay."""
        return f"{self.prefix}inbox:{node_id}"

    def legacy_inbox(self, node_id: str) -> str:
        """List: replies that this relay took from the legacy list and has not sorted yet."""
        return f"{self.prefix}legacy:{node_id}"

    def fence(self, fence_id: str) -> str:
        """Hash with a term: the token of the connection that may trim or push, and the numbers of
        pushes that were executed and not heard of.
        """
        return f"{self.prefix}fence:{fence_id}"

    @property
    def nodes(self) -> str:
        """Sorted set: node id, by the Redis time of its last beat in ms."""
        return f"{self.prefix}nodes"

    def node(self, node_id: str) -> str:
        """String: a node's snapshot as JSON."""
        return f"{self.prefix}node:{node_id}"

    def orders(self, node_id: str) -> str:
        """List with a short term: what operators ask of a node."""
        return f"{self.prefix}orders:{node_id}"

    def reports(self, order_id: str) -> str:
        """List with a short term: what nodes made of an order."""
        return f"{self.prefix}reports:{order_id}"

    def inflight(self, queue: str) -> str:
        """Hash: token -> message."""
        return f"{self.prefix}inflight:{queue}"

    def leases(self, queue: str) -> str:
        """Sorted set: token, by its expiry in ms of Redis time."""
        return f"{self.prefix}leases:{queue}"

    def meta(self, queue: str) -> str:
        """Hash: token -> when it was claimed (ms of Redis time), a space, and by whom."""
        return f"{self.prefix}meta:{queue}"

    def lease(self, queue: str) -> list[str]:
        """The three keys of a queue's leases, in the order of the scripts' KEYS."""
        return [self.inflight(queue), self.leases(queue), self.meta(queue)]

    def claim(self, queues: Sequence[str]) -> list[str]:
        """What taking a message from one of `queues` needs, in the order of the scripts' KEYS."""
        taken = [key for queue in queues for key in (self.queue(queue), *self.lease(queue))]
        return [self.gate, *taken]

    def types(self, queues: Sequence[str], relays: Sequence[str] = ()) -> dict[str, str]:
        """What TYPE says of the keys of `queues`, of the inboxes of `relays`, and of those that all
        need, where they are.
        """
        found = {
            self.gate: "hash",
            self.nodes: "zset",
            self.queues: "set",
            self.workers: "set",
            self.failed: "list",
        }
        found.update((self.inbox(one), "list") for one in relays)
        for queue in queues:
            found[self.queue(queue)] = "list"
            found[self.inflight(queue)] = "hash"
            found[self.leases(queue)] = "zset"
            found[self.meta(queue)] = "hash"
            found[self.delayed(queue)] = "zset"
        return found

    def delayed(self, queue: str) -> str:
        """Sorted set: token, a space and the message, by the ms of Redis time when it is due.

        The token, of the claim that ended so, keeps equal messages apart.
        """
        return f"{self.prefix}delayed:{queue}"

    @property
    def gate(self) -> str:
        """Hash: paused queue -> JSON of since when and by whom."""
        return f"{self.prefix}gate"

    def gone(self, message_id: str) -> str:
        """String ``1`` with a term: the client of this request has left while a worker had it."""
        return f"{self.prefix}gone:{message_id}"

    def taken(self, message_id: str) -> str:
        """String, a number with a term: bytes of a streamed reply that its client has taken."""
        return f"{self.prefix}taken:{message_id}"

    # Registration, as Resque names it

    @property
    def workers(self) -> str:
        """Set: the ids of all workers."""
        return f"{self.resque}workers"

    def worker(self, worker_id: str) -> str:
        """String: JSON of what the worker runs; missing while it is idle."""
        return f"{self.resque}worker:{worker_id}"

    def worker_started(self, worker_id: str) -> str:
        """String: when the worker was registered."""
        return f"{self.resque}worker:{worker_id}:started"

    def stat(self, name: str, worker_id: str | None = None) -> str:
        """String: the counter ``processed`` or ``failed``, of all workers or of one."""
        whole = f"{self.resque}stat:{name}"
        return whole if worker_id is None else f"{whole}:{worker_id}"

    @property
    def pause_all(self) -> str:
        """String: ``true`` while all workers are to pause."""
        return f"{self.resque}pause-all-workers"
