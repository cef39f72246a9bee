"""A pool of worker scripts: at most N at a time, judged by their exit status.

Invariants:

1. Never more than `size` slots are taken: one in `_begin` for each message, given back in `_freed`,
   both nowhere else. Only after `set_size` to less may there be more, until they have ended. A slot
   whose process is gone and whose message is only being acknowledged is not counted, nor one of
   which it is not known yet whether the stop ended it; there are never more than `size` of either.
2. Slots ask for work: messages are claimed only where slots are free for them, and what comes when
   they no longer are goes back as it was.
3. Every claimed message ends as `runner` says, once.
4. After `stop` nothing is left: no process, no timer, no wait.
"""

from collections.abc import Coroutine, Sequence
from contextlib import suppress
from heapq import heappop, heappush
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from queuerelay.config import PoolConfig
from queuerelay.errors import BrokerError
from queuerelay.loop import Loop, Watched
from queuerelay.pool.autosize import AutoSize
from queuerelay.pool.child import PIPES
from queuerelay.pool.cooldown import Cooldown
from queuerelay.pool.disposition import Disposition
from queuerelay.pool.exits import EndReason
from queuerelay.pool.filling import Filling
from queuerelay.pool.resque_worker import Presence
from queuerelay.pool.runner import Runner
from queuerelay.pool.runtime import Runtime
from queuerelay.pool.settle import GivenUp, Settler
from queuerelay.pool.sizing import INTERVAL
from queuerelay.pool.slot import PoolSlot
from queuerelay.pool.tally import Tally
from queuerelay.pool.upkeep import Upkeep
from queuerelay.wire.claim import Claim
from queuerelay.wire.node import PoolState

#: Seconds after the last script in which a pool that stops still settles what they did.
SETTLE: Final = 5.0


