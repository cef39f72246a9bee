"""What relays tell workers of clients, on Redis: short values that vanish by themselves."""

from collections.abc import Mapping, Sequence

from twisted.internet.defer import Deferred

from queuerelay.broker.redis.connection import RedisConnection
from queuerelay.broker.redis.protocol import checked
from queuerelay.wire.keys import Keys


class RedisClients:
    """See `queuerelay.broker.base.ClientsPart`."""

    def __init__(self, commands: RedisConnection, keys: Keys) -> None:
        self._commands = commands
        self._keys = keys

    def mark_gone(self, ids: Sequence[str], *, life: float) -> Deferred[None]:
        """Remember that nobody waits for the requests `ids` any more."""
        return self._set({self._keys.gone(one): b"1" for one in ids}, life)

    def tell_taken(self, taken: Mapping[str, int], *, life: float) -> Deferred[None]:
        """Remember how many bytes of streamed replies their clients took."""
        return self._set({self._keys.taken(id): b"%d" % count for id, count in taken.items()}, life)

    def which_gone(self, ids: Sequence[str]) -> Deferred[set[str]]:
        """Those of the requests `ids` whose clients have left."""
        return Deferred.fromCoroutine(self._which_gone(ids))

    async def _which_gone(self, ids: Sequence[str]) -> set[str]:
        if not ids:
            return set()
        values = await self._commands.call("MGET", *map(self._keys.gone, ids))
        return {one for one, value in zip(ids, values, strict=True) if value is not None}

    def _set(self, values: Mapping[str, bytes], life: float) -> Deferred[None]:
        term = max(1, int(life * 1000))
        commands = [("SET", key, value, "PX", term) for key, value in values.items()]
        return Deferred.fromCoroutine(self._sent(commands))

    async def _sent(self, commands: Sequence[Sequence[object]]) -> None:
        for answer in await self._commands.pipeline(*commands):
            checked(answer)
