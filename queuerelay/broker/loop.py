"""Something done again and again, that no exception ends."""

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from queuerelay.errors import BrokerError


class Loop:
    """Calls `turn` at once and then `interval` seconds after each turn has ended.

    A `BrokerError` is left to those who watch the connection; any other exception is logged. The
    loop goes on after both.
    """

    _log = Logger()

    def __init__(
        self, name: str, interval: float, turn: Callable[[], object], *, clock: IReactorTime
    ) -> None:
        self._name = name
        self._interval = interval
        self._turn = turn
        self._clock = clock
        self._running: Deferred[None] | None = None
        self._stopping = False
        self._last = clock.seconds()

    @property
    def age(self) -> float:
        """Seconds since the last turn that succeeded, or since the start."""
        return self._clock.seconds() - self._last

    def start(self) -> None:
        """Begin with the first turn."""
        self._stopping = False
        self._last = self._clock.seconds()
        self._running = Deferred.fromCoroutine(self._run())

    def stop(self) -> Deferred[None]:
        """Fires when no turn is under way; the one under way is cancelled."""
        self._stopping = True
        running, self._running = self._running, None
        if running is None:
            return succeed(None)
        running.cancel()
        return running

    async def _run(self) -> None:
        while not self._stopping:
            try:
                await maybeDeferred(self._turn)
                self._last = self._clock.seconds()
            except CancelledError:
                pass
            except BrokerError:
                pass
            except Exception:
                self._log.failure("the loop {name} failed; it goes on", name=self._name)
            if not self._stopping:
                try:
                    await deferLater(self._clock, self._interval)
                except CancelledError:
                    return
