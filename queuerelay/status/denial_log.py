"""The log of requests that were denied: whoever may send them may not fill the disk.

The first of a kind is a line at once, and those of the next `QUIET` seconds are one line.
"""

from dataclasses import dataclass
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from queuerelay.status.route import StatusRequest

#: Seconds for which further denials of a kind are only counted.
QUIET: Final = 10.0
#: Characters of a path in the log; anybody may ask for any path.
SHOWN: Final = 300


@dataclass(slots=True)
class _Kind:
    """Denials that say the same."""

    more: int = 0
    client: str = ""
    action: str = ""


class DenialLog:
    """Logs the first denial of a kind at once, and those of the next seconds as one line."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._kinds: dict[str, _Kind] = {}
        self._sweep: IDelayedCall | None = None

    def add(self, ask: StatusRequest, outcome: str) -> None:
        """`ask` was denied; `outcome` is one of our own texts, which are few."""
        kind = self._kinds.get(outcome)
        if kind is not None:
            kind.more += 1
            kind.client, kind.action = ask.client, path_of(ask)
            return
        self._kinds[outcome] = _Kind()
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
        told, self._kinds = self._kinds, {}
        for outcome, kind in told.items():
            if not kind.more:
                continue
            # It goes on: what comes next is counted too.
            self._kinds[outcome] = _Kind()
            self._log.info(
                "{more} more by nobody in {seconds:.0f} s: {outcome}; the last from {client}: "
                "{action}",
                more=kind.more,
                seconds=QUIET,
                outcome=outcome,
                client=kind.client,
                action=kind.action,
            )
        if self._kinds:
            self._sweep = self._clock.callLater(QUIET, self._tell)


def path_of(ask: StatusRequest) -> str:
    """The path of a request for the log: short, in visible ASCII."""
    return ascii("/".join(ask.segments)[:SHOWN])[1:-1]
