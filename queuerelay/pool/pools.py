"""All pools of one process, with what they share: the spawner, and a node on the list."""

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from queuerelay import __version__
from queuerelay.broker.base import Broker
from queuerelay.broker.housekeeping import housekeeping
from queuerelay.broker.records import BEAT_INTERVAL
from queuerelay.config import PoolConfig
from queuerelay.errors import BrokerError, CannotStart, ConfigError, MessageError
from queuerelay.loop import Loop, Watched
from queuerelay.pool.carry_out import obey
from queuerelay.pool.pool import Pool
from queuerelay.pool.publish import published
from queuerelay.pool.resident import Residents
from queuerelay.pool.runtime import Runtime
from queuerelay.pool.stopping import Stopping
from queuerelay.pool.task import Workshop
from queuerelay.processes.interfaces import IProcesses
from queuerelay.processes.spawner import Spawner
from queuerelay.wire.failure import KEPT, Kept
from queuerelay.wire.node import LoopAge, PoolNode, PoolState, encode
from queuerelay.wire.order import decode_order, encode_report

#: How many loops are published, those first that have been still for longest.
LOOPS: Final = 100
#: Seconds between two looks for orders.
ORDERS_INTERVAL: Final = 0.5
#: Seconds between two looks for orphans that have ended, where we are process 1.
ORPHANS_INTERVAL: Final = 1.0
#: Seconds that the list of nodes keeps anything of ours after the last beat.
_LIFE: Final = 60.0
#: Characters of what an order is about, in the log.
_SHOWN: Final = 300


def check_command(config: PoolConfig) -> None:
    """Whether the pool's command could be run now: `ConfigError`."""
    option = f"pool {config.name}: command"
    try:
        Workshop(config, inherited=dict(os.environb)).check()
    except (CannotStart, ValueError) as error:
        reason = error.args[0] if isinstance(error, CannotStart) else error
        raise ConfigError.of(option, config.command[0], f"a program ({reason})") from error
    script = config.script_filename
    if script is not None and not os.path.isfile(os.path.join(config.cwd or ".", script)):
        option = f"pool {config.name}: script_filename"
        raise ConfigError.of(option, script, "a file that is there")


