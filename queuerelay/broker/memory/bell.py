"""Waiting for work in memory."""

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime

from queuerelay.broker.records import BELL_WAIT
from queuerelay.errors import NotConnected
from queuerelay.waiters import Waiters


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
        self._waiters: Waiters[None] = Waiters()
        self._stopped = False

    def wait(self) -> Deferred[None]:
        """Fires when one of the lists may have a message; see `Bell.wait`."""
        if self._stopped:
            return fail(NotConnected("stopping"))
        self._wake()
        return self._waiters.wait().addTimeout(BELL_WAIT, self._clock, lambda _, __: None)

    def look(self) -> None:
        """Ring, where one of the lists has a message."""
        if len(self._waiters) and any(self._filled(one) for one in self.lists):
            self._waiters.fire(None)

    def stop(self) -> Deferred[None]:
        """Wait no more; see `Bell.stop`."""
        self._stopped = True
        self._waiters.fail(NotConnected("stopping"))
        return succeed(None)
