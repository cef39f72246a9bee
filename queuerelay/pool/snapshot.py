"""What a pool shows of itself, and what it counts."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from queuerelay.pool.exits import Exit
from queuerelay.wire.histogram import Histogram
from queuerelay.wire.outcome import Outcome

#: How many exits are remembered.
EXITS: Final = 200
#: Seconds over which rates are taken.
RATE_WINDOW: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSnapshot:
    """One slot."""

    #: From 1.
    number: int
    #: ``idle``, ``starting``, ``running``, ``ending``; of residents also ``waiting``.
    state: str
    pid: int | None = None
    #: Id of its message.
    message: str | None = None
    queue: str | None = None
    #: Seconds since it began on it.
    age: float | None = None
    #: Number of the attempt, from 1.
    attempt: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitSnapshot:
    """One exit."""

    #: Unix seconds at which it ended.
    at: float
    message: str
    queue: str
    code: int | None
    #: Name of the signal that ended it.
    signal: str | None
    #: Seconds that it ran.
    run: float
    outcome: Outcome
    #: The last it said on stderr.
    stderr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSnapshot:
    """One pool, at one moment."""

    name: str
    queues: Sequence[str]
    #: How many slots it has, and its bounds.
    size: int
    min: int
    max: int
    #: Whether it takes no more messages, and why; "" where it does.
    resting: str
    slots: Sequence[SlotSnapshot]
    #: The last ones, newest first.
    exits: Sequence[ExitSnapshot]
    #: Attempts by outcome, since the start.
    counters: Mapping[str, int]
    #: Attempts per second by outcome, over the last minute.
    rates: Mapping[str, float]
    #: Whether its processes talk to Redis themselves.
    resident: bool = False
    #: Slots that have work; of residents processes that run.
    busy: int = 0
    #: Residents that do not stay up.
    looping: int = 0
    #: Messages by queue that are over: acknowledged or failed.
    left: Mapping[str, int] = field(default_factory=dict)
    #: By queue, how long first attempts had waited (``wait``) and attempts ran (``run``), as
    #: `queuerelay.wire.histogram` publishes it.
    durations: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)


class Tally:
    """Counts exits, and remembers the last."""

    def __init__(self) -> None:
        self.exits: deque[ExitSnapshot] = deque(maxlen=EXITS)
        #: Attempts by outcome; also ``unreadable``, ``expired`` and ``refused`` messages, which no
        #: script has seen.
        self.counters: Counter[str] = Counter()
        #: Attempts that ended, and messages that failed for good.
        self.processed = self.failed = 0
        #: Messages by queue that are over: acknowledged or failed.
        self.left: Counter[str] = Counter()
        #: By queue.
        self.waits: defaultdict[str, Histogram] = defaultdict(Histogram)
        self.runs: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._buckets: deque[tuple[int, Counter[str]]] = deque()

    def add(self, exit: ExitSnapshot, now: float) -> None:
        """An attempt ended, at `now` clock seconds."""
        self.exits.appendleft(exit)
        self.processed += 1
        self.count(exit.outcome.value, now)

    def count(self, outcome: str, now: float) -> None:
        """Something came of a message, at `now` clock seconds."""
        self.counters[outcome] += 1
        second = int(now)
        if not self._buckets or self._buckets[-1][0] != second:
            self._buckets.append((second, Counter()))
            self._forget(second)
        self._buckets[-1][1][outcome] += 1

    def durations(self, queues: Iterable[str]) -> dict[str, dict[str, Sequence[float]]]:
        """Waits and runs of `queues`, to be published."""
        return {
            queue: {"wait": self.waits[queue].published(), "run": self.runs[queue].published()}
            for queue in queues
        }

    def rates(self, now: float) -> dict[str, float]:
        """Attempts per second by outcome, over the last minute."""
        self._forget(int(now))
        total: Counter[str] = Counter()
        for _, bucket in self._buckets:
            total.update(bucket)
        return {outcome: count / RATE_WINDOW for outcome, count in total.items()}

    def _forget(self, second: int) -> None:
        while self._buckets and self._buckets[0][0] <= second - RATE_WINDOW:
            self._buckets.popleft()


def exit_snapshot(
    exit: Exit, *, at: float, message: str, queue: str, outcome: Outcome, stderr: str
) -> ExitSnapshot:
    """The exit as it is shown."""
    return ExitSnapshot(
        at=at,
        message=message,
        queue=queue,
        code=exit.code,
        signal=exit.signal_name,
        run=exit.run,
        outcome=outcome,
        stderr=stderr[-2048:],
    )
