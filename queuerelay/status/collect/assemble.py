"""The snapshot, made of what was seen of Redis and of the nodes; no I/O here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from queuerelay.broker.records import Gate, QueueDepth, Survey, WrongType
from queuerelay.errors import BrokerError
from queuerelay.status.collect import health
from queuerelay.status.collect.dead_letters import DeadLetters
from queuerelay.status.collect.history import (
    WINDOW,
    Hour,
    Passage,
    Point,
    QueueRates,
    Recent,
    percentiles,
)
from queuerelay.status.collect.ledger import Ledger, Sums
from queuerelay.status.collect.nodes import NodeReading
from queuerelay.status.collect.snapshot import (
    Histograms,
    PoolStatus,
    QueueStatus,
    Redis,
    Requests,
    Resque,
    StatusSnapshot,
)
from queuerelay.wire.histogram import Durations
from queuerelay.wire.message import waited
from queuerelay.wire.node import BREAKS, CODES, ENDS

#: Points of the history that "new" dead letters go back: ten minutes.
_NEW: Final = 60


@dataclass(slots=True, kw_only=True)
class Seen:
    """Redis and the nodes as they were last seen."""

    address: str
    #: Unix seconds at which the process that collects was started.
    since: float
    ledger: Ledger
    up: bool = False
    #: Why what answers as Redis cannot be used, None where it can, or nobody answers.
    fault: BrokerError | None = None
    #: Seconds since Redis last answered, None where it never has.
    silent: float | None = None
    survey: Survey = field(default_factory=Survey)
    depths: Mapping[str, QueueDepth] = field(default_factory=dict)
    gates: Mapping[str, Gate] = field(default_factory=dict)
    #: Keys that nobody can use as they are.
    wrong_types: Sequence[WrongType] = ()
    failures: DeadLetters = field(default_factory=DeadLetters)
    readings: Mapping[str, NodeReading] = field(default_factory=dict)
    #: Queues that nodes are configured for.
    configured: set[str] = field(default_factory=set)
    #: How many queues are not looked at.
    left_out: int = 0


def assemble(
    seen: Seen,
    everybody: Mapping[str, NodeReading],
    *,
    at: float,
    now: float,
    rates: QueueRates,
    recent: Recent,
    hour: Hour,
    version: str,
) -> StatusSnapshot:
    """The snapshot of Unix second `at`, which is `now` in clock seconds."""
    survey, sums = seen.survey, seen.ledger.totals
    depths = {**dict.fromkeys(sorted(seen.configured), QueueDepth(length=0)), **seen.depths}
    rates.add(now, {name: _passage(name, depth, seen) for name, depth in depths.items()})
    recent.add(now, seen.ledger.flow.durations)
    found = sorted((pool for one in everybody.values() for pool in one.pools), key=_by_name)
    pools = tuple(_pool(pool, recent) for pool in found)
    queues = tuple(
        _queue(name, depth, seen, everybody, pools, rates=rates, recent=recent, at=at)
        for name, depth in depths.items()
    )
    held = tuple(one.relay for one in everybody.values() if one.relay is not None)
    redis = Redis(
        up=seen.up,
        silent=seen.silent,
        version=survey.version,
        latency=survey.latency if seen.up else None,
        memory_used=survey.storage.used,
        memory_max=survey.storage.most,
        eviction=survey.storage.eviction,
        persistence=survey.storage.persistence,
        address=seen.address,
    )
    resque = Resque(
        workers=survey.workers_total,
        working=survey.working,
        processed=survey.processed,
        failed=survey.failed,
        paused=survey.paused,
    )
    if seen.silent is not None and hour.due(now):
        points = {queue.name: _point(queue) for queue in queues}
        total = Point(
            depth=sum(queue.depth for queue in queues),
            oldest_age=max((queue.oldest_age for queue in queues), default=0.0),
            in_per_minute=sum(queue.in_per_minute for queue in queues),
            out_per_minute=sum(queue.out_per_minute for queue in queues),
            held=sum(one.count for one in held),
        )
        hour.add(at, total if seen.up else Point(held=total.held), _failed(seen), points)
    before = hour.failed(_NEW)
    nodes = tuple(
        sorted((one.node for one in everybody.values()), key=lambda n: (n.role, n.host, n.pid))
    )
    return StatusSnapshot(
        at=at,
        since=seen.since,
        version=version,
        window=WINDOW,
        health=health.judge(
            redis=redis,
            fault=None if seen.up else seen.fault,
            storage=survey.storage,
            wrong_types=seen.wrong_types if seen.up else (),
            nodes=nodes,
            queues=queues,
            held=held,
            pools=pools,
            resque=resque,
            new_failures=seen.failures.total - (seen.failures.total if before is None else before),
        ),
        redis=redis,
        nodes=nodes,
        queues=queues,
        queues_left_out=seen.left_out,
        held=held,
        requests=_requests(sums),
        pools=pools,
        jobs=_jobs(sums),
        histograms=_histograms(sums),
        failures=seen.failures,
        resque=resque,
        history=hour.history,
    )


def _by_name(pool: PoolStatus) -> tuple[str, str, str]:
    return pool.name, pool.host, pool.node


def _passage(name: str, depth: QueueDepth, seen: Seen) -> Passage:
    numbers = seen.ledger.flow.numbers
    return Passage(
        backlog=depth.length + depth.delayed + depth.inflight,
        taken=numbers.get(("taken", name), 0),
        ended=numbers.get(("ended", name), 0),
        left=numbers.get(("left", name), 0),
    )


def _failed(seen: Seen) -> int | None:
    return seen.failures.total if seen.up else None


def _point(queue: QueueStatus) -> Point:
    return Point(
        depth=queue.depth,
        oldest_age=queue.oldest_age,
        in_per_minute=queue.in_per_minute,
        out_per_minute=queue.out_per_minute,
        held=queue.held,
    )


def _queue(
    name: str,
    depth: QueueDepth,
    seen: Seen,
    everybody: Mapping[str, NodeReading],
    pools: Sequence[PoolStatus],
    *,
    rates: QueueRates,
    recent: Recent,
    at: float,
) -> QueueStatus:
    serving = [pool for pool in pools if name in pool.queues and not _silent(pool, everybody)]
    workers = sum(pool.size for pool in serving) + _resque_workers(name, seen.survey.workers)
    come, gone = rates.rate(name)
    holding = [one.queues[name] for one in everybody.values() if name in one.queues]
    # Pools know of all their messages; of others' work we hear what their replies say.
    by_pools = [("job_wait", pool, name) for pool in dict.fromkeys(one.name for one in serving)]
    waits = [recent.counts(key) for key in by_pools] or [recent.counts(("wait", name))]
    runs = [recent.counts(("job_run", pool, name)) for _, pool, _ in by_pools]
    if not any(any(counts) for counts in runs):
        waits, runs = [recent.counts(("wait", name))], [recent.counts(("run", name))]
    return QueueStatus(
        name=name,
        configured=name in seen.configured,
        depth=depth.length,
        oldest_age=waited(depth.oldest_at, at) or 0.0,
        delayed=depth.delayed,
        in_flight=depth.inflight,
        in_per_minute=come,
        out_per_minute=gone,
        held=sum(one.held for one in holding),
        gated=sum(one.gated for one in holding),
        wait=percentiles(*waits),
        run=percentiles(*runs),
        total=percentiles(recent.counts(("total", name))),
        gate=seen.gates.get(name),
        pools=tuple(dict.fromkeys(pool.name for pool in serving)),
        workers=workers,
        served=workers > 0 or depth.inflight > 0 or gone > 0,
    )


def _silent(pool: PoolStatus, everybody: Mapping[str, NodeReading]) -> bool:
    return everybody[pool.node].node.stale


def _resque_workers(queue: str, workers: Sequence[str]) -> int:
    """Workers of ``resque:workers`` that work on `queue`, our own pools not among them."""
    count = 0
    for worker in workers:
        if worker.startswith("queuerelay."):
            continue
        _, _, names = worker.rpartition(":")
        count += any(one in ("*", queue) for one in names.split(","))
    return count


def _pool(pool: PoolStatus, recent: Recent) -> PoolStatus:
    """The pool with its percentiles; those of one name on several hosts have them in common."""
    waits = [recent.counts(("job_wait", pool.name, queue)) for queue in pool.queues]
    runs = [recent.counts(("job_run", pool.name, queue)) for queue in pool.queues]
    if not waits:
        return pool
    return replace(pool, wait=percentiles(*waits), run=percentiles(*runs))


def _requests(sums: Sums) -> Requests:
    ends = dict.fromkeys(ENDS, 0)
    refusals: dict[str, int] = {}
    replies: dict[str, int] = {}
    broken_off = dict.fromkeys(BREAKS, 0)
    codes: dict[str, dict[str, int]] = {}
    for key, number in sums.numbers.items():
        match key:
            case ("end", name):
                ends[name] = number
            case ("refusal", reason):
                refusals[reason] = number
            case ("reply", name):
                replies[name] = number
            case ("break", reason):
                broken_off[reason] = number
            case ("code", queue, code):
                codes.setdefault(queue, dict.fromkeys(CODES, 0))[code] = number
    return Requests(
        ends=ends, refusals=refusals, codes=codes, replies=replies, broken_off=broken_off
    )


def _jobs(sums: Sums) -> dict[str, dict[str, int]]:
    jobs: dict[str, dict[str, int]] = {}
    for key, number in sums.numbers.items():
        match key:
            case ("job", pool, outcome):
                jobs.setdefault(pool, {})[outcome] = number
    return jobs


def _histograms(sums: Sums) -> Histograms:
    def of(kind: str) -> dict[str, Durations]:
        return {key[1]: found for key, found in sums.durations.items() if key[0] == kind}

    def by_pool(kind: str) -> dict[tuple[str, str], Durations]:
        return {(key[1], key[2]): found for key, found in sums.durations.items() if key[0] == kind}

    return Histograms(
        total=of("total"),
        request_wait=of("wait"),
        request_run=of("run"),
        job_wait=by_pool("job_wait"),
        job_run=by_pool("job_run"),
    )
