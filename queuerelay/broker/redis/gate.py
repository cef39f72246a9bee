"""Which queues are paused, on Redis: one hash for all of them, so that it outlives everybody.

Invariants:

1. A queue is paused where the hash has a field of its name, whatever the value says. The script
   of a claim looks there itself: once `pause` is answered, no claim takes from the queue.
2. A pause stays as it was made, until it is resumed: a second one changes nothing.
"""

from collections.abc import Sequence
from typing import Final

import orjson
from twisted.internet.defer import Deferred, succeed

from queuerelay.broker.records import Gate
from queuerelay.broker.redis.connection import RedisConnection
from queuerelay.wire.commands import pause
from queuerelay.wire.keys import Keys

#: Characters of who paused a queue; anybody may have written the hash.
_BY: Final = 200
#: Unix seconds that no clock shows; beyond it they are none.
_LAST: Final = 1e11


class RedisGate:
    """See `queuerelay.broker.base.GatePart`."""

    def __init__(self, commands: RedisConnection, keys: Keys) -> None:
        self._commands = commands
        self._keys = keys

    def pause(self, queue: str, *, by: str) -> Deferred[bool]:
        """Let nobody claim from `queue` any more, and relays push no more to it."""
        who = orjson.dumps(by[:_BY].encode("utf-8", "replace").decode())
        return self._commands.run(pause(self._keys, queue, who))

    def resume(self, queue: str) -> Deferred[bool]:
        """Undo `pause`."""
        return self._commands.call("HDEL", self._keys.gate, queue).addCallback(lambda was: was == 1)

    def look(self, queues: Sequence[str] | None = None) -> Deferred[dict[str, Gate]]:
        """Those of `queues`, or of all, that are paused."""
        if queues is None:
            return self._commands.call("HGETALL", self._keys.gate).addCallback(_all)
        if not queues:
            # HMGET has no answer to that.
            return succeed({})

        def some(values: Sequence[bytes | None]) -> dict[str, Gate]:
            found = zip(queues, values, strict=True)
            return {queue: decode_gate(value) for queue, value in found if value is not None}

        return self._commands.call("HMGET", self._keys.gate, *queues).addCallback(some)


def decode_gate(value: bytes) -> Gate:
    """A field's value; what is missing or wrong in it is left out."""
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        return Gate(since=0.0, by="")
    since, by = found.get("since"), found.get("by")
    if isinstance(since, bool) or not isinstance(since, int | float) or not 0 < since < _LAST:
        since = 0.0
    return Gate(since=float(since), by=by[:_BY] if isinstance(by, str) else "")


def _all(answer: Sequence[bytes]) -> dict[str, Gate]:
    fields = zip(answer[::2], answer[1::2], strict=True)
    return {name.decode("utf-8", "replace"): decode_gate(value) for name, value in fields}
