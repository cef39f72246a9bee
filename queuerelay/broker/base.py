"""What a broker does, whoever provides it: Redis (`redis.RedisBroker`) or memory (`memory`).

Every method that asks Redis for something returns a `Deferred` that fails with a `BrokerError`:
`NotConnected` where nothing was done, `Refused` where Redis said no, and `ConnectionDropped` where
nobody knows. What ends a claim is repeated over lost connections, until Redis answers or `stop`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import Deferred

#: Seconds without a beat after which a node counts as dead.
NODE_SILENCE = 30.0
#: Seconds between two beats of a node.
BEAT_INTERVAL = 2.0
#: Seconds that a node's snapshot outlives its last beat.
SNAPSHOT_LIFE = 10.0
#: Seconds that a reply waits in an inbox that nobody reads; the relay that reads it renews this.
REPLY_LIFE = 3600

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

    def claim(self, queues: Sequence[str], *, holder: str, lease: float) -> Deferred[Claim | None]:
        """Take the first message of the first of `queues` that has one, for `lease` seconds."""

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
