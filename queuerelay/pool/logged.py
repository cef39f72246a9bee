"""What a child says on one pipe, as it goes to the log: line by line, and what has no end too."""

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from queuerelay.pool.output import Lines

#: Seconds after which a line without end is shown; each part of it that follows waits twice as
#: long, up to the longest.
FIRST_SIGHT: Final = 2.0
LONGEST_SIGHT: Final = 60.0


class Logged:
    """Gives the lines that `heard` brings to `say`; `end` once, when the pipe is closed."""

    def __init__(self, clock: IReactorTime, say: Callable[[str], object]) -> None:
        self._clock = clock
        self._say = say
        self.lines = Lines()
        self._timer: IDelayedCall | None = None
        self._wait = FIRST_SIGHT

    def heard(self, chunk: bytes) -> None:
        """The child printed `chunk`."""
        ended = self.lines.feed(chunk, self._clock.seconds())
        for line in ended:
            self._say(line)
        if ended:
            self._wait = FIRST_SIGHT
        self._look_later()

    def _look_later(self) -> None:
        if self._timer is None and self.lines.unfinished:
            self._timer = self._clock.callLater(self._wait, self._look)

    def _look(self) -> None:
        self._timer = None
        text = self.lines.so_far(self._clock.seconds())
        if text:
            self._say(text)
            self._wait = min(2 * self._wait, LONGEST_SIGHT)
        self._look_later()

    def end(self) -> None:
        """Give what is left, and say how much was not given."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for line in self.lines.finish():
            self._say(line)
        if self.lines.skipped:
            self._say(f"{self.lines.skipped} more lines were not logged")
