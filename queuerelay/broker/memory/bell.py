"""Waiting for work in memory."""

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from queuerelay.broker.records import BELL_WAIT
from queuerelay.errors import NotConnected


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