class Pools:
    """The pools that `configs` describe; `start` and `stop` once each.

    `processes` starts their processes; without it a `Spawner` of our own does. `address` is the
    URL of Redis for resident ones. The pools
    themselves are there after `start`: twistd forks to become a daemon after everything is made,
    and they bear the process's id.
    """

    _log = Logger()

    def __init__(
        self,
        configs: Sequence[PoolConfig],
        broker: Broker,
        *,
        reactor: Any,
        processes: IProcesses | None = None,
        address: str | None = None,
        kept: Kept = KEPT,
    ) -> None:
        self._configs = configs
        self._broker = broker
        self._reactor = reactor
        self._spawner: Spawner | None = None
        if processes is None:
            processes = self._spawner = Spawner(reactor=reactor, together=broker.together)
        self._processes = processes
        self._address = address
        #: Names this process on the list of nodes.
        self.id = os.urandom(4).hex()
        self._pools: dict[str, Pool | Residents] = {}
        own = {queue for config in configs for queue in config.queues}
        self._kept = kept
        self._loops = [
            Loop("pool beat", BEAT_INTERVAL, self._beat, clock=reactor),
            Loop("orders", ORDERS_INTERVAL, self._take_orders, clock=reactor),
            *housekeeping(broker, own, kept, clock=reactor),
        ]
        self._hurried = self._stopping = False
        self._stop_sign = Stopping(reactor)
        self._born = reactor.seconds()

    def __getitem__(self, name: str) -> Pool | Residents:
        return self._pools[name]

    def __len__(self) -> int:
        return len(self._configs)

    def check(self) -> None:
        """Raises `ConfigError` where a pool's command could not be run now."""
        for config in self._configs:
            check_command(config)

    def start(self) -> None:
        """Begin to work."""
        runtime = Runtime(
            broker=self._broker,
            processes=self._processes,
            clock=self._reactor,
            wall_clock=self._broker.time,
            kept=self._kept,
            holder=f"{socket.gethostname()}:{os.getpid()}",
            address=self._address,
            stopping=self._stop_sign,
        )
        for config in self._configs:
            made = Residents(config, runtime) if config.resident else Pool(config, runtime)
            self._pools[config.name] = made
        for pool in self._pools.values():
            pool.start()
        if self._spawner is not None and os.getpid() == 1:
            self._loops.append(
                Loop("orphans", ORPHANS_INTERVAL, self._spawner.take_orphans, clock=self._reactor)
            )
        for loop in self._loops:
            loop.start()

    def stopping(self) -> None:
        """The daemon begins to stop, and `stop` comes later: what ends meanwhile is interrupted."""
        self._stop_sign.announce()

    def stop(self, drain: float) -> Deferred[None]:
        """Take no more work, give what runs `drain` seconds, end it, and leave the list of nodes.

        Fires when no process of ours is left.
        """
        self._stopping = True
        self._stop_sign.announce()
        return Deferred.fromCoroutine(self._stop(0.0 if self._hurried else drain))

    async def _stop(self, drain: float) -> None:
        stopping = [pool.stop(drain) for pool in self._pools.values()]
        for stopped in stopping:
            try:
                await stopped
            except Exception:
                self._log.failure("a pool did not stop properly")
        for loop in self._loops:
            await loop.stop()
        # Where that cannot be, it is forgotten by itself.
        with suppress(BrokerError):
            await self._broker.nodes.leave(self.id)
        if self._spawner is not None:
            await self._spawner.stop()

    def hurry(self) -> None:
        """Cut the drain time short, also where `stop` is yet to come."""
        self._hurried = True
        for pool in self._pools.values():
            pool.hurry()

    def roll(self) -> Deferred[None]:
        """Replace the processes of all resident pools, one by one; fires when it is over."""
        residents = [pool for pool in self._pools.values() if isinstance(pool, Residents)]
        if not residents:
            self._log.info("a rolling restart was asked for, and there is no resident pool")
        return gatherResults([pool.roll() for pool in residents]).addCallback(lambda _: None)

    def snapshot(self) -> list[PoolState]:
        """What each pool is doing now, in the order of the configuration."""
        return [pool.snapshot() for pool in self._pools.values()]

    def loops(self) -> list[Watched]:
        """What the process and its pools do again and again."""
        return [*self._loops, *(loop for one in self._pools.values() for loop in one.loops())]

    def published(self) -> PoolNode:
        """What this process tells others about itself."""
        stillest = sorted(self.loops(), key=lambda loop: loop.limit - loop.still)
        return PoolNode(
            id=self.id,
            version=__version__,
            host=socket.gethostname(),
            pid=os.getpid(),
            at=self._broker.time(),
            skew=self._broker.skew,
            pools=published(self.snapshot()),
            uptime=self._reactor.seconds() - self._born,
            draining=self._stopping,
            loops=[LoopAge(loop.name, loop.still, loop.limit) for loop in stillest[:LOOPS]],
        )

    def _take_orders(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._taken_orders())

    async def _taken_orders(self) -> None:
        for raw in await self._broker.orders.take(self.id):
            try:
                order = decode_order(raw)
            except MessageError as error:
                self._log.warn("an order cannot be understood: {reason}", reason=str(error))
                continue
            report = obey(order, self._pools, node=self.id, stopping=self._stopping)
            self._log.info(
                "ordered: {action} {subject}: {outcome}",
                action=order.action,
                # Anybody who reaches Redis may have written it.
                subject=ascii((order.pool or order.message)[:_SHOWN])[1:-1],
                outcome=report.text,
            )
            # The next order is taken from the list already, and must not be lost with a report.
            try:
                await self._broker.orders.report(order.id, encode_report(report))
            except BrokerError as error:
                self._log.warn("an order cannot be reported on: {reason}", reason=str(error))

    def _beat(self) -> Deferred[None]:
        return self._broker.nodes.beat(self.id, encode(self.published()), inbox_life=_LIFE)
