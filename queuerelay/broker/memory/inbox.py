"""The inbox in memory.

Invariant: a batch is dropped from the inbox in the turn after its hand-over: when the connection is
lost in between, the same items come again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from queuerelay.broker.base import LARGEST_REPLY, InboxHandler
from queuerelay.broker.memory.connection import MemoryConnection
from queuerelay.broker.memory.store import MemoryStore
from queuerelay.errors import BrokerError
from queuerelay.loop import PATIENCE, Watched
from queuerelay.wire.commands import TooLarge
from queuerelay.wire.reply import salvage_node_id

#: Most items of a batch of the inbox.
BATCH: Final = 256
#: Seconds after which a batch that the handler could not take comes again.
POLL: Final = 0.05


@dataclass(slots=True)
class _Reader:
    key: str
    handler: InboxHandler
    source: str | None
    clock: IReactorTime
    #: Bytes of an item that is given.
    largest: int
    #: Items of the last batch, handed over and still in the list.
    done: int = 0
    #: Whether the handler is still at the last batch.
    busy: bool = False
    #: Clock seconds since when it is.
    since: float = 0.0
    #: Names the connection; what began on an earlier one is void.
    turn: int = 0
    #: The next try, where the handler could not take the last batch.
    again: IDelayedCall | None = None

    @property
    def name(self) -> str:
        """What health calls it."""
        return "inbox" if self.source is None else "legacy inbox"

    @property
    def still(self) -> float:
        """Seconds for which the handler has had the last batch."""
        return self.clock.seconds() - self.since if self.busy else 0.0

    @property
    def limit(self) -> float:
        """Seconds after which a reader that is `still` is stuck."""
        return PATIENCE


class MemoryInbox:
    """See `queuerelay.broker.base.InboxPart`."""

    _log = Logger()

    def __init__(
        self, connection: MemoryConnection, store: MemoryStore, *, clock: IReactorTime
    ) -> None:
        self._connection = connection
        self._store = store
        self._clock = clock
        self._readers: list[_Reader] = []
        #: The list that many relays share, None where there is none.
        self.legacy: str | None = None

    def open(
        self,
        node_id: str,
        handler: InboxHandler,
        *,
        legacy: tuple[str, InboxHandler] | None = None,
        largest: int = LARGEST_REPLY,
    ) -> None:
        """Read replies for `node_id` from now on."""
        keys = self._store.keys
        self._readers.append(_Reader(keys.inbox(node_id), handler, None, self._clock, largest))
        if legacy is not None:
            self.legacy, handler = legacy
            self._readers.append(
                _Reader(keys.legacy_inbox(node_id), handler, self.legacy, self._clock, largest)
            )

    def reply(self, node_id: str, replies: Sequence[bytes]) -> Deferred[int]:
        """Append `replies` to a node's inbox."""
        key = self._store.keys.inbox(node_id)
        return self._connection.ask(lambda: self._store.append(key, replies), adds=True)

    def loops(self) -> list[Watched]:
        """The readers of the lists."""
        return [*self._readers]

    def reads(self, key: str) -> bool:
        """Whether the list is one that is read here."""
        return any(key in (reader.key, reader.source) for reader in self._readers)

    def lost(self) -> None:
        """The connection is gone: what was handed over and not dropped yet comes again."""
        for reader in self._readers:
            reader.done, reader.busy = 0, False
            reader.turn += 1
            if reader.again is not None and reader.again.active():
                reader.again.cancel()

    def turn(self) -> None:
        """Read, where there is something."""
        for reader in self._readers:
            self._read(reader)

    def _read(self, reader: _Reader) -> None:
        if not self._connection.up or reader.busy:
            return
        done, reader.done = reader.done, 0
        items = self._look(reader, done)
        if not items:
            return
        reader.busy, reader.since = True, self._clock.seconds()
        turn = reader.turn
        handled = maybeDeferred(reader.handler, items)
        handled.addCallback(lambda _: self._handled(reader, turn, len(items)))
        handled.addErrback(self._unhandled, reader, turn, len(items))

    def _look(self, reader: _Reader, done: int) -> list[bytes | TooLarge]:
        """Drop `done` items, move what the shared list has, and show the first ones."""
        lists = self._store.lists
        own = lists.get(reader.key)
        for _ in range(min(done, len(own))):
            own.popleft()
        if reader.source is not None:
            shared = lists.get(reader.source)
            lists.put(reader.key, [shared.popleft() for _ in range(min(BATCH, len(shared)))])
        items = self._store.items(reader.key)[:BATCH]
        return [
            TooLarge(len(item), salvage_node_id(item) or "") if len(item) > reader.largest else item
            for item in items
        ]

    def _handled(self, reader: _Reader, turn: int, done: int) -> None:
        if reader.turn == turn:
            reader.done, reader.busy = done, False
            self._connection.wake()

    def _unhandled(self, failure: Failure, reader: _Reader, turn: int, done: int) -> None:
        if not failure.check(BrokerError):
            self._log.failure("a batch of replies was not handled; it is dropped", failure)
            self._handled(reader, turn, done)
        elif reader.turn == turn:
            # It could not pass them on yet: the same again, a little later.
            reader.again = self._clock.callLater(POLL, self._handled, reader, turn, 0)
