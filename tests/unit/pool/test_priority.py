"""The order of a pool's queues."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.pool.priority import prioritized

QUEUES = ("high", "middle", "low")


def shares(queues, weights, seed=1, claims=20_000):
    """How often each comes first."""
    draw = random.Random(seed).random
    firsts = [prioritized(queues, weights, draw=draw)[0] for _ in range(claims)]
    return {queue: firsts.count(queue) / claims for queue in queues}


def test_strict_without_weights():
    def draw():
        raise AssertionError("nothing to draw")

    assert prioritized(QUEUES, draw=draw) == list(QUEUES)


def test_first_by_weight():
    got = shares(QUEUES, (6, 3, 1))
    assert got == {
        "high": pytest.approx(0.6, abs=0.02),
        "middle": pytest.approx(0.3, abs=0.02),
        "low": pytest.approx(0.1, abs=0.02),
    }


def test_low_queue_is_never_starved():
    draw = random.Random(7).random
    longest = since = 0
    for _ in range(10_000):
        since = 0 if prioritized(("high", "low"), (5, 1), draw=draw)[0] == "low" else since + 1
        longest = max(longest, since)
    assert longest < 100


def test_the_same_draws_give_the_same_order():
    orders = [prioritized(QUEUES, (1, 1, 1), draw=random.Random(3).random) for _ in range(2)]
    assert orders[0] == orders[1]
    assert prioritized(QUEUES, (1, 1, 1), draw=iter([0.9, 0.0, 0.5]).__next__) == [
        "middle",
        "low",
        "high",
    ]


@given(
    queues=st.lists(st.text(), max_size=8),
    data=st.data(),
)
def test_every_queue_is_there_once(queues, data):
    weights = data.draw(st.lists(st.floats(1e-6, 1e6), min_size=len(queues), max_size=len(queues)))
    unit = st.floats(0, 1, exclude_max=True)
    got = prioritized(queues, weights, draw=lambda: data.draw(unit))
    assert sorted(got) == sorted(queues)


def test_one_weight_for_each():
    with pytest.raises(ValueError, match="zip"):
        prioritized(QUEUES, (1, 2))
