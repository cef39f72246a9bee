"""Durations in fixed buckets: what is counted in one place can be added up in another.

The bounds are the same everywhere, for ever: histograms of different processes, hosts and releases
are added bucket by bucket. As Prometheus has it, a bound belongs to the bucket below it.

Published, a histogram is ``[sum, count, count, ...]``, buckets not cumulative, zeros at the end
left out.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

#: Upper bounds of the buckets in seconds; one more bucket is above them.
BOUNDS: Final = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0),
)
#: How many buckets there are.
BUCKETS: Final = len(BOUNDS) + 1
#: A count or a sum past this was not counted by anybody.
_MOST: Final = 2**53


class Durations(NamedTuple):
    """A histogram at one moment."""

    #: Durations counted by bucket, not cumulative.
    counts: Sequence[int]
    #: Sum of all durations in seconds.
    sum: float


#: The histogram without durations.
NO_DURATIONS: Final = Durations(counts=(0,) * BUCKETS, sum=0.0)


class Histogram:
    """Counts durations in seconds."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        #: Durations counted by bucket, not cumulative.
        self.counts = [0] * BUCKETS
        #: Sum of all durations in seconds.
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration; a negative one, as clocks that were set give it, counts as 0."""
        if seconds > 0.0:
            self.counts[bisect_left(BOUNDS, seconds)] += 1
            self.sum += seconds
        else:
            self.counts[0] += 1

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return sum(self.counts)

    def durations(self) -> Durations:
        """The durations that were counted until now."""
        return Durations(counts=tuple(self.counts), sum=self.sum)


def publish(durations: Durations) -> list[float]:
    """The published histogram: ``[sum, count, ...]`` without the zeros at the end."""
    counts, total = durations
    used = len(counts)
    while used and not counts[used - 1]:
        used -= 1
    return [round(total, 6), *counts[:used]]


def read(value: object) -> Durations:
    """The durations of a published histogram; `ValueError` where it is none."""
    if not isinstance(value, list) or not 1 <= len(value) <= 1 + BUCKETS:
        raise ValueError("no histogram")
    total, *counts = value
    for one in counts:
        if type(one) is not int or not 0 <= one <= _MOST:
            raise ValueError("a count that is none")
    if type(total) not in (int, float) or not 0 <= total <= _MOST:
        raise ValueError("a sum that is none")
    return Durations(counts=(*counts, *[0] * (BUCKETS - len(counts))), sum=float(total))


def quantile(counts: Sequence[int], q: float) -> float | None:
    """The duration that a share `q` (0 to 1) of all does not exceed, None where there are none.

    An estimate: within a bucket durations count as evenly spread. In the last bucket it is the
    highest bound, as with Prometheus' ``histogram_quantile``.
    """
    rank = q * sum(counts)
    if not any(counts):
        return None
    below = 0
    for bucket, count in enumerate(counts):
        if count and below + count >= rank:
            if bucket == len(BOUNDS):
                return BOUNDS[-1]
            low = BOUNDS[bucket - 1] if bucket else 0.0
            return low + (BOUNDS[bucket] - low) * max(0.0, rank - below) / count
        below += count
    return BOUNDS[-1]


def cumulative(counts: Sequence[int]) -> Iterator[tuple[str, int]]:
    """The counts as Prometheus has them: ``(le, count up to it)``, the last with ``+Inf``."""
    below = 0
    for bound, count in zip(BOUNDS, counts, strict=False):
        below += count
        yield f"{bound:g}" if bound % 1 else f"{bound:.1f}", below
    yield "+Inf", below + counts[len(BOUNDS)]
