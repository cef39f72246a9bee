"""Messages in flight, in memory."""

import secrets
from collections.abc import Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred

from queuerelay.broker.memory.connection import MemoryConnection
from queuerelay.broker.memory.store import MemoryStore
from queuerelay.wire.claim import Claim


class MemoryLeases:
    """See `queuerelay.broker.base.LeasesPart`."""

    def __init__(self, connection: MemoryConnection, store: MemoryStore) -> None:
        self._connection = connection
        self._store = store

    def claim_many(
        self, queues: Sequence[str], *, holder: str, lease: float, most: int
    ) -> Deferred[list[Claim]]:
        """Take the first `most` messages, in the order of `queues`, in one step."""

        def effect() -> list[Claim]:
            claims: list[Claim] = []
            while len(claims) < most:
                claim = self._store.claim(queues, holder=holder, lease=lease)
                if claim is None:
                    break
                claims.append(claim)
            return claims

        return self._connection.ask(effect)

    def renew(self, queue: str, tokens: Sequence[str], *, lease: float) -> Deferred[list[bool]]:
        """Prolong leases to `lease` seconds from now."""

        def effect() -> list[bool]:
            held = self._store.leases.get(queue, {})
            for token in tokens:
                if token in held:
                    held[token].expires = self._store.seconds() + lease
            return [token in held for token in tokens]

        return self._connection.ask(effect)

    def ack(
        self, claim: Claim, *, reply_to: str | None = None, reply: bytes = b""
    ) -> Deferred[bool]:
        """End the claim, and send the reply in the same step."""

        def effect() -> bool:
            held = self._store.end(claim)
            if held and reply_to is not None:
                self._store.send_reply(reply_to, reply)
            return held

        return self._connection.insist(effect)

    def retry(self, claim: Claim, message: bytes) -> Deferred[bool]:
        """End the claim, and put `message` at the head of its queue."""

        def effect() -> bool:
            held = self._store.end(claim)
            if held:
                self._store.put_at_head(self._store.keys.queue(claim.queue), [message])
            return held

        return self._connection.insist(effect)

    def fail(
        self, claim: Claim, entry: bytes, *, reply_to: str | None = None, reply: bytes | None = None
    ) -> Deferred[bool]:
        """End the claim, and append `entry` to the dead letters."""

        def effect() -> bool:
            held = self._store.end(claim)
            if held:
                self._store.append(self._store.keys.failed, [entry])
                if reply_to is not None and reply is not None:
                    self._store.send_reply(reply_to, reply)
            return held

        return self._connection.insist(effect)

    def reap(
        self, queue: str, *, lease: float, overdue: float = 0.0, most: int = 100
    ) -> Deferred[list[Claim]]:
        """Take over messages whose lease has expired."""

        def effect() -> list[Claim]:
            by = self._store.seconds() - overdue
            held = self._store.leases.get(queue, {})
            expired = sorted(
                (one for one in held.values() if one.expires <= by),
                key=lambda one: one.expires,
            )
            reaped = []
            for old in expired[:most]:
                del held[old.claim.token]
                claim = replace(old.claim, token=secrets.token_hex(16))
                self._store.lease(claim, lease)
                reaped.append(claim)
            return reaped

        return self._connection.ask(effect)
