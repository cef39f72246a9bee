"""``Retry-After``: from the depth of a queue and how fast it is worked off."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from queuerelay.errors import NotStarted, QueueFull, QueueUnavailable, Refusal, TooManyHeld
from queuerelay.relay.drain_rate import LONGEST, MEMORY, DrainRate
from tests.unit.relay.stage import FakeClient


def measured(rate, *, seconds=10, length=1000, drain=None, since=0.0):
    """A `DrainRate` that saw `rate` answers in each of `seconds`."""
    drain = drain or DrainRate()
    drain.saw("q", length, since)
    for second in range(1, seconds + 1):
        for _ in range(rate):
            drain.answered("q")
        drain.saw("q", length, since + second)
    return drain


@pytest.mark.parametrize(
    ("rate", "depth", "expected"),
    [(10, 100, 10), (10, 101, 11), (10, 1, 1), (10, 0, 1), (1, 100, 100), (1, 10**6, LONGEST)],
)
def test_it_is_the_depth_by_the_rate_within_bounds(rate, depth, expected):
    assert measured(rate).seconds(depth, ["q"]) == expected


def test_nothing_is_guessed():
    assert DrainRate().seconds(10) is None
    assert DrainRate().seconds(10, ["q"]) is None
    assert measured(0).seconds(10, ["q"]) is None
    # Too short to tell, and one answer only.
    assert measured(100, seconds=1).seconds(10, ["q"]) is None
    drain = measured(0, seconds=3)
    drain.answered("q")
    drain.saw("q", 1, 4)
    assert drain.seconds(10, ["q"]) is None
    assert measured(10).seconds(10, ["other"]) is None


def test_answers_count_only_while_something_waits():
    # A hundred a second that came one by one would say that the workers can do no more.
    assert measured(100, length=0).seconds(10, ["q"]) is None
    drain = measured(100, length=0, seconds=50)
    measured(10, drain=drain, since=50)
    assert drain.seconds(100, ["q"]) == 10


def test_the_last_minute_counts_and_what_is_long_ago_does_not():
    drain = measured(10, seconds=60)
    measured(1, drain=drain, since=60, seconds=60)
    assert 20 < drain.seconds(100, ["q"]) < 50
    measured(1, drain=drain, since=120, seconds=300)
    assert drain.seconds(100, ["q"]) > 95
    # Idle for long: nothing is known any more.
    for second in range(10 * int(MEMORY)):
        drain.saw("q", 0, 420 + second)
    assert drain.seconds(100, ["q"]) is None


def test_what_was_not_looked_at_is_left_out():
    drain = measured(10)
    # Redis was away for half a minute; what was answered meanwhile tells nothing.
    drain.answered("q")
    drain.saw("q", 1000, 40)
    assert drain.seconds(100, ["q"]) == 10


def test_of_several_queues_the_rates_are_added():
    drain = measured(10)
    drain.saw("r", 5, 0)
    for second in range(1, 6):
        for _ in range(30):
            drain.answered("r")
        drain.saw("r", 5, second)
    assert drain.seconds(120, ["r"]) == 4
    assert drain.seconds(120, ["q", "r"]) == 3
    assert drain.seconds(120) == 3


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 10**6), st.integers(0, 50))),
    st.integers(0, 10**9),
)
def test_it_is_always_within_bounds_or_unknown(looks, depth):
    drain, now = DrainRate(), 0.0
    for length, elapsed, answers in looks:
        for _ in range(answers):
            drain.answered("q")
        now += elapsed
        drain.saw("q", length, now)
    assert drain.seconds(depth) in (None, *range(1, LONGEST + 1))


# In the relay


def busy(make_stage, **options):
    """A stage that answers ten requests a second while others wait."""
    stage = make_stage(deadline=30, **options)
    for _ in range(6):
        stage.hold()
    for _ in range(5):
        for _ in range(10):
            stage.hold()
            stage.turn()
            stage.reply(stage.take())
        stage.turn(1)
    assert stage.relay.snapshot().held == 6
    return stage


def refused(stage):
    with pytest.raises(Refusal) as caught:
        stage.hold()
    return caught.value


@pytest.mark.parametrize("more", [50, 150])
def test_a_full_queue_says_when_it_will_be_empty(make_stage, more):
    stage = busy(make_stage, max_queue=20 + more)
    for _ in range(14 + more):
        stage.hold()
    refusal = refused(stage)
    assert isinstance(refusal, QueueFull)
    assert refusal.retry_after == pytest.approx((20 + more) / 10, abs=1)


def test_too_many_held_says_when_they_will_be_answered(make_stage):
    stage = busy(make_stage, max_held=100)
    for _ in range(94):
        stage.hold()
    refusal = refused(stage)
    assert isinstance(refusal, TooManyHeld)
    assert refusal.retry_after == pytest.approx(10, abs=1)


@pytest.mark.parametrize("coming", [4, 40])
def test_who_was_not_started_hears_how_long_the_queue_is_now(make_stage, coming):
    stage = make_stage(deadline=5)
    clients = [FakeClient() for _ in range(50)]
    for client in clients:
        stage.hold(client)
    for _ in range(5):
        stage.turn(1)
        for _ in range(5):
            stage.reply(stage.take())
        for _ in range(coming):
            stage.hold()
    stage.turn(0.5)
    (told,) = clients[-1].told
    assert isinstance(told, NotStarted)
    assert told.retry_after == pytest.approx(5 * coming / 5, rel=0.5)


def test_where_nothing_was_measured_it_is_the_kinds_own(make_stage):
    stage = make_stage(max_held=1, deadline=3)
    client = FakeClient()
    stage.hold(client)
    assert refused(stage).retry_after == TooManyHeld.retry_after
    stage.turn(4)
    assert client.told[0].retry_after == NotStarted.retry_after
    assert QueueUnavailable().retry_after == 5
