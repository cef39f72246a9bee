"""How large a pool with ``min`` and ``max`` is: one plain rule.

One slot more while the oldest message has waited longer than ``grow_after`` and every slot is busy;
one slot less when a slot has had nothing to do for ``shrink_after``; never outside ``min`` and
``max``. By one at a time, so that a burst does not start a hundred processes at once, and asked
once every `INTERVAL`, so that a new slot has had the time to take something.
"""

from dataclasses import dataclass
from typing import Final

#: Seconds between two questions.
INTERVAL: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeRule:
    """The bounds of a pool and when it moves between them."""

    #: Slots, at least and at most.
    min: int
    max: int
    #: Seconds that the oldest message may wait before a slot is added.
    grow_after: float
    #: Seconds that a slot may be idle before it is taken away.
    shrink_after: float


def next_size(
    size: int, *, busy: int, oldest_wait: float | None, idle_for: float, rule: SizeRule
) -> int:
    """How many slots a pool of `size` should have now.

    `busy` slots have a message. `oldest_wait` is how many seconds the oldest message that the pool
    may take has waited, None where there is none (or the gate is closed: more slots would not
    help). `idle_for` is how many seconds the longest idle slot has had nothing to do, counted
    again from the last change of size, so that the slots go one by one.
    """
    if size < rule.min:
        return rule.min
    if size > rule.max:
        return rule.max
    if oldest_wait is not None and oldest_wait > rule.grow_after and busy >= size:
        return min(size + 1, rule.max)
    if busy < size and idle_for > rule.shrink_after:
        return max(size - 1, rule.min)
    return size
