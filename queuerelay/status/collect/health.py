"""The health of the whole, by rules on what was collected."""

import shlex
from collections.abc import Iterable, Sequence
from typing import Final

from queuerelay.broker.records import WrongType
from queuerelay.errors import BrokerError, Unusable
from queuerelay.status.collect.snapshot import (
    Health,
    NodeStatus,
    PoolStatus,
    QueueStatus,
    Reason,
    Redis,
    RelayStatus,
    Resque,
    Severity,
)
from queuerelay.wire.server import meaning
from queuerelay.wire.storage import Storage

#: Seconds that a message may wait before somebody should look at it.
OLD: Final = 60.0
#: Share of a limit at which somebody should look at it.
NEARLY: Final = 0.9
#: Reasons of a resting pool that are no trouble: somebody wanted them.
_WANTED: Final = (
    *("", "draining", "rolling restart"),
    *("all workers are paused", "all its queues are paused"),
)

#: Seconds by which the clock of a host may differ from that of Redis.
SKEW: Final = 1.0
#: All codes of reasons, for those who count them.
REASONS: Final = (
    *("redis-down", "redis-cluster", "redis-replica", "redis-version", "redis-proxy"),
    *("redis-unusable", "redis-sentinel", "redis-login", "redis-permission", "redis-refused"),
    *("redis-memory", "redis-eviction", "redis-saving", "wrong-type", "node-stale", "loop-stale"),
    *("clock-skew", "no-worker", "old-message", "paused", "workers-paused", "held-limit"),
    *("crash-loop", "pool-resting", "cannot-start", "dead-letters"),
)

_ORDER: Final = (Severity.CRITICAL, Severity.WARNING, Severity.OK)


def judge(
    *,
    redis: Redis,
    fault: BrokerError | None,
    storage: Storage,
    wrong_types: Iterable[WrongType],
    nodes: Sequence[NodeStatus],
    queues: Iterable[QueueStatus],
    held: Iterable[RelayStatus],
    pools: Iterable[PoolStatus],
    resque: Resque,
    new_failures: int,
) -> Health:
    """The health. `fault` is why Redis does not do what it is asked, though it answers;
    `new_failures` are the dead letters of the last minutes.
    """
    reasons = [
        *_redis(redis, fault),
        *(_warn(code, redis.address, text) for code, text in _complaints(redis, storage)),
        *map(_wrong_type, wrong_types),
        *(reason for node in nodes for reason in _node(node)),
        *_skews(nodes),
        *(reason for queue in queues for reason in _queue(queue)),
        *(reason for one in held for reason in _held(one)),
        *(reason for pool in pools for reason in _pool(pool)),
    ]
    if resque.paused:
        reasons.append(_warn("workers-paused", "", "all workers are paused"))
    if new_failures > 0:
        reasons.append(_warn("dead-letters", "", f"{new_failures} new dead letters in 10 minutes"))
    reasons.sort(key=lambda reason: _ORDER.index(reason.severity))
    return Health(
        severity=reasons[0].severity if reasons else Severity.OK,
        reasons=tuple(reasons),
    )


def _warn(code: str, subject: str, text: str) -> Reason:
    return Reason(severity=Severity.WARNING, code=code, subject=subject, text=text)


def _alarm(code: str, subject: str, text: str) -> Reason:
    return Reason(severity=Severity.CRITICAL, code=code, subject=subject, text=text)


def _redis(redis: Redis, fault: BrokerError | None) -> Iterable[Reason]:
    if not redis.up and fault is not None:
        unusable = fault if isinstance(fault, Unusable) else meaning(str((*fault.args, "")[0]))
        code = "redis-refused" if unusable is None else unusable.code
        yield _alarm(code, redis.address, str(fault))
    elif not redis.up:
        yield _alarm("redis-down", redis.address, "Redis does not answer")
    elif redis.memory_max and redis.memory_used is not None:
        share = redis.memory_used / redis.memory_max
        if share >= NEARLY:
            yield _warn(
                "redis-memory", redis.address, f"Redis has {share:.0%} of its memory in use"
            )


def _complaints(redis: Redis, storage: Storage) -> list[tuple[str, str]]:
    return storage.complaints() if redis.up else []


def _wrong_type(wrong: WrongType) -> Reason:
    key = shlex.quote(wrong.key)
    return _alarm(
        "wrong-type",
        wrong.key,
        f"{wrong.key} is a {wrong.type}, expected a {wrong.expected}: it is not ours; look at it, "
        f"then redis-cli DEL {key}",
    )


def _node(node: NodeStatus) -> Iterable[Reason]:
    name = f"{node.role or 'node'} {node.id}"
    if node.stale:
        yield _warn("node-stale", node.id, f"{name} has been silent for {node.beat_age or 0:.0f} s")
        return
    for loop in node.loops:
        if loop.stale:
            yield _alarm(
                "loop-stale",
                node.id,
                f"the loop {loop.name} of {name} has not turned for {loop.age:.0f} s",
            )


def _skews(nodes: Sequence[NodeStatus]) -> Iterable[Reason]:
    """One reason for each host, however many nodes it has."""
    skews = {
        node.host: node.skew
        for node in nodes
        if node.skew is not None and abs(node.skew) > SKEW and not node.stale
    }
    for host, skew in sorted(skews.items()):
        way = "ahead of" if skew > 0 else "behind"
        yield _warn("clock-skew", host, f"the clock of {host} is {abs(skew):.1f} s {way} Redis's")


def _queue(queue: QueueStatus) -> Iterable[Reason]:
    if queue.gate is not None:
        yield _warn("paused", queue.name, f"queue {queue.name} is paused")
        return
    if not queue.served and (queue.depth or queue.held or queue.delayed):
        which = "" if queue.configured else ", and no relay or pool is configured for it"
        yield _alarm("no-worker", queue.name, f"nobody works on queue {queue.name}{which}")
    elif queue.oldest_age >= OLD:
        yield _warn(
            "old-message",
            queue.name,
            f"the oldest message of queue {queue.name} waits for {queue.oldest_age:.0f} s",
        )


def _held(held: RelayStatus) -> Iterable[Reason]:
    for count, most in ((held.count, held.max_count), (held.bytes, held.max_bytes)):
        if most and count >= NEARLY * most:
            text = f"relay {held.node} holds {count / most:.0%} of what it may"
            alarm = count >= most
            yield (_alarm if alarm else _warn)("held-limit", held.node, text)


def _pool(pool: PoolStatus) -> Iterable[Reason]:
    if pool.looping:
        text = f"{pool.looping} processes of pool {pool.name} do not stay up"
        yield _alarm("crash-loop", pool.name, text)
    elif pool.resting not in _WANTED:
        yield _warn("pool-resting", pool.name, f"pool {pool.name} takes no work: {pool.resting}")
    elif pool.unstartable:
        yield _warn("cannot-start", pool.name, f"pool {pool.name}: {pool.unstartable}")
