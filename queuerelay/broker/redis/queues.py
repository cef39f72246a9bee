"""Queues on Redis: lists of messages that wait, as Resque keeps them.

Invariants:

1. A message is pushed once, at the tail, and never twice by us. Each push leaves a note in the same
   step, behind a `Fence`: where its answer was lost with the connection, the next one learns of
   the note whether it was executed, and nothing that comes late is.
2. Only where Redis has lost the fence itself, or another server has taken over, is the outcome of
   a push unknown: what the old master did last may not have come to the new one.
"""

import itertools
from collections.abc import Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from queuerelay.broker.records import QueueDepth
from queuerelay.broker.redis.connection import RedisConnection
from queuerelay.broker.redis.fence import Fence, fenced
from queuerelay.broker.redis.protocol import checked
from queuerelay.broker.redis.successor import Successor
from queuerelay.errors import ConnectionDropped, NotConnected
from queuerelay.wire.commands import Call, depth, push
from queuerelay.wire.keys import Keys

#: Most take-offs sent in one go: each may walk a whole queue.
_TAKE_OFF_BATCH = 100
#: Most queues looked at in one go.
_DEPTHS_BATCH = 100


class RedisQueues:
    """See `queuerelay.broker.base.QueuesPart`."""

    def __init__(self, commands: RedisConnection, keys: Keys) -> None:
        self._commands = commands
        self._keys = keys
        #: The queues that this Redis lists for ``QUEUE=*`` workers, as far as we have told it.
        self._known: set[str] = set()
        self._fence = Fence(commands, keys)
        self._numbers = itertools.count(1)
        #: Pushes that were answered; the next one drops their notes.
        self._answered: list[int] = []
        #: Pushes whose answers were lost with their connection, by number.
        self._unheard: dict[int, Deferred[int | None]] = {}
        self._successor = Successor(commands)
        self._stopped = False

    def connected(self) -> Deferred[None]:
        """Find out what became of pushes, and tell those who wait for it; fires then, also where it
        could not be found out. The other side may be another Redis now, or one that was flushed.
        """
        self._known.clear()
        if not self._fence.token:
            # Who never pushes needs none.
            return succeed(None)
        # First of all that is sent: what comes behind it has the new token.
        return self._raise()

    def stop(self) -> None:
        """There will be no other connection."""
        self._stopped = True
        self._fail_unheard("stopping")

    def push(self, queue: str, messages: Sequence[bytes]) -> Deferred[int | None]:
        """Append `messages` in order."""
        key = self._keys.queue(queue)
        if not self._fence.token:
            self._raise()
        if queue in self._known:
            return self._push(key, messages)
        # On a new connection, tell ``QUEUE=*`` workers and resque-web of the queue as well.
        told = self._commands.call("SADD", self._keys.queues, queue)
        told.addCallbacks(lambda _: self._known.add(queue), lambda _: None)
        return self._push(key, messages)

    def _push(
        self, key: str, messages: Sequence[bytes], *, again: bool = False
    ) -> Deferred[int | None]:
        number = next(self._numbers)
        notes, self._answered = self._answered, []

        def answered(length: int) -> int:
            self._answered.append(number)
            return length

        def failed(failure: Failure) -> Failure | Deferred[int | None]:
            # These may still be there.
            self._answered += notes
            if failure.check(ConnectionDropped) and not self._stopped:
                waiting = self._unheard[number] = Deferred()
                return waiting
            if fenced(failure.value) and not again:
                # Redis does not know the fence any more. Nothing was pushed.
                self._raise()
                return self._push(key, messages, again=True)
            return failure

        pushing = self._commands.run(self._call(key, number, notes, messages))
        return pushing.addCallbacks(answered, failed)

    def _call(
        self, key: str, number: int, notes: Sequence[int], messages: Sequence[bytes]
    ) -> Call[int]:
        return push(key, self._fence.key, self._fence.token, number, notes, messages)

    def _raise(self) -> Deferred[None]:
        self._successor.look()
        return self._fence.up().addCallbacks(self._learned, self._not_learned)

    def _learned(self, noted: frozenset[int] | None) -> None:
        """The fence stands; `noted` are the pushes that were executed."""
        if noted is None:
            self._fail_unheard("and Redis has lost what it knew")
            return
        unheard, self._unheard = self._unheard, {}
        succeeded = self._successor.settle()
        for number, waiting in unheard.items():
            if number in noted:
                self._answered.append(number)
                waiting.callback(None)
            elif succeeded:
                waiting.errback(ConnectionDropped("and another server has taken over"))
            else:
                waiting.errback(NotConnected("the connection was lost before the push came"))

    def _not_learned(self, failure: Failure) -> None:
        """The fence does not stand; the next connection raises it, or the next push."""
        if not failure.check(NotConnected, ConnectionDropped):
            self._fail_unheard(failure.getErrorMessage())

    def _fail_unheard(self, reason: str) -> None:
        unheard, self._unheard = self._unheard, {}
        for waiting in unheard.values():
            waiting.errback(ConnectionDropped(reason))

    def take_off(
        self, queue: str, messages: Sequence[bytes], *, newest: bool = False
    ) -> Deferred[list[bool]]:
        """Remove each message once where nobody has taken it."""
        key, count = self._keys.queue(queue), -1 if newest else 1
        return Deferred.fromCoroutine(self._take_off(key, count, messages))

    async def _take_off(self, key: str, count: int, messages: Sequence[bytes]) -> list[bool]:
        removed: list[bool] = []
        for start in range(0, len(messages), _TAKE_OFF_BATCH):
            batch = messages[start : start + _TAKE_OFF_BATCH]
            answers = await self._commands.pipeline(*(("LREM", key, count, one) for one in batch))
            removed.extend(checked(answer) > 0 for answer in answers)
        return removed

    def depths(self, queues: Sequence[str]) -> Deferred[list[QueueDepth]]:
        """The depth of each of `queues`."""
        return Deferred.fromCoroutine(self._depths(queues))

    async def _depths(self, queues: Sequence[str]) -> list[QueueDepth]:
        depths: list[QueueDepth] = []
        for start in range(0, len(queues), _DEPTHS_BATCH):
            calls = [depth(self._keys, queue) for queue in queues[start : start + _DEPTHS_BATCH]]
            depths += [
                QueueDepth(length=length, oldest_at=oldest_at, delayed=delayed, inflight=inflight)
                for length, oldest_at, delayed, inflight in await self._commands.run_all(calls)
            ]
        return depths
