"""What the log says of actions that were refused: a line at once, and one for all that follow.

Invariants:

1. Anybody may be refused as often as he likes, so lines are bounded: of each sender and status the
   first in `TELL_EVERY` seconds, of so many senders as `Seldom` tells, and one with the number of
   the rest.
2. None is left out of the count; the last of it comes at the stop.
"""

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from queuerelay.seldom import TELL_EVERY, Seldom


class RefusedActions:
    """Logs refusals; `stop` once, at the end."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._seldom = Seldom(clock)
        self._timer: IDelayedCall | None = None
        self._more = 0
        self._last = ""

    def add(self, client: str, action: str, status: int, outcome: str) -> None:
        """`action` of `client` was refused with `status`, which `outcome` says with the reason."""
        if self._seldom.due(f"{client} {status}"):
            self._log.info(
                "action by nobody from {client}: {action}: {outcome}",
                client=client,
                action=action,
                outcome=outcome,
            )
            return
        self._more += 1
        self._last = f"{client}: {action}: {outcome}"
        if self._timer is None:
            self._timer = self._clock.callLater(TELL_EVERY, self._tell)

    def _tell(self) -> None:
        self._timer = None
        more, self._more = self._more, 0
        self._log.info(
            "{more} more actions by nobody, the last from {last}", more=more, last=self._last
        )

    def stop(self) -> None:
        """Tell what has only been counted."""
        if self._timer is not None:
            self._timer.cancel()
            self._tell()
