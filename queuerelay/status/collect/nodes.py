"""What nodes publish, read: other processes write it, and anybody may, so nothing of it is trusted.

A node publishes JSON: ``role``, ``id``, ``version``, ``host``, ``pid``, ``at``, ``uptime``,
``draining``, ``loops`` (``[name, age, limit]`` each), and what is its role's own. What is missing
reads as nothing; what cannot be is `Unreadable`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import orjson

from queuerelay.status.collect.ledger import Counts, Key
from queuerelay.status.collect.snapshot import (
    CODES,
    Exit,
    Held,
    LoopState,
    Node,
    Percentiles,
    Pool,
    Slot,
)
from queuerelay.wire import histogram

#: Seconds without a beat after which a node counts as stale; nodes beat every 2 s.
STALE: Final = 7.0
#: Characters of any text, those of a script's stderr apart.
TEXT: Final = 256
STDERR: Final = 2048
#: Most entries of any list or table.
MOST: Final = 2000
#: Ends of held requests, by name.
ENDS: Final = ("answered", "expired", "gone", "refused", "aborted")
#: What became of attempts and messages of a pool.
OUTCOMES: Final = (
    *("success", "transient", "critical", "crash", "misconfigured", "interrupted", "abandoned"),
    *("expired", "refused", "unreadable"),
)
_LAST: Final = 2**53

_T = TypeVar("_T")


class Unreadable(ValueError):
    """A node's snapshot is none."""


@dataclass(slots=True, kw_only=True)
class Queues:
    """What one node does with one queue."""

    #: Clients held for it, and those of them that are not on it.
    held: int = 0
    gated: int = 0


@dataclass(slots=True, kw_only=True)
class Told:
    """What one node has said."""

    node: Node
    held: Held | None = None
    pools: list[Pool] = field(default_factory=list)
    #: Queues that it is configured for.
    queues: dict[str, Queues] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)


