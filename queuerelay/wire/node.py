"""The records that nodes publish with each beat: one record for a relay, one for the pools of a
process, and how they travel through Redis as JSON.

Invariants:

1. The keys of the JSON are the fields of the records, and stay: relays and pools of one release and
   a status listener of another understand each other while they are deployed. A new field reads as
   its default where an older node does not send it.
2. Anybody may write to Redis, so `decode` believes nothing: texts, lists, tables and numbers have
   bounds (`queuerelay.wire.untrusted`), what is missing reads as nothing, and what cannot be read
   at all is `Unreadable`.
3. Who encodes sees to it that a record is small: `decode` cuts off without a word.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from queuerelay.wire.histogram import NO_DURATIONS, Durations, publish, read
from queuerelay.wire.outcome import Outcome
from queuerelay.wire.untrusted import Table, bounded

#: Roles of nodes; others may come.
RELAY: Final = "relay"
POOL: Final = "pool"
#: Characters of what a script said on stderr, and of why a pool takes no work.
LONG_TEXT: Final = 2048
#: Ends of held requests, each a counter of its relay.
ENDS: Final = ("answered", "expired", "gone", "refused", "aborted")
#: Why streamed answers were broken off, each the counter ``aborted_<reason>`` of its relay.
BREAKS: Final = ("timeout", "broken", "restarted", "behind", "stalled", "stopping", "failed")
#: What clients get, by the first digit of the status from 2 on; ``gone`` for those that left
#: without an answer, ``aborted`` for answers that were broken off.
CODES: Final = ("2xx", "3xx", "4xx", "5xx", "gone", "aborted")
#: What became of attempts, and of messages that no script has seen, each a counter of its pool.
OUTCOMES: Final = (*(one.value for one in Outcome), "expired", "refused", "unreadable")


class Unreadable(ValueError):
    """What a node published is no record."""


class LoopAge(NamedTuple):
    """A loop of a node."""

    name: str
    #: Seconds since the loop's last turn ended.
    age: float
    #: Seconds of `age` past which the loop is stale.
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The record of any node; the whole record of one whose role is not known here."""

    #: Id of the node, by which it stands on the list of nodes.
    id: str
    role: str = ""
    #: Version of queuerelay.
    version: str = ""
    host: str = ""
    pid: int = 0
    #: Unix seconds at which the node made the record, by the clock of Redis.
    at: float = 0.0
    #: Seconds that the wall clock of the node's host is ahead of that of Redis; None where the node
    #: does not know.
    skew: float | None = None
    #: Seconds since the node's start.
    uptime: float = 0.0
    #: Whether the node takes no more work.
    draining: bool = False
    loops: Sequence[LoopAge] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """One queue of a relay; counters and durations are since its start."""

    #: Requests held now, and how many of them are in the relay's memory only.
    held: int = 0
    gated: int = 0
    #: Requests that the relay took for this queue.
    taken: int = 0
    #: Requests that have ended, by `CODES`.
    codes: Mapping[str, int] = field(default_factory=dict)
    #: Durations from a client's request to its answer.
    total: Durations = NO_DURATIONS
    #: Durations in the queue and in the worker, as workers say.
    wait: Durations = NO_DURATIONS
    run: Durations = NO_DURATIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class GateState:
    """The gate of a paused queue."""

    #: Unix seconds at which the queue was paused, 0 where unknown.
    since: float
    #: Who paused the queue, "" where unknown.
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayNode(Node):
    """The record that a relay publishes."""

    role: str = RELAY
    #: Requests held now, and bytes of their messages.
    held: int = 0
    held_bytes: int = 0
    #: How many held requests have a streamed answer under way.
    streaming: int = 0
    #: Bytes of answers that wait for slow clients.
    unsent_bytes: int = 0
    #: Seconds that the oldest held request has waited, 0 where none waits.
    oldest_age: float = 0.0
    #: Most requests and bytes that the relay holds; None where it does not say.
    max_held: int | None = None
    max_held_bytes: int | None = None
    #: Counters since the relay's start: `ENDS`, ``aborted_`` with each of `BREAKS`, and replies
    #: that found nobody; those that never were may be missing.
    counters: Mapping[str, int] = field(default_factory=dict)
    #: Errors of the relay's own by their reason, since its start.
    refusals: Mapping[str, int] = field(default_factory=dict)
    #: Queues by name; "" is for requests that were refused before they had a queue.
    queues: Mapping[str, QueueState] = field(default_factory=dict)
    #: Gates of the queues that the relay has last seen paused.
    gates: Mapping[str, GateState] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotState:
    """One slot of a pool, or a post of a resident one."""

    #: Number of the slot, from 1.
    number: int
    #: State of the slot: ``idle``, ``starting``, ``running``, ``ending``; of residents also
    #: ``waiting``.
    state: str
    pid: int | None = None
    #: Id of the slot's message.
    message: str | None = None
    queue: str | None = None
    #: Seconds since the slot began on the message; of residents since the process was started.
    age: float | None = None
    #: Number of the attempt, from 1; of a waiting resident the starts that came to nothing.
    attempt: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRecord:
    """A process of a pool that has ended."""

    #: Unix seconds at which the process ended.
    at: float
    #: Id of the process's message, "" for residents.
    message: str
    queue: str
    #: Exit status, None where a signal ended it or it was not started.
    code: int | None
    #: Name of the signal, such as ``SIGKILL``; beside a code where that stands for it (137).
    signal: str | None
    #: Seconds that the process ran.
    run: float
    #: Outcome of the attempt, the value of an `Outcome`.
    outcome: str
    #: The last output on stderr, bounded.
    stderr: str
    #: The same on stdout, of a script that failed.
    stdout: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDurations:
    """How long the messages of one queue took in one pool."""

    #: Durations from push to the first attempt.
    wait: Durations = NO_DURATIONS
    #: Durations of each attempt.
    run: Durations = NO_DURATIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolState:
    """One pool of a process; counters and durations are since its start."""

    name: str
    #: Queues in the order of priority.
    queues: Sequence[str]
    #: How many slots the pool has, and its bounds.
    size: int
    min: int
    max: int
    #: Why the pool takes no more messages; "" where it takes them.
    resting: str
    slots: Sequence[SlotState]
    #: The last exits, newest first.
    exits: Sequence[ExitRecord]
    #: Attempts and messages by `OUTCOMES`; those that never were may be missing.
    counters: Mapping[str, int]
    #: The counters per second, over the last minute.
    rates: Mapping[str, float]
    #: Whether the pool's processes talk to Redis themselves.
    resident: bool = False
    #: Slots that have work; of residents processes that run.
    busy: int = 0
    #: Residents that do not stay up.
    looping: int = 0
    #: Messages whose script could not be run more than once, and why; "" for none.
    unstartable: str = ""
    #: Messages by queue that are over: acknowledged or failed.
    left: Mapping[str, int] = field(default_factory=dict)
    durations: Mapping[str, JobDurations] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolNode(Node):
    """The record of the pools of one process."""

    role: str = POOL
    pools: Sequence[PoolState] = ()


