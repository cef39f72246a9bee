"""The list of nodes on Redis, and one look at all that Redis knows of everybody.

Invariants:

1. A node that is silent is buried by any other, and its inbox gets a last term instead of vanishing
   at once.
2. A survey is two round trips whatever there is, and what they bring is bounded (`MOST`).
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from queuerelay.broker.records import (
    NODE_SILENCE,
    SNAPSHOT_LIFE,
    NodeBeat,
    Survey,
    WrongType,
)
from queuerelay.broker.redis.clock import RedisClock, steady
from queuerelay.broker.redis.connection import RedisConnection
from queuerelay.broker.redis.inbox import RedisInbox
from queuerelay.broker.redis.protocol import checked
from queuerelay.errors import BrokerError, NotConnected
from queuerelay.wire import storage
from queuerelay.wire.commands import REPLY_LIFE, Command, beat, bury
from queuerelay.wire.keys import Keys
from queuerelay.wire.server import of_hello

#: How many nodes, queues and workers are looked at, each; where there are more, any of them.
MOST: Final = 1000


class RedisNodes:
    """See `queuerelay.broker.base.NodesPart`. `inbox` knows whether there is a legacy list; `asked`
    is what Redis is asked of its storage.
    """

    _log = Logger()

    def __init__(
        self,
        commands: RedisConnection,
        keys: Keys,
        inbox: RedisInbox,
        *,
        asked: Sequence[Command],
        clock: RedisClock,
    ) -> None:
        self._commands = commands
        self._keys = keys
        self._inbox = inbox
        self._asked = asked
        self._clock = clock
        self._scan_cursor: bytes = b"0"

    def connected(self) -> None:
        """The other side may be another Redis now: walk its keys from their beginning."""
        self._scan_cursor = b"0"

    def beat(self, node_id: str, snapshot: bytes, *, inbox_life: float) -> Deferred[None]:
        """Say that the node lives, publish its snapshot, and bury nodes that are silent."""
        return Deferred.fromCoroutine(self._beat(node_id, snapshot, inbox_life))

    async def _beat(self, node_id: str, snapshot: bytes, inbox_life: float) -> None:
        # Without it, as where TIME is not allowed, the last offset holds.
        self._clock.measure(self._commands).addErrback(lambda failure: failure.trap(BrokerError))
        dead = await self._commands.run(
            beat(
                self._keys,
                node_id,
                snapshot,
                life=SNAPSHOT_LIFE,
                inbox_life=inbox_life,
                silence=NODE_SILENCE,
            )
        )
        for other in dead:
            if await self._bury(other, NODE_SILENCE, inbox_life):
                self._log.info("node {node} has been silent too long; dropped", node=other)
        await self._sweep(NODE_SILENCE, inbox_life)

    async def _bury(self, node_id: str, silence: float, inbox_life: float) -> bool:
        """Take the node off the list unless it spoke within `silence` seconds."""
        legacy = self._inbox.legacy
        return await self._commands.run(
            bury(self._keys, node_id, silence=silence, inbox_life=inbox_life, legacy=legacy)
        )

    async def _sweep(self, silence: float, inbox_life: float) -> None:
        """One step of a walk over all keys, for what nodes that are not listed have left.

        An inbox without a term was written by a worker that answered a dead relay: it gets a last
        one, so that none stays. Old replies that a relay took and did not sort go back. A queue
        with messages in flight or delayed is listed, for `unsettled`.
        """
        keys, inbox, taken = self._keys, self._keys.inbox(""), self._keys.legacy_inbox("")
        held = keys.inflight(""), keys.delayed("")
        self._scan_cursor, found = await self._commands.call(
            "SCAN", self._scan_cursor, "MATCH", _glob(keys.prefix) + "*", "COUNT", 250
        )
        for key in found:
            text = key.decode("utf-8", "replace")
            if text.startswith(held):
                # Others may claim from queues that are not listed: then nobody would look after
                # what they leave.
                queue = text.removeprefix(held[0]).removeprefix(held[1])
                await self._commands.call("SADD", keys.queues, queue)
            prefix = next((one for one in (inbox, taken) if text.startswith(one)), None)
            if prefix is None or (prefix == taken and self._inbox.legacy is None):
                continue
            node = text.removeprefix(prefix)
            if await self._commands.call("ZSCORE", keys.nodes, node) is None:
                await self._bury(node, silence, inbox_life)

    def leave(self, node_id: str) -> Deferred[None]:
        """Take the node off the list, and delete its inbox."""
        return Deferred.fromCoroutine(self._leave(node_id))

    async def _leave(self, node_id: str) -> None:
        # Less than no silence: it spoke just now. What its own reader takes from the legacy list
        # after this, the others' sweep gives back.
        await self._bury(node_id, -1.0, REPLY_LIFE)
        keys = self._keys
        await self._commands.call("DEL", keys.node(node_id), keys.inbox(node_id))

    def survey(self) -> Deferred[Survey]:
        """What Redis knows of everybody."""
        return Deferred.fromCoroutine(self._survey())

    async def _survey(self) -> Survey:
        keys, began = self._keys, steady()
        answers = await self._commands.pipeline(
            ("TIME",),
            ("HELLO",),
            ("ZREVRANGE", keys.nodes, 0, MOST - 1, "WITHSCORES"),
            ("SRANDMEMBER", keys.queues, MOST),
            ("SRANDMEMBER", keys.workers, MOST),
            ("SCARD", keys.workers),
            ("GET", keys.stat("processed")),
            ("GET", keys.stat("failed")),
            ("LLEN", keys.failed),
            ("GET", keys.dropped),
            ("GET", keys.pause_all),
            *self._asked,
        )
        latency = steady() - began
        told: list[Any] = [None if isinstance(one, BrokerError) else one for one in answers]
        time, hello, nodes, queues, workers, total = told[:6]
        processed, failed, dead_letters, dropped, paused, *stored = told[6:]
        server = of_hello(hello)
        if server.role == "replica":
            # It was demoted, and who only looks would never hear of it.
            reason = "it is a replica now, and the master is needed"
            self._commands.drop(reason)
            raise NotConnected(reason)
        now = int(time[0]) + int(time[1]) / 1e6 if time else 0.0
        beats = list(zip(map(_text, nodes[::2]), nodes[1::2], strict=True)) if nodes else []
        ids = sorted(map(_text, workers or ()))
        snapshots, working = await self._second([name for name, _ in beats], ids)
        return Survey(
            latency=latency,
            version=server.version or None,
            storage=storage.of(stored),
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
            dead_letters=dead_letters or 0,
            dropped=_count(dropped) or 0,
            paused=paused == b"true",
        )

    def unsettled(self) -> Deferred[list[str]]:
        """The queues that have messages in flight or delayed, of those that are listed."""
        return Deferred.fromCoroutine(self._unsettled())

    async def _unsettled(self) -> list[str]:
        keys = self._keys
        listed = await self._commands.call("SRANDMEMBER", keys.queues, MOST)
        queues = sorted(map(_text, listed))
        looks = [("EXISTS", keys.inflight(queue), keys.delayed(queue)) for queue in queues]
        # In one command first: mostly there are none.
        if not queues or not await self._commands.call(
            "EXISTS", *(key for look in looks for key in look[1:])
        ):
            return []
        found = await self._commands.pipeline(*looks)
        return [queue for queue, keys in zip(queues, found, strict=True) if checked(keys)]

    def wrong_types(
        self, queues: Sequence[str], relays: Sequence[str] = ()
    ) -> Deferred[list[WrongType]]:
        """The keys of `queues` and `relays`, and those that all need, of the wrong type."""
        return Deferred.fromCoroutine(self._wrong_types(self._keys.types(queues, relays)))

    async def _wrong_types(self, types: dict[str, str]) -> list[WrongType]:
        answers = await self._commands.pipeline(*(("TYPE", key) for key in types))
        found = []
        for (key, expected), answer in zip(types.items(), answers, strict=True):
            # What may not be looked at is not known to be wrong.
            is_ = expected if isinstance(answer, BrokerError) else _text(answer)
            if is_ not in ("none", expected):
                found.append(WrongType(key=key, type=is_, expected=expected))
        return found

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


def _glob(text: str) -> str:
    """`text` as a pattern that matches only itself."""
    return re.sub(r"([*?\[\]\\^])", r"\\\1", text)
