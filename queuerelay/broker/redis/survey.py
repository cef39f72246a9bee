"""One look at all that Redis knows of everybody, for the status room.

Invariant: two round trips whatever there is, and what they bring is bounded (`MOST`).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from queuerelay.broker.base import NodeBeat, Survey
from queuerelay.broker.redis.connection import RedisConnection
from queuerelay.errors import BrokerError
from queuerelay.wire.keys import Keys

#: How many nodes, queues and workers are looked at, each; where there are more, any of them.
MOST: Final = 1000


class Surveyor:
    """Looks around on one connection."""

    def __init__(self, commands: RedisConnection, keys: Keys, *, clock: IReactorTime) -> None:
        self._commands = commands
        self._keys = keys
        self._clock = clock

    def survey(self) -> Deferred[Survey]:
        """See `Broker.survey`."""
        return Deferred.fromCoroutine(self._survey())

    async def _survey(self) -> Survey:
        keys, began = self._keys, self._clock.seconds()
        answers = await self._commands.pipeline(
            ("TIME",),
            ("INFO", "server", "memory"),
            ("ZREVRANGE", keys.nodes, 0, MOST - 1, "WITHSCORES"),
            ("SRANDMEMBER", keys.queues, MOST),
            ("SRANDMEMBER", keys.workers, MOST),
            ("SCARD", keys.workers),
            ("GET", keys.stat("processed")),
            ("GET", keys.stat("failed")),
            ("LLEN", keys.failed),
            ("GET", keys.pause_all),
        )
        latency = self._clock.seconds() - began
        time, info, nodes, queues, workers, total, processed, failed, failures, paused = (
            None if isinstance(answer, BrokerError) else answer for answer in answers
        )
        now = int(time[0]) + int(time[1]) / 1e6 if time else 0.0
        beats = list(zip(map(_text, nodes[::2]), nodes[1::2], strict=True)) if nodes else []
        ids = sorted(map(_text, workers or ()))
        snapshots, working = await self._second([name for name, _ in beats], ids)
        fields = dict(re.findall(r"^(\w+):([^\r\n]*)", _text(info or b""), re.MULTILINE))
        return Survey(
            latency=latency,
            version=_version(fields),
            memory_used=_count(fields.get("used_memory")),
            memory_max=_count(fields.get("maxmemory")) or None,
            nodes={
                name: NodeBeat(age=max(0.0, now - float(beat) / 1000), snapshot=snapshot)
                for (name, beat), snapshot in zip(beats, snapshots, strict=True)
            },
            queues=sorted(map(_text, queues or ())),
            workers=ids,
            workers_total=total or 0,
            working=working,
            processed=_count(processed) or 0,
            failed=_count(failed) or 0,
            failures=failures or 0,
            paused=paused == b"true",
        )

    async def _second(
        self, nodes: Sequence[str], workers: Sequence[str]
    ) -> tuple[Sequence[bytes | None], int]:
        """The snapshots of `nodes`, and how many of `workers` run something."""
        commands: list[Sequence[object]] = []
        if nodes:
            commands.append(("MGET", *map(self._keys.node, nodes)))
        if workers:
            commands.append(("EXISTS", *map(self._keys.worker, workers)))
        if not commands:
            return [], 0
        answers = await self._commands.pipeline(*commands)
        told: list[Any] = [None if isinstance(one, BrokerError) else one for one in answers]
        snapshots = told.pop(0) if nodes else []
        return snapshots or [None] * len(nodes), (told.pop(0) or 0) if workers else 0


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _count(value: str | bytes | None) -> int | None:
    """A whole number as Redis writes it; None where it is none."""
    try:
        return None if value is None else int(value)
    except ValueError:
        return None


def _version(fields: Mapping[str, str]) -> str | None:
    # Valkey says its own version, and beside it the one of Redis that it stands for.
    if "valkey_version" in fields:
        return f"Valkey {fields['valkey_version']}"
    return f"Redis {fields['redis_version']}" if "redis_version" in fields else None
