"""What a broker does, whoever provides it: Redis (`redis.broker`) or memory (`memory.broker`).

A broker is a connection with parts: `queues`, `leases`, `delayed`, `dead_letters`, `gate`, `inbox`,
`nodes`, `orders`, `clients` and `registry`. Every method that asks Redis for something returns a
`Deferred` that fails with a `BrokerError`: `NotConnected` where nothing was done, `Refused` where
Redis said no (what a script did before stays done), and `ConnectionDropped` where nobody knows.
What ends a claim is repeated over lost connections, until Redis answers or `Broker.stop`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred

from queuerelay.broker.records import DeadLetterPage, Gate, QueueDepth, Survey, WrongType
from queuerelay.errors import Unusable
from queuerelay.loop import Watched
from queuerelay.wire.claim import Claim
from queuerelay.wire.commands import TooLarge
from queuerelay.wire.keys import Keys

#: Takes a batch of raw replies. It may return a Deferred, which is awaited; where that fails with a
#: `BrokerError`, the same batch comes again.
InboxHandler = Callable[[Sequence[bytes | TooLarge]], object]
#: Bytes of a reply that is fetched, where nobody says otherwise.
LARGEST_REPLY: Final = 96 * 1024 * 1024


class QueuesPart(Protocol):
    """The queues: lists of messages that wait."""

    def push(self, queue: str, messages: Sequence[bytes]) -> Deferred[int | None]:
        """Append `messages`, at least one, in order; fires with the length of the queue.

        Where the connection is lost over it, it fires on the next one: with None where the push was
        executed, with `NotConnected` where it was not and never will be. `ConnectionDropped` means
        that nobody knows: Redis has lost data, or there will be no other connection.
        """

    def take_off(
        self, queue: str, messages: Sequence[bytes], *, newest: bool = False
    ) -> Deferred[list[bool]]:
        """Remove each message once where nobody has taken it; fires with whether it was there.

        `newest` says that they are more likely near the tail than near the head.
        """

    def depths(self, queues: Sequence[str]) -> Deferred[list[QueueDepth]]:
        """The depth of each of `queues`."""


class LeasesPart(Protocol):
    """The messages in flight: each is held under a lease by whoever claimed it."""

    def claim_many(
        self, queues: Sequence[str], *, holder: str, lease: float, most: int
    ) -> Deferred[list[Claim]]:
        """Take the first `most` messages, in the order of `queues`, for `lease` seconds each.

        Paused queues are left out: after `GatePart.pause` has been answered nothing is taken from
        there.
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
        """End the claim, and append `entry` to the dead letters. Repeated until answered."""

    def reap(
        self, queue: str, *, lease: float, overdue: float = 0.0, most: int = 100
    ) -> Deferred[list[Claim]]:
        """Take over messages whose lease has expired, `overdue` seconds ago or more, for `lease`
        seconds.
        """


class DelayedPart(Protocol):
    """The messages that wait for their time, to be tried again."""

    def delay(self, claim: Claim, message: bytes, *, seconds: float) -> Deferred[bool]:
        """End the claim, and keep `message` for its queue until `seconds` from now.

        Repeated until answered; False where the claim was no longer held.
        """

    def promote(self, queues: Sequence[str], *, most: int = 100) -> Deferred[int]:
        """Put messages whose time has come at the head of their queues, the one due first foremost.

        Fires with how many, `most` in all; where it is as many, there may be more. Any number of
        processes may do so.
        """


