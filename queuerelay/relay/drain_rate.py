"""How fast queues are worked off, and so when it is worth to come back (``Retry-After``).

Pure; time is an argument. The rate of a queue is how many of its requests were answered per second
of the time in which something waited on it: an idle worker says nothing about how fast it is. Older
times count less, by half after 40 s.

Invariants:

1. A request costs one addition; everything else is done at the looks at the depths.
2. What was not measured is not guessed: then there is no estimate.
3. It is what this relay saw answered. Where several relays share a queue, each sees a part of it,
   so the estimate is rather too long than too short.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, exp
from typing import Final

#: Seconds after which a measurement counts 1/e.
MEMORY: Final = 60.0
#: Seconds between two looks, beyond which they say nothing about the time between them.
LONGEST_LOOK: Final = 5.0
#: Least that makes a measurement: answers, and seconds.
LEAST_ANSWERS: Final = 2.0
LEAST_TIME: Final = 2.0
#: Bounds of an estimate, in seconds.
SHORTEST: Final = 1
LONGEST: Final = 300


@dataclass(slots=True)
class _Queue:
    #: Clock seconds of the last look, and what waited then.
    at: float
    length: int
    #: Answers since the last look.
    answers: int = 0
    #: Answers, and the seconds that they took, each with its weight.
    done: float = 0.0
    busy: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second, 0 where the rate is not known."""
        if self.done < LEAST_ANSWERS or self.busy < LEAST_TIME:
            return 0.0
        return self.done / self.busy


class DrainRate:
    """The rates of all queues of one relay."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}

    def answered(self, queue: str) -> None:
        """A request from `queue` was answered."""
        found = self._queues.get(queue)
        if found is not None:
            found.answers += 1

    def saw(self, queue: str, length: int, now: float) -> None:
        """At `now`, in clock seconds, `length` messages wait on `queue`."""
        found = self._queues.get(queue)
        if found is None:
            self._queues[queue] = _Queue(now, length)
            return
        elapsed = now - found.at
        weight = exp(-elapsed / MEMORY)
        found.done *= weight
        found.busy *= weight
        if found.length and length and elapsed <= LONGEST_LOOK:
            found.done += found.answers
            found.busy += elapsed
        found.at, found.length, found.answers = now, length, 0

    def seconds(self, depth: int, queues: Iterable[str] | None = None) -> int | None:
        """Seconds until `depth` messages are worked off, whole and within bounds; None where the
        rate is not known. `queues` are those on which the messages wait, by default all.
        """
        chosen = self._queues if queues is None else queues
        rate = sum(self._queues[queue].rate for queue in chosen if queue in self._queues)
        if not rate:
            return None
        return min(LONGEST, max(SHORTEST, ceil(depth / rate)))
