"""What is going on, at one moment, everywhere: the one record that page, JSON, metrics, stats.txt
and the command line read.

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
from typing import Final

from queuerelay.broker.records import Gate

#: Classes of answers, ``gone`` for clients that left without one, and ``aborted`` for answers that
#: were broken off.
CODES: Final = ("2xx", "3xx", "4xx", "5xx", "gone", "aborted")


class Severity(StrEnum):
    """How bad something is."""

    OK = "ok"
    #: Somebody should look at it.
    WARNING = "warning"
    #: Clients or jobs suffer.
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why the whole is not well."""

    severity: Severity
    #: A short stable word: ``redis-down``, ``node-stale``, ``loop-stale``, ``no-worker``, ...
    code: str
    #: What it is about: a queue, a node, a pool; "" for the whole.
    subject: str
    #: One line for people; foreign text in it is that of `subject` only.
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How the whole is."""

    #: The worst of the reasons'.
    severity: Severity = Severity.OK
    #: The worst first.
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Redis:
    """The Redis that everything goes through. What it does not say is None."""

    #: Whether it answered the last look.
    up: bool = False
    #: Seconds since it last answered; None where it never has.
    silent: float | None = None
    #: ``Redis 7.0.15`` or ``Valkey 9.1.0``.
    version: str | None = None
    #: Seconds that the last look took, there and back.
    latency: float | None = None
    #: Bytes.
    memory_used: int | None = None
    #: Bytes; None where it has no limit.
    memory_max: int | None = None
    #: Where it is, without user and password.
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopState:
    """Something that a node does again and again."""

    name: str
    #: Seconds since its last turn ended.
    age: float
    #: Whether that is too long ago.
    stale: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One relay or the pools of one process, on any host."""

    id: str
    #: ``relay`` or ``pool``; "" where it has not said.
    role: str
    host: str
    pid: int
    version: str
    #: Seconds since it was last heard of, None where it never was.
    beat_age: float | None
    #: Whether that is too long ago.
    stale: bool
    #: Whether it takes no more work.
    draining: bool
    loops: tuple[LoopState, ...]
    #: Whether it is in the process that collected this.
    local: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Clients that wait on one relay."""

    #: Id of the node.
    node: str
    host: str
    pid: int
    #: Clients.
    count: int
    #: Those of `count` whose request is in the relay's memory and not on its queue.
    gated: int
    #: Bytes of their messages.
    bytes: int
    #: Seconds that the one has waited who waits longest, 0 where nobody waits.
    oldest_age: float
    #: Most clients and bytes that it holds; None where it does not say.
    max_count: int | None
    max_bytes: int | None
    draining: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """Of durations; estimates from histograms."""

    #: How many durations.
    count: int = 0
    #: Seconds; None where there are none.
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """One queue."""

    name: str
    #: Whether a living relay or pool is configured for it; else only Redis knows of it.
    configured: bool
    #: Messages on it, those in flight not among them.
    depth: int
    #: Seconds that its oldest message has waited; 0 where it is empty or does not say.
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
    #: Those of `held` that the relays keep in memory.
    gated: int
    #: From push to start, start to end, and as the client saw it, over `Snapshot.window`.
    wait: Percentiles
    run: Percentiles
    total: Percentiles
    #: None where it is not paused.
    gate: Gate | None
    #: Pools that work on it, as they are named.
    pools: tuple[str, ...]
    #: Slots of those pools, and Resque workers that say that they work on it.
    workers: int
    #: Whether anybody works on it: there are workers, or something was worked off just now.
    served: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One slot of a pool, or a post of a resident one."""

    #: From 1.
    number: int
    #: ``idle``, ``starting``, ``running``, ``ending``; of residents also ``waiting``.
    state: str
    pid: int | None
    #: Id of its message.
    message: str | None
    queue: str | None
    #: Seconds since it began on it; of residents since the process was started.
    age: float | None
    #: Number of the attempt, from 1; of a waiting resident the starts that came to nothing.
    attempt: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """A process of a pool that has ended."""

    #: Unix seconds.
    at: float
    #: Id of its message, "" for residents.
    message: str
    queue: str
    #: Exit status, None where a signal ended it or it was not started.
    code: int | None
    #: Name of the signal, such as ``SIGKILL``.
    signal: str | None
    #: Seconds that it ran.
    run: float
    #: One of `queuerelay.pool.exits.Outcome`.
    outcome: str
    #: The last it said on stderr, bounded.
    stderr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """One pool in one process; several hosts may have one of the same name."""

    name: str
    #: Id of its node.
    node: str
    host: str
    queues: tuple[str, ...]
    #: Whether its processes talk to Redis themselves.
    resident: bool
    size: int
    min: int
    max: int
    #: Slots that have work; of residents processes that run.
    busy: int
    #: Whether it takes no more messages, and why; "" where it does.
    resting: str
    #: Residents that do not stay up.
    looping: int
    #: Those that have been busy for longest, by number, bounded: `busy` counts all.
    slots: tuple[Slot, ...]
    #: The last ones, newest first, bounded.
    exits: tuple[Exit, ...]
    #: Attempts by outcome since the process was started; each outcome is there, if only with 0.
    outcomes: Mapping[str, int]
    #: Attempts per minute by outcome, over the last minute.
    per_minute: Mapping[str, float]
    #: As of a queue.
    wait: Percentiles
    run: Percentiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt at a message that failed."""

    #: Unix seconds.
    started_at: float
    #: Seconds.
    run: float
    #: Exit status, None where there was none.
    code: int | None
    #: Name of the signal, "" for none.
    signal: str
    #: Why it ended.
    error: str
    #: The last it said on stderr, bounded.
    stderr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One entry of ``resque:failed``; its arguments and its backtrace are not shown."""

    #: Names it, in actions too: 40 hex digits.
    id: str
    #: Place in the list, from 0 for the oldest; it changes when others are taken out.
    index: int
    #: Id of the message that failed, "" where the entry does not say.
    message: str
    queue: str
    #: Class of the message.
    cls: str
    exception: str
    error: str
    #: As the entry says it: ``2026/11/22 05:14:06 UTC``.
    failed_at: str
    worker: str
    attempts: tuple[Attempt, ...]
    #: Whether resque-web has put it back already.
    retried: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """The dead letters."""

    #: How many there are.
    total: int = 0
    #: How many `items` leave out before their first.
    start: int = 0
    #: The newest first; in a snapshot the first `collect.PAGE`.
    items: tuple[DeadLetter, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resque:
    """What Resque's own keys say."""

    #: Workers that are listed, and those of them that run something.
    workers: int = 0
    working: int = 0
    #: Jobs, ever.
    processed: int = 0
    failed: int = 0
    #: Whether somebody has paused all workers.
    paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """What the relays have done, all together, since `Snapshot.since`."""

    #: Ends of held requests: ``answered``, ``expired``, ``gone``, ``refused``, ``aborted``; each
    #: is there.
    ends: Mapping[str, int] = field(default_factory=dict)
    #: Errors of our own by their reason, held or not.
    refusals: Mapping[str, int] = field(default_factory=dict)
    #: Requests by queue, then by code (`CODES`, each is there); queue "" for those that were
    #: refused before they had one.
    codes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    #: Replies that found nobody, and requests that nobody had to work on: ``replies_late``,
    #: ``replies_doubled``, ``replies_unknown``, ``replies_undecodable``, ``work_saved``.
    replies: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Histograms:
    """Durations by what they belong to; `queuerelay.wire.histogram.BOUNDS` are the bounds."""

    #: By queue: as the clients saw it.
    total: Mapping[str, "Durations"] = field(default_factory=dict)
    #: By queue: as the workers said in their replies.
    request_wait: Mapping[str, "Durations"] = field(default_factory=dict)
    request_run: Mapping[str, "Durations"] = field(default_factory=dict)
    #: By pool and queue: of attempts.
    job_wait: Mapping[tuple[str, str], "Durations"] = field(default_factory=dict)
    job_run: Mapping[tuple[str, str], "Durations"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """A histogram, at one moment."""

    #: In each bucket, not cumulative; one more than there are bounds.
    counts: tuple[int, ...]
    #: Seconds, all together.
    sum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The last hour of something, all of one length: that of `History.times`.

    None stands where nothing was known.
    """

    depth: tuple[int | None, ...]
    #: Seconds.
    oldest_age: tuple[float | None, ...]
    in_per_minute: tuple[float | None, ...]
    out_per_minute: tuple[float | None, ...]
    #: Clients.
    held: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The last hour, a point each `step` seconds."""

    #: Unix seconds at which it began; at most an hour ago.
    since: float
    #: Seconds.
    step: float
    #: Unix seconds, oldest first.
    times: tuple[float, ...]
    #: Of all queues together.
    overall: Series
    #: Dead letters, all together.
    failed: tuple[int | None, ...]
    #: By queue, bounded.
    queues: Mapping[str, Series]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything."""

    #: Unix seconds at which it was made.
    at: float
    #: Unix seconds since when counters count: when the process that collects was started.
    since: float
    #: Version of the process that collects.
    version: str
    #: Seconds that percentiles look back.
    window: float
    health: Health
    redis: Redis
    #: By role, host and pid.
    nodes: tuple[Node, ...]
    #: Configured ones first, each by name; bounded.
    queues: tuple[Queue, ...]
    #: How many queues are not shown.
    queues_left_out: int
    held: tuple[Held, ...]
    requests: Requests
    #: By name and host.
    pools: tuple[Pool, ...]
    #: Attempts by pool, then by outcome (each is there), those of nodes that have left among them.
    jobs: Mapping[str, Mapping[str, int]]
    histograms: Histograms
    failures: Failures
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
        """Clients that wait, on all relays."""
        return sum(held.count for held in self.held)
