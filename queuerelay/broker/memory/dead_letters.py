"""Dead letters in memory."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred

from queuerelay.broker.memory.connection import MemoryConnection
from queuerelay.broker.memory.store import MemoryStore
from queuerelay.broker.records import DeadLetterEntry, DeadLetterPage
from queuerelay.wire import dead_letter

#: Bytes of a page of dead letters, its last entry apart.
PAGE_BYTES: Final = 4 * 1024 * 1024


class MemoryDeadLetters:
    """See `queuerelay.broker.base.DeadLettersPart`."""

    def __init__(self, connection: MemoryConnection, store: MemoryStore) -> None:
        self._connection = connection
        self._store = store

    def page(
        self, *, start: int = 0, count: int = 50, newest: bool = True
    ) -> Deferred[DeadLetterPage]:
        """`count` dead letters from the `start`-th on."""
        start = max(0, start)

        def effect() -> DeadLetterPage:
            entries = [*enumerate(self._store.dead_letters)]
            if newest:
                entries.reverse()
            room = PAGE_BYTES
            items: list[DeadLetterEntry] = []
            for index, raw in entries[start : start + max(0, count)]:
                if items and room < len(raw):
                    break
                room -= len(raw)
                items.append(DeadLetterEntry.of(raw, index))
            return DeadLetterPage(total=len(entries), items=items)

        return self._connection.ask(effect)

    def retry(self, which: str | bytes, mended: Mapping[str, Any] | None = None) -> Deferred[bool]:
        """Put the message of a dead letter back at the tail of its queue, `mended`."""
        return self._connection.ask(
            lambda: bool(self._end_many([which], retry=True, mended=mended))
        )

    def drop(self, which: str | bytes) -> Deferred[bool]:
        """Take a dead letter out for good."""
        return self.drop_many([which]).addCallback(bool)

    def retry_many(self, which: Sequence[str | bytes] | None = None) -> Deferred[int]:
        """Retry all of `which`, or all that there are now."""
        return self._connection.ask(lambda: self._end_many(which, retry=True))

    def drop_many(self, which: Sequence[str | bytes] | None = None) -> Deferred[int]:
        """Drop all of `which`, or all that there are now."""
        return self._connection.ask(lambda: self._end_many(which, retry=False))

    def _end_many(
        self,
        which: Sequence[str | bytes] | None,
        *,
        retry: bool,
        mended: Mapping[str, Any] | None = None,
    ) -> int:
        entries = self._store.dead_letters
        if which is None:
            raws = [raw for raw in entries if not (retry and dead_letter.was_retried(raw))]
        else:
            raws = [raw for one in which for raw in self._named(one, entries)]
        return sum(self._end(raw, retry=retry, mended=mended) for raw in raws)

    def _named(self, which: str | bytes, entries: Sequence[bytes]) -> Iterable[bytes]:
        if isinstance(which, bytes):
            return [which]
        return [raw for raw in reversed(entries) if dead_letter.names_of(raw, [which])][:1]

    def _end(self, raw: bytes, *, retry: bool, mended: Mapping[str, Any] | None) -> bool:
        back = dead_letter.requeue(raw, mended) if retry else None
        if retry and back is None:
            return False
        if not self._store.remove(self._store.keys.failed, raw):
            return False
        if back is not None:
            self._store.push(back.queue, [back.message])
        return True
