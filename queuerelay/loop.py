"""Loops: a function called again and again, which no exception ends."""

from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from queuerelay.errors import BrokerError, ConnectionDropped, NotConnected
from queuerelay.seldom import Seldom

#: Seconds that a turn may take before the loop counts as stuck; commands are bounded by less.
PATIENCE: Final = 15.0


class Watched(Protocol):
    """Something that goes on again and again, and must not stand still: a `Loop`, or a loop of
    another kind that says the same of itself. Health turns red for a loop that is `still` for more
    than its `limit`.
    """

    @property
    def name(self) -> str:
        """Name of the loop, as health shows it."""

    @property
    def still(self) -> float:
        """Seconds since the loop last went on; waiting for work, or for Redis, is going on."""

    @property
    def limit(self) -> float:
        """Seconds after which the loop is stuck."""


class Loop:
    """Calls `turn` at once and then `interval` seconds after each turn has ended.

    A lost connection is left to those who watch it; what Redis refuses is logged now and then, and
    any other exception each time. The loop goes on after all of them.
    """

    _log = Logger()

    def __init__(
        self, name: str, interval: float, turn: Callable[[], object], *, clock: IReactorTime
    ) -> None:
        self.name = name
        self._interval = interval
        self._turn = turn
        self._clock = clock
        self._seldom = Seldom(clock)
        self._running: Deferred[None] | None = None
        #: The wait under way: for the end of a turn, or for the time of the next.
        self._step: Deferred[object] | None = None
        self._stopping = False
        #: Clock seconds at which the last turn ended in good order.
        self._turned = clock.seconds()

    @property
    def still(self) -> float:
        """Seconds since the last turn ended other than by an error of ours; that Redis is away, or
        says no, is no error of ours.
        """
        return self._clock.seconds() - self._turned

    @property
    def limit(self) -> float:
        """Seconds after which a loop that is `still` is stuck."""
        return PATIENCE + 3 * self._interval

    def start(self) -> None:
        """Begin with the first turn."""
        self._stopping = False
        self._turned = self._clock.seconds()
        self._running = Deferred.fromCoroutine(self._run())

    def stop(self) -> Deferred[None]:
        """Begin no more turns, and cancel the one under way; fires when none is."""
        self._stopping = True
        running, self._running = self._running, None
        if self._step is not None:
            self._step.cancel()
        return running or succeed(None)

    async def _run(self) -> None:
        while not self._stopping:
            try:
                await self._until_stop(maybeDeferred(self._turn))
                self._turned = self._clock.seconds()
            except (CancelledError, ConnectionDropped, NotConnected):
                self._turned = self._clock.seconds()
            except BrokerError as error:
                self._turned = self._clock.seconds()
                if self._seldom.due(str(error)):
                    self._log.warn(
                        "the loop {name} gets nowhere: {reason}",
                        name=self.name,
                        reason=str(error),
                    )
            except Exception:
                self._log.failure("the loop {name} failed; it goes on", name=self.name)
            try:
                await self._until_stop(deferLater(self._clock, self._interval))
            except CancelledError:
                return

    async def _until_stop(self, step: Deferred[object]) -> None:
        self._step = step
        if self._stopping:
            # The turn itself did it.
            step.cancel()
        try:
            await step
        finally:
            self._step = None
