"""The snapshot for Prometheus: ``/metrics``, in its text format or as OpenMetrics by Accept.

Invariants:

1. Labels are queues, pools, nodes' hosts, and words of ours: how many series there are depends on
   the configuration, never on what clients ask.
2. A series that can be 0 is there when it is 0: for each configured queue and pool from the start.
3. A counter is the sum over all nodes, those that have left since this process started among them,
   so that it does not go down while this process lives.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import exposition
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from queuerelay.errors import Refusal
from queuerelay.status.collect.health import REASONS
from queuerelay.status.collect.snapshot import Severity, StatusSnapshot
from queuerelay.status.route import StatusRequest, StatusResponse, StatusRoute
from queuerelay.status.status import Status
from queuerelay.wire.histogram import NO_DURATIONS, Durations, cumulative
from queuerelay.wire.node import BREAKS, CODES, ENDS

_PREFIX: Final = "queuerelay_"
_TEXT: Final = exposition.CONTENT_TYPE_PLAIN_0_0_4
_OPENMETRICS: Final = openmetrics.CONTENT_TYPE_LATEST
_ROLES: Final = ("relay", "pool")
#: Severities in the order of the numbers that stand for them.
_SEVERITIES: Final = (Severity.OK, Severity.WARNING, Severity.CRITICAL)


def routes(status: Status) -> list[StatusRoute]:
    """The route of ``/metrics``."""
    return [StatusRoute(path="metrics", handler=_Metrics(status).answer)]


class _Metrics:
    """The metrics of one status room, each snapshot written once in each format."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._written: dict[str, tuple[StatusSnapshot, bytes]] = {}

    def answer(self, ask: StatusRequest) -> StatusResponse:
        snapshot = self._status.snapshot
        # What prometheus_client would echo of the version asked for is left aside.
        wants_open = "application/openmetrics-text" in ask.headers.get("accept", "")
        kind = _OPENMETRICS if wants_open else _TEXT
        known = self._written.get(kind)
        if known is None or known[0] is not snapshot:
            known = self._written[kind] = (snapshot, write(snapshot, openmetrics_format=wants_open))
        return StatusResponse(body=known[1], content_type=kind)


def write(snapshot: StatusSnapshot, *, openmetrics_format: bool = False) -> bytes:
    """The snapshot in one of Prometheus' formats."""
    source = _Source(snapshot)
    written: bytes
    if openmetrics_format:
        written = openmetrics.generate_latest(source)
    else:
        written = exposition.generate_latest(source)
    return written


def _reasons(kind: type[Refusal]) -> set[str]:
    """The reasons of this refusal and of all that inherit from it."""
    return {kind.reason}.union(*map(_reasons, kind.__subclasses__()))


class _Source(Collector):
    """The families of metrics of a snapshot, as Prometheus' client reads them."""

    def __init__(self, snapshot: StatusSnapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """All families of metrics, as prometheus_client asks for them."""
        snapshot = self._snapshot
        yield _info(snapshot)
        yield from _redis(snapshot)
        yield from _nodes(snapshot)
        yield from _queues(snapshot)
        yield from _held(snapshot)
        yield from _requests(snapshot)
        yield from _pools(snapshot)
        yield from _failures(snapshot)


def _gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, help, value=value)


def _gauges(
    name: str, help: str, labels: list[str], values: Iterable[tuple[tuple[str, ...], float]]
) -> Metric:
    family = GaugeMetricFamily(_PREFIX + name, help, labels=labels)
    for label, value in values:
        family.add_metric(label, value)
    return family


def _counter(
    name: str, help: str, labels: list[str], values: Iterable[tuple[tuple[str, ...], float]]
) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, help, labels=labels)
    for label, value in values:
        family.add_metric(label, value)
    return family


def _histogram(
    name: str,
    help: str,
    labels: list[str],
    values: Iterable[tuple[tuple[str, ...], Durations]],
) -> Metric:
    family = HistogramMetricFamily(_PREFIX + name, help, labels=labels)
    for label, durations in values:
        family.add_metric(label, list(cumulative(durations.counts)), durations.sum)
    return family


def _info(snapshot: StatusSnapshot) -> Metric:
    build = {"version": snapshot.version, "redis": snapshot.redis.version or ""}
    return InfoMetricFamily(_PREFIX + "build", "Versions of this process and of Redis.", build)


