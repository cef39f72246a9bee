"""The counters of a pool, and the exits that it remembers."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from typing import Final

from queuerelay.pool.exits import ProcessEnd
from queuerelay.wire.histogram import Histogram
from queuerelay.wire.node import ExitRecord, JobDurations
from queuerelay.wire.outcome import Outcome

#: How many exits are remembered.
EXITS: Final = 200
#: Characters that are remembered of what each said on stderr, and on stdout.
SAID: Final = 2048
#: Seconds over which rates are taken.
RATE_WINDOW: Final = 60


class Tally:
    """Counts exits, and remembers the last."""

    def __init__(self) -> None:
        self.exits: deque[ExitRecord] = deque(maxlen=EXITS)
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

    def add(self, exit: ExitRecord, now: float) -> None:
        """Count an attempt that ended at `now` clock seconds, and remember it."""
        self.exits.appendleft(exit)
        self.processed += 1
        self.count(exit.outcome, now)

    def count(self, outcome: str, now: float) -> None:
        """Count what became of a message at `now` clock seconds."""
        self.counters[outcome] += 1
        second = int(now)
        if not self._buckets or self._buckets[-1][0] != second:
            self._buckets.append((second, Counter()))
            self._forget(second)
        self._buckets[-1][1][outcome] += 1

    def durations(self, queues: Iterable[str]) -> dict[str, JobDurations]:
        """Waits and runs of `queues`."""
        return {
            queue: JobDurations(
                wait=self.waits[queue].durations(), run=self.runs[queue].durations()
            )
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


def exit_record(
    exit: ProcessEnd,
    *,
    at: float,
    message: str,
    queue: str,
    outcome: Outcome,
    stderr: str = "",
    stdout: str = "",
) -> ExitRecord:
    """The exit as it is shown, with the end of its stderr, and of its stdout where it failed."""
    return ExitRecord(
        at=at,
        message=message,
        queue=queue,
        code=exit.code,
        signal=exit.signal_name,
        run=exit.run,
        outcome=outcome.value,
        stderr=stderr[-SAID:],
        stdout=stdout[-SAID:],
    )
