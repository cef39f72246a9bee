"""The Redis commands of a worker, as plain tuples: which script, which keys, which arguments."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from queuerelay.wire.keys import Keys
from queuerelay.wire.recovery import Drop, Retry, Verdict
from queuerelay.wire.scripts import source

Command = tuple[str | bytes | int | float, ...]

#: The scripts that a worker runs.
SCRIPTS: Final = ("ack", "claim", "fail", "frame", "reap", "renew", "retry")
#: Seconds after which a relay's inbox may vanish that nobody reads; a living relay prolongs it.
INBOX_LIFE: Final = 3600
#: How many expired leases one reap takes from a queue; the next one takes the next.
REAP_AT_ONCE: Final = 100


@cache
def _sha(name: str) -> str:
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()


def _script(name: str, keys: Sequence[str], *arguments: str | bytes | int) -> Command:
    return ("EVALSHA", _sha(name), len(keys), *keys, *arguments)


def load() -> list[Command]:
    """Makes the scripts known to a server that has been restarted or is new."""
    return [("SCRIPT", "LOAD", source(name)) for name in SCRIPTS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """The commands of one worker for its queues."""

    keys: Keys
    #: In order of priority.
    queues: tuple[str, ...]
    #: Milliseconds for which a claim or a renewal holds a message.
    lease_ms: int
    #: ``hostname:pid``: whose lease it is, for those who find it expired.
    holder: str

    def claim(self, token: str) -> Command:
        """Lease the first message under `token`. Gives [queue from 1, message, ms] or None.

        Paused queues are left out.
        """
        names = self.keys.claim(self.queues)
        return _script("claim", names, token, self.lease_ms, self.holder, *self.queues)

    def find(self, token: str) -> list[Command]:
        """What `token` holds on each queue, message or None; then the time.

        For a claim whose answer was lost with its connection.
        """
        return [*(("HGET", self.keys.inflight(q), token) for q in self.queues), ("TIME",)]

    def renew(self, queue: str, token: str) -> Command:
        """Prolong the lease. Gives [1], or [0] where it is lost."""
        return _script("renew", self.keys.lease(queue), self.lease_ms, token)

    def reap(self, queue: str, tokens: str) -> Command:
        """Take over expired leases, as `tokens` + a number. Gives [token, message, meta]s."""
        return _script("reap", self.keys.lease(queue), tokens, self.lease_ms, REAP_AT_ONCE)

    def reply(self, queue: str, token: str, reply_to: str, reply: bytes) -> Command:
        """Push the reply and end the lease as one. Gives 1, or 0: lease lost, no reply sent."""
        names = [*self.keys.lease(queue), reply_to]
        return _script("ack", names, token, reply, self._life(reply_to))

    def frame(self, queue: str, token: str, reply_to: str, node_id: str, frame: bytes) -> Command:
        """Push a part of a streamed reply; with an empty `frame` nothing. Gives [1, bytes that the
        client has taken], [0, 0] where the lease was lost, [2, 0] where the client has left.
        """
        keys = self.keys
        names = [keys.inflight(queue), reply_to, keys.gone(node_id), keys.taken(node_id)]
        return _script("frame", names, token, frame, self._life(reply_to))

    def drop(self, queue: str, token: str) -> Command:
        """End the lease without a reply. Gives 1, or 0 where it was lost."""
        return _script("ack", self.keys.lease(queue), token, b"", 0)

    def conclude(self, queue: str, token: str, verdict: Verdict) -> Command:
        """End the lease as `verdict` says. Gives 1, or 0 where it was lost."""
        names = self.keys.lease(queue)
        if isinstance(verdict, Drop):
            return self.drop(queue, token)
        if isinstance(verdict, Retry):
            return _script("retry", [*names, self.keys.queue(queue)], token, verdict.message)
        names.append(self.keys.failed)
        life = 0
        if verdict.reply_to is not None:
            names.append(verdict.reply_to)
            life = self._life(verdict.reply_to)
        return _script("fail", names, token, verdict.entry, verdict.reply or b"", life)

    def _life(self, reply_to: str) -> int:
        """Only a relay's inbox may vanish: a list of anyone else's is not ours to expire."""
        return INBOX_LIFE if reply_to.startswith(self.keys.inbox("")) else 0


def peek(queue_key: str, timeout: float) -> Command:
    """Wait up to `timeout` seconds until the list has something, and leave it there.

    From its head to its head: nothing moves, so nothing is lost when the answer is.
    """
    return ("BLMOVE", queue_key, queue_key, "LEFT", "LEFT", timeout)


def is_paused(keys: Keys, queue: str) -> Command:
    """Gives 1 where the queue is paused, else 0."""
    return ("HEXISTS", keys.gate, queue)
