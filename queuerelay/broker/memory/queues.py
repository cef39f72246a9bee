"""Queues in memory."""

import re
from collections.abc import Sequence
from typing import Final

from twisted.internet.defer import Deferred

from queuerelay.broker.memory.connection import MemoryConnection
from queuerelay.broker.memory.store import MemoryStore
from queuerelay.broker.records import QueueDepth

_QUEUE_TIME: Final = re.compile(rb'"queue_time": ?(\d+(?:\.\d*)?)}\Z')


class MemoryQueues:
    """See `queuerelay.broker.base.QueuesPart`."""

    def __init__(self, connection: MemoryConnection, store: MemoryStore) -> None:
        self._connection = connection
        self._store = store
        self._push_dropped: bool | None = None

    def drop_next_push(self, *, applied: bool) -> None:
        """Lose the connection over the next push; `applied` says whether it took effect."""
        self._push_dropped = applied

    def push(self, queue: str, messages: Sequence[bytes]) -> Deferred[int]:
        """Append `messages` in order."""
        if self._push_dropped is not None and self._connection.up:
            applied, self._push_dropped = self._push_dropped, None
            self._connection.lose_later()
            if not applied:
                return self._connection.ask(lambda: 0)
        return self._connection.ask(lambda: self._store.push(queue, messages), adds=True)

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
