"""Messages that wait for their time, on Redis."""

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from queuerelay.broker.redis.connection import RedisConnection
from queuerelay.wire import commands
from queuerelay.wire.claim import Claim
from queuerelay.wire.keys import Keys


class RedisDelayed:
    """See `queuerelay.broker.base.DelayedPart`. Times are Redis's own, so that all processes
    agree.
    """

    def __init__(self, connection: RedisConnection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    def delay(self, claim: Claim, message: bytes, *, seconds: float) -> Deferred[bool]:
        """End the claim, and keep `message` until `seconds` from now."""
        return self._connection.insist(
            commands.delay(self._keys, claim.queue, claim.token, message, seconds=seconds)
        )

    def promote(self, queues: Sequence[str], *, most: int = 100) -> Deferred[int]:
        """Put messages whose time has come at the head of their queues."""
        return self._connection.run(commands.promote(self._keys, queues, most=most))
