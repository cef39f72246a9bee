"""A pool of worker scripts: at most N at a time, judged by their exit status.

Invariants:

1. Never more than `size` slots are taken: one in `_begin` for each message, given back in `_freed`,
   both nowhere else. Only after `set_size` to less may there be more, until they have ended. A slot
   whose process has succeeded and is only being acknowledged is not counted; there are never more
   than `size` of those either.
2. Slots ask for work: messages are claimed only where slots are free for them, and what comes when
   they no longer are goes back as it was.
3. Every claimed message ends as `runner` says.
4. After `stop` nothing is left: no process, no timer, no wait.
"""

from collections.abc import Callable, Coroutine
from contextlib import suppress
from heapq import heappop, heappush
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorProcess, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from queuerelay.broker.base import Bell, Broker
from queuerelay.config import PoolConfig
from queuerelay.errors import BrokerError, NotConnected
from queuerelay.loop import Loop
from queuerelay.pool.autosize import AutoSize
from queuerelay.pool.child import PIPES
from queuerelay.pool.exits import Stopped
from queuerelay.pool.priority import order
from queuerelay.pool.resque_worker import Presence
from queuerelay.pool.runner import Runner
from queuerelay.pool.settle import GivenUp
from queuerelay.pool.sizing import INTERVAL
from queuerelay.pool.slot import Slot
from queuerelay.pool.snapshot import PoolSnapshot
from queuerelay.pool.upkeep import Upkeep
from queuerelay.wire.claim import Claim

#: Most messages claimed in one step: while it answers that, Redis answers nobody else.
MOST: Final = 64
#: Seconds between two tries to claim where Redis says no.
PAUSE: Final = 1.0
#: Seconds after the last script in which a pool that stops still settles what they did.
SETTLE: Final = 5.0


