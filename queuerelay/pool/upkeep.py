"""What a pool sees to every few seconds, beside claiming messages."""

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred, gatherResults

from queuerelay.broker.reaper import REAP_INTERVAL, Reaper
from queuerelay.config import PoolConfig
from queuerelay.loop import Loop
from queuerelay.pool.exits import EndReason
from queuerelay.pool.resque_worker import Presence
from queuerelay.pool.runtime import Runtime
from queuerelay.pool.slot import PoolSlot

#: Seconds between two looks for delayed messages that are due.
PROMOTE_INTERVAL: Final = 0.5
#: Seconds between two looks at what others want of us: pauses, a client that left.
LOOK_INTERVAL: Final = 1.0


class Upkeep:
    """Renews the leases of the messages in `slots`, ends scripts whose client or lease is gone,
    takes over from dead pools, brings delayed messages back, and shows the pool to Resque's tools.
    """

    def __init__(
        self,
        config: PoolConfig,
        runtime: Runtime,
        slots: Sequence[PoolSlot],
        presence: Presence,
    ) -> None:
        broker, clock = runtime.broker, runtime.clock
        self._queues = config.queues
        self._lease = config.lease
        self._kill_unwanted = config.client_gone == "kill"
        self._broker = broker
        self._slots = slots
        self._presence = presence
        self._reaper = Reaper(broker, config.queues, tries=config.tries, kept=runtime.kept)
        #: Whether somebody has paused all workers.
        self.paused = False
        #: Called when that has changed.
        self.on_pause: Callable[[], object] = lambda: None
        #: Its queues that are not paused, as seen last. Claims leave the others out by themselves.
        self.open_queues: Sequence[str] = config.queues
        self._loops = [
            Loop(f"renew of {config.name}", config.lease / 3, self._renew, clock=clock),
            Loop(f"reap of {config.name}", REAP_INTERVAL, self._reap, clock=clock),
            Loop(f"promote of {config.name}", PROMOTE_INTERVAL, self._promote, clock=clock),
            Loop(f"look of {config.name}", LOOK_INTERVAL, self._look, clock=clock),
        ]

    @property
    def loops(self) -> list[Loop]:
        """What a pool sees to again and again."""
        return self._loops

    def start(self) -> None:
        """Begin."""
        for loop in self._loops:
            loop.start()

    def stop(self) -> Deferred[None]:
        """Fires when nothing is under way."""
        stopped = gatherResults([loop.stop() for loop in self._loops])
        self._presence.leave()
        return stopped.addCallback(lambda _: None)

    def _renew(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._renewed())

    async def _renewed(self) -> None:
        by_queue: dict[str, list[PoolSlot]] = {}
        for slot in self._slots:
            by_queue.setdefault(slot.claim.queue, []).append(slot)
        for queue, slots in by_queue.items():
            tokens = [slot.claim.token for slot in slots]
            held = await self._broker.leases.renew(queue, tokens, lease=self._lease)
            for slot, is_held in zip(slots, held, strict=True):
                if not is_held and slot.child is not None:
                    slot.child.end(EndReason.LEASE_LOST)

    def _reap(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._reaped())

    async def _reaped(self) -> None:
        # When this process was frozen for longer than a lease, its own have expired and may still
        # be there: it takes them up again, not over.
        await self._renewed()
        await self._reaper.reap()

    def _promote(self) -> Deferred[int]:
        return self._broker.delayed.promote(self._queues)

    def _look(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._looked())

    async def _looked(self) -> None:
        oldest = min(self._slots, key=lambda slot: slot.since, default=None)
        self._presence.tell(oldest.claim if oldest is not None else None)
        paused = await self._broker.registry.all_paused()
        if paused != self.paused:
            self.paused = paused
            self.on_pause()
        waited_for = [slot for slot in self._slots if slot.client_waits]
        if self._kill_unwanted and waited_for:
            gone = await self._broker.clients.which_gone([slot.message for slot in waited_for])
            for slot in waited_for:
                if slot.message in gone and slot.child is not None:
                    slot.child.end(EndReason.CLIENT_GONE)
        gates = await self._broker.gate.look(self._queues)
        self.open_queues = [queue for queue in self._queues if queue not in gates]
