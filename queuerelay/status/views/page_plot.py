"""The last hour of something as a small plot: SVG of numbers alone, inline, without a script.

Invariants:

1. What is not known is grey, never a line and never nought.
2. Nothing foreign is in a plot: its texts are constants and numbers.
3. Two lines of one plot differ in their dashes, not in their colour alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from queuerelay.durations import in_words
from queuerelay.status.collect.history import History
from queuerelay.status.views import page_text

#: Seconds that a plot shows.
HOUR: Final = 3600.0
#: Size of a plot in units of its own; the page stretches it.
WIDTH: Final = 360
HEIGHT: Final = 60

Values = Sequence[float | None]
#: Points of a line without a gap: for each its Unix second and its value.
Run = list[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a plot."""

    name: str
    values: Values


def plots(history: History) -> dict[str, Markup]:
    """All plots of the page, by name."""
    all, text = history.overall, page_text
    return {
        "held": plot("held", history, [Line(name="Clients", values=all.held)], text.count),
        "depth": plot("depth", history, [Line(name="Messages", values=all.depth)], text.count),
        "oldest": plot("oldest", history, [Line(name="Age", values=all.oldest_age)], in_words),
        "passed": plot(
            "passed",
            history,
            [
                Line(name="In", values=all.in_per_minute),
                Line(name="Out", values=all.out_per_minute),
            ],
            text.rate,
        ),
        "failed": plot(
            "failed", history, [Line(name="Dead letters", values=history.failed)], text.count
        ),
    }


def plot(id: str, history: History, lines: Sequence[Line], words: Callable[[float], str]) -> Markup:
    """The plot of some lines; `words` writes a value for people."""
    end = history.times[-1] if history.times else 0.0
    drawn = [(line, _runs(history, line.values, end)) for line in lines]
    known = [[value for run in runs for _, value in run] for _, runs in drawn]
    top = max((max(one) for one in known if one), default=0.0)
    parts = [
        f'<path class="unknown" d="{_unknown(drawn[0][1], end, history.step)}"/>',
        *(
            f'<path class="line line{number}" d="{_line(runs, end, top)}"/>'
            for number, (_, runs) in enumerate(drawn)
        ),
    ]
    said = "; ".join(
        f"{line.name}: lowest {words(min(values))}, highest {words(max(values))}"
        if values
        else f"{line.name}: nothing known yet"
        for line, values in zip(lines, known, strict=True)
    )
    # The labels are beside the picture: what is stretched with it cannot be read.
    return Markup(
        f'<div class="plot"><span class="top">{f"max {words(top)}" if top else ""}</span>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-labelledby="plot-{id}-title plot-{id}-said">'
        f'<title id="plot-{id}-title">The last hour</title>'
        f'<desc id="plot-{id}-said">{said}</desc>{"".join(parts)}</svg>'
        f'<span class="from">1 h ago</span><span class="to">now</span></div>'
    )


def _x(at: float, end: float) -> float:
    return round(WIDTH * (1 - (end - at) / HOUR), 1)


def _runs(history: History, values: Values, end: float) -> list[Run]:
    """The known values, in pieces without a gap."""
    runs: list[Run] = []
    before: float | None = None
    for at, value in zip(history.times, values, strict=True):
        if value is None or at < end - HOUR:
            before = None
            continue
        if before is None or at - before > 2.5 * history.step:
            runs.append([])
        runs[-1].append((at, value))
        before = at
    return runs


def _line(runs: Sequence[Run], end: float, top: float) -> str:
    # A little room above and below, so that no half of a line is cut off.
    scale = (HEIGHT - 4) / top if top else 0.0
    drawn = []
    for run in runs:
        points = [f"{_x(at, end):g} {HEIGHT - 2 - value * scale:.1f}" for at, value in run]
        # A single point is a line of no length: its round ends show.
        drawn.append("M" + "L".join(points) + ("" if len(points) > 1 else "h0"))
    return "".join(drawn)


def _unknown(runs: Sequence[Run], end: float, step: float) -> str:
    edges = [end - HOUR]
    for run in runs:
        edges += [run[0][0] - step / 2, run[-1][0] + step / 2]
    edges.append(end)
    drawn = []
    for left, right in zip(edges[::2], edges[1::2], strict=True):
        a, b = max(0.0, _x(left, end)), min(float(WIDTH), _x(right, end))
        if b - a > 1:
            drawn.append(f"M{a:g} 0H{b:g}V{HEIGHT}H{a:g}z")
    return "".join(drawn)
