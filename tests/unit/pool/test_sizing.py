"""How a pool follows its backlog."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.pool.sizing import SizeRule, next_size

RULE = SizeRule(min=2, max=5, grow_after=5.0, shrink_after=60.0)


def after(size, *, busy=None, oldest_wait=None, idle_for=0.0, rule=RULE):
    busy = size if busy is None else busy
    return next_size(size, busy=busy, oldest_wait=oldest_wait, idle_for=idle_for, rule=rule)


@pytest.mark.parametrize(
    ("expected", "size", "state"),
    [
        (3, 2, {"oldest_wait": 5.1}),
        # Not longer than allowed, or a free slot is about to take it, or there is nothing.
        (2, 2, {"oldest_wait": 5.0}),
        (2, 2, {"oldest_wait": 100.0, "busy": 1}),
        (2, 2, {"oldest_wait": None}),
        (5, 5, {"oldest_wait": 100.0}),
        (3, 4, {"busy": 3, "idle_for": 60.1}),
        (4, 4, {"busy": 3, "idle_for": 60.0}),
        (4, 4, {"busy": 4, "idle_for": 100.0}),
        (2, 2, {"busy": 0, "idle_for": 100.0}),
        # Bounds that changed while it ran.
        (2, 0, {}),
        (5, 9, {}),
    ],
)
def test_rule(expected, size, state):
    assert after(size, **state) == expected


def test_follows_a_backlog_up_and_down_again():
    sizes = [2]
    for _ in range(5):
        sizes.append(after(sizes[-1], oldest_wait=10.0))
    for _ in range(5):
        sizes.append(after(sizes[-1], busy=0, idle_for=61.0))
    assert sizes == [2, 3, 4, 5, 5, 5, 4, 3, 2, 2, 2]


@given(
    size=st.integers(0, 20),
    busy=st.integers(0, 20),
    oldest_wait=st.none() | st.floats(0, 1e6),
    idle_for=st.floats(0, 1e6),
)
def test_never_outside_the_bounds_and_by_one_within(size, busy, oldest_wait, idle_for):
    got = after(size, busy=busy, oldest_wait=oldest_wait, idle_for=idle_for)
    assert RULE.min <= got <= RULE.max
    if RULE.min <= size <= RULE.max:
        assert abs(got - size) <= 1
    fixed = SizeRule(min=3, max=3, grow_after=0.0, shrink_after=0.0)
    assert after(size, busy=busy, oldest_wait=oldest_wait, idle_for=idle_for, rule=fixed) == 3
