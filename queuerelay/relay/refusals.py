"""The reasons of our own errors, told in the log without flooding it."""

from collections import Counter
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from queuerelay.errors import Refusal

#: Seconds for which further errors of a kind are only counted.
QUIET: Final = 10.0


class RefusalLog:
    """Logs the first refusal of a kind at once, and those of the next seconds as one line."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}
        self._more: Counter[str] = Counter()
        #: Refusals by reason since the start.
        self.counts: Counter[str] = Counter()

    def add(self, refusal: Refusal) -> None:
        """A client was answered with `refusal`."""
        reason = refusal.reason
        self.counts[reason] += 1
        if reason in self._since:
            self._more[reason] += 1
            return
        self._since[reason] = self._clock.seconds()
        self._log.warn(
            "answered {status} ({reason}): {error}",
            status=refusal.status,
            reason=reason,
            error=str(refusal),
        )

    def sweep(self, now: float) -> None:
        """Tell what was only counted."""
        for reason, since in list(self._since.items()):
            if now - since < QUIET:
                continue
            del self._since[reason]
            more = self._more.pop(reason, 0)
            if more:
                self._since[reason] = now
                self._log.warn(
                    "{more} more of ({reason}) in {seconds:.0f} s",
                    more=more,
                    reason=reason,
                    seconds=now - since,
                )
