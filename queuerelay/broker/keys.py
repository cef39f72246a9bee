"""Names of everything in Redis, in one place. PROTOCOL: the table in `docs/protocol.md`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names under one pair of prefixes; all of them are text without ``:`` inside a queue."""

    #: Prefix of our own keys.
    prefix: str = "queuerelay:"
    #: Prefix of Resque's keys; Resque's own default.
    resque: str = "resque:"

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

    def inbox(self, node_id: str) -> str:
        """List: replies for one relay."""
        return f"{self.prefix}inbox:{node_id}"

    def legacy_inbox(self, node_id: str) -> str:
        """List: replies that this relay took from the legacy list and has not sorted yet."""
        return f"{self.prefix}legacy:{node_id}"

    @property
    def nodes(self) -> str:
        """Sorted set: node id, by the Redis time of its last beat in ms."""
        return f"{self.prefix}nodes"

    def node(self, node_id: str) -> str:
        """String: a node's snapshot as JSON."""
        return f"{self.prefix}node:{node_id}"

    def inflight(self, queue: str) -> str:
        """Hash: token -> message."""
        return f"{self.prefix}inflight:{queue}"

    def leases(self, queue: str) -> str:
        """Sorted set: token, by its expiry in ms of Redis time."""
        return f"{self.prefix}leases:{queue}"

    def meta(self, queue: str) -> str:
        """Hash: token -> JSON of who claimed it and when."""
        return f"{self.prefix}meta:{queue}"

    def lease(self, queue: str) -> list[str]:
        """The three keys of a queue's leases, in the order of the scripts' KEYS."""
        return [self.inflight(queue), self.leases(queue), self.meta(queue)]
