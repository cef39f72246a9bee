"""Waiting for work on Redis without polling, without taking any, and without losing any.

Invariants:

1. ``BLMOVE list list LEFT LEFT`` blocks until there is a message and leaves it where it is.
2. A peek is under way only while somebody waits. One that is no longer wanted is left to its end
   and rings for nobody: nothing is cancelled.
3. A ring says *look*: it may come for nothing, and `BELL_WAIT` bounds what a lost one costs.
"""

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import CancelledError, Deferred, fail, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from queuerelay.broker.base import BELL_WAIT
from queuerelay.broker.connection import RedisConnection
from queuerelay.broker.outage import Seldom
from queuerelay.broker.protocol import COMMAND_BOUND
from queuerelay.errors import ConnectionDropped, NotConnected, Refused

#: Seconds that Redis waits for a message before it answers "none".
BLOCK: Final = 2
#: Seconds between two looks where Redis refuses to block (at maxmemory): first and longest.
FIRST_POLL: Final = 0.05
LONGEST_POLL: Final = 0.5


class RedisBell:
    """See `queuerelay.broker.base.Bell`. It has one connection for each of `lists`, from the first
    wait on.
    """

    def __init__(
        self, lists: Sequence[str], *, connect: Callable[[], RedisConnection], clock: IReactorTime
    ) -> None:
        self._clock = clock
        self._waiters: dict[Deferred[None], IDelayedCall] = {}
        self._peeks = [_Peek(one, self, connect(), clock) for one in dict.fromkeys(lists)]
        self._started = False
        #: Fires when all has ended; None before `stop`.
        self._end: Deferred[list[None]] | None = None

    @property
    def waited_for(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiters)

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._end is not None

    def wait(self) -> Deferred[None]:
        """Fires when one of the lists may have a message; see `Bell.wait`."""
        if self.stopped:
            return fail(NotConnected("stopping"))
        waiter: Deferred[None] = Deferred(self._forget)
        self._waiters[waiter] = self._clock.callLater(BELL_WAIT, self._answer, waiter)
        for peek in self._peeks:
            if not self._started:
                peek.connection.start()
            peek.look()
        self._started = True
        return waiter

    def ring(self) -> None:
        """Tell all who wait."""
        for waiter in [*self._waiters]:
            # Not one that an earlier one has cancelled.
            if waiter in self._waiters:
                self._answer(waiter)

    def stop(self) -> Deferred[None]:
        """Wait no more; see `Bell.stop`."""
        if self._end is None:
            self._end = gatherResults([peek.stop() for peek in self._peeks])
            for waiter in [*self._waiters]:
                if waiter in self._waiters:
                    self._forget(waiter)
                    waiter.errback(NotConnected("stopping"))
        ended: Deferred[None] = Deferred()
        self._end.addBoth(lambda _: ended.callback(None))
        return ended

    def _answer(self, waiter: Deferred[None]) -> None:
        self._forget(waiter)
        waiter.callback(None)

    def _forget(self, waiter: Deferred[None]) -> None:
        timer = self._waiters.pop(waiter)
        if timer.active():
            timer.cancel()


class _Peek:
    """Looks at one list for as long as somebody waits."""

    _log = Logger()

    def __init__(
        self, key: str, bell: RedisBell, connection: RedisConnection, clock: IReactorTime
    ) -> None:
        self.connection = connection
        self._key = key
        self._bell = bell
        self._clock = clock
        self._seldom = Seldom(clock)
        self._looking = False
        self._pause: Deferred[None] | None = None

    def look(self) -> None:
        """Begin, where it has not begun."""
        if not self._looking:
            self._looking = True
            looking = Deferred.fromCoroutine(self._look())
            looking.addErrback(lambda failure: self._log.failure("a queue is not watched", failure))

    def stop(self) -> Deferred[None]:
        """Fires when the connection is closed."""
        if self._pause is not None:
            self._pause.cancel()
        return self.connection.stop()

    async def _look(self) -> None:
        poll = FIRST_POLL
        try:
            while self._bell.waited_for:
                try:
                    blocked = await self._block()
                    if blocked:
                        poll = FIRST_POLL
                    else:
                        await self._sleep(poll)
                        poll = min(LONGEST_POLL, 2 * poll)
                except (ConnectionDropped, NotConnected):
                    try:
                        await self.connection.when_up()
                    except NotConnected:
                        return
                except Exception:
                    self._log.failure("watching a queue failed; it goes on")
                    await self._sleep(LONGEST_POLL)
        finally:
            self._looking = False

    async def _block(self) -> bool:
        """Ring when there is a message. False where there is none and Redis did not wait for it."""
        key = self._key
        try:
            found = await self.connection.call(
                "BLMOVE", key, key, "LEFT", "LEFT", BLOCK, bound=BLOCK + COMMAND_BOUND
            )
        except Refused as error:
            reason = str(error.args[0])
        else:
            if found is not None:
                self._bell.ring()
            return True
        if self._seldom.due(reason):
            self._log.warn("Redis refuses what waiting for work needs: {reason}", reason=reason)
        try:
            length = await self.connection.call("LLEN", key)
        except Refused:
            return False
        if length:
            self._bell.ring()
        return bool(length)

    async def _sleep(self, seconds: float) -> None:
        if self._bell.stopped:
            return
        self._pause = deferLater(self._clock, seconds)
        try:
            await self._pause
        except CancelledError:
            pass
        finally:
            self._pause = None