class Pool:
    """One pool of ``script`` mode; `start` and `stop` once each."""

    _log = Logger()

    def __init__(self, config: PoolConfig, runtime: Runtime) -> None:
        self.config = config
        self._clock = clock = runtime.clock
        self._tally = Tally()
        self._rest = Cooldown(clock)
        self._settler = Settler(runtime.broker, clock, self._tally.left, kept=runtime.kept)
        disposition = Disposition(config, runtime, self._settler, self._rest, self._tally)
        self._misfits = disposition.misfits
        self._stop_sign = runtime.stopping
        self._doubts = runtime.stopping.doubts(config.size)
        self._runner = Runner(config, runtime, disposition, self._rest, self._doubts)
        self._filling = Filling(config, runtime, self)
        self._slots: list[PoolSlot] = []
        worker_id = runtime.worker_id(config.queues)
        presence = Presence(runtime.broker, worker_id, config.queues, self._tally)
        self._upkeep = Upkeep(config, runtime, self._slots, presence)
        disposition.on_settling = self._freed
        self._rest.on_over = self._upkeep.on_pause = self._filling.wake
        #: How many slots have a message that is worked on.
        self.busy = 0
        #: Numbers of slots that were given back; those above them have never been taken.
        self._numbers: list[int] = []
        self._size = config.size
        #: When all slots were last taken, or their number changed, in clock seconds.
        self._idle_since = clock.seconds()
        self._draining = self._stopping = False
        #: Messages that are not settled yet, those of slots and those that go straight back.
        self._runs: set[Deferred[None]] = set()
        #: Fires when there are none.
        self._done: Deferred[None] | None = None
        self._stopped: Deferred[None] | None = None
        #: Ends what runs when the drain time is over, and all waits when they were long enough.
        self._late: IDelayedCall | None = None
        self._last: IDelayedCall | None = None
        self._auto_size = AutoSize(config, runtime)
        self._resizing: Loop | None = None
        if config.min != config.max:
            self._resizing = Loop(f"size of {config.name}", INTERVAL, self._resize, clock=clock)

    # Life

    def start(self) -> None:
        """Begin to take messages."""
        self._upkeep.start()
        if self._resizing is not None:
            self._resizing.start()
        self._filling.start()

    def drain(self) -> None:
        """Take no more messages; what runs goes on."""
        self._draining = True
        self._filling.wake()

    def resume(self) -> None:
        """Take messages again."""
        self._draining = False
        self._filling.wake()

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
        self._stop_sign.announce()
        self._late = self._clock.callLater(drain, self.hurry)
        await self._filling.stop()
        while self._runs:
            self._done = Deferred()
            await self._done
        for timer in (self._late, self._last):
            if timer is not None and timer.active():
                timer.cancel()
        if self._resizing is not None:
            await self._resizing.stop()
        await self._upkeep.stop()

    def hurry(self) -> None:
        """End at once what runs, where the pool is stopping: the drain time is over."""
        if not self._stopping or self._last is not None:
            return
        for slot in self._slots:
            if slot.child is not None:
                slot.child.end(EndReason.SHUTDOWN)
        patience = max(PIPES, self.config.grace) + SETTLE
        self._last = self._clock.callLater(patience, self._settler.give_up)

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
        self._size = self._doubts.most = size
        self._idle_since = self._clock.seconds()
        self._filling.wake()

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

    # Taking messages, as `filling` brings them

    @property
    def _takes(self) -> bool:
        return not (self._draining or self._upkeep.paused or self._stopping)

    @property
    def room(self) -> int:
        """How many messages may be taken now."""
        if not self._takes:
            return 0
        # No more than `size` are being acknowledged: where Redis is slow, we are.
        kept = len(self._slots) - len(self._doubts)
        free = max(0, min(self._size - self.busy, 2 * self._size - kept))
        return self._rest.fits(free, (slot.since for slot in self._slots))

    @property
    def rest_left(self) -> float:
        """Seconds until the pool may try its command again, which could not be run; 0 for now."""
        return self._rest.left

    def take(self, claims: Sequence[Claim]) -> None:
        """Work on `claims`; those for which there is no room by now go back as they were."""
        room = self.room
        for claim in reversed(claims[room:]):
            # The last first, each at the head: in the order in which they were.
            self._keep(self._give_back(claim))
        for claim in claims[:room]:
            self._begin(claim)

    def _begin(self, claim: Claim) -> None:
        self.busy += 1
        number = heappop(self._numbers) if self._numbers else self.busy
        slot = PoolSlot(number=number, claim=claim, since=self._clock.seconds())
        self._slots.append(slot)
        self._keep(self._run(slot))

    async def _run(self, slot: PoolSlot) -> None:
        try:
            await self._runner.run(slot)
        finally:
            self._slots.remove(slot)
            if slot.settling:
                self._filling.wake()
            else:
                self._freed(slot)

    def _freed(self, slot: PoolSlot) -> None:
        """Nothing of the slot runs any more: there is room for another message."""
        if self.busy >= self._size:
            self._idle_since = self._clock.seconds()
        self.busy -= 1
        heappush(self._numbers, slot.number)
        self._filling.wake()

    async def _give_back(self, claim: Claim) -> None:
        # Where that is not possible its lease expires.
        with suppress(BrokerError, GivenUp):
            await self._settler.put_back(claim)

    def _keep(self, coroutine: Coroutine[Deferred[Any], Any, None]) -> None:
        """Run `coroutine`, and know of it until it ends: the pool does not stop before."""
        run = Deferred.fromCoroutine(coroutine)
        self._runs.add(run)
        run.addBoth(self._ended, run)

    def _ended(self, result: object, run: Deferred[None]) -> None:
        self._runs.discard(run)
        if not self._runs and self._done is not None:
            done, self._done = self._done, None
            done.callback(None)

    def loops(self) -> list[Watched]:
        """What the pool does again and again."""
        resizing = [] if self._resizing is None else [self._resizing]
        return [self._filling, *self._upkeep.loops, *resizing]

    # For operators

    def stop_job(self, message: str, *, kill: bool = False) -> bool:
        """End the script that works on `message`, which then has failed; False where none does."""
        for slot in self._slots:
            if slot.message == message and slot.child is not None and slot.child.alive:
                if kill:
                    slot.child.kill(EndReason.REQUESTED)
                else:
                    slot.child.end(EndReason.REQUESTED)
                return True
        return False

    def snapshot(self) -> PoolState:
        """What the pool is doing now."""
        now, tally = self._clock.seconds(), self._tally
        resting = self._rest.reason
        if not self._upkeep.open_queues:
            resting = "all its queues are paused"
        if self._upkeep.paused:
            resting = "all workers are paused"
        if self._draining or self._stopping:
            resting = "draining"
        return PoolState(
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
            unstartable=self._misfits.words(),
            left=dict(tally.left),
            durations=tally.durations(self.config.queues),
        )


def _tell(result: object, other: Deferred[None]) -> object:
    other.callback(None)
    return result
