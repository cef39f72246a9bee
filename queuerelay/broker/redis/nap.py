"""A pause between two looks at Redis, which may be cut short."""

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater


class Nap:
    """The pauses of one loop, one at a time."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._pause: Deferred[None] | None = None

    async def take(self, seconds: float) -> None:
        """Return after so many seconds, or when it is cut short."""
        pause: Deferred[None] = deferLater(self._clock, seconds)
        self._pause = pause
        try:
            await pause
        except CancelledError:
            pass
        finally:
            # An old run of the loop may end its pause when a new one has begun another.
            if self._pause is pause:
                self._pause = None

    def cut(self) -> None:
        """End the pause, where there is one."""
        if self._pause is not None:
            self._pause.cancel()
