"""The snapshot: everything at one moment, the one record that page, JSON, metrics, stats.txt and
actions read.

Invariants:

1. A snapshot is complete by itself and never changes: whoever shows it asks nobody else.
2. Durations are seconds and sizes are bytes; moments are Unix seconds, and where something is *old*
   the age itself stands here, as it was when the snapshot was made.
3. Counters never go down while the process that collects lives: what a node had counted before it
   left stays in the sums.
4. Texts that came from elsewhere (queue names, ids, what scripts said) are bounded, and otherwise
   as they came: whoever writes them out escapes them.
5. Nothing of a request but its id, nothing of a job but its id and class.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from queuerelay.broker.records import Gate
from queuerelay.status.collect.dead_letters import DeadLetters
from queuerelay.status.collect.history import History, Percentiles
from queuerelay.wire.histogram import Durations
from queuerelay.wire.node import ExitRecord, SlotState


class Severity(StrEnum):
    """The severity of a reason, or of the whole."""

    OK = "ok"
    #: Somebody should look at it.
    WARNING = "warning"
    #: Clients or jobs suffer from it.
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason why the whole is not well."""

    severity: Severity
    #: A short stable word: ``redis-down``, ``node-stale``, ``loop-stale``, ``no-worker``, ...
    code: str
    #: What the reason is about: a queue, a node, a pool; "" for the whole.
    subject: str
    #: One line for people; foreign text in it is that of `subject` only.
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The health of the whole."""

    #: The worst severity of the reasons.
    severity: Severity = Severity.OK
    #: Reasons, the worst first.
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Redis:
    """The Redis of all nodes; a figure that Redis does not give is None."""

    #: Whether it answered the last look.
    up: bool = False
    #: Seconds since it last answered; None where it never has.
    silent: float | None = None
    #: ``Redis 7.0.15`` or ``Valkey 9.1.0``.
    version: str | None = None
    #: Seconds that the last look took, there and back.
    latency: float | None = None
    #: Bytes of memory that Redis uses.
    memory_used: int | None = None
    #: Most bytes of memory that Redis may use; None where it has no limit.
    memory_max: int | None = None
    #: What it does at that limit: its ``maxmemory-policy``.
    eviction: str | None = None
    #: How it keeps data over a restart: ``aof``, ``rdb`` or ``none``.
    persistence: str | None = None
    #: Address of Redis, without user and password.
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopStatus:
    """A loop of a node: something that it does again and again."""

    name: str
    #: Seconds since its last turn ended.
    age: float
    #: Whether `age` is more than the loop's limit.
    stale: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One relay or the pools of one process, on any host."""

    id: str
    #: ``relay`` or ``pool``; "" where it has not said.
    role: str
    host: str
    pid: int
    version: str
    #: Seconds since the node's last beat, None where it never beat.
    beat_age: float | None
    #: Whether `beat_age` is too long.
    stale: bool
    #: Seconds that the wall clock of `host` is ahead of that of Redis; None where unknown.
    skew: float | None
    #: Whether the node takes no more work.
    draining: bool
    loops: tuple[LoopStatus, ...]
    #: Whether the node is in the process that collected the snapshot.
    local: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayStatus:
    """One relay, and the clients that wait on it."""

    #: Id of the node.
    node: str
    host: str
    pid: int
    #: Clients held.
    count: int
    #: Those of `count` whose request is in the relay's memory and not on its queue.
    gated: int
    #: Bytes of the messages of held requests.
    bytes: int
    #: How many of `count` have a streamed answer under way.
    streaming: int
    #: Bytes of answers that wait for slow clients.
    unsent_bytes: int
    #: Seconds that the oldest held request has waited, 0 where none waits.
    oldest_age: float
    #: Most clients and bytes that the relay holds; None where it does not say.
    max_count: int | None
    max_bytes: int | None
    draining: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStatus:
    """One queue, as all relays and pools see it."""

    name: str
    #: Whether a living relay or pool is configured for the queue; else only Redis knows of it.
    configured: bool
    #: Messages on the queue, those in flight not among them.
    depth: int
    #: Seconds that the oldest message has waited; 0 without one, or where it does not say.
    oldest_age: float
    #: Messages that wait for their next try.
    delayed: int
    #: Messages that somebody has claimed (Resque's own workers claim nothing).
    in_flight: int
    #: Messages per minute, over the last minute. Where others push or take too, at least so many.
    in_per_minute: float
    out_per_minute: float
    #: Clients of all relays that wait for an answer by way of it.
    held: int
    #: Held requests that wait in a relay's memory and not on the queue.
    gated: int
    #: Durations from push to start, start to end, and as the client saw it, over
    #: `StatusSnapshot.window`.
    wait: Percentiles
    run: Percentiles
    total: Percentiles
    #: The gate of a paused queue, None for any other.
    gate: Gate | None
    #: Names of the pools that work on the queue.
    pools: tuple[str, ...]
    #: Slots of those pools, and Resque workers that say that they work on it.
    workers: int
    #: Whether the queue is worked on: there are workers, or something was worked off just now.
    served: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatus:
    """One pool in one process; several hosts may have one of the same name."""

    name: str
    #: Id of the pool's node.
    node: str
    host: str
    queues: tuple[str, ...]
    #: Whether the pool's processes talk to Redis themselves.
    resident: bool
    size: int
    min: int
    max: int
    #: Slots that have work; of residents processes that run.
    busy: int
    #: Why the pool takes no more messages; "" where it takes them.
    resting: str
    #: Residents that do not stay up.
    looping: int
    #: Messages whose script could not be run more than once, and why; "" for none.
    unstartable: str
    #: Slots that have been busy for longest, by number, bounded: `busy` counts all.
    slots: tuple[SlotState, ...]
    #: The last exits, newest first, bounded.
    exits: tuple[ExitRecord, ...]
    #: Attempts by outcome since the process was started; each outcome is there, if only with 0.
    outcomes: Mapping[str, int]
    #: Attempts per minute by outcome, over the last minute.
    per_minute: Mapping[str, float]
    #: Durations as those of a queue.
    wait: Percentiles
    run: Percentiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Resque:
    """Workers and jobs by Resque's own keys."""

    #: Workers that are listed, and those of them that run something.
    workers: int = 0
    working: int = 0
    #: Jobs that Resque has counted, ever.
    processed: int = 0
    failed: int = 0
    #: Whether somebody has paused all workers.
    paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """The requests of all relays together, since `StatusSnapshot.since`."""

    #: Ends of held requests: ``answered``, ``expired``, ``gone``, ``refused``, ``aborted``; each
    #: is there.
    ends: Mapping[str, int] = field(default_factory=dict)
    #: Errors of our own by their reason, held or not.
    refusals: Mapping[str, int] = field(default_factory=dict)
    #: Requests by queue, then by code (`CODES`, each is there); queue "" for those that were
    #: refused before they had one.
    codes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    #: Replies that found nobody, and requests that nobody had to work on: ``replies_late``,
    #: ``replies_doubled``, ``replies_unknown``, ``replies_undecodable``,
    #: ``replies_too_large``, ``frames_late``, ``frames_doubled``, ``work_saved``.
    replies: Mapping[str, int] = field(default_factory=dict)
    #: Streamed answers that were broken off, by the reason (`BREAKS`, each is there).
    broken_off: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Histograms:
    """Durations by what they belong to; `queuerelay.wire.histogram.BOUNDS` are the bounds."""

    #: Durations by queue, as the clients saw them.
    total: Mapping[str, Durations] = field(default_factory=dict)
    #: Durations by queue, as the workers said in their replies.
    request_wait: Mapping[str, Durations] = field(default_factory=dict)
    request_run: Mapping[str, Durations] = field(default_factory=dict)
    #: Durations of attempts, by pool and queue.
    job_wait: Mapping[tuple[str, str], Durations] = field(default_factory=dict)
    job_run: Mapping[tuple[str, str], Durations] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusSnapshot:
    """All nodes, queues, clients, pools and dead letters, at one moment."""

    #: Unix seconds at which the snapshot was made.
    at: float
    #: Unix seconds since when counters count: when the process that collects was started.
    since: float
    #: Version of the process that collects.
    version: str
    #: Seconds that percentiles look back.
    window: float
    health: Health
    redis: Redis
    #: Nodes, by role, host and pid.
    nodes: tuple[NodeStatus, ...]
    #: Queues, the configured ones first, each by name; bounded.
    queues: tuple[QueueStatus, ...]
    #: How many queues are not shown.
    queues_left_out: int
    held: tuple[RelayStatus, ...]
    requests: Requests
    #: Pools, by name and host.
    pools: tuple[PoolStatus, ...]
    #: Attempts by pool, then by outcome (each is there), those of nodes that have left among them.
    jobs: Mapping[str, Mapping[str, int]]
    histograms: Histograms
    failures: DeadLetters
    resque: Resque
    history: History

    @property
    def depth(self) -> int:
        """Messages on all queues."""
        return sum(queue.depth for queue in self.queues)

    @property
    def oldest_age(self) -> float:
        """Seconds that the oldest message of all has waited."""
        return max((queue.oldest_age for queue in self.queues), default=0.0)

    @property
    def held_count(self) -> int:
        """Clients that wait, of all relays together."""
        return sum(held.count for held in self.held)
