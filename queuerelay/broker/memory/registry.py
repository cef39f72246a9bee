"""Who works on what, in memory."""

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from queuerelay.broker.memory.connection import MemoryConnection
from queuerelay.broker.memory.store import MemoryStore
from queuerelay.errors import BrokerError
from queuerelay.wire.working import encode_working


class MemoryRegistry:
    """See `queuerelay.broker.base.RegistryPart`."""

    def __init__(self, connection: MemoryConnection, store: MemoryStore) -> None:
        self._connection = connection
        self._store = store

    def register(self, worker_id: str, queues: Sequence[str]) -> Deferred[None]:
        """List a worker and its queues."""
        now = self._store.now()

        def effect() -> None:
            self._store.workers[worker_id] = now
            self._store.queues.update(queues)

        return self._say(effect)

    def unregister(self, worker_id: str) -> Deferred[None]:
        """Take the worker off the list."""

        def effect() -> None:
            self._store.workers.pop(worker_id, None)
            self._store.working.pop(worker_id, None)
            for name in ("processed", "failed"):
                self._store.stats.pop((name, worker_id), None)

        return self._say(effect)

    def working_on(self, worker_id: str, queue: str, message: bytes | None) -> Deferred[None]:
        """Say what the worker runs from now on."""
        now = self._store.now()

        def effect() -> None:
            if message is None:
                self._store.working.pop(worker_id, None)
            else:
                encoded = encode_working(worker_id, queue, message, run_at=now)
                self._store.working[worker_id] = encoded

        return self._say(effect)

    def count(
        self, worker_id: str | None = None, *, processed: int = 0, failed: int = 0
    ) -> Deferred[None]:
        """Add to Resque's counters."""

        def effect() -> None:
            stats = self._store.stats
            for name, by in (("processed", processed), ("failed", failed)):
                for whose in dict.fromkeys((None, worker_id)) if by else ():
                    stats[name, whose] = stats.get((name, whose), 0) + by

        return self._say(effect)

    def all_paused(self) -> Deferred[bool]:
        """Whether somebody has paused all workers; a test sets ``store.all_paused``."""
        return self._connection.ask(lambda: self._store.all_paused)

    def _say(self, effect: Callable[[], None]) -> Deferred[None]:
        """What nobody waits for, and no failure of which is anybody's business."""

        def swallow(failure: Failure) -> None:
            failure.trap(BrokerError)

        return self._connection.ask(effect, adds=True).addErrback(swallow)
