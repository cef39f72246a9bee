"""All pools of one process, with what they share: the spawner, and a node on the list."""

import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import orjson
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorProcess
from twisted.logger import Logger

from queuerelay import __version__
from queuerelay.broker.base import BEAT_INTERVAL, Broker
from queuerelay.broker.loop import Loop
from queuerelay.config import PoolConfig
from queuerelay.errors import BrokerError, CannotStart, ConfigError
from queuerelay.pool.pool import Pool
from queuerelay.pool.resident import Residents
from queuerelay.pool.snapshot import PoolSnapshot
from queuerelay.pool.spawner import Spawner
from queuerelay.pool.work import Workshop

#: Seconds that the list of nodes keeps anything of ours after the last beat.
_LIFE = 60.0


def check_command(config: PoolConfig) -> None:
    """Whether the pool's command could be run now: `ConfigError`."""
    option = f"pool {config.name}: command"
    try:
        Workshop(config, inherited=dict(os.environb)).check()
    except (CannotStart, ValueError) as error:
        reason = error.args[0] if isinstance(error, CannotStart) else error
        raise ConfigError.of(option, config.command[0], f"a program ({reason})") from error


class Pools:
    """The pools that `configs` describe; `start` and `stop` once each.

    `processes` starts their processes; without it a `Spawner` of our own does.
    """

    _log = Logger()

    def __init__(
        self,
        configs: Sequence[PoolConfig],
        broker: Broker,
        *,
        reactor: Any,
        wall_clock: Callable[[], float] = time.time,
        processes: IReactorProcess | None = None,
    ) -> None:
        self._broker = broker
        self._wall_clock = wall_clock
        self._spawner = Spawner(reactor=reactor) if processes is None else None
        #: Names this process on the list of nodes.
        self.id = os.urandom(4).hex()
        holder = f"{socket.gethostname()}:{os.getpid()}"
        self._pools: dict[str, Pool | Residents] = {}
        for config in configs:
            starter: Any = processes or self._spawner
            if config.resident:
                self._pools[config.name] = Residents(
                    config, processes=starter, clock=reactor, wall_clock=wall_clock
                )
            else:
                self._pools[config.name] = Pool(
                    config,
                    broker,
                    processes=starter,
                    clock=reactor,
                    wall_clock=wall_clock,
                    holder=holder,
                )
        self._beat_loop = Loop("pool beat", BEAT_INTERVAL, self._beat, clock=reactor)

    def __getitem__(self, name: str) -> Pool | Residents:
        return self._pools[name]

    def __len__(self) -> int:
        return len(self._pools)

    def start(self) -> None:
        """Begin to work."""
        self._beat_loop.start()
        for pool in self._pools.values():
            pool.start()

    def stop(self, drain: float) -> Deferred[None]:
        """Take no more work, give what runs `drain` seconds, end it, and leave the list of nodes.

        Fires when no process of ours is left.
        """
        return Deferred.fromCoroutine(self._stop(drain))

    async def _stop(self, drain: float) -> None:
        await gatherResults([pool.stop(drain) for pool in self._pools.values()])
        await self._beat_loop.stop()
        # Where that cannot be, it is forgotten by itself.
        with suppress(BrokerError):
            await self._broker.leave(self.id)
        if self._spawner is not None:
            await self._spawner.stop()

    def hurry(self) -> None:
        """End at once what runs."""
        for pool in self._pools.values():
            pool.hurry()

    def roll(self) -> Deferred[None]:
        """Replace the processes of all resident pools, one by one; fires when it is over."""
        residents = [pool for pool in self._pools.values() if isinstance(pool, Residents)]
        if not residents:
            self._log.info("a rolling restart was asked for, and there is no resident pool")
        return gatherResults([pool.roll() for pool in residents]).addCallback(lambda _: None)

    def snapshot(self) -> list[PoolSnapshot]:
        """What each pool is doing now, in the order of the configuration."""
        return [pool.snapshot() for pool in self._pools.values()]

    def _beat(self) -> Deferred[None]:
        published = {
            "role": "pool",
            "id": self.id,
            "version": __version__,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "at": self._wall_clock(),
            "pools": [asdict(snapshot) for snapshot in self.snapshot()],
        }
        return self._broker.beat(self.id, orjson.dumps(published), inbox_life=_LIFE)
