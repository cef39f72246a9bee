"""Queues on Redis: lists of messages that wait, as Resque keeps them.

Invariant: a message is pushed once, at the tail, and never twice by us; whether a push whose answer
was lost took effect is for the caller to decide.
"""

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from queuerelay.broker.records import QueueDepth
from queuerelay.broker.redis.connection import RedisConnection
from queuerelay.broker.redis.protocol import checked
from queuerelay.errors import BrokerError
from queuerelay.wire.commands import depth
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

    def connected(self) -> None:
        """The other side may be another Redis now, or one that was flushed."""
        self._known.clear()

    def push(self, queue: str, messages: Sequence[bytes]) -> Deferred[int]:
        """Append `messages` in order."""
        key = self._keys.queue(queue)
        if queue in self._known:
            return self._commands.call("RPUSH", key, *messages)
        return Deferred.fromCoroutine(self._first_push(queue, key, messages))

    async def _first_push(self, queue: str, key: str, messages: Sequence[bytes]) -> int:
        """On a new connection, tell ``QUEUE=*`` workers and resque-web of the queue as well."""
        known, length = await self._commands.pipeline(
            ("SADD", self._keys.queues, queue), ("RPUSH", key, *messages)
        )
        if not isinstance(known, BrokerError):
            self._known.add(queue)
        return int(checked(length))

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