class DeadLettersPart(Protocol):
    """The dead letters: the entries of ``resque:failed``."""

    def page(
        self, *, start: int = 0, count: int = 50, newest: bool = True
    ) -> Deferred[DeadLetterPage]:
        """`count` dead letters from the `start`-th on, newest or oldest first."""

    def retry(self, which: str | bytes, mended: Mapping[str, Any] | None = None) -> Deferred[bool]:
        """Put the message of a dead letter back at the tail of its queue, as if never tried; with
        the ``class`` or ``args`` of `mended` in the place of its own.

        `which` is the entry's `DeadLetterEntry.id` or its `message_id` (then the newest of them),
        or its exact bytes, which is quickest. False where it is not there any more, or has no
        message to run, as what could not be read; then nothing is changed. Not repeated: after
        `ConnectionDropped` the list tells whether it was done.
        """

    def drop(self, which: str | bytes) -> Deferred[bool]:
        """Take a dead letter out for good; as `retry`."""

    def retry_many(self, which: Sequence[str | bytes] | None = None) -> Deferred[int]:
        """Retry all of `which`, or all that there are now; fires with how many it was.

        Of all, those that resque-web has retried (``retried_at``) are left.
        """

    def drop_many(self, which: Sequence[str | bytes] | None = None) -> Deferred[int]:
        """Drop all of `which`, or all that there are now; fires with how many it was."""

    def prune(self, *, max_count: int, max_bytes: int, before: float) -> Deferred[int]:
        """Drop the oldest until there are no more than so many, in so many bytes, and none that
        failed before that Unix second; the newest one stays. Fires with how many were dropped.
        """


class GatePart(Protocol):
    """The gate: operators pause queues, and a pause is kept until the queue is resumed."""

    def pause(self, queue: str, *, by: str) -> Deferred[bool]:
        """Let nobody claim from `queue` any more, and relays push no more to it.

        Claims obey at once, relays within a second. Fires with False where it was paused already,
        which stays as it is. Not repeated, but twice does no harm; so with `resume`.
        """

    def resume(self, queue: str) -> Deferred[bool]:
        """Undo `pause`; fires with False where the queue was not paused."""

    def look(self, queues: Sequence[str] | None = None) -> Deferred[dict[str, Gate]]:
        """Those of `queues` that are paused; without `queues`, of all that there are."""


class InboxPart(Protocol):
    """The inboxes of nodes: lists of replies, each read by its node alone."""

    def open(
        self,
        node_id: str,
        handler: InboxHandler,
        *,
        legacy: tuple[str, InboxHandler] | None = None,
        largest: int = LARGEST_REPLY,
    ) -> None:
        """Read replies for `node_id` from now on; before `Broker.start`, once.

        `legacy` is a list that many relays share, and its handler. A reply of more than `largest`
        bytes is not fetched: the handler gets a `TooLarge` for it.
        """

    def reply(self, node_id: str, replies: Sequence[bytes]) -> Deferred[int]:
        """Append `replies` to a node's inbox; fires with its length."""


class NodesPart(Protocol):
    """The list of nodes, and a look at all that Redis knows of everybody."""

    def beat(self, node_id: str, snapshot: bytes, *, inbox_life: float) -> Deferred[None]:
        """Say that the node lives, publish its snapshot, and bury nodes that are silent.

        `inbox_life` is how long an inbox outlives its node's last beat, in seconds.
        """

    def leave(self, node_id: str) -> Deferred[None]:
        """Take the node off the list, and delete its inbox."""

    def survey(self) -> Deferred[Survey]:
        """What Redis knows of everybody, the depths of queues and the dead letters apart."""

    def unsettled(self) -> Deferred[list[str]]:
        """The queues that have messages in flight or delayed, whoever is configured for them; not
        all where there are very many queues.
        """

    def wrong_types(
        self, queues: Sequence[str], relays: Sequence[str] = ()
    ) -> Deferred[list[WrongType]]:
        """The keys of `queues`, the inboxes of `relays`, and what all need, that are of the wrong
        type.
        """


class OrdersPart(Protocol):
    """Orders: operators ask something of one node. Orders and reports are `wire.order`'s."""

    def give(self, node_id: str, order: bytes) -> Deferred[None]:
        """Leave `order` for a node, which takes it within a second; `ORDER_LIFE` at most."""

    def take(self, node_id: str) -> Deferred[list[bytes]]:
        """Take what was ordered of this node, the oldest first, at most `MOST_ORDERS`."""

    def report(self, order_id: str, report: bytes) -> Deferred[None]:
        """Say what became of an order; kept for `ORDER_LIFE`."""

    def reports(self, order_id: str) -> Deferred[list[bytes]]:
        """What nodes have said of an order."""