def _redis(snapshot: StatusSnapshot) -> Iterator[Metric]:
    redis = snapshot.redis
    yield _gauge("redis_up", "Whether Redis answered the last look.", redis.up)
    if redis.latency is not None:
        help = "How long the last look at Redis took, there and back."
        yield _gauge("redis_latency_seconds", help, redis.latency)
    if redis.memory_used is not None:
        help = "Memory that Redis has in use."
        yield _gauge("redis_memory_used_bytes", help, redis.memory_used)
    if redis.memory_max is not None:
        help = "Memory that Redis may use."
        yield _gauge("redis_memory_max_bytes", help, redis.memory_max)
    yield _gauge(
        "snapshot_timestamp_seconds", "When these numbers were collected, Unix time.", snapshot.at
    )
    yield _gauge(
        "health",
        "How the whole is: 0 all is well, 1 somebody should look at it, 2 clients or jobs suffer.",
        _SEVERITIES.index(snapshot.health.severity),
    )
    found = Counter(reason.code for reason in snapshot.health.reasons)
    yield _gauges(
        "health_reasons",
        "How many reasons of this code there are why not all is well.",
        ["code"],
        [((code,), found[code]) for code in sorted({*REASONS, *found})],
    )


def _nodes(snapshot: StatusSnapshot) -> Iterator[Metric]:
    def counted(stale: bool) -> list[tuple[tuple[str, ...], float]]:
        found = [node.role for node in snapshot.nodes if node.stale is stale]
        return [((role,), found.count(role)) for role in _ROLES]

    yield _gauges("nodes", "Nodes that live.", ["role"], counted(False))
    stale = sum(node.stale for node in snapshot.nodes)
    yield _gauge("nodes_stale", "Nodes on the list that have been silent too long.", stale)
    stuck = sum(loop.stale for node in snapshot.nodes if not node.stale for loop in node.loops)
    yield _gauge("loops_stale", "Loops of living nodes that turn no more.", stuck)
    skews = {(node.host,): node.skew for node in snapshot.nodes if node.skew is not None}
    yield _gauges(
        "clock_skew_seconds",
        "How far the clock of a host with nodes is ahead of that of Redis.",
        ["host"],
        sorted(skews.items()),
    )


def _queues(snapshot: StatusSnapshot) -> Iterator[Metric]:
    queues = snapshot.queues

    def each(of: Callable[..., float]) -> list[tuple[tuple[str, ...], float]]:
        return [((queue.name,), of(queue)) for queue in queues]

    label = ["queue"]
    yield _gauges("queue_depth", "Messages on a queue.", label, each(lambda q: q.depth))
    yield _gauges(
        "queue_oldest_seconds",
        "How long the oldest message of a queue has waited.",
        label,
        each(lambda q: q.oldest_age),
    )
    yield _gauges(
        "queue_delayed", "Messages that wait for their next try.", label, each(lambda q: q.delayed)
    )
    yield _gauges(
        "queue_in_flight", "Messages that are claimed.", label, each(lambda q: q.in_flight)
    )
    yield _gauges(
        "queue_workers",
        "Slots of pools and Resque workers that work on a queue, as far as they are known.",
        label,
        each(lambda q: q.workers),
    )
    yield _gauges(
        "queue_served",
        "Whether anybody works on a queue: a worker is known, or something was just worked off.",
        label,
        each(lambda q: q.served),
    )
    yield _gauges(
        "queue_paused", "Whether a queue is paused.", label, each(lambda q: q.gate is not None)
    )
    yield _gauges(
        "queue_held", "Clients that wait by way of a queue.", label, each(lambda q: q.held)
    )
    yield _gauges(
        "queue_gated",
        "Those of them whose request a relay keeps in memory.",
        label,
        each(lambda q: q.gated),
    )


def _held(snapshot: StatusSnapshot) -> Iterator[Metric]:
    held = snapshot.held
    yield _gauge("held", "Clients that wait on all relays.", snapshot.held_count)
    bytes = sum(one.bytes for one in held)
    yield _gauge("held_bytes", "Bytes of the requests that are held.", bytes)
    streaming = sum(one.streaming for one in held)
    yield _gauge("streaming", "Clients that have a streamed answer under way.", streaming)
    unsent = sum(one.unsent_bytes for one in held)
    yield _gauge("unsent_bytes", "Bytes of answers that wait for slow clients.", unsent)
    yield _gauge(
        "held_oldest_seconds",
        "How long the client has waited who waits longest.",
        max((one.oldest_age for one in held), default=0.0),
    )
    yield _gauge(
        "held_limit", "Most clients that all relays hold.", sum(one.max_count or 0 for one in held)
    )


