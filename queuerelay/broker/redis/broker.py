"""The broker on Redis: two connections (three with a legacy list), our keys and our scripts.

What pools need beyond claims is in modules of its own: `bell` (which has connections of its own),
`delayed`, `failures`, `gate`, `orders` and `registry`.
"""

import itertools
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from queuerelay.broker.base import (
    NODE_SILENCE,
    REPLY_LIFE,
    SNAPSHOT_LIFE,
    Bell,
    Claim,
    FailurePage,
    Gate,
    InboxHandler,
    QueueDepth,
    Survey,
)
from queuerelay.broker.insist import insist
from queuerelay.broker.redis.bell import RedisBell
from queuerelay.broker.redis.connection import RedisConnection
from queuerelay.broker.redis.delayed import Delayed
from queuerelay.broker.redis.failures import Failures
from queuerelay.broker.redis.gate import GateHash
from queuerelay.broker.redis.inbox import InboxReader
from queuerelay.broker.redis.orders import Orders
from queuerelay.broker.redis.outage import OutageLog
from queuerelay.broker.redis.protocol import Answer
from queuerelay.broker.redis.registry import Registry
from queuerelay.broker.redis.survey import Surveyor
from queuerelay.errors import BrokerError
from queuerelay.wire.keys import Keys
from queuerelay.wire.url import RedisUrl

#: Most take-offs sent in one go: each may walk a whole queue.
_TAKE_OFF_BATCH = 100
#: Most queues looked at in one go.
_DEPTHS_BATCH = 100


