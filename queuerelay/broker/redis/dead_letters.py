"""Dead letters on Redis: pages of them, and putting them back or away.

Invariants:

1. An entry is named by its bytes, never by its place: places change whenever somebody takes one
   out. Of two processes that retry the same entry, one finds it.
2. An entry is in the list or its message is on its queue, never both and never neither.
3. The list is appended to, and taken from one by one, or from its head where it is out of its
   bounds.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList

from queuerelay.broker.records import DeadLetterEntry, DeadLetterPage
from queuerelay.broker.redis.connection import RedisConnection
from queuerelay.wire import dead_letter
from queuerelay.wire.commands import failures, prune, requeue, shown_failures
from queuerelay.wire.dead_letter import Excerpt
from queuerelay.wire.keys import Keys

#: Bytes of a page, its last entry apart.
PAGE_BYTES: Final = 4 * 1024 * 1024
#: Entries handled in one round trip: taking one out may walk the whole list.
BATCH: Final = 100
#: How often the list is walked for an entry that others' retries may have moved out of sight.
_WALKS: Final = 3

#: Does something with the entry of these bytes; fires with whether it was there. None where there
#: is nothing to do with it.
_Act = Callable[[bytes], Deferred[bool] | None]


class RedisDeadLetters:
    """See `queuerelay.broker.base.DeadLettersPart`."""

    def __init__(self, commands: RedisConnection, keys: Keys) -> None:
        self._commands = commands
        self._keys = keys

    def page(
        self, *, start: int = 0, count: int = 50, newest: bool = True
    ) -> Deferred[DeadLetterPage]:
        """`count` dead letters from the `start`-th on."""
        start = max(0, start)

        def page(found: tuple[int, list[bytes | Excerpt]]) -> DeadLetterPage:
            total, entries = found
            return DeadLetterPage(
                total=total,
                items=[
                    DeadLetterEntry.of(entry, total - 1 - start - i if newest else start + i)
                    for i, entry in enumerate(entries)
                ],
            )

        asked = shown_failures(self._keys, start, max(0, count), newest=newest, room=PAGE_BYTES)
        return self._commands.run(asked).addCallback(page)

    def _read(self, start: int, count: int, *, newest: bool) -> Deferred[tuple[int, list[bytes]]]:
        """The length of the list, and entries."""
        return self._commands.run(
            failures(self._keys, start, count, newest=newest, room=PAGE_BYTES)
        )

    # One

    def retry(self, which: str | bytes, mended: Mapping[str, Any] | None = None) -> Deferred[bool]:
        """Put the message of a dead letter back at the tail of its queue, `mended`."""
        return Deferred.fromCoroutine(
            self._some([which], lambda raw: self._retry(raw, mended))
        ).addCallback(bool)

    def drop(self, which: str | bytes) -> Deferred[bool]:
        """Take a dead letter out for good."""
        return Deferred.fromCoroutine(self._some([which], self._drop)).addCallback(bool)

    def _retry(self, raw: bytes, mended: Mapping[str, Any] | None = None) -> Deferred[bool] | None:
        back = dead_letter.requeue(raw, mended)
        if back is None:
            return None
        return self._commands.run(requeue(self._keys, raw, back))

    def _drop(self, raw: bytes) -> Deferred[bool]:
        return self._commands.run(requeue(self._keys, raw))

    # Many

    def retry_many(self, which: Sequence[str | bytes] | None = None) -> Deferred[int]:
        """Retry all of `which`, or all that there are now."""
        if which is None:
            return Deferred.fromCoroutine(
                self._all(lambda raw: None if dead_letter.was_retried(raw) else self._retry(raw))
            )
        return Deferred.fromCoroutine(self._some(which, self._retry))

    def drop_many(self, which: Sequence[str | bytes] | None = None) -> Deferred[int]:
        """Drop all of `which`, or all that there are now."""
        if which is None:
            return Deferred.fromCoroutine(self._all(self._drop))
        return Deferred.fromCoroutine(self._some(which, self._drop))

    def prune(self, *, max_count: int, max_bytes: int, before: float) -> Deferred[int]:
        """Drop the oldest until the rest is within these bounds."""
        return self._commands.run(prune(self._keys, max_count, max_bytes, before))

    async def _some(self, which: Sequence[str | bytes], act: _Act) -> int:
        names = {one for one in which if isinstance(one, str)}
        found = await self._find(names) if names else {}
        raws = [one if isinstance(one, bytes) else found.get(one) for one in which]
        done = 0
        for start in range(0, len(raws), BATCH):
            batch = raws[start : start + BATCH]
            done += await _true([act(raw) for raw in batch if raw is not None])
        return done

    async def _find(self, names: set[str]) -> dict[str, bytes]:
        """The bytes of the newest entry of each id or message."""
        found: dict[str, bytes] = {}
        missing = set(names)
        for _ in range(_WALKS):
            start, length = 0, None
            while missing:
                page = await self.page(start=start, count=BATCH)
                total = page.total
                length = total if length is None else length
                for place, entry in enumerate(page.items, start):
                    names = {entry.id, entry.message_id} & missing
                    raw = await self._whole(entry, place) if names else None
                    if raw is not None:
                        found.update(dict.fromkeys(names, raw))
                        missing -= names
                start += len(page.items)
                if not page.items:
                    break
            else:
                return found
            if total >= length:
                # Nobody took entries out under us, which moves others across our place.
                return found
        return found

    async def _whole(self, entry: DeadLetterEntry, place: int) -> bytes | None:
        """The bytes of an entry that was found at this place from the newest; None where it has
        moved meanwhile.
        """
        if entry.raw is not None:
            return entry.raw
        _, raws = await self._read(place, 1, newest=True)
        return next((raw for raw in raws if dead_letter.entry_id(raw) == entry.id), None)

    async def _all(self, act: _Act) -> int:
        """`act` on all entries that there are now, from the oldest on, in batches.

        Not on those that come in the meantime: what fails again at once would never end.
        """
        done = kept = 0
        left = (await self._read(0, 0, newest=False))[0]
        while left > 0:
            _, raws = await self._read(kept, min(BATCH, left), newest=False)
            if not raws:
                break
            left -= len(raws)
            acts = [act(raw) for raw in raws]
            kept += acts.count(None)
            done += await _true(acts)
        return done


async def _true(acts: Sequence[Deferred[bool] | None]) -> int:
    """How many are true, or the first failure, when all have ended."""
    done = 0
    pending = DeferredList([act for act in acts if act is not None], consumeErrors=True)
    results: list[tuple[bool, Any]] = await pending
    for success, result in results:
        if not success:
            result.raiseException()
        done += result
    return done