def _requests(snapshot: StatusSnapshot) -> Iterator[Metric]:
    requests, histograms = snapshot.requests, snapshot.histograms
    yield _counter(
        "requests",
        "Requests that have ended, by queue and class of the answer; gone where the client left.",
        ["queue", "code"],
        [
            ((queue, code), codes.get(code, 0))
            for queue, codes in sorted(requests.codes.items())
            for code in CODES
        ],
    )
    yield _counter(
        "request_ends",
        "Ends of requests that were held.",
        ["end"],
        [((end,), requests.ends.get(end, 0)) for end in ENDS],
    )
    yield _counter(
        "answers_broken_off",
        "Streamed answers that were broken off.",
        ["reason"],
        [((reason,), requests.broken_off.get(reason, 0)) for reason in BREAKS],
    )
    yield _counter(
        "refusals",
        "Errors that relays answered by themselves.",
        ["reason"],
        [
            ((reason,), requests.refusals.get(reason, 0))
            for reason in sorted(_reasons(Refusal) | requests.refusals.keys())
        ],
    )
    yield _counter(
        "replies_dropped",
        "Replies that found nobody who waits.",
        ["reason"],
        [
            ((name.removeprefix("replies_"),), requests.replies.get(name, 0))
            for name in (
                "replies_doubled",
                "replies_late",
                "replies_undecodable",
                "replies_too_large",
                "replies_unknown",
            )
        ],
    )
    yield _counter(
        "requests_taken_off",
        "Requests taken off their queue because their client had left.",
        [],
        [((), requests.replies.get("work_saved", 0))],
    )
    queues = sorted(queue for queue in requests.codes if queue)

    def each(found: Mapping[str, Durations]) -> list[tuple[tuple[str, ...], Durations]]:
        return [((queue,), found.get(queue, NO_DURATIONS)) for queue in queues]

    yield _histogram(
        "request_duration_seconds",
        "From a client's request to its answer.",
        ["queue"],
        each(histograms.total),
    )
    yield _histogram(
        "request_wait_seconds",
        "From a request to its start in a worker, as workers say.",
        ["queue"],
        each(histograms.request_wait),
    )
    yield _histogram(
        "request_run_seconds",
        "How long workers took for a request, as they say.",
        ["queue"],
        each(histograms.request_run),
    )


def _pools(snapshot: StatusSnapshot) -> Iterator[Metric]:
    yield _counter(
        "jobs",
        "Attempts and messages of a pool by their outcome.",
        ["pool", "outcome"],
        [
            ((pool, outcome), number)
            for pool, outcomes in sorted(snapshot.jobs.items())
            for outcome, number in outcomes.items()
        ],
    )
    for name, help in (
        ("size", "Slots of a pool on all hosts."),
        ("busy", "Slots that have work."),
        ("looping", "Resident processes that do not stay up."),
    ):
        sums = dict.fromkeys(sorted(snapshot.jobs), 0)
        for pool in snapshot.pools:
            sums[pool.name] = sums.get(pool.name, 0) + getattr(pool, name)
        values = [((pool,), float(number)) for pool, number in sums.items()]
        yield _gauges(f"pool_{name}", help, ["pool"], values)
    resting = dict.fromkeys(sorted(snapshot.jobs), 0)
    for pool in snapshot.pools:
        resting[pool.name] = resting.get(pool.name, 0) + bool(pool.resting)
    yield _gauges(
        "pool_resting",
        "Processes in which a pool takes no work.",
        ["pool"],
        [((name,), number) for name, number in resting.items()],
    )
    histograms = snapshot.histograms
    pairs = sorted(histograms.job_run.keys() | histograms.job_wait.keys())
    yield _histogram(
        "job_wait_seconds",
        "From a message's push to its first attempt in a pool.",
        ["pool", "queue"],
        [(pair, histograms.job_wait.get(pair, NO_DURATIONS)) for pair in pairs],
    )
    yield _histogram(
        "job_run_seconds",
        "How long attempts of a pool ran.",
        ["pool", "queue"],
        [(pair, histograms.job_run.get(pair, NO_DURATIONS)) for pair in pairs],
    )


def _failures(snapshot: StatusSnapshot) -> Iterator[Metric]:
    yield _gauge("dead_letters", "Messages that failed for good.", snapshot.failures.total)
    yield _counter(
        "dead_letters_dropped",
        "Dead letters that were dropped for being too many or too old.",
        [],
        [((), snapshot.failures.dropped)],
    )
    resque = snapshot.resque
    yield _gauge("resque_workers", "Workers that Resque's list names.", resque.workers)
    yield _gauge("resque_working", "Those of them that run something.", resque.working)
    yield _counter(
        "resque_jobs",
        "Jobs by Resque's own counters, of all time.",
        ["outcome"],
        [(("processed",), resque.processed), (("failed",), resque.failed)],
    )
