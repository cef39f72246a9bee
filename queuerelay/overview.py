"""The output of ``queuerelay status``: health, queues and pools, as lines for a terminal."""

from typing import Any, Final

from queuerelay.safe_text import safe
from queuerelay.terminal import cut, painted, span, table

_COLOURS: Final = {"ok": "32", "warning": "33", "critical": "31"}


def overview(found: dict[str, Any], columns: int, *, colour: bool) -> list[str]:
    """``/status.json`` as lines of so many columns."""
    health, redis = found["health"], found["redis"]
    word = safe(str(health["severity"]))
    first = cut(
        f"queuerelay {safe(str(found['version']))}   {word}   "
        f"Redis {'up' if redis['up'] else 'DOWN'}"
        f"{'' if redis['latency'] is None else ', ' + span(redis['latency'])}   "
        f"{sum(one['count'] for one in found['held'])} held   "
        f"{found['failures']['total']} dead letters",
        columns,
    )
    # Colours take no columns.
    lines = [first.replace(f"   {word}   ", f"   {_painted(word, colour)}   ", 1)]
    lines += [f"  {safe(one['severity'])}: {safe(one['text'])}" for one in health["reasons"][:20]]
    lines += [""]
    lines += table(
        (
            *("QUEUE", "STATE", ">WAITING", ">OLDEST", ">IN FLIGHT", ">DELAYED", ">HELD"),
            *(">IN/MIN", ">OUT/MIN", ">WAIT P95", ">RUN P95", ">WORKERS"),
        ),
        [_queue(one) for one in found["queues"]],
        columns=columns,
        spare=(">DELAYED", ">IN/MIN", ">OUT/MIN", ">RUN P95", ">HELD", ">WAIT P95"),
    )
    if found["pools"]:
        lines += [""]
        lines += table(
            ("POOL", "HOST", "NODE", ">BUSY", ">SIZE", ">DONE/MIN", ">FAILED", "STATE"),
            [_pool(one) for one in found["pools"]],
            columns=columns,
            spare=(">DONE/MIN", "HOST"),
        )
    return [lines[0], *(cut(line, columns) for line in lines[1:])]


def _queue(one: dict[str, Any]) -> tuple[str, ...]:
    state = "paused" if one["gate"] is not None else "" if one["served"] else "no worker"
    return (
        *(one["name"], state, str(one["depth"]), span(one["oldest_age"])),
        *(str(one["in_flight"]), str(one["delayed"]), str(one["held"])),
        *(f"{one['in_per_minute']:.1f}", f"{one['out_per_minute']:.1f}"),
        *(span(one["wait"]["p95"]), span(one["run"]["p95"]), str(one["workers"])),
    )


def _pool(one: dict[str, Any]) -> tuple[str, ...]:
    outcomes = one["outcomes"]
    failed = sum(outcomes.get(name, 0) for name in ("critical", "crash", "misconfigured"))
    state = one["resting"] or (f"{one['looping']} do not stay up" if one["looping"] else "")
    # A listener of an earlier release does not say it.
    state = state or one.get("unstartable", "")
    return (
        *(one["name"], one["host"], one["node"], str(one["busy"]), str(one["size"])),
        *(f"{one['per_minute'].get('success', 0.0):.1f}", str(failed), state),
    )


def _painted(word: str, colour: bool) -> str:
    code = _COLOURS.get(word)
    return painted(word, code) if colour and code else word
