"""Keeps the dead letters within their bounds, whoever wrote them: the oldest are dropped first."""

from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from queuerelay.broker.base import Broker
from queuerelay.wire.failure import Kept

#: Seconds between two looks.
BOUNDS_INTERVAL: Final = 10.0


class DeadLetterBounds:
    """The bounds for one process; any number of them may run.

    `keep` is to be called each `BOUNDS_INTERVAL` seconds.
    """

    _log = Logger()

    def __init__(self, broker: Broker, kept: Kept) -> None:
        self._broker = broker
        self._kept = kept

    def keep(self) -> Deferred[None]:
        """Drop what is too much or too old."""
        kept = self._kept
        pruned = self._broker.dead_letters.prune(
            max_count=kept.max_count,
            max_bytes=kept.max_bytes,
            before=self._broker.time() - kept.max_age,
        )
        return pruned.addCallback(self._dropped)

    def _dropped(self, number: int) -> None:
        if number:
            self._log.warn(
                "{number} dead letters were dropped, the oldest: there may be {count} in {bytes} "
                "bytes for {age:g} days",
                number=number,
                count=self._kept.max_count,
                bytes=self._kept.max_bytes,
                age=self._kept.max_age / 86400,
            )
