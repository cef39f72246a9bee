"""The size that a pool should have now: what `sizing` decides, from what Redis says."""

from collections.abc import Callable, Sequence

from queuerelay.config import PoolConfig
from queuerelay.pool.runtime import Runtime
from queuerelay.pool.sizing import SizeRule, next_size
from queuerelay.wire.message import waited


class AutoSize:
    """The size of one pool with ``min`` and ``max``."""

    def __init__(self, config: PoolConfig, runtime: Runtime) -> None:
        self._broker = runtime.broker
        self._clock = runtime.clock
        self._wall_clock = runtime.wall_clock
        self._rule = SizeRule(
            min=config.min,
            max=config.max,
            grow_after=config.grow_after,
            shrink_after=config.shrink_after,
        )
        #: Since when something has been waiting, in clock seconds.
        self._waiting_since: float | None = None

    async def ask(
        self,
        queues: Sequence[str],
        size: Callable[[], int],
        busy: Callable[[], int],
        idle_for: float,
    ) -> int:
        """The size for a pool that has been `idle_for` seconds with a free slot, and takes from
        `queues` now.
        """
        depths = await self._broker.queues.depths(queues)
        now = self._clock.seconds()
        if not any(depth.length for depth in depths):
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = now
        wall = self._wall_clock()
        found = [(depth.length, waited(depth.oldest_at, wall)) for depth in depths]
        waits = [wait for _, wait in found if wait is not None]
        if any(length and wait is None for length, wait in found):
            # Only php-resque and we write when a message was pushed; of others we know how long we
            # have seen any.
            waits.append(now - (self._waiting_since if self._waiting_since is not None else now))
        # Both as they are now, not as they were when Redis was asked.
        return next_size(
            size(),
            busy=busy(),
            oldest_wait=max(waits, default=None),
            idle_for=idle_for,
            rule=self._rule,
        )
