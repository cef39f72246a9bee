"""Dead letters in memory."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred

from queuerelay.broker.memory.connection import MemoryConnection
from queuerelay.broker.memory.store import MemoryStore
from queuerelay.broker.records import DeadLetterEntry, DeadLetterPage
from queuerelay.wire import dead_letter

#: Bytes of a page of dead letters, its last entry apart.
PAGE_BYTES: Final = 4 * 1024 * 1024


def _failed_at(raw: bytes) -> str:
    """When an entry failed, as Ruby and we write it; "" where that cannot be read."""
    found = (dead_letter.decode_entry(raw) or {}).get("failed_at")
    return found[:19] if isinstance(found, str) and found[:1].isdigit() else ""


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

    def prune(self, *, max_count: int, max_bytes: int, before: float) -> Deferred[int]:
        """Drop the oldest until the rest is within these bounds."""

        def effect() -> int:
            entries = self._store.lists.get(self._store.keys.failed)
            stamp = time.strftime("%Y/%m/%d %H:%M:%S", time.gmtime(max(0.0, before)))
            drop = max(len(entries) - max_count, 0)
            for place, at in enumerate(map(_failed_at, list(entries)[:100])):
                if at and at >= stamp:
                    break
                # What does not say when goes with the one behind it.
                drop = max(drop, place + 1) if at else drop
            sizes = sum(map(len, entries)) - sum(len(raw) for raw in list(entries)[:drop])
            while sizes > max_bytes and drop < len(entries) - 1:
                sizes -= len(entries[drop])
                drop += 1
            for _ in range(drop):
                entries.popleft()
            self._store.dropped += drop
            return drop

        return self._connection.ask(effect)

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
