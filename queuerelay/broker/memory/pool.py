"""What pools need of the broker in memory: delayed messages, dead letters, bells, registration."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from queuerelay.broker.base import BELL_WAIT, Claim, Failure, FailurePage
from queuerelay.errors import NotConnected
from queuerelay.wire import dead_letter
from queuerelay.wire.working import encode_working

if TYPE_CHECKING:
    from queuerelay.broker.memory.broker import MemoryStore

#: Bytes of a page of dead letters, its last entry apart.
PAGE_BYTES: Final = 4 * 1024 * 1024


@dataclass(slots=True)
class _Delayed:
    #: Clock seconds.
    due: float
    message: bytes


@dataclass(slots=True)
class PoolStore:
    """This part of what one Redis holds."""

    store: "MemoryStore"
    clock: IReactorTime
    #: By queue.
    delayed: dict[str, list[_Delayed]] = field(default_factory=dict)
    #: Clock seconds until which a client is known to have left, by message id.
    gone: dict[str, float] = field(default_factory=dict)
    #: Bytes that the clients of streamed replies took, and when that is forgotten, by message id.
    taken: dict[str, tuple[int, float]] = field(default_factory=dict)
    #: The registered workers, and since when (Unix seconds).
    workers: dict[str, float] = field(default_factory=dict)
    #: What a worker is on, as ``resque:worker:<id>`` says it.
    working: dict[str, bytes] = field(default_factory=dict)
    #: By name and worker, None for all workers.
    stats: dict[tuple[str, str | None], int] = field(default_factory=dict)
    #: ``resque:pause-all-workers``.
    paused: bool = False

    # Delayed messages

    def delay(self, claim: Claim, message: bytes, seconds: float) -> bool:
        """`Broker.delay`."""
        if not self.store.end(claim):
            return False
        waiting = self.delayed.setdefault(claim.queue, [])
        waiting.append(_Delayed(self.clock.seconds() + seconds, message))
        waiting.sort(key=lambda one: one.due)
        return True

    def promote(self, queues: Sequence[str], most: int) -> int:
        """`Broker.promote`."""
        now, moved = self.clock.seconds(), 0
        for queue in queues:
            waiting = self.delayed.get(queue, [])
            due = [one for one in waiting if one.due <= now][: most - moved]
            del waiting[: len(due)]
            for one in reversed(due):
                self.store.put_back(queue, one.message)
            moved += len(due)
        return moved

    # Dead letters

    def failures(self, *, start: int, count: int, newest: bool) -> FailurePage:
        """`Broker.failures`."""
        entries = [*enumerate(self.store.failures)]
        if newest:
            entries.reverse()
        start, room = max(0, start), PAGE_BYTES
        items: list[Failure] = []
        for index, raw in entries[start : start + max(0, count)]:
            if items and room < len(raw):
                break
            room -= len(raw)
            items.append(Failure.of(raw, index))
        return FailurePage(total=len(entries), items=items)

    def end_failures(self, which: Sequence[str | bytes] | None, *, retry: bool) -> int:
        """`Broker.retry_failures`, or with `retry` false `Broker.drop_failures`."""
        entries = self.store.failures
        if which is None:
            raws = [raw for raw in entries if not (retry and dead_letter.was_retried(raw))]
        else:
            raws = [raw for one in which for raw in self._named(one, entries)]
        return sum(self._end_failure(raw, retry=retry) for raw in raws)

    def _named(self, which: str | bytes, entries: Sequence[bytes]) -> Iterable[bytes]:
        if isinstance(which, bytes):
            return [which]
        return [raw for raw in reversed(entries) if dead_letter.names_of(raw, [which])][:1]

    def _end_failure(self, raw: bytes, *, retry: bool) -> bool:
        back = dead_letter.requeue(raw) if retry else None
        if retry and back is None:
            return False
        if not self.store.remove(self.store.keys.failed, raw):
            return False
        if back is not None:
            self.store.push(back.queue, [back.message])
        return True

    # Clients that have left

    def mark_gone(self, ids: Sequence[str], life: float) -> None:
        """`Broker.mark_gone`."""
        self.gone.update(dict.fromkeys(ids, self.clock.seconds() + life))

    def which_gone(self, ids: Sequence[str]) -> set[str]:
        """`Broker.which_gone`."""
        now = self.clock.seconds()
        return {one for one in ids if self.gone.get(one, now) > now}

    def tell_taken(self, taken: Mapping[str, int], life: float) -> None:
        """`Broker.tell_taken`."""
        until = self.clock.seconds() + life
        self.taken.update({id: (count, until) for id, count in taken.items()})

    # Registration

    def register(self, worker_id: str, queues: Sequence[str], now: float) -> None:
        """`Broker.register_worker`."""
        self.workers[worker_id] = now
        self.store.queues.update(queues)

    def unregister(self, worker_id: str) -> None:
        """`Broker.unregister_worker`."""
        self.workers.pop(worker_id, None)
        self.working.pop(worker_id, None)
        for name in ("processed", "failed"):
            self.stats.pop((name, worker_id), None)

    def work(self, worker_id: str, queue: str, message: bytes | None, now: float) -> None:
        """`Broker.working_on`."""
        if message is None:
            self.working.pop(worker_id, None)
        else:
            self.working[worker_id] = encode_working(worker_id, queue, message, run_at=now)

    def count(self, worker_id: str | None, processed: int, failed: int) -> None:
        """`Broker.count`."""
        for name, by in (("processed", processed), ("failed", failed)):
            for whose in dict.fromkeys((None, worker_id)) if by else ():
                self.stats[name, whose] = self.stats.get((name, whose), 0) + by


class MemoryBell:
    """See `queuerelay.broker.base.Bell`. Its broker asks it to `look` in each of its turns."""

    def __init__(
        self,
        lists: Iterable[str],
        *,
        filled: Callable[[str], object],
        wake: Callable[[], object],
        clock: IReactorTime,
    ) -> None:
        self.lists = frozenset(lists)
        self._filled = filled
        self._wake = wake
        self._clock = clock
        self._waiters: dict[Deferred[None], IDelayedCall] = {}
        self._stopped = False

    def wait(self) -> Deferred[None]:
        """Fires when one of the lists may have a message; see `Bell.wait`."""
        if self._stopped:
            return fail(NotConnected("stopping"))
        waiter: Deferred[None] = Deferred(self._forget)
        self._waiters[waiter] = self._clock.callLater(BELL_WAIT, self._answer, waiter)
        self._wake()
        return waiter

    def look(self) -> None:
        """Ring, where one of the lists has a message."""
        if self._waiters and any(self._filled(one) for one in self.lists):
            for waiter in [*self._waiters]:
                # Not one that an earlier one has cancelled.
                if waiter in self._waiters:
                    self._answer(waiter)

    def stop(self) -> Deferred[None]:
        """Wait no more; see `Bell.stop`."""
        self._stopped = True
        for waiter in [*self._waiters]:
            if waiter in self._waiters:
                self._forget(waiter)
                waiter.errback(NotConnected("stopping"))
        return succeed(None)

    def _answer(self, waiter: Deferred[None]) -> None:
        self._forget(waiter)
        waiter.callback(None)

    def _forget(self, waiter: Deferred[None]) -> None:
        timer = self._waiters.pop(waiter)
        if timer.active():
            timer.cancel()
