"""Waiting for work on Redis without polling, without taking any, and without losing any.

Invariants:

1. ``BLMOVE list list LEFT LEFT`` blocks until there is a message and leaves it where it is.
2. A peek is under way only while somebody waits. One that is no longer wanted is left to its end
   and rings for nobody: nothing is cancelled.
3. A ring says *look*: it may come for nothing, and `BELL_WAIT` bounds what a lost one costs.
4. A paused queue does not ring, however much is on it: a peek would end at once, again and again.
   It is asked each `GATE_POLL` seconds whether it still is.
"""

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from queuerelay.backoff import back_off
from queuerelay.broker.records import BELL_WAIT
from queuerelay.broker.redis.connection import RedisConnection
from queuerelay.broker.redis.nap import Nap
from queuerelay.broker.redis.protocol import COMMAND_BOUND, Answer
from queuerelay.errors import ConnectionDropped, NotConnected, Refused
from queuerelay.seldom import Seldom
from queuerelay.waiters import Waiters
from queuerelay.wire.commands import is_paused, wait_for
from queuerelay.wire.keys import Keys

#: Seconds that Redis waits for a message before it answers "none".
BLOCK: Final = 2
#: Seconds between two looks where Redis refuses to block (at maxmemory): first and longest.
FIRST_POLL: Final = 0.05
LONGEST_POLL: Final = 0.5
#: Seconds between two looks whether a queue is still paused.
GATE_POLL: Final = 0.5


class RedisBell:
    """See `queuerelay.broker.base.Bell`. It has one connection for each of `queues`, from the first
    wait on.
    """

    def __init__(
        self,
        queues: Sequence[str],
        *,
        keys: Keys,
        connect: Callable[[], RedisConnection],
        clock: IReactorTime,
    ) -> None:
        self._clock = clock
        self._waiters: Waiters[None] = Waiters()
        self._peeks = [
            _Peek(queue, self, keys, connect(), clock) for queue in dict.fromkeys(queues)
        ]
        self._started = False
        #: Fires when all has ended; None before `stop`.
        self._end: Deferred[list[None]] | None = None

    @property
    def waited_for(self) -> bool:
        """Whether somebody waits."""
        return len(self._waiters) > 0

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._end is not None

    def wait(self) -> Deferred[None]:
        """Fires when one of the queues may have a message; see `Bell.wait`."""
        if self.stopped:
            return fail(NotConnected("stopping"))
        waiter = self._waiters.wait()
        for peek in self._peeks:
            if not self._started:
                peek.connection.start()
            peek.look()
        self._started = True
        return waiter.addTimeout(BELL_WAIT, self._clock, lambda _, __: None)

    def ring(self) -> None:
        """Tell all who wait."""
        self._waiters.fire(None)

    def stop(self) -> Deferred[None]:
        """Wait no more; see `Bell.stop`."""
        if self._end is None:
            self._end = gatherResults([peek.stop() for peek in self._peeks])
            self._waiters.fail(NotConnected("stopping"))
        ended: Deferred[None] = Deferred()
        self._end.addBoth(lambda _: ended.callback(None))
        return ended


class _Peek:
    """Looks at one queue for as long as somebody waits."""

    _log = Logger()

    def __init__(
        self,
        queue: str,
        bell: RedisBell,
        keys: Keys,
        connection: RedisConnection,
        clock: IReactorTime,
    ) -> None:
        self.connection = connection
        self._key = keys.queue(queue)
        self._is_paused = is_paused(keys, queue)
        self._bell = bell
        self._seldom = Seldom(clock)
        #: Whether the queue was paused, when we last heard of it.
        self._paused = False
        self._looking = False
        self._nap = Nap(clock)

    def look(self) -> None:
        """Begin, where it has not begun."""
        if not self._looking:
            self._looking = True
            looking = Deferred.fromCoroutine(self._look())
            looking.addErrback(lambda failure: self._log.failure("a queue is not watched", failure))

    def stop(self) -> Deferred[None]:
        """Fires when the connection is closed."""
        self._nap.cut()
        return self.connection.stop()

    async def _look(self) -> None:
        failures = 0
        try:
            while self._bell.waited_for:
                try:
                    if self._paused:
                        (paused,) = await self._ask(self._is_paused)
                        self._paused = paused == 1
                        if self._paused:
                            await self._sleep(GATE_POLL)
                    elif await self._block():
                        failures = 0
                    else:
                        failures += 1
                        await self._sleep(
                            back_off(failures, first=FIRST_POLL, longest=LONGEST_POLL)
                        )
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
        """Ring when there is a message, unless the queue is paused. False where there is none and
        Redis did not wait for it.
        """
        key = self._key
        # The second is answered after the first: it is as new as the message.
        found, paused = await self._ask(
            wait_for(key, BLOCK),
            self._is_paused,
            bound=BLOCK + COMMAND_BOUND,
        )
        waited, there = True, found is not None
        if isinstance(found, Refused):
            if self._seldom.due(reason := str(found.args[0])):
                self._log.warn("Redis refuses what waiting for work needs: {reason}", reason=reason)
            found, paused = await self._ask(("LLEN", key), self._is_paused)
            waited = there = not isinstance(found, Refused) and found > 0
        self._paused = paused == 1
        if there and not self._paused:
            self._bell.ring()
        return waited

    async def _ask(self, *commands: Sequence[object], bound: float = COMMAND_BOUND) -> list[Answer]:
        """The answers, what Redis refuses as a value among them."""
        answers = await self.connection.pipeline(*commands, bound=bound)
        for answer in answers:
            if isinstance(answer, ConnectionDropped | NotConnected):
                raise answer
        return answers

    async def _sleep(self, seconds: float) -> None:
        if not self._bell.stopped:
            await self._nap.take(seconds)