def decode(raw: bytes, *, id: str, beat_age: float, local: bool = False) -> Told:
    """The snapshot `raw` of the node `id`. Raises `Unreadable`."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Unreadable("not JSON") from error
    return read(value, id=id, beat_age=beat_age, local=local)


def silent(id: str, beat_age: float) -> Told:
    """A node on the list that says nothing any more."""
    return Told(
        node=Node(
            id=id[:TEXT],
            role="",
            host="",
            pid=0,
            version="",
            beat_age=beat_age,
            stale=True,
            draining=False,
            loops=(),
            local=False,
        )
    )


def aged(told: Told, more: float) -> Told:
    """As it is `more` seconds later, where nothing was heard of it since; `told` is not changed."""
    node = told.node
    if node.local:
        return told
    age = (node.beat_age or 0.0) + more
    return replace(told, node=replace(node, beat_age=age, stale=age > STALE))


def read(value: object, *, id: str, beat_age: float, local: bool = False) -> Told:
    """The snapshot `value`, as JSON has it. Raises `Unreadable`."""
    try:
        told = _told(_Table(value), id, beat_age, local)
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        raise Unreadable(str(error)) from error
    return told


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < _LAST


class _Table:
    """A JSON object whose values are read as what they have to be."""

    def __init__(self, value: object) -> None:
        if not isinstance(value, dict):
            raise TypeError("expected an object")
        self._value = value

    def text(self, key: str, longest: int = TEXT) -> str:
        value = self._value.get(key)
        return value[:longest] if isinstance(value, str) else ""

    def maybe_text(self, key: str) -> str | None:
        value = self._value.get(key)
        return value[:TEXT] if isinstance(value, str) else None

    def whole(self, key: str) -> int:
        return self.maybe_whole(key) or 0

    def maybe_whole(self, key: str) -> int | None:
        value = self._value.get(key)
        return value if type(value) is int and -_LAST < value < _LAST else None

    def seconds(self, key: str) -> float:
        return self.maybe_seconds(key) or 0.0

    def maybe_seconds(self, key: str) -> float | None:
        value: Any = self._value.get(key)
        return float(value) if _is_number(value) else None

    def flag(self, key: str) -> bool:
        return self._value.get(key) is True

    def several(self, key: str) -> list[Any]:
        value = self._value.get(key)
        return value[:MOST] if isinstance(value, list) else []

    def tables(self, key: str) -> Iterable["_Table"]:
        return [_Table(one) for one in self.several(key)]

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(one[:TEXT] for one in self.several(key) if isinstance(one, str))

    def items(self, key: str) -> Iterable[tuple[str, Any]]:
        value = self._value.get(key)
        return list(value.items())[:MOST] if isinstance(value, dict) else []

    def each(self, key: str) -> Iterable[tuple[str, "_Table"]]:
        return [(name[:TEXT], _Table(one)) for name, one in self.items(key)]

    def counts(self, key: str) -> dict[str, int]:
        return {
            name[:TEXT]: one
            for name, one in self.items(key)
            if type(one) is int and 0 <= one < _LAST
        }

    def rates(self, key: str) -> dict[str, float]:
        return {name[:TEXT]: 60.0 * one for name, one in self.items(key) if _is_number(one)}

    def histogram(self, key: str) -> tuple[list[int], float] | None:
        value = self._value.get(key)
        return None if value is None else histogram.read(value)


def _told(value: _Table, id: str, beat_age: float, local: bool) -> Told:
    role = value.text("role")
    node = Node(
        id=id[:TEXT],
        role=role,
        host=value.text("host"),
        pid=value.whole("pid"),
        version=value.text("version"),
        beat_age=beat_age,
        stale=beat_age > STALE,
        draining=value.flag("draining"),
        loops=tuple(_loops(value.several("loops"), beat_age)),
        local=local,
    )
    told = Told(node=node, counts=Counts(uptime=value.seconds("uptime")))
    if role == "relay":
        _relay(value, told)
    elif role == "pool":
        _pools(value, told)
    return told


def _loops(found: Iterable[Any], beat_age: float) -> Iterable[LoopState]:
    for one in found:
        match one:
            case [str(name), int() | float() as age, int() | float() as limit]:
                yield LoopState(name=name[:TEXT], age=age + beat_age, stale=age > limit)


def _relay(value: _Table, told: Told) -> None:
    node, numbers, durations = told.node, told.counts.numbers, told.counts.durations
    counters = value.counts("counters")
    for name in ENDS:
        numbers["end", name] = counters.pop(name, 0)
    for name, number in counters.items():
        numbers["reply", name] = number
    for reason, number in value.counts("refusals").items():
        numbers["refusal", reason] = number
    held = gated = 0
    for queue, one in value.each("queues"):
        codes = one.counts("codes")
        for code in CODES:
            numbers["code", queue, code] = codes.get(code, 0)
        numbers["taken", queue] = one.whole("taken")
        numbers["ended", queue] = sum(codes.get(code, 0) for code in CODES)
        for name in ("total", "wait", "run"):
            found = one.histogram(name)
            if found is not None:
                durations[name, queue] = found
        # "" is for those that had no queue yet.
        if queue:
            told.queues[queue] = Queues(held=one.whole("held"), gated=one.whole("gated"))
            held += one.whole("held")
            gated += one.whole("gated")
    told.held = Held(
        node=node.id,
        host=node.host,
        pid=node.pid,
        count=value.whole("held"),
        gated=gated,
        bytes=value.whole("held_bytes"),
        oldest_age=value.seconds("oldest_age"),
        max_count=value.maybe_whole("max_held"),
        max_bytes=value.maybe_whole("max_held_bytes"),
        draining=node.draining,
    )


def _pools(value: _Table, told: Told) -> None:
    numbers, durations = told.counts.numbers, told.counts.durations
    for one in value.tables("pools"):
        name, queues = one.text("name"), one.texts("queues")
        outcomes = {**dict.fromkeys(OUTCOMES, 0), **one.counts("counters")}
        for outcome, number in outcomes.items():
            numbers["job", name, outcome] = number
        for queue in queues:
            told.queues.setdefault(queue, Queues())
        for queue, number in one.counts("left").items():
            key: Key = ("left", queue)
            numbers[key] = numbers.get(key, 0) + number
        for queue, each in one.each("durations"):
            for kind in ("wait", "run"):
                found = each.histogram(kind)
                if found is not None:
                    durations[f"job_{kind}", name, queue] = found
        told.pools.append(_pool(one, told.node, name, queues, outcomes))


def _pool(
    one: _Table, node: Node, name: str, queues: tuple[str, ...], outcomes: Mapping[str, int]
) -> Pool:
    return Pool(
        name=name,
        node=node.id,
        host=node.host,
        queues=queues,
        resident=one.flag("resident"),
        size=one.whole("size"),
        min=one.whole("min"),
        max=one.whole("max"),
        busy=one.whole("busy"),
        resting=one.text("resting", STDERR),
        looping=one.whole("looping"),
        slots=tuple(_each(one.tables("slots"), _slot)),
        exits=tuple(_each(one.tables("exits"), _exit)),
        outcomes=outcomes,
        per_minute=one.rates("rates"),
        wait=Percentiles(),
        run=Percentiles(),
    )


def _each(tables: Iterable[_Table], make: Callable[[_Table], _T]) -> Iterable[_T]:
    return [make(one) for one in tables]


def _slot(one: _Table) -> Slot:
    return Slot(
        number=one.whole("number"),
        state=one.text("state"),
        pid=one.maybe_whole("pid"),
        message=one.maybe_text("message"),
        queue=one.maybe_text("queue"),
        age=one.maybe_seconds("age"),
        attempt=one.maybe_whole("attempt"),
    )


def _exit(one: _Table) -> Exit:
    return Exit(
        at=one.seconds("at"),
        message=one.text("message"),
        queue=one.text("queue"),
        code=one.maybe_whole("code"),
        signal=one.maybe_text("signal"),
        run=one.seconds("run"),
        outcome=one.text("outcome"),
        stderr=one.text("stderr", STDERR),
    )
