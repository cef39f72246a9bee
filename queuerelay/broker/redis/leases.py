"""Messages in flight on Redis: leases by the time of Redis, and what ends them.

Invariant: a script that ends a lease compares its token first, so it may run twice, and is sent
again until Redis has answered.
"""

import secrets
from collections.abc import Sequence

from twisted.internet.defer import Deferred

from queuerelay.broker.redis.connection import RedisConnection
from queuerelay.wire import commands
from queuerelay.wire.claim import Claim
from queuerelay.wire.keys import Keys


class RedisLeases:
    """See `queuerelay.broker.base.LeasesPart`."""

    def __init__(self, connection: RedisConnection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    def claim_many(
        self, queues: Sequence[str], *, holder: str, lease: float, most: int
    ) -> Deferred[list[Claim]]:
        """Take the first `most` messages, in the order of `queues`, in one step."""
        tokens = [secrets.token_hex(16) for _ in range(most)]
        return self._connection.run(
            commands.claim(self._keys, queues, tokens, holder=holder, lease=lease)
        )

    def renew(self, queue: str, tokens: Sequence[str], *, lease: float) -> Deferred[list[bool]]:
        """Prolong leases to `lease` seconds from now."""
        return self._connection.run(commands.renew(self._keys, queue, tokens, lease=lease))

    def ack(
        self, claim: Claim, *, reply_to: str | None = None, reply: bytes = b""
    ) -> Deferred[bool]:
        """End the claim, and send the reply in the same step."""
        return self._connection.insist(
            commands.ack(self._keys, claim.queue, claim.token, reply_to=reply_to, reply=reply)
        )

    def retry(self, claim: Claim, message: bytes) -> Deferred[bool]:
        """End the claim, and put `message` at the head of its queue."""
        return self._connection.insist(
            commands.retry(self._keys, claim.queue, claim.token, message)
        )

    def fail(
        self, claim: Claim, entry: bytes, *, reply_to: str | None = None, reply: bytes | None = None
    ) -> Deferred[bool]:
        """End the claim, and append `entry` to the dead letters."""
        return self._connection.insist(
            commands.fail(
                self._keys, claim.queue, claim.token, entry, reply_to=reply_to, reply=reply
            )
        )

    def reap(
        self, queue: str, *, lease: float, overdue: float = 0.0, most: int = 100
    ) -> Deferred[list[Claim]]:
        """Take over messages whose lease has expired."""
        tokens = secrets.token_hex(16) + "."
        return self._connection.run(
            commands.reap(self._keys, queue, tokens, lease=lease, most=most, overdue=overdue)
        )
