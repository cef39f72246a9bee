"""Messages that wait for their time, in memory."""

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from queuerelay.broker.memory.connection import MemoryConnection
from queuerelay.broker.memory.store import DelayedMessage, MemoryStore
from queuerelay.wire.claim import Claim


class MemoryDelayed:
    """See `queuerelay.broker.base.DelayedPart`."""

    def __init__(self, connection: MemoryConnection, store: MemoryStore) -> None:
        self._connection = connection
        self._store = store

    def delay(self, claim: Claim, message: bytes, *, seconds: float) -> Deferred[bool]:
        """End the claim, and keep `message` until `seconds` from now."""

        def effect() -> bool:
            if not self._store.end(claim):
                return False
            waiting = self._store.delayed.setdefault(claim.queue, [])
            waiting.append(DelayedMessage(self._store.seconds() + seconds, message))
            waiting.sort(key=lambda one: one.due)
            return True

        return self._connection.insist(effect)

    def promote(self, queues: Sequence[str], *, most: int = 100) -> Deferred[int]:
        """Put messages whose time has come at the head of their queues."""

        def effect() -> int:
            now, moved = self._store.seconds(), 0
            for queue in queues:
                waiting = self._store.delayed.get(queue, [])
                due = [one for one in waiting if one.due <= now][: most - moved]
                del waiting[: len(due)]
                for one in reversed(due):
                    self._store.put_at_head(self._store.keys.queue(queue), [one.message])
                moved += len(due)
            return moved

        return self._connection.ask(effect)
