"""Which queues are paused, in memory."""

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from queuerelay.broker.memory.connection import MemoryConnection
from queuerelay.broker.memory.store import MemoryStore
from queuerelay.broker.records import Gate


class MemoryGate:
    """See `queuerelay.broker.base.GatePart`."""

    def __init__(self, connection: MemoryConnection, store: MemoryStore) -> None:
        self._connection = connection
        self._store = store

    def pause(self, queue: str, *, by: str) -> Deferred[bool]:
        """Let nobody claim from `queue` any more, and relays push no more to it."""
        return self._connection.ask(lambda: self._store.pause(queue, by))

    def resume(self, queue: str) -> Deferred[bool]:
        """Undo `pause`."""
        return self._connection.ask(lambda: self._store.resume(queue))

    def look(self, queues: Sequence[str] | None = None) -> Deferred[dict[str, Gate]]:
        """Those of `queues`, or of all, that are paused."""

        def effect() -> dict[str, Gate]:
            paused = self._store.paused
            asked = paused if queues is None else queues
            return {queue: paused[queue] for queue in asked if queue in paused}

        return self._connection.ask(effect)
