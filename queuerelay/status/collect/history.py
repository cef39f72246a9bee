"""The past: rates over the last minute, percentiles over the last minutes, and the last hour's
points. It is in memory and bounded, and `History.since` says where it begins.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from queuerelay.wire.histogram import BUCKETS, Durations, quantile

#: Seconds over which rates are taken.
RATES: Final = 60.0
#: Seconds over which percentiles are taken, and between two of the marks they are taken from.
WINDOW: Final = 300.0
MARK: Final = 10.0
#: Seconds between two points of the history, and how many there are.
STEP: Final = 10.0
POINTS: Final = 360
#: How many queues have a history of their own.
QUEUES: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """Percentiles of durations, estimated from histograms."""

    #: How many durations were counted.
    count: int = 0
    #: Seconds; None where there are none.
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The last hour of one queue, or of all: tuples as long as `History.times`.

    A value that was not known is None.
    """

    depth: tuple[int | None, ...]
    #: Seconds that the oldest message had waited.
    oldest_age: tuple[float | None, ...]
    in_per_minute: tuple[float | None, ...]
    out_per_minute: tuple[float | None, ...]
    #: Clients held at each point.
    held: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The last hour, a point each `step` seconds."""

    #: Unix seconds at which the history begins; at most an hour ago.
    since: float
    #: Seconds between two points.
    step: float
    #: Unix seconds of the points, oldest first.
    times: tuple[float, ...]
    #: The series of all queues together.
    overall: Series
    #: Dead letters at each point, of all queues together.
    failed: tuple[int | None, ...]
    #: Series by queue, bounded.
    queues: Mapping[str, Series]


@dataclass(frozen=True, slots=True)
class Passage:
    """The messages that have passed through a queue since the collector was started."""

    #: Messages on the queue, delayed ones and those in flight among them.
    backlog: int
    #: Requests that relays took for the queue.
    taken: int
    #: Messages that are over: requests by the relays, messages by the pools.
    ended: int
    left: int


class QueueRates:
    """Messages per minute into queues and out of them."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, Mapping[str, Passage]]] = deque()

    def add(self, now: float, queues: Mapping[str, Passage]) -> None:
        """Keep what has passed through each queue until `now` clock seconds."""
        self._looks.append((now, queues))
        # One is kept that is a minute old or more.
        while len(self._looks) > 1 and self._looks[1][0] <= now - RATES:
            self._looks.popleft()

    def rate(self, queue: str) -> tuple[float, float]:
        """Messages per minute in and out of a queue of the last `add`.

        What others push or take shows in the backlog alone: a backlog that grew by more than what
        we saw come must have got the rest from others, and so with what it lost.
        """
        now, after = self._looks[-1]
        # The first look mostly has it, unless the queue is new.
        began, before = next(look for look in self._looks if queue in look[1])
        first, last = before[queue], after[queue]
        come = last.taken - first.taken
        gone = max(last.ended - first.ended, last.left - first.left)
        grown = last.backlog - first.backlog
        came, went = max(come, gone + grown), max(gone, come - grown)
        per_minute = 60.0 / max(RATES, now - began)
        return max(0, came) * per_minute, max(0, went) * per_minute


class Recent:
    """Percentiles of the last minutes, out of histograms that only grow."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, dict[tuple[str, ...], Sequence[int]]]] = deque()
        self._now: Mapping[tuple[str, ...], Durations] = {}

    def add(self, now: float, durations: Mapping[tuple[str, ...], Durations]) -> None:
        """Keep the histograms as they are at `now` clock seconds."""
        self._now = durations
        if not self._marks or self._marks[-1][0] <= now - MARK:
            self._marks.append((now, {key: value.counts for key, value in durations.items()}))
        while len(self._marks) > 1 and self._marks[1][0] <= now - WINDOW:
            self._marks.popleft()

    def counts(self, key: tuple[str, ...]) -> list[int]:
        """How many durations came to each bucket within the window."""
        found = self._now.get(key)
        if found is None:
            return [0] * BUCKETS
        before = self._marks[0][1].get(key)
        if before is None:
            return list(found.counts)
        return [new - old for new, old in zip(found.counts, before, strict=True)]


def percentiles(*several: Sequence[int]) -> Percentiles:
    """The percentiles of several histograms together."""
    counts = [sum(bucket) for bucket in zip(*several, strict=True)]
    return Percentiles(
        count=sum(counts),
        p50=quantile(counts, 0.5),
        p95=quantile(counts, 0.95),
        p99=quantile(counts, 0.99),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One queue, or all queues together, at one moment; None where nothing is known."""

    depth: int | None = None
    oldest_age: float | None = None
    in_per_minute: float | None = None
    out_per_minute: float | None = None
    held: int | None = None


_NOTHING: Final = Point()


class Hour:
    """The points of the last hour."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, Point, int | None, Mapping[str, Point]]] = deque(
            maxlen=POINTS
        )
        self._made: History | None = None
        #: Clock seconds at which the next point is due.
        self._due = 0.0

    def due(self, now: float) -> bool:
        """Whether a point is due, at `now` clock seconds; true once for each point."""
        if now < self._due:
            return False
        self._due = now + STEP if now >= self._due + STEP else self._due + STEP
        return True

    def add(
        self, at: float, overall: Point, failed: int | None, queues: Mapping[str, Point]
    ) -> None:
        """A point at Unix second `at`; `queues` in the order of importance."""
        if self._points and at < self._points[-1][0]:
            # The clock was set back: what is newer than now is nobody's past.
            self._points.clear()
        kept = dict(list(queues.items())[:QUEUES])
        self._points.append((at, overall, failed, kept))
        self._made = None

    def failed(self, ago: int) -> int | None:
        """Dead letters, `ago` points before the last or at the first; None where not known."""
        return self._points[max(0, len(self._points) - 1 - ago)][2] if self._points else None

    @property
    def history(self) -> History:
        """All points; the same object until the next one comes."""
        if self._made is None:
            points = list(self._points)
            names = list(points[-1][3]) if points else []
            self._made = History(
                since=points[0][0] if points else 0.0,
                step=STEP,
                times=tuple(at for at, *_ in points),
                overall=_series([overall for _, overall, _, _ in points]),
                failed=tuple(failed for _, _, failed, _ in points),
                queues={
                    name: _series([queues.get(name, _NOTHING) for *_, queues in points])
                    for name in names
                },
            )
        return self._made


def _series(points: Sequence[Point]) -> Series:
    return Series(
        depth=tuple(one.depth for one in points),
        oldest_age=tuple(one.oldest_age for one in points),
        in_per_minute=tuple(one.in_per_minute for one in points),
        out_per_minute=tuple(one.out_per_minute for one in points),
        held=tuple(one.held for one in points),
    )
