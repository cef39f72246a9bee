"""Readings of the records that nodes publish, for those who show and those who count them."""

from dataclasses import dataclass, field, replace
from typing import Final

from queuerelay.status.collect.history import Percentiles
from queuerelay.status.collect.ledger import Counts
from queuerelay.status.collect.snapshot import LoopStatus, NodeStatus, PoolStatus, RelayStatus
from queuerelay.wire.node import (
    BREAKS,
    CODES,
    ENDS,
    OUTCOMES,
    Node,
    PoolNode,
    PoolState,
    QueueState,
    RelayNode,
)

#: Seconds without a beat after which a node counts as stale; nodes beat every 2 s.
STALE: Final = 7.0

_NO_CLIENTS: Final = QueueState()


@dataclass(slots=True, kw_only=True)
class NodeReading:
    """One node's record, read for those who show it and those who count."""

    node: NodeStatus
    #: The relay that the node is, None for other nodes.
    relay: RelayStatus | None = None
    pools: list[PoolStatus] = field(default_factory=list)
    #: Queues that the node is configured for; those of pools alone have no clients.
    queues: dict[str, QueueState] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)


def read(record: Node, *, beat_age: float, local: bool = False) -> NodeReading:
    """The record of a node that was heard of `beat_age` seconds ago."""
    reading = NodeReading(
        node=NodeStatus(
            id=record.id,
            role=record.role,
            host=record.host,
            pid=record.pid,
            version=record.version,
            beat_age=beat_age,
            stale=beat_age > STALE,
            skew=record.skew,
            draining=record.draining,
            loops=tuple(
                LoopStatus(name=one.name, age=one.age + beat_age, stale=one.age > one.limit)
                for one in record.loops
            ),
            local=local,
        ),
        counts=Counts(uptime=record.uptime),
    )
    if isinstance(record, RelayNode):
        _read_relay(record, reading)
    elif isinstance(record, PoolNode):
        _read_pools(record, reading)
    return reading


def silent(id: str, beat_age: float) -> NodeReading:
    """The reading of a listed node without a record, or without one that can be read."""
    reading = read(Node(id=id), beat_age=beat_age)
    return replace(reading, node=replace(reading.node, stale=True))


def aged(reading: NodeReading, more: float) -> NodeReading:
    """The reading `more` seconds later, where nothing was heard of the node since."""
    node = reading.node
    if node.local:
        return reading
    age = (node.beat_age or 0.0) + more
    return replace(reading, node=replace(node, beat_age=age, stale=age > STALE))


def _read_relay(record: RelayNode, reading: NodeReading) -> None:
    numbers, durations = reading.counts.numbers, reading.counts.durations
    counters = dict(record.counters)
    for name in ENDS:
        numbers["end", name] = counters.pop(name, 0)
    for name in BREAKS:
        numbers["break", name] = counters.pop(f"aborted_{name}", 0)
    for name, number in counters.items():
        numbers["reply", name] = number
    for reason, number in record.refusals.items():
        numbers["refusal", reason] = number
    for queue, state in record.queues.items():
        for code in CODES:
            numbers["code", queue, code] = state.codes.get(code, 0)
        numbers["taken", queue] = state.taken
        numbers["ended", queue] = sum(state.codes.get(code, 0) for code in CODES)
        durations["total", queue] = state.total
        durations["wait", queue] = state.wait
        durations["run", queue] = state.run
        # "" is for those that had no queue yet.
        if queue:
            reading.queues[queue] = state
    reading.relay = RelayStatus(
        node=record.id,
        host=record.host,
        pid=record.pid,
        count=record.held,
        gated=sum(state.gated for state in reading.queues.values()),
        bytes=record.held_bytes,
        streaming=record.streaming,
        unsent_bytes=record.unsent_bytes,
        oldest_age=record.oldest_age,
        max_count=record.max_held,
        max_bytes=record.max_held_bytes,
        draining=record.draining,
    )


def _read_pools(record: PoolNode, reading: NodeReading) -> None:
    numbers, durations = reading.counts.numbers, reading.counts.durations
    for pool in record.pools:
        outcomes = {**dict.fromkeys(OUTCOMES, 0), **pool.counters}
        for outcome, number in outcomes.items():
            numbers["job", pool.name, outcome] = number
        for queue in pool.queues:
            reading.queues.setdefault(queue, _NO_CLIENTS)
        for queue, number in pool.left.items():
            numbers["left", queue] = numbers.get(("left", queue), 0) + number
        for queue, took in pool.durations.items():
            durations["job_wait", pool.name, queue] = took.wait
            durations["job_run", pool.name, queue] = took.run
        reading.pools.append(_pool(pool, record, outcomes))


def _pool(pool: PoolState, record: PoolNode, outcomes: dict[str, int]) -> PoolStatus:
    return PoolStatus(
        name=pool.name,
        node=record.id,
        host=record.host,
        queues=tuple(pool.queues),
        resident=pool.resident,
        size=pool.size,
        min=pool.min,
        max=pool.max,
        busy=pool.busy,
        resting=pool.resting,
        looping=pool.looping,
        unstartable=pool.unstartable,
        slots=tuple(pool.slots),
        exits=tuple(pool.exits),
        outcomes=outcomes,
        per_minute={outcome: 60.0 * rate for outcome, rate in pool.rates.items()},
        wait=Percentiles(),
        run=Percentiles(),
    )