class RedisBroker:
    """See `queuerelay.broker.base.Broker`."""

    _log = Logger()

    def __init__(
        self,
        url: RedisUrl,
        *,
        reactor: IReactorTime,
        keys: Keys | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._url = url
        self._reactor = reactor
        self._keys = keys or Keys()
        self._outages = OutageLog(url.redacted, reactor)
        self._commands = self._connection("commands")
        self._commands.on_up = self._up
        self._readers: list[tuple[RedisConnection, InboxReader]] = []
        self._on_up: list[Callable[[], object]] = []
        self._known_queues: set[str] = set()
        self._legacy: str | None = None
        self._scan_cursor: bytes = b"0"
        self._bells: list[RedisBell] = []
        self._stopped = False
        self._peeks = itertools.count(1)
        self._delayed = Delayed(self._commands, self._keys)
        self._failures = Failures(self._commands, self._keys)
        self._gate = GateHash(self._commands, self._keys)
        self._orders = Orders(self._commands, self._keys)
        self._registry = Registry(self._commands, self._keys, clock=reactor, wall_clock=wall_clock)
        self._surveyor = Surveyor(self._commands, self._keys, clock=reactor)

    def _connection(self, name: str) -> RedisConnection:
        return RedisConnection(self._url, name=name, reactor=self._reactor, outages=self._outages)

    # Life

    @property
    def is_up(self) -> bool:
        """Whether commands can be sent now."""
        return self._commands.is_up

    def start(self) -> None:
        """Begin to connect, and never stop trying."""
        self._commands.start()
        for connection, _ in self._readers:
            connection.start()

    def stop(self) -> Deferred[None]:
        """Fires when nothing is left running."""
        self._stopped = True
        for _, reader in self._readers:
            reader.stop()
        self._registry.flush()
        connections = [self._commands, *(connection for connection, _ in self._readers)]
        stopping = [one.stop() for one in connections] + [bell.stop() for bell in self._bells]
        return gatherResults(stopping).addCallback(lambda _: None)

    def when_up(self) -> Deferred[None]:
        """Fires when commands can be sent; may be cancelled."""
        return self._commands.when_up()

    def on_up(self, callback: Callable[[], object]) -> None:
        """Call `callback` each time that a connection has been made."""
        self._on_up.append(callback)

    def _up(self) -> None:
        # The other side may be another Redis now, or one that was flushed.
        self._known_queues.clear()
        self._scan_cursor = b"0"
        for callback in self._on_up:
            try:
                callback()
            except Exception:
                self._log.failure("a callback for a new connection failed")

    # Queues

    def push(self, queue: str, messages: Sequence[bytes]) -> Deferred[int]:
        """Append `messages` in order; fires with the length of the queue."""
        key = self._keys.queue(queue)
        if queue in self._known_queues:
            return self._commands.call("RPUSH", key, *messages)
        return Deferred.fromCoroutine(self._first_push(queue, key, messages))

    async def _first_push(self, queue: str, key: str, messages: Sequence[bytes]) -> int:
        """On a new connection, tell ``QUEUE=*`` workers and resque-web of the queue as well."""
        known, length = await self._commands.pipeline(
            ("SADD", self._keys.queues, queue), ("RPUSH", key, *messages)
        )
        if not isinstance(known, BrokerError):
            self._known_queues.add(queue)
        return int(_checked(length))

    def take_off(
        self, queue: str, messages: Sequence[bytes], *, newest: bool = False
    ) -> Deferred[list[bool]]:
        """Remove each message once where nobody has taken it; fires with whether it was there."""
        key, count = self._keys.queue(queue), -1 if newest else 1
        return Deferred.fromCoroutine(self._take_off(key, count, messages))

    async def _take_off(self, key: str, count: int, messages: Sequence[bytes]) -> list[bool]:
        removed: list[bool] = []
        for start in range(0, len(messages), _TAKE_OFF_BATCH):
            batch = messages[start : start + _TAKE_OFF_BATCH]
            answers = await self._commands.pipeline(*(("LREM", key, count, one) for one in batch))
            removed.extend(_checked(answer) > 0 for answer in answers)
        return removed

    def depths(self, queues: Sequence[str]) -> Deferred[list[QueueDepth]]:
        """The depth of each of `queues`."""
        return Deferred.fromCoroutine(self._depths(queues))

    async def _depths(self, queues: Sequence[str]) -> list[QueueDepth]:
        depths: list[QueueDepth] = []
        keys = self._keys
        for start in range(0, len(queues), _DEPTHS_BATCH):
            calls = [
                ([keys.queue(queue), keys.delayed(queue), keys.inflight(queue)], ())
                for queue in queues[start : start + _DEPTHS_BATCH]
            ]
            for answer in await self._commands.scripts("depth", calls):
                length, oldest, delayed, inflight = _checked(answer)
                depths.append(
                    QueueDepth(
                        length=length,
                        oldest_at=_seconds(oldest),
                        delayed=delayed,
                        inflight=inflight,
                    )
                )
        return depths

    # Nodes and their inboxes

    def open_inbox(
        self, node_id: str, handler: InboxHandler, *, legacy: tuple[str, InboxHandler] | None = None
    ) -> None:
        """Read replies for `node_id` from now on; before `start`, once."""
        self._read("inbox", self._keys.inbox(node_id), handler, None)
        if legacy is not None:
            self._legacy, handler = legacy
            self._read("legacy", self._keys.legacy_inbox(node_id), handler, self._legacy)

    def _read(self, name: str, key: str, handler: InboxHandler, source: str | None) -> None:
        connection = self._connection(name)
        reader = InboxReader(
            connection, key=key, handler=handler, clock=self._reactor, source=source
        )
        connection.on_up = reader.connected
        self._readers.append((connection, reader))

    def reply(self, node_id: str, replies: Sequence[bytes]) -> Deferred[int]:
        """Append `replies` to a node's inbox; fires with its length."""
        return self._commands.call("RPUSH", self._keys.inbox(node_id), *replies)

    def beat(self, node_id: str, snapshot: bytes, *, inbox_life: float) -> Deferred[None]:
        """Say that the node lives, publish its snapshot, and bury nodes that are silent."""
        return Deferred.fromCoroutine(self._beat(node_id, snapshot, int(inbox_life)))

    async def _beat(self, node_id: str, snapshot: bytes, inbox_life: int) -> None:
        keys, silence = self._keys, int(NODE_SILENCE * 1000)
        dead = await self._commands.script(
            "beat",
            [keys.nodes, keys.node(node_id), keys.inbox(node_id)],
            [node_id, snapshot, int(SNAPSHOT_LIFE * 1000), inbox_life, silence],
        )
        for name in dead:
            other = name.decode("utf-8", "replace")
            if await self._bury(other, silence, inbox_life):
                self._log.info("node {node} has been silent too long; dropped", node=other)
        await self._sweep(silence, inbox_life)

    async def _bury(self, node_id: str, silence: int, inbox_life: int) -> bool:
        """Take the node off the list unless it spoke within `silence` ms."""
        names = [self._keys.nodes, self._keys.inbox(node_id)]
        if self._legacy is not None:
            names += [self._keys.legacy_inbox(node_id), self._legacy]
        answer = await self._commands.script("bury", names, [node_id, silence, inbox_life])
        return bool(answer == 1)

    async def _sweep(self, silence: int, inbox_life: int) -> None:
        """One step of a walk over all keys, for what nodes that are not listed have left.

        An inbox without a term was written by a worker that answered a dead relay: it gets a last
        one, so that none stays. Old replies that a relay took and did not sort go back.
        """
        keys, inbox, taken = self._keys, self._keys.inbox(""), self._keys.legacy_inbox("")
        self._scan_cursor, found = await self._commands.call(
            "SCAN", self._scan_cursor, "MATCH", _glob(keys.prefix) + "*", "COUNT", 250
        )
        for key in found:
            text = key.decode("utf-8", "replace")
            prefix = next((one for one in (inbox, taken) if text.startswith(one)), None)
            if prefix is None or (prefix == taken and self._legacy is None):
                continue
            node = text.removeprefix(prefix)
            if await self._commands.call("ZSCORE", keys.nodes, node) is None:
                await self._bury(node, silence, inbox_life)

    def nodes(self) -> Deferred[dict[str, bytes | None]]:
        """The snapshots of all listed nodes, None where one is silent."""
        return Deferred.fromCoroutine(self._nodes())

    async def _nodes(self) -> dict[str, bytes | None]:
        names = await self._commands.call("ZRANGE", self._keys.nodes, 0, -1)
        texts = [name.decode("utf-8", "replace") for name in names]
        if not texts:
            return {}
        snapshots = await self._commands.call("MGET", *map(self._keys.node, texts))
        return dict(zip(texts, snapshots, strict=True))

    def leave(self, node_id: str) -> Deferred[None]:
        """Take the node off the list, and delete its inbox."""
        return Deferred.fromCoroutine(self._leave(node_id))

    async def _leave(self, node_id: str) -> None:
        # Less than no silence: it spoke just now. What its own reader takes from the legacy list
        # after this, the others' sweep gives back.
        await self._bury(node_id, -1000, REPLY_LIFE)
        keys = self._keys
        await self._commands.call("DEL", keys.node(node_id), keys.inbox(node_id))

    def survey(self) -> Deferred[Survey]:
        """What Redis knows of everybody, the depths of queues and the dead letters apart."""
        return self._surveyor.survey()

    # Leases

    def claim(self, queues: Sequence[str], *, holder: str, lease: float) -> Deferred[Claim | None]:
        """Take the first message of the first of `queues` that has one, for `lease` seconds."""
        token = secrets.token_hex(16)

        def claimed(answer: Answer) -> Claim | None:
            if answer is None:
                return None
            index, message, now = answer
            return Claim(
                queue=queues[index - 1],
                token=token,
                message=message,
                since=now / 1000,
                holder=holder,
            )

        return self._commands.script(
            "claim", self._keys.claim(queues), [token, int(lease * 1000), holder, *queues]
        ).addCallback(claimed)

    def claim_many(
        self, queues: Sequence[str], *, holder: str, lease: float, most: int
    ) -> Deferred[list[Claim]]:
        """Take the first `most` messages, in the order of `queues`, in one step; as `claim`."""
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
        """Prolong leases to `lease` seconds from now; False for those no longer held."""
        return self._commands.script(
            "renew", self._lease(queue), [int(lease * 1000), *tokens]
        ).addCallback(lambda answer: [held == 1 for held in answer])

    def ack(
        self, claim: Claim, *, reply_to: str | None = None, reply: bytes = b""
    ) -> Deferred[bool]:
        """End the claim, and send the reply in the same step. Repeated until it is answered."""
        keys = self._lease(claim.queue)
        args: list[object] = [claim.token]
        if reply_to is not None:
            keys.append(reply_to)
            args += [reply, self._reply_life(reply_to)]
        return self._insist("ack", keys, args)

    def retry(self, claim: Claim, message: bytes) -> Deferred[bool]:
        """End the claim, and put `message` at the head of its queue. Repeated until answered."""
        keys = [*self._lease(claim.queue), self._keys.queue(claim.queue)]
        return self._insist("retry", keys, [claim.token, message])

    def fail(
        self, claim: Claim, entry: bytes, *, reply_to: str | None = None, reply: bytes | None = None
    ) -> Deferred[bool]:
        """End the claim, and append `entry` to the failures. Repeated until answered."""
        keys = [*self._lease(claim.queue), self._keys.failed]
        args: list[object] = [claim.token, entry]
        if reply_to is not None and reply is not None:
            keys.append(reply_to)
            args += [reply, self._reply_life(reply_to)]
        return self._insist("fail", keys, args)

    def reap(self, queue: str, *, lease: float, most: int = 100) -> Deferred[list[Claim]]:
        """Take over messages whose lease has expired, for `lease` seconds."""

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
            "reap", self._lease(queue), [prefix, int(lease * 1000), most]
        ).addCallback(reaped)

    # Orders

    def order(self, node_id: str, order: bytes) -> Deferred[None]:
        """Leave `order` for a node, which takes it within a second."""
        return self._orders.order(node_id, order)

    def take_orders(self, node_id: str) -> Deferred[list[bytes]]:
        """Take what was ordered of this node, the oldest first."""
        return self._orders.take(node_id)

    def report(self, order_id: str, report: bytes) -> Deferred[None]:
        """Say what became of an order."""
        return self._orders.report(order_id, report)

    def reports(self, order_id: str) -> Deferred[list[bytes]]:
        """What nodes have said of an order."""
        return self._orders.reports(order_id)

    # The gate

    def pause(self, queue: str, *, by: str) -> Deferred[bool]:
        """Let nobody claim from `queue` any more, and relays push no more to it."""
        return self._gate.pause(queue, by=by)

    def resume(self, queue: str) -> Deferred[bool]:
        """Undo `pause`; fires with False where the queue was not paused."""
        return self._gate.resume(queue)

    def gates(self, queues: Sequence[str] | None = None) -> Deferred[dict[str, Gate]]:
        """Those of `queues` that are paused; without `queues`, of all that there are."""
        return self._gate.gates(queues)

    # What pools need

    def together(self) -> AbstractContextManager[None]:
        """What is asked for within goes to Redis in one write."""
        return self._commands.together()

    def bell(self, queues: Sequence[str]) -> Bell:
        """A bell for `queues`, with a connection for each from the first wait on."""
        bell = RedisBell(
            queues,
            keys=self._keys,
            connect=lambda: self._connection(f"bell-{next(self._peeks)}"),
            clock=self._reactor,
        )
        self._bells = [one for one in self._bells if not one.stopped] + [bell]
        if self._stopped:
            bell.stop()
        return bell

    def delay(self, claim: Claim, message: bytes, *, seconds: float) -> Deferred[bool]:
        """End the claim, and keep `message` for its queue until `seconds` from now."""
        return self._delayed.delay(claim, message, seconds=seconds)

    def promote(self, queues: Sequence[str], *, most: int = 100) -> Deferred[int]:
        """Put messages whose time has come at the head of their queues."""
        return self._delayed.promote(queues, most=most)

    def failures(
        self, *, start: int = 0, count: int = 50, newest: bool = True
    ) -> Deferred[FailurePage]:
        """`count` dead letters from the `start`-th on, newest or oldest first."""
        return self._failures.page(start=start, count=count, newest=newest)

    def retry_failure(self, which: str | bytes) -> Deferred[bool]:
        """Put the message of a dead letter back at the tail of its queue, as if never tried."""
        return self._failures.retry(which)

    def drop_failure(self, which: str | bytes) -> Deferred[bool]:
        """Take a dead letter out for good."""
        return self._failures.drop(which)

    def retry_failures(self, which: Sequence[str | bytes] | None = None) -> Deferred[int]:
        """Retry all of `which`, or all that there are now; fires with how many it was."""
        return self._failures.retry_many(which)

    def drop_failures(self, which: Sequence[str | bytes] | None = None) -> Deferred[int]:
        """Drop all of `which`, or all that there are now; fires with how many it was."""
        return self._failures.drop_many(which)

    def mark_gone(self, ids: Sequence[str], *, life: float) -> Deferred[None]:
        """Remember for `life` seconds that nobody waits for the requests `ids` any more."""
        return Deferred.fromCoroutine(self._registry.mark_gone(ids, life))

    def tell_taken(self, taken: Mapping[str, int], *, life: float) -> Deferred[None]:
        """Remember for `life` seconds how many bytes of streamed replies their clients took."""
        return Deferred.fromCoroutine(self._registry.tell_taken(taken, life))

    def which_gone(self, ids: Sequence[str]) -> Deferred[set[str]]:
        """Those of `ids` for which nobody waits any more."""
        return Deferred.fromCoroutine(self._registry.which_gone(ids))

    def register_worker(self, worker_id: str, queues: Sequence[str]) -> Deferred[None]:
        """List a worker and its queues, where resque-web looks. Never fails."""
        return self._registry.register(worker_id, queues)

    def unregister_worker(self, worker_id: str) -> Deferred[None]:
        """Take the worker off the list, with all that is known of it. Never fails."""
        return self._registry.unregister(worker_id)

    def working_on(self, worker_id: str, queue: str, message: bytes | None) -> Deferred[None]:
        """Say what the worker runs from now on, None for nothing. Never fails."""
        return self._registry.working_on(worker_id, queue, message)

    def count(
        self, worker_id: str | None = None, *, processed: int = 0, failed: int = 0
    ) -> Deferred[None]:
        """Add to Resque's counters, and to the worker's own where it is given. Never fails."""
        return self._registry.count(worker_id, processed=processed, failed=failed)

    def all_paused(self) -> Deferred[bool]:
        """Whether somebody has paused all workers."""
        return self._registry.all_paused()

    def _lease(self, queue: str) -> list[str]:
        return self._keys.lease(queue)

    def _reply_life(self, reply_to: str) -> int:
        """Seconds that a reply waits for a relay that may be gone; the user's own lists stay."""
        return REPLY_LIFE if reply_to.startswith(self._keys.inbox("")) else 0

    def _insist(self, name: str, keys: Sequence[str], args: Sequence[object]) -> Deferred[bool]:
        """Run a script that may run twice, over any number of lost connections."""

        def send() -> Deferred[bool]:
            return self._commands.script(name, keys, args).addCallback(lambda held: held == 1)

        return insist(send, self.when_up)


def _checked(answer: Any) -> Any:
    if isinstance(answer, BrokerError):
        raise answer
    return answer


def _seconds(text: bytes | None) -> float | None:
    """Unix seconds out of a message, which anybody may have written."""
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _glob(text: str) -> str:
    """`text` as a pattern that matches only itself."""
    return re.sub(r"([*?\[\]\\^])", r"\\\1", text)
