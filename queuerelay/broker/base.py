"""What a broker does, whoever provides it: Redis (`redis.RedisBroker`) or memory (`memory`).

Every method that asks Redis for something returns a `Deferred` that fails with a `BrokerError`:
`NotConnected` where nothing was done, `Refused` where Redis said no, and `ConnectionDropped` where
nobody knows. What ends a claim is repeated over lost connections, until Redis answers or `stop`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from queuerelay.wire import dead_letter

#: Seconds without a beat after which a node counts as dead.
NODE_SILENCE = 30.0
#: Seconds between two beats of a node.
BEAT_INTERVAL = 2.0
#: Seconds that a node's snapshot outlives its last beat.
SNAPSHOT_LIFE = 10.0
#: Seconds that a reply waits in an inbox that nobody reads; the relay that reads it renews this.
REPLY_LIFE = 3600
#: Seconds that an order waits for its node, and its reports for whoever gave it.
ORDER_LIFE = 30
#: Most orders that wait for one node; older ones are dropped.
MOST_ORDERS = 64
#: Longest wait for a bell, in seconds: after it the caller looks for itself.
BELL_WAIT = 2.0

#: Takes a batch of raw replies. It may return a Deferred, which is awaited; where that fails with a
#: `BrokerError`, the same batch comes again.
InboxHandler = Callable[[Sequence[bytes]], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDepth:
    """How much waits on a queue."""

    #: Messages on the queue, in-flight ones not among them.
    length: int
    #: Unix seconds at which the oldest was pushed, None where the queue is empty or does not say.
    oldest_at: float | None = None
    #: Messages that wait for their time, to be tried again.
    delayed: int = 0
    #: Messages that somebody has claimed.
    inflight: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A message in flight, held under a lease."""

    queue: str
    #: Names the claim; whoever holds it may renew, acknowledge, retry or fail the message.
    token: str
    message: bytes
    #: Unix seconds, by Redis, at which it was taken from the queue; 0 where unknown.
    since: float
    #: Who took it, as the holder named itself; "" where unknown.
    holder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A paused queue: its messages are not claimed, and relays keep new ones for themselves."""

    #: Unix seconds, by Redis, since when; 0 where unknown.
    since: float
    #: Who paused it, as they named themselves; "" where unknown.
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A dead letter: one entry of ``resque:failed``."""

    #: Place in the list, from 0 for the oldest, when it was read. It changes when others are taken
    #: out, so it is for people to see and never names the entry.
    index: int
    #: Names the entry: the SHA-1 of its bytes, 40 hex digits. Equal entries share it.
    id: str
    #: The entry's exact bytes.
    raw: bytes
    #: The entry decoded, None where it is no JSON object.
    entry: Mapping[str, Any] | None
    #: The id of the message that failed, "" where the entry does not say.
    message_id: str = ""

    @classmethod
    def of(cls, raw: bytes, index: int) -> "Failure":
        """The entry `raw`, which was found at `index`."""
        entry = dead_letter.decode_entry(raw)
        return cls(
            index=index,
            id=dead_letter.entry_id(raw),
            raw=raw,
            entry=entry,
            message_id=dead_letter.message_id(entry),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FailurePage:
    """A part of the dead letters."""

    #: How many there are in all.
    total: int
    #: Those asked for; fewer where they are large, so the next page begins behind these.
    items: Sequence[Failure]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeBeat:
    """What a node on the list has said."""

    #: Seconds since its last beat, by the clock of Redis.
    age: float
    #: What it published, None where that is too long ago.
    snapshot: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What Redis knows of everybody. A part that Redis did not tell is as if there were none."""

    #: Seconds that the first round trip took.
    latency: float = 0.0
    #: ``Redis 7.0.15``, ``Valkey 9.1.0``; None where it does not say.
    version: str | None = None
    #: Bytes, None where it does not say.
    memory_used: int | None = None
    #: Bytes, None where it has no limit.
    memory_max: int | None = None
    nodes: Mapping[str, NodeBeat] = field(default_factory=dict)
    #: Queues that somebody has ever pushed to, sorted.
    queues: Sequence[str] = ()
    #: Ids of Resque workers, sorted.
    workers: Sequence[str] = ()
    #: How many workers there are, and how many of `workers` run something.
    workers_total: int = 0
    working: int = 0
    #: Jobs, ever.
    processed: int = 0
    failed: int = 0
    #: Dead letters.
    failures: int = 0
    #: Whether all workers are paused.
    paused: bool = False


class Bell(Protocol):
    """Tells when a queue may have a message. It takes none, and many may wait for it.

    What waits on a paused queue rings when it is resumed, 0.5 s later at most.
    """

    def wait(self) -> Deferred[None]:
        """Fires when one of the queues may have a message, at once where one has; may be cancelled.

        It fires after `BELL_WAIT` seconds at the latest, whatever happens to Redis, and fails with
        `NotConnected` when the bell is stopped.
        """

    def stop(self) -> Deferred[None]:
        """Wait no more; fires when nothing is left running."""


class Broker(Protocol):
    """A broker for one process; `start` and `stop` once each."""

    @property
    def is_up(self) -> bool:
        """Whether commands can be sent now."""

    def start(self) -> None:
        """Begin to connect, and never stop trying."""

    def stop(self) -> Deferred[None]:
        """Fires when nothing is left running."""

    def when_up(self) -> Deferred[None]:
        """Fires when commands can be sent; may be cancelled."""

    def on_up(self, callback: Callable[[], object]) -> None:
        """Call `callback` each time that a connection has been made."""

    def push(self, queue: str, messages: Sequence[bytes]) -> Deferred[int]:
        """Append `messages`, at least one, in order; fires with the length of the queue."""

    def take_off(
        self, queue: str, messages: Sequence[bytes], *, newest: bool = False
    ) -> Deferred[list[bool]]:
        """Remove each message once where nobody has taken it; fires with whether it was there.

        `newest` says that they are more likely near the tail than near the head.
        """

    def depths(self, queues: Sequence[str]) -> Deferred[list[QueueDepth]]:
        """The depth of each of `queues`."""

    def open_inbox(
        self, node_id: str, handler: InboxHandler, *, legacy: tuple[str, InboxHandler] | None = None
    ) -> None:
        """Read replies for `node_id` from now on; before `start`, once.

        `legacy` is a list that many relays share, and its handler.
        """

    def reply(self, node_id: str, replies: Sequence[bytes]) -> Deferred[int]:
        """Append `replies` to a node's inbox; fires with its length."""

    def beat(self, node_id: str, snapshot: bytes, *, inbox_life: float) -> Deferred[None]:
        """Say that the node lives, publish its snapshot, and bury nodes that are silent.

        `inbox_life` is how long an inbox outlives its node's last beat, in seconds.
        """

    def nodes(self) -> Deferred[dict[str, bytes | None]]:
        """The snapshots of all listed nodes, None where one is silent."""

    def leave(self, node_id: str) -> Deferred[None]:
        """Take the node off the list, and delete its inbox."""

    def survey(self) -> Deferred[Survey]:
        """What Redis knows of everybody, the depths of queues and the dead letters apart."""

    def claim(self, queues: Sequence[str], *, holder: str, lease: float) -> Deferred[Claim | None]:
        """Take the first message of the first of `queues` that has one, for `lease` seconds.

        Paused queues are left out: after `pause` has been answered nothing is taken from there.
        """

    def renew(self, queue: str, tokens: Sequence[str], *, lease: float) -> Deferred[list[bool]]:
        """Prolong leases to `lease` seconds from now; False for those no longer held."""

    def ack(
        self, claim: Claim, *, reply_to: str | None = None, reply: bytes = b""
    ) -> Deferred[bool]:
        """End the claim, and send the reply in the same step. Repeated until it is answered.

        Fires with False where the claim was no longer held: then nothing was sent.
        """

    def retry(self, claim: Claim, message: bytes) -> Deferred[bool]:
        """End the claim, and put `message` at the head of its queue. Repeated until answered."""

    def fail(
        self, claim: Claim, entry: bytes, *, reply_to: str | None = None, reply: bytes | None = None
    ) -> Deferred[bool]:
        """End the claim, and append `entry` to the failures. Repeated until answered."""

    def reap(self, queue: str, *, lease: float, most: int = 100) -> Deferred[list[Claim]]:
        """Take over messages whose lease has expired, for `lease` seconds."""

    # Orders: operators ask something of one node; they and the reports are `wire.order`'s

    def order(self, node_id: str, order: bytes) -> Deferred[None]:
        """Leave `order` for a node, which takes it within a second; `ORDER_LIFE` at most."""

    def take_orders(self, node_id: str) -> Deferred[list[bytes]]:
        """Take what was ordered of this node, the oldest first, at most `MOST_ORDERS`."""

    def report(self, order_id: str, report: bytes) -> Deferred[None]:
        """Say what became of an order; kept for `ORDER_LIFE`."""

    def reports(self, order_id: str) -> Deferred[list[bytes]]:
        """What nodes have said of an order."""

    # The gate: operators pause queues, and it is kept until they are resumed

    def pause(self, queue: str, *, by: str) -> Deferred[bool]:
        """Let nobody claim from `queue` any more, and relays push no more to it.

        Claims obey at once, relays within a second. Fires with False where it was paused already,
        which stays as it is. Not repeated, but twice does no harm; so with `resume`.
        """

    def resume(self, queue: str) -> Deferred[bool]:
        """Undo `pause`; fires with False where the queue was not paused."""

    def gates(self, queues: Sequence[str] | None = None) -> Deferred[dict[str, Gate]]:
        """Those of `queues` that are paused; without `queues`, of all that there are."""

    # What pools need

    def together(self) -> AbstractContextManager[None]:
        """What is asked for within goes to Redis in one write, which costs both sides less. Each
        has an answer of its own all the same.
        """

    def claim_many(
        self, queues: Sequence[str], *, holder: str, lease: float, most: int
    ) -> Deferred[list[Claim]]:
        """Take the first `most` messages, in the order of `queues`, in one step; as `claim`."""

    def bell(self, queues: Sequence[str]) -> Bell:
        """A bell for `queues`; the broker's own `stop` stops it too."""

    def delay(self, claim: Claim, message: bytes, *, seconds: float) -> Deferred[bool]:
        """End the claim, and keep `message` for its queue until `seconds` from now.

        Repeated until answered; False where the claim was no longer held.
        """

    def promote(self, queues: Sequence[str], *, most: int = 100) -> Deferred[int]:
        """Put messages whose time has come at the head of their queues, the one due first foremost.

        Fires with how many, `most` in all; where it is as many, there may be more. Any number of
        processes may do so.
        """

    # Dead letters

    def failures(
        self, *, start: int = 0, count: int = 50, newest: bool = True
    ) -> Deferred[FailurePage]:
        """`count` dead letters from the `start`-th on, newest or oldest first."""

    def retry_failure(self, which: str | bytes) -> Deferred[bool]:
        """Put the message of a dead letter back at the tail of its queue, as if never tried.

        `which` is the entry's `Failure.id` or its `message_id` (then the newest of them), or its
        exact bytes, which is quickest. False where it is not there any more, or has no message to
        run, as what could not be read; then nothing is changed. Not repeated: after
        `ConnectionDropped` the list tells whether it was done.
        """

    def drop_failure(self, which: str | bytes) -> Deferred[bool]:
        """Take a dead letter out for good; as `retry_failure`."""

    def retry_failures(self, which: Sequence[str | bytes] | None = None) -> Deferred[int]:
        """Retry all of `which`, or all that there are now; fires with how many it was.

        Of all, those that resque-web has retried (``retried_at``) are left.
        """

    def drop_failures(self, which: Sequence[str | bytes] | None = None) -> Deferred[int]:
        """Drop all of `which`, or all that there are now; fires with how many it was."""

    # Clients that have left

    def mark_gone(self, ids: Sequence[str], *, life: float) -> Deferred[None]:
        """Remember for `life` seconds that nobody waits for the requests `ids` any more."""

    def which_gone(self, ids: Sequence[str]) -> Deferred[set[str]]:
        """Those of `ids` for which nobody waits any more."""

    def tell_taken(self, taken: Mapping[str, int], *, life: float) -> Deferred[None]:
        """Remember for `life` seconds how many bytes of streamed replies their clients took."""

    # Being seen as a Resque worker. These Deferreds never fail: a job does not wait for them.

    def register_worker(self, worker_id: str, queues: Sequence[str]) -> Deferred[None]:
        """List a worker, ``queuerelay.<hostname>:<pid>:<queue>,…``, and its queues."""

    def unregister_worker(self, worker_id: str) -> Deferred[None]:
        """Take the worker off the list, with all that is known of it."""

    def working_on(self, worker_id: str, queue: str, message: bytes | None) -> Deferred[None]:
        """Say what the worker runs from now on, None for nothing."""

    def count(
        self, worker_id: str | None = None, *, processed: int = 0, failed: int = 0
    ) -> Deferred[None]:
        """Add to Resque's counters, and to the worker's own where it is given."""

    def all_paused(self) -> Deferred[bool]:
        """Whether somebody has paused all workers (``resque:pause-all-workers``)."""
