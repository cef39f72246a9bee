"""The clock of Redis, as this process knows it without asking: the monotonic clock and an offset.

Invariants:

1. A step of our own wall clock moves nothing here; a step of Redis's, or another Redis with another
   clock, is followed with the next measurement.
2. The offset is known to half of the shortest round trip of the last minute.
"""

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from twisted.internet.defer import Deferred

from queuerelay.broker.redis.connection import RedisConnection

#: How many measurements are kept; one comes with each beat.
KEPT: Final = 30
#: Seconds by which two good clocks may drift apart in one second while one of them is slewed.
DRIFT: Final = 0.0005

#: Monotonic seconds; where the system has such a clock, one that goes on while it sleeps.
steady: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_BOOTTIME")
    else time.monotonic
)


class _Bounds(NamedTuple):
    """One measurement: the offset lies between `low` and `high`."""

    at: float
    low: float
    high: float


class RedisClock:
    """The time of Redis; `wall_clock` stands in for it until Redis was heard."""

    def __init__(
        self,
        *,
        steady: Callable[[], float] = steady,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._steady = steady
        self._wall_clock = wall_clock
        self._kept: deque[_Bounds] = deque(maxlen=KEPT)
        #: Redis's Unix seconds less our steady seconds.
        self._offset: float | None = None

    def time(self) -> float:
        """Unix seconds now."""
        offset = self._offset
        return self._wall_clock() if offset is None else self._steady() + offset

    @property
    def skew(self) -> float | None:
        """Seconds that our wall clock is ahead; None where Redis was not heard."""
        return None if self._offset is None else self._wall_clock() - self.time()

    def measure(self, connection: RedisConnection) -> Deferred[None]:
        """Ask Redis for its time."""
        sent = self._steady()
        return connection.call("TIME").addCallback(
            lambda answer: self.heard(int(answer[0]) + int(answer[1]) / 1e6, sent, self._steady())
        )

    def heard(self, redis: float, sent: float, got: float) -> None:
        """Redis said that it was `redis`, some time between `sent` and `got`."""
        low, high = redis - got, redis - sent
        newest = _Bounds(got, low, high)
        for nth, one in enumerate(reversed(self._kept)):
            drift = DRIFT * (got - one.at)
            narrower = max(low, one.low - drift), min(high, one.high + drift)
            if narrower[0] > narrower[1]:
                # Its clock was set, or it is another Redis: what is older says nothing any more.
                for _ in range(len(self._kept) - nth):
                    self._kept.popleft()
                break
            low, high = narrower
        self._kept.append(newest)
        self._offset = (low + high) / 2
