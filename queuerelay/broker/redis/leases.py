"""Messages in flight on Redis: leases by the time of Redis, and what ends them.

Invariant: a script that ends a lease compares its token first, so it may run twice, and is sent
again until Redis has answered.
"""

import secrets
from collections.abc import Sequence

from twisted.internet.defer import Deferred

from queuerelay.broker.insist import insist
from queuerelay.broker.records import REPLY_LIFE, Claim
from queuerelay.broker.redis.connection import RedisConnection
from queuerelay.broker.redis.protocol import Answer
from queuerelay.wire.keys import Keys


class RedisLeases:
    """See `queuerelay.broker.base.LeasesPart`."""

    def __init__(self, commands: RedisConnection, keys: Keys) -> None:
        self._commands = commands
        self._keys = keys

    def claim_many(
        self, queues: Sequence[str], *, holder: str, lease: float, most: int
    ) -> Deferred[list[Claim]]:
        """Take the first `most` messages, in the order of `queues`, in one step."""
        tokens = [secrets.token_hex(16) for _ in range(most)]

        def claimed(answer: Answer) -> list[Claim]:
            now, *found = answer
            return [
                Claim(
                    queue=queues[index - 1],
                    token=token,
                    message=message,
                    since=now / 1000,
                    holder=holder,
                )
                for token, index, message in zip(tokens, found[::2], found[1::2], strict=False)
            ]

        return self._commands.script(
            "claim_many",
            self._keys.claim(queues),
            [int(lease * 1000), holder, *queues, *tokens],
        ).addCallback(claimed)

    def renew(self, queue: str, tokens: Sequence[str], *, lease: float) -> Deferred[list[bool]]:
        """Prolong leases to `lease` seconds from now."""
        return self._commands.script(
            "renew", self._keys.lease(queue), [int(lease * 1000), *tokens]
        ).addCallback(lambda answer: [held == 1 for held in answer])

    def ack(
        self, claim: Claim, *, reply_to: str | None = None, reply: bytes = b""
    ) -> Deferred[bool]:
        """End the claim, and send the reply in the same step."""
        keys = self._keys.lease(claim.queue)
        args: list[object] = [claim.token]
        if reply_to is not None:
            keys.append(reply_to)
            args += [reply, self._reply_life(reply_to)]
        return self._insist("ack", keys, args)

    def retry(self, claim: Claim, message: bytes) -> Deferred[bool]:
        """End the claim, and put `message` at the head of its queue."""
        keys = [*self._keys.lease(claim.queue), self._keys.queue(claim.queue)]
        return self._insist("retry", keys, [claim.token, message])

    def fail(
        self, claim: Claim, entry: bytes, *, reply_to: str | None = None, reply: bytes | None = None
    ) -> Deferred[bool]:
        """End the claim, and append `entry` to the dead letters."""
        keys = [*self._keys.lease(claim.queue), self._keys.failed]
        args: list[object] = [claim.token, entry]
        if reply_to is not None and reply is not None:
            keys.append(reply_to)
            args += [reply, self._reply_life(reply_to)]
        return self._insist("fail", keys, args)

    def reap(self, queue: str, *, lease: float, most: int = 100) -> Deferred[list[Claim]]:
        """Take over messages whose lease has expired."""

        def reaped(answer: Answer) -> list[Claim]:
            claims = []
            for token, message, meta in answer:
                since, _, holder = meta.decode("utf-8", "replace").partition(" ")
                claims.append(
                    Claim(
                        queue=queue,
                        token=token.decode("ascii"),
                        message=message,
                        since=int(since) / 1000 if since.isdigit() else 0.0,
                        holder=holder,
                    )
                )
            return claims

        prefix = secrets.token_hex(16) + "."
        return self._commands.script(
            "reap", self._keys.lease(queue), [prefix, int(lease * 1000), most]
        ).addCallback(reaped)

    def _reply_life(self, reply_to: str) -> int:
        """Seconds that a reply waits for a relay that may be gone; the user's own lists stay."""
        return REPLY_LIFE if reply_to.startswith(self._keys.inbox("")) else 0

    def _insist(self, name: str, keys: Sequence[str], args: Sequence[object]) -> Deferred[bool]:
        """Run a script that may run twice, over any number of lost connections."""

        def send() -> Deferred[bool]:
            return self._commands.script(name, keys, args).addCallback(lambda held: held == 1)

        return insist(send, self._commands.when_up)
