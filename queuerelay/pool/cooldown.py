"""The rests of a pool whose command cannot be run, and when it tries again."""

from collections.abc import Callable, Iterable
from typing import Final

from twisted.internet.interfaces import IReactorTime

from queuerelay.backoff import back_off

#: First and longest rest, in seconds.
FIRST_REST: Final = 1.0
LONGEST_REST: Final = 60.0
#: Seconds that a script must live before its start counts as one.
PROOF: Final = 2.0


class Cooldown:
    """The pauses of a pool whose command could not be started: 1 s, then twice as long each time.

    After each pause one message is tried at a time, until a start has proved itself: the script
    ended with anything but "misconfigured", or lived for `PROOF` seconds.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        #: Called when all is well again, and there is room for more than one.
        self.on_over: Callable[[], object] = lambda: None
        #: Why it rests; "" where all is well.
        self.reason = ""
        #: Seconds of the last pause, 0 where all is well.
        self.seconds = 0.0
        #: Pauses in a row that a failed start has begun.
        self._failures = 0
        self._began = self._until = 0.0

    @property
    def left(self) -> float:
        """Seconds until the next try."""
        return max(0.0, self._until - self._clock.seconds()) if self.reason else 0.0

    def fits(self, wanted: int, starts: Iterable[float]) -> int:
        """How many of the `wanted` messages may be taken now, `starts` being the clock seconds at
        which the present ones were.
        """
        if not self.reason:
            return wanted
        # Scripts that run since before the trouble began say nothing about it.
        trying = any(start >= self._began for start in starts)
        return 0 if self.left or trying else min(1, wanted)

    def take(self, reason: str) -> bool:
        """A start failed. Gives whether a new rest begins: what fails during one changes nothing,
        for it began before.
        """
        if self.left:
            return False
        self._failures += 1
        self.seconds = back_off(self._failures, first=FIRST_REST, longest=LONGEST_REST)
        self.reason = reason
        self._began = self._clock.seconds()
        self._until = self._began + self.seconds
        return True

    def proved(self, started: float) -> None:
        """A script that was started at `started` clock seconds is fine."""
        # The moment itself is too early: those of the same turn were started before it.
        if self.reason and started > self._began:
            self.reason, self.seconds, self._failures = "", 0.0, 0
            self.on_over()