class ClientsPart(Protocol):
    """What relays tell workers of the clients whose requests are in their hands."""

    def mark_gone(self, ids: Sequence[str], *, life: float) -> Deferred[None]:
        """Remember for `life` seconds that nobody waits for the requests `ids` any more."""

    def which_gone(self, ids: Sequence[str]) -> Deferred[set[str]]:
        """Those of the requests `ids` whose clients have left."""

    def tell_taken(self, taken: Mapping[str, int], *, life: float) -> Deferred[None]:
        """Remember for `life` seconds how many bytes of streamed replies their clients took."""


class RegistryPart(Protocol):
    """Being seen as a Resque worker. These Deferreds, but for that of `all_paused`, never fail: a
    job does not wait for them.
    """

    def register(self, worker_id: str, queues: Sequence[str]) -> Deferred[None]:
        """List a worker, ``queuerelay.<hostname>:<pid>:<queue>,…``, and its queues."""

    def unregister(self, worker_id: str) -> Deferred[None]:
        """Take the worker off the list, with all that is known of it."""

    def working_on(self, worker_id: str, queue: str, message: bytes | None) -> Deferred[None]:
        """Say what the worker runs from now on, None for nothing."""

    def count(
        self, worker_id: str | None = None, *, processed: int = 0, failed: int = 0
    ) -> Deferred[None]:
        """Add to Resque's counters, and to the worker's own where it is given."""

    def all_paused(self) -> Deferred[bool]:
        """Whether somebody has paused all workers (``resque:pause-all-workers``)."""


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
    def keys(self) -> Keys:
        """The names of everything in Redis."""

    @property
    def queues(self) -> QueuesPart:
        """Push messages, take them off, and how many wait."""

    @property
    def leases(self) -> LeasesPart:
        """Claim messages, hold them, and end what was claimed."""

    @property
    def delayed(self) -> DelayedPart:
        """Keep messages until they are due."""

    @property
    def dead_letters(self) -> DeadLettersPart:
        """Show messages that failed for good, try them again, drop them."""

    @property
    def gate(self) -> GatePart:
        """Pause queues."""

    @property
    def inbox(self) -> InboxPart:
        """Send replies to nodes, and read our own."""

    @property
    def nodes(self) -> NodesPart:
        """Be seen as a node, and see the others."""

    @property
    def orders(self) -> OrdersPart:
        """Ask something of a node, and do what we are asked."""

    @property
    def clients(self) -> ClientsPart:
        """Tell workers what became of their clients."""

    @property
    def registry(self) -> RegistryPart:
        """Be seen as a Resque worker."""

    @property
    def is_up(self) -> bool:
        """Whether commands can be sent now."""

    def time(self) -> float:
        """Unix seconds now, by the clock of Redis, which all nodes have in common: for whatever
        goes into Redis, or is compared with what stands there. Our own clock's until Redis was
        heard.
        """

    @property
    def skew(self) -> float | None:
        """Seconds that the wall clock of this host is ahead of that of Redis; None where nobody
        knows.
        """

    @property
    def fault(self) -> Unusable | None:
        """Why what answers as Redis cannot be used; None where it can, or nobody answers."""

    def start(self) -> None:
        """Begin to connect, and never stop trying."""

    def stop(self) -> Deferred[None]:
        """Fires when nothing is left running."""

    def when_up(self) -> Deferred[None]:
        """Fires when commands can be sent; may be cancelled."""

    def on_up(self, callback: Callable[[], object]) -> None:
        """Call `callback` each time that a connection has been made."""

    def together(self) -> AbstractContextManager[None]:
        """What is asked for within goes to Redis in one write, which costs both sides less. Each
        has an answer of its own all the same.
        """

    def bell(self, queues: Sequence[str]) -> Bell:
        """A bell for `queues`; the broker's own `stop` stops it too."""

    def loops(self) -> Sequence[Watched]:
        """The loops that everything hangs on: those that read our inboxes."""
