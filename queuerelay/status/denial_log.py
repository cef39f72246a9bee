"""The log of requests that were denied: whoever may send them may not fill the disk.

The first of a kind is a line at once, and those of the next `QUIET` seconds are one line.
"""

from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from queuerelay.seldom import Gathered
from queuerelay.status.route import StatusRequest

#: Seconds for which further denials of a kind are only counted.
QUIET: Final = 10.0
#: Characters of a path in the log; anybody may ask for any path.
SHOWN: Final = 300


class DenialLog:
    """Logs the first denial of a kind at once, and those of the next seconds as one line."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        #: Client and path, by outcome.
        self._gathered: Gathered[tuple[str, str]] = Gathered()
        self._sweep: IDelayedCall | None = None

    def add(self, ask: StatusRequest, outcome: str) -> None:
        """`ask` was denied; `outcome` is one of our own texts, which are few."""
        said = ask.client, path_of(ask)
        if not self._gathered.is_first(outcome, self._clock.seconds(), said):
            return
        self._log.info(
            "action by nobody from {client}: {action}: {outcome}",
            client=ask.client,
            action=path_of(ask),
            outcome=outcome,
        )
        if self._sweep is None:
            self._sweep = self._clock.callLater(QUIET, self._tell)

    def stop(self) -> None:
        """Log what was only counted."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._tell()
            if self._sweep is not None:
                self._sweep.cancel()

    def _tell(self) -> None:
        self._sweep = None
        for more in self._gathered.due(self._clock.seconds(), 0.0):
            client, action = more.last
            self._log.info(
                "{more} more by nobody in {seconds:.0f} s: {outcome}; the last from {client}: "
                "{action}",
                more=more.number,
                seconds=QUIET,
                outcome=more.kind,
                client=client,
                action=action,
            )
        if self._gathered:
            self._sweep = self._clock.callLater(QUIET, self._tell)


def path_of(ask: StatusRequest) -> str:
    """The path of a request for the log: short, in visible ASCII."""
    return ascii("/".join(ask.segments)[:SHOWN])[1:-1]
