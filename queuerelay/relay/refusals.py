"""The reasons of our own errors: each is counted, and those that are our fault are logged.

Invariants:

1. Every 5xx that a client got from us is in the log: its reason at once, or as one of a number
   within `QUIET` seconds. A client's own mistake (4xx) is only counted; the access log has it.
2. The log of a flood is one line for each reason and `QUIET` seconds.
"""

from collections import Counter
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from queuerelay.errors import Refusal
from queuerelay.seldom import Gathered

#: Seconds for which further errors of a kind are only counted.
QUIET: Final = 10.0


class RefusalLog:
    """Logs the first refusal of a kind at once, and those of the next seconds as one line."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        # Its text: the error itself may keep the request alive by its traceback.
        self._gathered: Gathered[str] = Gathered()
        #: Refusals by `Refusal.reason` since the start.
        self.counts: Counter[str] = Counter()

    def add(self, refusal: Refusal) -> None:
        """A client was answered with `refusal`."""
        reason = refusal.reason
        self.counts[reason] += 1
        if refusal.status < 500:
            return
        if self._gathered.is_first(reason, self._clock.seconds(), str(refusal)):
            self._log.warn(
                "answered {status} ({reason}): {error}",
                status=refusal.status,
                reason=reason,
                error=str(refusal),
            )

    def sweep(self, now: float, *, last: bool = False) -> None:
        """Log refusals that were only counted, if old enough or if this is the `last` sweep."""
        for more in self._gathered.due(now, 0.0 if last else QUIET):
            self._log.warn(
                "{more} more of ({reason}) in {seconds:.0f} s, the last: {error}",
                more=more.number,
                reason=more.kind,
                seconds=more.seconds,
                error=more.last,
            )
