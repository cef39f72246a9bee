"""Queues in memory."""

import re
from collections.abc import Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from queuerelay.broker.memory.connection import MemoryConnection
from queuerelay.broker.memory.store import MemoryStore
from queuerelay.broker.records import QueueDepth
from queuerelay.errors import ConnectionDropped, NotConnected

_QUEUE_TIME: Final = re.compile(rb'"queue_time": ?(\d+(?:\.\d*)?)}\Z')


class MemoryQueues:
    """See `queuerelay.broker.base.QueuesPart`."""

    def __init__(self, connection: MemoryConnection, store: MemoryStore) -> None:
        self._connection = connection
        self._store = store
        self._dropped: tuple[bool, bool] | None = None
        #: Pushes whose answers were lost, and whether they took effect.
        self._unheard: list[tuple[Deferred[int | None], bool]] = []

    def drop_next_push(self, *, applied: bool, forgotten: bool) -> None:
        """Lose the connection over the next push; `applied` says whether it took effect,
        `forgotten` that Redis will not know.
        """
        self._dropped = applied, forgotten

    def push(self, queue: str, messages: Sequence[bytes]) -> Deferred[int | None]:
        """Append `messages` in order."""
        applied, forgotten = True, False
        if self._dropped is not None and self._connection.up:
            (applied, forgotten), self._dropped = self._dropped, None
            self._connection.lose_later()

        def effect() -> int | None:
            return self._store.push(queue, messages) if applied else None

        def lost(failure: Failure) -> Deferred[int | None]:
            failure.trap(ConnectionDropped)
            if forgotten or self._connection.stopped:
                failure.raiseException()
            waiting: Deferred[int | None] = Deferred()
            self._unheard.append((waiting, applied))
            return waiting

        return self._connection.ask(effect, adds=True).addErrback(lost)

    def connected(self) -> None:
        """Tell what became of pushes."""
        unheard, self._unheard = self._unheard, []
        for waiting, applied in unheard:
            if applied:
                waiting.callback(None)
            else:
                waiting.errback(NotConnected("the connection was lost before the push came"))

    def stop(self) -> None:
        """There will be no other connection."""
        unheard, self._unheard = self._unheard, []
        for waiting, _ in unheard:
            waiting.errback(ConnectionDropped("stopping"))

    def take_off(
        self, queue: str, messages: Sequence[bytes], *, newest: bool = False
    ) -> Deferred[list[bool]]:
        """Remove each message once where nobody has taken it."""

        def effect() -> list[bool]:
            waiting = self._store.lists.get(self._store.keys.queue(queue))
            removed = []
            for message in messages:
                found = message in waiting
                if found and newest:
                    waiting.reverse()
                    waiting.remove(message)
                    waiting.reverse()
                elif found:
                    waiting.remove(message)
                removed.append(found)
            return removed

        return self._connection.ask(effect)

    def depths(self, queues: Sequence[str]) -> Deferred[list[QueueDepth]]:
        """The depth of each of `queues`."""
        return self._connection.ask(lambda: [self._depth(queue) for queue in queues])

    def _depth(self, queue: str) -> QueueDepth:
        waiting = self._store.messages(queue)
        found = _QUEUE_TIME.search(waiting[0][-64:]) if waiting else None
        return QueueDepth(
            length=len(waiting),
            oldest_at=float(found[1]) if found else None,
            delayed=len(self._store.delayed.get(queue, ())),
            inflight=len(self._store.leases.get(queue, ())),
        )