class Pool:
    """One pool of ``script`` mode; `start` and `stop` once each.

    `holder` is ``hostname:pid`` of this process.
    """

    _log = Logger()

    def __init__(
        self,
        config: PoolConfig,
        broker: Broker,
        *,
        processes: IReactorProcess,
        clock: IReactorTime,
        wall_clock: Callable[[], float],
        holder: str,
    ) -> None:
        self.config = config
        self._broker = broker
        self._clock = clock
        self._holder = holder
        self._runner = Runner(
            config,
            broker,
            processes=processes,
            clock=clock,
            wall_clock=wall_clock,
            holder=holder,
        )
        self._runner.on_settling = self._freed
        self._runner.rest.on_over = self._wake
        self._slots: list[Slot] = []
        #: How many slots have a message that is worked on.
        self.busy = 0
        #: Numbers of slots that were given back; those above them have never been taken.
        self._numbers: list[int] = []
        worker_id = f"queuerelay.{holder}:{','.join(config.queues)}"
        self._upkeep = Upkeep(
            config,
            broker,
            self._slots,
            Presence(broker, worker_id, config.queues, self._runner.tally),
            clock=clock,
            wall_clock=wall_clock,
        )
        self._upkeep.on_pause = self._wake
        self._auto_size = AutoSize(config, broker, clock=clock, wall_clock=wall_clock)
        self._size = config.size
        #: When all slots were last taken, or their number changed, in clock seconds.
        self._idle_since = clock.seconds()
        self._draining = self._stopping = False
        self._bell: Bell | None = None
        self._filling: Deferred[None] | None = None
        #: What `_fill` waits for; cancelled to let it look again.
        self._waiting: Deferred[None] | None = None
        #: What it waits for where no slot is free.
        self._no_room: Deferred[None] | None = None
        #: Messages that are not settled yet, those of slots and those that go straight back.
        self._runs: set[Deferred[None]] = set()
        #: Fires when there are none.
        self._done: Deferred[None] | None = None
        self._stopped: Deferred[None] | None = None
        #: Ends what runs when the drain time is over, and all waits when they were long enough.
        self._late: IDelayedCall | None = None
        self._last: IDelayedCall | None = None
        self._resizing: Loop | None = None
        if config.min != config.max:
            self._resizing = Loop(f"size of {config.name}", INTERVAL, self._resize, clock=clock)

    # Life

    def start(self) -> None:
        """Begin to take messages."""
        self._bell = self._broker.bell(self.config.queues)
        self._upkeep.start()
        if self._resizing is not None:
            self._resizing.start()
        self._filling = Deferred.fromCoroutine(self._fill())

    def drain(self) -> None:
        """Take no more messages; what runs goes on."""
        self._draining = True
        self._wake()

    def resume(self) -> None:
        """Take messages again."""
        self._draining = False
        self._wake()

    def stop(self, drain: float = 0.0) -> Deferred[None]:
        """Take no more messages, give what runs `drain` seconds, then end it: TERM, grace, KILL.

        Fires when nothing is left running and everything is settled; what Redis does not let us
        settle is given up `SETTLE` seconds after the last script had to be gone.
        """
        if self._stopped is None:
            self._stopped = Deferred.fromCoroutine(self._stop(drain))
        stopped: Deferred[None] = Deferred()
        self._stopped.addBoth(_tell, stopped)
        return stopped

    async def _stop(self, drain: float) -> None:
        self._stopping = True
        self._wake()
        if self._filling is not None:
            self._late = self._clock.callLater(drain, self.hurry)
            await self._filling
        while self._runs:
            self._done = Deferred()
            await self._done
        for timer in (self._late, self._last):
            if timer is not None and timer.active():
                timer.cancel()
        if self._resizing is not None:
            await self._resizing.stop()
        if self._bell is not None:
            await self._bell.stop()
        await self._upkeep.stop()

    def hurry(self) -> None:
        """End at once what runs, where the pool is stopping: the drain time is over."""
        if not self._stopping or self._last is not None:
            return
        for slot in self._slots:
            if slot.child is not None:
                slot.child.end(Stopped.SHUTDOWN)
        patience = max(PIPES, self.config.grace) + SETTLE
        self._last = self._clock.callLater(patience, self._runner.settler.give_up)

    # Size

    @property
    def size(self) -> int:
        """How many messages are worked on at a time."""
        return self._size

    def set_size(self, size: int) -> None:
        """Change the size, at least 0; what runs above it ends by itself.

        For a pool that follows its backlog it is where it goes on from.
        """
        size = max(0, size)
        if size == self._size:
            return
        self._log.info(
            "pool {pool}: {old} slots, now {new}", pool=self.config.name, old=self._size, new=size
        )
        self._size = size
        self._idle_since = self._clock.seconds()
        self._wake()

    def _resize(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._resized())

    async def _resized(self) -> None:
        queues = self._upkeep.open_queues
        if not (self._takes and queues):
            # More slots would not help.
            return
        self.set_size(
            await self._auto_size.ask(
                queues,
                lambda: self._size,
                lambda: self.busy,
                self._clock.seconds() - self._idle_since,
            )
        )

    # Taking messages

    @property
    def _takes(self) -> bool:
        return not (self._draining or self._upkeep.paused or self._stopping)

    @property
    def _room(self) -> int:
        """How many messages may be taken now."""
        if not self._takes:
            return 0
        # No more than `size` are being acknowledged: where Redis is slow, we are.
        free = max(0, min(self._size - self.busy, 2 * self._size - len(self._slots)))
        return self._runner.rest.fits(free, (slot.since for slot in self._slots))

    async def _fill(self) -> None:
        """Claim as many messages as there is room for, until the pool stops."""
        while not self._stopping:
            try:
                await self._fill_once()
            except NotConnected:
                if not await self._wait(self._broker.when_up()):
                    # It is stopped, or we were woken; either way not again at once.
                    await self._wait(deferLater(self._clock, PAUSE))
            except BrokerError:
                await self._wait(deferLater(self._clock, PAUSE))
            except Exception:
                self._log.failure("pool {pool} cannot take messages", pool=self.config.name)
                await self._wait(deferLater(self._clock, PAUSE))

    async def _fill_once(self) -> None:
        room = self._room
        if not room:
            left = self._runner.rest.left
            if left:
                await self._wait(deferLater(self._clock, left))
            elif not self._stopping:
                # Somebody wakes us when there is room: after each job, so it is not by a cancel,
                # which costs an exception.
                self._no_room = Deferred()
                try:
                    await self._no_room
                finally:
                    self._no_room = None
            return
        claims = await self._broker.leases.claim_many(
            order(self.config.queues, self.config.weights),
            holder=self._holder,
            lease=self.config.lease,
            most=min(room, MOST),
        )
        if not claims:
            assert self._bell is not None
            await self._wait(self._bell.wait())
            return
        # There may be less room by now.
        room = self._room
        for claim in reversed(claims[room:]):
            # The last first, each at the head: in the order in which they were.
            self._keep(self._give_back(claim))
        for claim in claims[:room]:
            self._begin(claim)

    async def _wait(self, until: Deferred[None]) -> bool:
        """Wait for `until`, or until `_wake`; gives whether it came."""
        self._waiting = until
        if self._stopping:
            until.cancel()
        try:
            await until
        except (CancelledError, NotConnected):
            return False
        finally:
            self._waiting = None
        return True

    def _wake(self) -> None:
        no_room, self._no_room = self._no_room, None
        if no_room is not None:
            no_room.callback(None)
        elif self._waiting is not None:
            self._waiting.cancel()

    def _begin(self, claim: Claim) -> None:
        self.busy += 1
        number = heappop(self._numbers) if self._numbers else self.busy
        slot = Slot(number=number, claim=claim, since=self._clock.seconds())
        self._slots.append(slot)
        self._keep(self._run(slot))

    async def _run(self, slot: Slot) -> None:
        try:
            await self._runner.run(slot)
        finally:
            self._slots.remove(slot)
            if slot.settling:
                self._wake()
            else:
                self._freed(slot)

    def _freed(self, slot: Slot) -> None:
        """Nothing of it runs any more: there is room for another."""
        if self.busy >= self._size:
            self._idle_since = self._clock.seconds()
        self.busy -= 1
        heappush(self._numbers, slot.number)
        self._wake()

    async def _give_back(self, claim: Claim) -> None:
        # Where that is not possible its lease expires.
        with suppress(BrokerError, GivenUp):
            await self._runner.settler.put_back(claim)

    def _keep(self, coroutine: Coroutine[Deferred[Any], Any, None]) -> None:
        """Know of it until it ends."""
        run = Deferred.fromCoroutine(coroutine)
        self._runs.add(run)
        run.addBoth(self._ended, run)

    def _ended(self, result: object, run: Deferred[None]) -> None:
        self._runs.discard(run)
        if not self._runs and self._done is not None:
            done, self._done = self._done, None
            done.callback(None)

    def loops(self) -> list[Loop]:
        """What it does again and again."""
        resizing = [] if self._resizing is None else [self._resizing]
        return [*self._upkeep.loops, *resizing]

    # For operators

    def stop_job(self, message: str, *, kill: bool = False) -> bool:
        """End the script that works on `message`, which then has failed; False where none does."""
        for slot in self._slots:
            if slot.message == message and slot.child is not None and slot.child.alive:
                if kill:
                    slot.child.kill(Stopped.REQUESTED)
                else:
                    slot.child.end(Stopped.REQUESTED)
                return True
        return False

    def snapshot(self) -> PoolSnapshot:
        """What it is doing now."""
        now, tally = self._clock.seconds(), self._runner.tally
        resting = self._runner.rest.reason
        if not self._upkeep.open_queues:
            resting = "all its queues are paused"
        if self._upkeep.paused:
            resting = "all workers are paused"
        if self._draining or self._stopping:
            resting = "draining"
        return PoolSnapshot(
            name=self.config.name,
            queues=self.config.queues,
            size=self._size,
            min=self.config.min,
            max=self.config.max,
            resting=resting,
            slots=[slot.snapshot(now) for slot in self._slots],
            exits=list(tally.exits),
            counters=dict(tally.counters),
            rates=tally.rates(now),
            busy=self.busy,
            left=dict(tally.left),
            durations=tally.durations(self.config.queues),
        )


def _tell(result: object, other: Deferred[None]) -> object:
    other.callback(None)
    return result