def encode(node: Node) -> bytes:
    """The JSON of a record: an object of its fields."""
    return orjson.dumps(node, default=_plain)


def _plain(value: object) -> Any:
    """A value that orjson does not write by itself, as one that it does."""
    match value:
        case Durations():
            return publish(value)
        case LoopAge():
            return list(value)
    raise TypeError(type(value).__name__)


def decode(raw: bytes, *, id: str) -> Node:
    """The record that the node `id` published: of the class of its role. Raises `Unreadable`."""
    try:
        value = Table(orjson.loads(raw))
        common: dict[str, Any] = {
            "id": bounded(id),
            "version": value.text("version"),
            "host": value.text("host"),
            "pid": value.whole("pid"),
            "at": value.number("at"),
            "skew": value.maybe_signed("skew"),
            "uptime": value.number("uptime"),
            "draining": value.flag("draining"),
            "loops": tuple(_loops(value.several("loops"))),
        }
        role = value.text("role")
        if role == RELAY:
            return _relay(value, common)
        if role == POOL:
            pools = tuple(_pool(one) for one in value.tables("pools"))
            return PoolNode(pools=pools, **common)
        return Node(role=role, **common)
    except (TypeError, ValueError, RecursionError) as error:
        raise Unreadable(str(error)) from error


def _loops(found: Iterable[Any]) -> Iterable[LoopAge]:
    for one in found:
        match one:
            case [str(name), int() | float() as age, int() | float() as limit]:
                yield LoopAge(bounded(name), age, limit)


def _relay(value: Table, common: Mapping[str, Any]) -> RelayNode:
    return RelayNode(
        held=value.whole("held"),
        held_bytes=value.whole("held_bytes"),
        streaming=value.whole("streaming"),
        unsent_bytes=value.whole("unsent_bytes"),
        oldest_age=value.number("oldest_age"),
        max_held=value.maybe_whole("max_held"),
        max_held_bytes=value.maybe_whole("max_held_bytes"),
        counters=value.counts("counters"),
        refusals=value.counts("refusals"),
        queues={queue: _queue(one) for queue, one in value.each("queues")},
        gates={
            queue: GateState(since=one.number("since"), by=one.text("by"))
            for queue, one in value.each("gates")
        },
        **common,
    )


def _queue(value: Table) -> QueueState:
    return QueueState(
        held=value.whole("held"),
        gated=value.whole("gated"),
        taken=value.whole("taken"),
        codes=value.counts("codes"),
        total=_durations(value, "total"),
        wait=_durations(value, "wait"),
        run=_durations(value, "run"),
    )


def _pool(value: Table) -> PoolState:
    return PoolState(
        name=value.text("name"),
        queues=value.texts("queues"),
        size=value.whole("size"),
        min=value.whole("min"),
        max=value.whole("max"),
        resting=value.text("resting", LONG_TEXT),
        slots=tuple(_slot(one) for one in value.tables("slots")),
        exits=tuple(_exit(one) for one in value.tables("exits")),
        counters=value.counts("counters"),
        rates=value.numbers("rates"),
        resident=value.flag("resident"),
        busy=value.whole("busy"),
        looping=value.whole("looping"),
        unstartable=value.text("unstartable", LONG_TEXT),
        left=value.counts("left"),
        durations={
            queue: JobDurations(wait=_durations(one, "wait"), run=_durations(one, "run"))
            for queue, one in value.each("durations")
        },
    )


def _slot(value: Table) -> SlotState:
    return SlotState(
        number=value.whole("number"),
        state=value.text("state"),
        pid=value.maybe_whole("pid"),
        message=value.maybe_text("message"),
        queue=value.maybe_text("queue"),
        age=value.maybe_number("age"),
        attempt=value.maybe_whole("attempt"),
    )


def _exit(value: Table) -> ExitRecord:
    return ExitRecord(
        at=value.number("at"),
        message=value.text("message"),
        queue=value.text("queue"),
        code=value.maybe_whole("code"),
        signal=value.maybe_text("signal"),
        run=value.number("run"),
        outcome=value.text("outcome"),
        stderr=value.text("stderr", LONG_TEXT),
        stdout=value.text("stdout", LONG_TEXT),
    )


def _durations(value: Table, key: str) -> Durations:
    found = value.get(key)
    return NO_DURATIONS if found is None else read(found)
