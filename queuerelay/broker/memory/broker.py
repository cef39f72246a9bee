"""The broker without a Redis, for tests: the same promises, and controls to break them with.

Shipped in `queuerelay.testing`. It passes the contract suite that `redis.broker.RedisBroker`
passes.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from queuerelay.broker.base import Bell
from queuerelay.broker.memory.bell import MemoryBell
from queuerelay.broker.memory.clients import MemoryClients
from queuerelay.broker.memory.connection import MemoryConnection
from queuerelay.broker.memory.dead_letters import MemoryDeadLetters
from queuerelay.broker.memory.delayed import MemoryDelayed
from queuerelay.broker.memory.gate import MemoryGate
from queuerelay.broker.memory.inbox import MemoryInbox
from queuerelay.broker.memory.leases import MemoryLeases
from queuerelay.broker.memory.nodes import MemoryNodes
from queuerelay.broker.memory.orders import MemoryOrders
from queuerelay.broker.memory.queues import MemoryQueues
from queuerelay.broker.memory.registry import MemoryRegistry
from queuerelay.broker.memory.store import MemoryStore
from queuerelay.errors import Unusable
from queuerelay.loop import Watched
from queuerelay.wire.claim import Claim


class MemoryBroker:
    """See `queuerelay.broker.base.Broker`; the methods below `Controls` are a test's.

    `clock` gives the turns, and the seconds of leases and terms; `wall_clock` Unix seconds. With
    `store`, it is one of several brokers on the same "Redis".
    """

    _log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        wall_clock: Callable[[], float] | None = None,
        store: MemoryStore | None = None,
    ) -> None:
        self._clock = clock
        #: What the wall clock of this host is ahead by, as a test has it.
        self.skew: float | None = 0.0
        #: Why what answers cannot be used, as a test says.
        self.fault: Unusable | None = None
        self.store = store = store or MemoryStore(clock=clock, wall_clock=wall_clock)
        self.keys = store.keys
        self._connection = connection = MemoryConnection(clock)
        self._on_up: list[Callable[[], object]] = []
        self._bells: list[MemoryBell] = []
        self.queues = MemoryQueues(connection, store)
        self.leases = MemoryLeases(connection, store)
        self.delayed = MemoryDelayed(connection, store)
        self.dead_letters = MemoryDeadLetters(connection, store)
        self.gate = MemoryGate(connection, store)
        self.inbox = MemoryInbox(connection, store, clock=clock)
        self.nodes = MemoryNodes(connection, store, self.inbox)
        self.orders = MemoryOrders(connection, store)
        self.clients = MemoryClients(connection, store)
        self.registry = MemoryRegistry(connection, store)
        connection.on_up = self._up
        connection.on_lost = self.inbox.lost
        connection.on_turn = self._turn

    def time(self) -> float:
        """Unix seconds now, by the clock of the store."""
        return self.store.now()

    # Controls

    def disconnect(self, fault: Unusable | None = None) -> None:
        """Lose the connection now, and do not find another until `reconnect`.

        `fault` says that a server answers, and why it cannot be used.
        """
        self.fault = fault
        self._connection.reach(False)
        self._connection.lose("disconnected by the test")

    def reconnect(self) -> None:
        """Find the way again, in the next turn."""
        self.fault = None
        self._connection.reach(True)

    def drop_next_push(self, *, applied: bool, forgotten: bool = False) -> None:
        """Lose the connection over the next push, before its answer; it is made anew at once.

        `applied` says whether the push took effect, which the one who pushed hears from the next
        connection; not where it is `forgotten`, as by a Redis that has lost data.
        """
        self.queues.drop_next_push(applied=applied, forgotten=forgotten)

    def refuse(self, reason: str | None) -> None:
        """Let commands fail with `Refused` from now on; None ends it.

        As with Redis, an ``OOM …`` refuses what adds data and is not part of ending a claim; any
        other reason refuses everything.
        """
        self._connection.refusal = reason

    def messages(self, queue: str) -> list[bytes]:
        """The messages that wait, oldest first."""
        return self.store.messages(queue)

    def inflight(self, queue: str) -> list[Claim]:
        """The messages that somebody has claimed."""
        return self.store.inflight(queue)

    # Life

    @property
    def is_up(self) -> bool:
        """Whether commands can be sent now."""
        return self._connection.up

    def start(self) -> None:
        """Connect, in the next turn."""
        self.store.watchers.append(self._grown)
        self._connection.start()

    def stop(self) -> Deferred[None]:
        """Fires when nothing is left running."""
        self._connection.stop()
        self.queues.stop()
        for bell in self._bells:
            bell.stop()
        if self._grown in self.store.watchers:
            self.store.watchers.remove(self._grown)
        return succeed(None)

    def when_up(self) -> Deferred[None]:
        """Fires when commands can be sent; may be cancelled."""
        return self._connection.when_up()

    def on_up(self, callback: Callable[[], object]) -> None:
        """Call `callback` each time that a connection has been made."""
        self._on_up.append(callback)

    def together(self) -> AbstractContextManager[None]:
        """Nothing: there is nothing between us and the queues."""
        return nullcontext()

    def bell(self, queues: Sequence[str]) -> Bell:
        """A bell for `queues`."""
        bell = MemoryBell(
            map(self.store.keys.queue, queues),
            filled=self.store.offers,
            wake=self._connection.wake,
            clock=self._clock,
        )
        self._bells.append(bell)
        if self._connection.stopped:
            bell.stop()
        return bell

    def loops(self) -> Sequence[Watched]:
        """The loops that everything hangs on."""
        return self.inbox.loops()

    def _up(self) -> None:
        self.queues.connected()
        for callback in self._on_up:
            try:
                callback()
            except Exception:
                self._log.failure("a callback for a new connection failed")

    def _grown(self, key: str) -> None:
        if self.inbox.reads(key) or any(key in bell.lists for bell in self._bells):
            self._connection.wake()

    def _turn(self) -> None:
        self.inbox.turn()
        # As on Redis, at maxmemory a bell still rings.
        refusal = self._connection.refusal
        if self._connection.up and (refusal is None or refusal.startswith("OOM")):
            for bell in [*self._bells]:
                bell.look()
