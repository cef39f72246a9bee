"""The broker on Redis: a connection for commands, the parts that use it, and what has connections
of its own, the inbox and the bells.
"""

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from queuerelay.broker.base import Bell
from queuerelay.broker.redis.bell import RedisBell
from queuerelay.broker.redis.clients import RedisClients
from queuerelay.broker.redis.clock import RedisClock
from queuerelay.broker.redis.connection import RedisConnection
from queuerelay.broker.redis.dead_letters import RedisDeadLetters
from queuerelay.broker.redis.delayed import RedisDelayed
from queuerelay.broker.redis.gate import RedisGate
from queuerelay.broker.redis.inbox import RedisInbox
from queuerelay.broker.redis.keeping import KeepingLog
from queuerelay.broker.redis.leases import RedisLeases
from queuerelay.broker.redis.master import Master
from queuerelay.broker.redis.nodes import RedisNodes
from queuerelay.broker.redis.orders import RedisOrders
from queuerelay.broker.redis.outage import OutageLog
from queuerelay.broker.redis.queues import RedisQueues
from queuerelay.broker.redis.registry import RedisRegistry
from queuerelay.errors import BrokerError, Unusable
from queuerelay.loop import Watched
from queuerelay.wire import storage
from queuerelay.wire.keys import Keys
from queuerelay.wire.url import RedisUrl


class RedisBroker:
    """See `queuerelay.broker.base.Broker`."""

    _log = Logger()

    def __init__(
        self,
        url: RedisUrl,
        *,
        reactor: IReactorTime,
        keys: Keys | None = None,
        clock: RedisClock | None = None,
    ) -> None:
        self._reactor = reactor
        self.keys = keys = keys or Keys()
        self._clock = clock = clock or RedisClock()
        self._master = Master(url, keys=keys, reactor=reactor)
        self._outages = OutageLog(url.redacted, reactor)
        self._commands = commands = self._connection("commands")
        commands.on_up = self._up
        self._on_up: list[Callable[[], object]] = []
        self._bells: list[RedisBell] = []
        self._peeks = itertools.count(1)
        self._stopped = False
        self.queues = RedisQueues(commands, keys)
        self.leases = RedisLeases(commands, keys)
        self.delayed = RedisDelayed(commands, keys)
        self.dead_letters = RedisDeadLetters(commands, keys)
        self.gate = RedisGate(commands, keys)
        self.inbox = RedisInbox(commands, keys, connect=self._connection, clock=reactor)
        asked = storage.ask(url)
        self._keeping = KeepingLog(commands, asked)
        self.nodes = RedisNodes(commands, keys, self.inbox, asked=asked, clock=clock)
        self.orders = RedisOrders(commands, keys)
        self.clients = RedisClients(commands, keys)
        self.registry = RedisRegistry(commands, keys, clock=reactor, unix_time=self.time)

    def time(self) -> float:
        """Unix seconds now, by the clock of Redis."""
        return self._clock.time()

    @property
    def skew(self) -> float | None:
        """Seconds that our wall clock is ahead of that of Redis."""
        return self._clock.skew

    def _connection(self, name: str) -> RedisConnection:
        return RedisConnection(
            self._master, name=name, reactor=self._reactor, outages=self._outages
        )

    @property
    def is_up(self) -> bool:
        """Whether commands can be sent now."""
        return self._commands.is_up

    @property
    def fault(self) -> Unusable | None:
        """Why what answers as Redis cannot be used."""
        return self._commands.fault

    def start(self) -> None:
        """Begin to connect, and never stop trying."""
        self._master.start()
        self._commands.start()
        self.inbox.start()

    def stop(self) -> Deferred[None]:
        """Fires when nothing is left running."""
        self._stopped = True
        stopping = [*self.inbox.stop(), *(bell.stop() for bell in self._bells)]
        self.registry.flush()
        stopping += [self._commands.stop(), self._master.stop()]
        self.queues.stop()
        return gatherResults(stopping).addCallback(lambda _: None)

    def when_up(self) -> Deferred[None]:
        """Fires when commands can be sent; may be cancelled."""
        return self._commands.when_up()

    def on_up(self, callback: Callable[[], object]) -> None:
        """Call `callback` each time that a connection has been made."""
        self._on_up.append(callback)

    def _up(self) -> Deferred[None]:
        # Before all else: what is stamped, or compared with a stamp, comes after an answer to what
        # is asked later.
        self._clock.measure(self._commands).addErrback(lambda failure: failure.trap(BrokerError))
        self.nodes.connected()
        self._keeping.connected()
        # What of the pushes did not arrive has to wait again before others look at what waits.
        return self.queues.connected().addCallback(self._tell)

    def _tell(self, _: None) -> None:
        if not self.is_up:
            return
        for callback in self._on_up:
            try:
                callback()
            except Exception:
                self._log.failure("a callback for a new connection failed")

    def together(self) -> AbstractContextManager[None]:
        """What is asked for within goes to Redis in one write."""
        return self._commands.together()

    def bell(self, queues: Sequence[str]) -> Bell:
        """A bell for `queues`, with a connection for each from the first wait on."""
        bell = RedisBell(
            queues,
            keys=self.keys,
            connect=lambda: self._connection(f"bell-{next(self._peeks)}"),
            clock=self._reactor,
        )
        self._bells = [one for one in self._bells if not one.stopped] + [bell]
        if self._stopped:
            bell.stop()
        return bell

    def loops(self) -> Sequence[Watched]:
        """The loops that everything hangs on."""
        return self.inbox.loops()
