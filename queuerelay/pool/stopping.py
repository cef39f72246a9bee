"""The stop of the process, for those who must tell an end by it from an end of its own.

A service manager that stops a daemon sends TERM to all of its control group (systemd.kill(5)), so
a script may end by it before the daemon hears of its own stop, or while that still drains. Such an
end says nothing about the message.
"""

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Seconds before our own stop in which an end may have been of it.
DOUBT: Final = 1.0


class Stopping:
    """Whether the process stops; `announce` is called at the first word of it."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        #: Clock seconds of the first word, None before.
        self.since: float | None = None
        self._doubts: list[Callable[[], object]] = []

    def announce(self) -> None:
        """The process begins to stop."""
        if self.since is None:
            self.since = self._clock.seconds()
            for tell in self._doubts:
                tell()

    def doubts(self, most: int) -> "Doubts":
        """What waits for word of the stop, at most so many at a time."""
        doubts = Doubts(self._clock, self, most)
        self._doubts.append(doubts.confirm)
        return doubts


class Doubts:
    """Ends of which it is not known yet whether the stop made them.

    The stop ends at most as many as run at a time, so no more are in doubt than `most`: with
    another one the oldest is decided. A flood of failures costs nobody a second each.
    """

    def __init__(self, clock: IReactorTime, stopping: Stopping, most: int) -> None:
        self._clock = clock
        self._stopping = stopping
        self.most = most
        #: The oldest first, each with its timer.
        self._waiting: dict[Deferred[bool], IDelayedCall] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, seconds: float = DOUBT) -> Deferred[bool]:
        """Whether word of the stop comes within `seconds`."""
        if self._stopping.since is not None:
            return succeed(True)
        waiter: Deferred[bool] = Deferred()
        self._waiting[waiter] = self._clock.callLater(seconds, self._decide, waiter, False)
        while len(self._waiting) > max(1, self.most):
            self._decide(next(iter(self._waiting)), False)
        return waiter

    def confirm(self) -> None:
        """The stop has come. The latest is told first: what goes back to the head of a queue is in
        its order there.
        """
        for waiter in reversed(list(self._waiting)):
            self._decide(waiter, True)

    def _decide(self, waiter: Deferred[bool], stops: bool) -> None:
        timer = self._waiting.pop(waiter, None)
        if timer is None:
            return
        if timer.active():
            timer.cancel()
        waiter.callback(stops)
