"""Counters and durations of a relay's requests, by queue.

The meter is on the way of every request: an answer costs a few hundred nanoseconds here, and must
stay so.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from queuerelay.wire.histogram import Histogram
from queuerelay.wire.node import CODES, QueueState
from queuerelay.wire.reply import Reply

_GONE: Final = CODES.index("gone")
_ABORTED: Final = CODES.index("aborted")


class QueueMeter:
    """Requests of one queue."""

    __slots__ = ("codes", "run", "total", "wait")

    def __init__(self) -> None:
        #: Requests that have ended, by `CODES`.
        self.codes = [0] * len(CODES)
        #: Durations from a client's request to its answer.
        self.total = Histogram()
        #: Durations in the queue and in the worker, as workers say.
        self.wait = Histogram()
        self.run = Histogram()

    def answered(self, reply: Reply, seconds: float) -> None:
        """A worker's reply went out after so long."""
        self.codes[reply.status // 100 - 2] += 1
        self.total.observe(seconds)
        if reply.timing is not None:
            wait, run = reply.timing
            if wait is not None:
                self.wait.observe(wait)
            if run is not None:
                self.run.observe(run)

    def ended(self, status: int, seconds: float) -> None:
        """An answer ended after so long, of our own or in parts."""
        self.codes[status // 100 - 2] += 1
        self.total.observe(seconds)

    def aborted(self) -> None:
        """The answer was broken off."""
        self.codes[_ABORTED] += 1

    def gone(self) -> None:
        """The client left without an answer."""
        self.codes[_GONE] += 1


class Meter:
    """Requests of all queues; ``""`` is for those that were refused before they had one."""

    def __init__(self, queues: Iterable[str]) -> None:
        self._queues = {queue: QueueMeter() for queue in ("", *queues)}

    def __getitem__(self, queue: str) -> QueueMeter:
        return self._queues[queue]

    def refused(self, status: int) -> None:
        """A request was refused before it had a queue."""
        self._queues[""].codes[status // 100 - 2] += 1

    def queues(self, held: Mapping[str, tuple[int, int]]) -> dict[str, QueueState]:
        """The counts of each queue; `held` says how many requests are held and gated now."""
        states = {}
        for queue, meter in self._queues.items():
            count, gated = held.get(queue, (0, 0))
            states[queue] = QueueState(
                held=count,
                gated=gated,
                taken=sum(meter.codes) + count if queue else 0,
                codes=dict(zip(CODES, meter.codes, strict=True)),
                total=meter.total.durations(),
                wait=meter.wait.durations(),
                run=meter.run.durations(),
            )
        return states
