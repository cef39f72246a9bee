"""The loop that claims messages for the free slots of a pool.

Invariants:

1. No more messages are asked for than there is room for at that moment, and none where there is no
   room.
2. At most one claim is under way, and it is never cancelled: what Redis hands over must arrive.
3. While it waits for something that may take its time (a message, a free slot, the end of a rest,
   Redis), it is not `still`. A claim that does not return is, and so is an error of ours until a
   turn has gone well, and an end that nobody asked for.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from queuerelay.broker.base import Bell
from queuerelay.config import PoolConfig
from queuerelay.errors import BrokerError, NotConnected, Refused
from queuerelay.loop import PATIENCE
from queuerelay.pool.priority import prioritized
from queuerelay.pool.runtime import Runtime
from queuerelay.seldom import Seldom
from queuerelay.wire.claim import Claim

#: Most messages claimed in one step: while it answers that, Redis answers nobody else.
MOST: Final = 64
#: Seconds between two tries to claim where Redis says no.
PAUSE: Final = 1.0


class Slots(Protocol):
    """The slots of a pool, as the filling sees them."""

    @property
    def room(self) -> int:
        """How many messages may be taken now."""

    @property
    def rest_left(self) -> float:
        """Seconds until there is room because a rest ends; 0 where it is not for a rest."""

    def take(self, claims: Sequence[Claim]) -> None:
        """Work on `claims`, or give back those for which there is no room by now."""


class Filling:
    """Claims messages for `slots`; `start` and `stop` once each. Health watches it."""

    _log = Logger()

    def __init__(self, config: PoolConfig, runtime: Runtime, slots: Slots) -> None:
        #: What health calls it.
        self.name = f"filling of {config.name}"
        #: Seconds after which it is stuck, where it is `still`.
        self.limit = PATIENCE + 3 * PAUSE
        self._config = config
        self._broker = runtime.broker
        self._clock = runtime.clock
        self._holder = runtime.holder
        self._slots = slots
        self._seldom = Seldom(runtime.clock)
        self._bell: Bell | None = None
        self._running: Deferred[None] | None = None
        self._stopping = False
        #: What is waited for; cancelled to let it look again.
        self._waiting: Deferred[None] | None = None
        #: What is waited for where no slot is free.
        self._no_room: Deferred[None] | None = None
        #: Whether what is waited for may take its time.
        self._idle = True
        #: When it last went on, in clock seconds.
        self._went_on = self._clock.seconds()

    @property
    def still(self) -> float:
        """Seconds since it went on, 0 while it has reason to wait."""
        return 0.0 if self._idle else self._clock.seconds() - self._went_on

    def start(self) -> None:
        """Begin to claim."""
        self._bell = self._broker.bell(self._config.queues)
        self._went_on, self._idle = self._clock.seconds(), False
        self._running = Deferred.fromCoroutine(self._run()).addErrback(self._died)

    def stop(self) -> Deferred[None]:
        """Claim no more; fires when no claim is under way, and nobody waits for a bell."""
        self._stopping = True
        self.wake()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._running is not None and self._bell is not None:
            await self._running
            await self._bell.stop()

    def wake(self) -> None:
        """Look again, whatever is waited for."""
        no_room, self._no_room = self._no_room, None
        if no_room is not None:
            no_room.callback(None)
        elif self._waiting is not None:
            self._waiting.cancel()

    def _died(self, failure: Failure) -> None:
        self._log.failure("pool {pool} takes no messages any more", failure, pool=self._config.name)

    async def _run(self) -> None:
        while not self._stopping:
            try:
                try:
                    await self._turn()
                except NotConnected:
                    if not await self._wait(self._broker.when_up()):
                        # It is stopped, or we were woken; either way not again at once.
                        await self._wait(deferLater(self._clock, PAUSE))
                except BrokerError as error:
                    reason = str(error)
                    # Of a lost connection whoever keeps it tells.
                    if isinstance(error, Refused) and self._seldom.due(reason):
                        self._log.warn(
                            "pool {pool} cannot take messages: {reason}",
                            pool=self._config.name,
                            reason=reason,
                        )
                    await self._wait(deferLater(self._clock, PAUSE))
            except Exception:
                self._log.failure("pool {pool} cannot take messages", pool=self._config.name)
                await self._wait(deferLater(self._clock, PAUSE), idle=False)
        self._idle = True

    async def _turn(self) -> None:
        room = self._slots.room
        if not room:
            left = self._slots.rest_left
            if left:
                await self._wait(deferLater(self._clock, left))
            elif not self._stopping:
                await self._wait_for_room()
            return
        claims = await self._broker.leases.claim_many(
            prioritized(self._config.queues, self._config.weights),
            holder=self._holder,
            lease=self._config.lease,
            most=min(room, MOST),
        )
        if not claims:
            assert self._bell is not None
            await self._wait(self._bell.wait())
            return
        self._slots.take(claims)
        self._went_on = self._clock.seconds()

    async def _wait_for_room(self) -> None:
        # Somebody wakes us when there is room: after each job, so it is not by a cancel, which
        # costs an exception.
        self._no_room = Deferred()
        self._idle = True
        try:
            await self._no_room
        finally:
            self._no_room = None
            self._idle, self._went_on = False, self._clock.seconds()

    async def _wait(self, until: Deferred[None], *, idle: bool = True) -> bool:
        """Wait for `until`, or until `wake`; gives whether it came.

        With `idle` that is time in which there is nothing to do.
        """
        self._waiting = until
        if self._stopping:
            until.cancel()
        self._idle = idle
        try:
            await until
        except (CancelledError, NotConnected):
            return False
        finally:
            self._waiting = None
            if idle:
                self._idle, self._went_on = False, self._clock.seconds()
        return True
