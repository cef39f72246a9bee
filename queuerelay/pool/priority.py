"""In which order a pool looks into its queues: strict, or drawn by weights."""

import math
import random
from collections.abc import Callable, Sequence


def prioritized(
    queues: Sequence[str],
    weights: Sequence[float] = (),
    *,
    draw: Callable[[], float] = random.random,
) -> list[str]:
    """The queues in the order of one claim, which takes from the first that is not empty.

    Without `weights` it is always the given one: a queue is served only while those before it are
    empty. With a weight (above 0) for each queue the order is drawn for every claim: a queue comes
    first with its weight's share of all weights, and among those that are left with its share of
    those. So of the claims that find something in it, a queue of weight w gets at least w / (sum of
    all weights), however full the others are: with ``[5, 1]`` one in six, and no queue starves.

    `draw` gives numbers from [0, 1), one for each queue.
    """
    if not weights:
        return list(queues)
    # The first of independent exponential clocks with these rates: Efraimidis and Spirakis,
    # "Weighted random sampling with a reservoir" (2006), A-Res.
    drawn = [
        (-math.log1p(-draw()) / weight, number)
        for number, weight in zip(range(len(queues)), weights, strict=True)
    ]
    return [queues[number] for _, number in sorted(drawn)]
