"""Messages that wait for their time, on Redis."""

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from queuerelay.broker.insist import insist
from queuerelay.broker.records import Claim
from queuerelay.broker.redis.connection import RedisConnection
from queuerelay.wire.keys import Keys


class RedisDelayed:
    """See `queuerelay.broker.base.DelayedPart`. Times are Redis's own, so that all processes
    agree.
    """

    def __init__(self, commands: RedisConnection, keys: Keys) -> None:
        self._commands = commands
        self._keys = keys

    def delay(self, claim: Claim, message: bytes, *, seconds: float) -> Deferred[bool]:
        """End the claim, and keep `message` until `seconds` from now."""
        names = [*self._keys.lease(claim.queue), self._keys.delayed(claim.queue)]
        args = [claim.token, message, int(seconds * 1000)]

        def send() -> Deferred[bool]:
            return self._commands.script("delay", names, args).addCallback(lambda held: held == 1)

        return insist(send, self._commands.when_up)

    def promote(self, queues: Sequence[str], *, most: int = 100) -> Deferred[int]:
        """Put messages whose time has come at the head of their queues."""
        keys = self._keys
        names = [name for queue in queues for name in (keys.delayed(queue), keys.queue(queue))]
        return self._commands.script("promote", names, [most])
