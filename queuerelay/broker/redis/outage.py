"""Saying that Redis is away: at once, and then only now and then."""

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from queuerelay.seldom import Seldom


class OutageLog:
    """Says that Redis is away: once at once, then now and then, and when it is over.

    One for all connections of a process, so that an outage is told once. One that ends before it
    was told, because the same was told just before, is not told at all: a connection that comes
    and goes ten times a second must not fill the log.
    """

    _log = Logger()

    def __init__(self, address: str, clock: IReactorTime) -> None:
        self._address = address
        self._clock = clock
        self._seldom = Seldom(clock)
        self._down: set[str] = set()
        self._since = 0.0
        self._told = False

    def down(self, name: str, reason: str) -> None:
        """The connection `name` could not be made, or was lost."""
        if not self._down:
            self._since = self._clock.seconds()
            self._told = False
        self._down.add(name)
        if self._seldom.due(reason):
            self._told = True
            self._log.warn(
                "no connection to Redis at {address}: {reason}; trying again",
                address=self._address,
                reason=reason,
                connection=name,
            )

    def up(self, name: str, version: str) -> None:
        """The connection `name` is ready; `version` with the product's name."""
        was_down = name in self._down
        self._down.discard(name)
        if was_down and not self._down and self._told:
            self._log.info(
                "connected to {version} at {address} again after {seconds:.1f} s",
                version=version,
                address=self._address,
                seconds=self._clock.seconds() - self._since,
            )
