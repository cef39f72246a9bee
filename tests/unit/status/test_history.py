"""Rates, recent percentiles, and the last hour."""

import pytest

from queuerelay.status.collect.history import (
    MARK,
    POINTS,
    QUEUES,
    STEP,
    WINDOW,
    Hour,
    Passage,
    Point,
    QueueRates,
    Recent,
    percentiles,
)
from queuerelay.wire.histogram import Histogram


def passage(backlog=0, taken=0, ended=0, left=0):
    return Passage(backlog=backlog, taken=taken, ended=ended, left=left)


@pytest.mark.parametrize(
    ("last", "come", "gone"),
    [
        (passage(), 0, 0),
        # Requests by way of stock workers: what the relays saw.
        (passage(taken=100, ended=100), 100, 100),
        (passage(backlog=40, taken=100, ended=60), 100, 60),
        # Jobs that others push, and a pool takes.
        (passage(left=50), 50, 50),
        (passage(backlog=20, left=50), 70, 50),
        # Requests by way of a pool count once.
        (passage(taken=100, ended=100, left=100), 100, 100),
        # Jobs of others alone show in the backlog only.
        (passage(backlog=30), 30, 0),
    ],
)
def test_rates(last, come, gone):
    rates = QueueRates()
    rates.add(0.0, {"q": passage()})
    rates.add(60.0, {"q": last})
    assert rates.rate("q") == (come, gone)


def test_a_backlog_that_shrinks_went_somewhere():
    rates = QueueRates()
    rates.add(0.0, {"q": passage(backlog=90)})
    rates.add(30.0, {"q": passage(backlog=30)})
    # Within the first minute the rate is what happened so far.
    assert rates.rate("q") == (0, 60)


def test_rates_look_back_a_minute():
    rates = QueueRates()
    for second in range(200):
        rates.add(float(second), {"q": passage(left=second if second < 100 else 100)})
    assert rates.rate("q") == (0.0, 0.0)
    rates.add(200.0, {"q": passage(left=120)})
    assert rates.rate("q") == (20.0, 20.0)


def test_a_new_queue_counts_from_when_it_was_first_seen():
    rates = QueueRates()
    rates.add(0.0, {})
    rates.add(10.0, {"q": passage(left=1000)})
    assert rates.rate("q") == (0.0, 0.0)
    rates.add(20.0, {"q": passage(left=1005)})
    assert rates.rate("q") == (5.0, 5.0)


def test_percentiles_forget_what_is_older_than_the_window():
    histogram, recent, key = Histogram(), Recent(), ("wait", "q")

    def look(now):
        recent.add(now, {key: histogram.durations()})

    look(0.0)
    for _ in range(100):
        histogram.observe(100.0)
    look(1.0)
    assert percentiles(recent.counts(key)).count == 100
    now = 1.0
    while now < WINDOW + 2 * MARK:
        now += 1.0
        look(now)
    assert percentiles(recent.counts(key)).p99 is None
    histogram.observe(0.0015)
    look(now + 1)
    found = percentiles(recent.counts(key))
    assert found.count == 1
    assert 0.001 < found.p50 <= 0.002
    assert len(recent._marks) <= WINDOW / MARK + 2


def test_of_an_unknown_key_there_are_no_percentiles():
    found = percentiles(Recent().counts(("wait", "q")))
    assert (found.count, found.p50, found.p95, found.p99) == (0, None, None, None)


def test_percentiles_of_several_histograms_together():
    fast, slow = Histogram(), Histogram()
    for _ in range(95):
        fast.observe(0.0015)
    for _ in range(5):
        slow.observe(15.0)
    both = percentiles(fast.counts, slow.counts)
    assert both.count == 100
    assert both.p50 < 0.002 < 10 < both.p99


def test_the_hour_is_an_hour_and_no_more():
    hour = Hour()
    now = 0.0
    for number in range(POINTS + 50):
        assert hour.due(now)
        assert not hour.due(now + STEP / 2)
        hour.add(now, Point(depth=number), number, {f"q{n}": Point(depth=n) for n in range(99)})
        now += STEP
    found = hour.history
    assert len(found.times) == len(found.overall.depth) == len(found.failed) == POINTS
    assert found.since == found.times[0] == 50 * STEP
    assert found.overall.depth[-1] == POINTS + 49
    assert len(found.queues) == QUEUES
    assert found is hour.history


def test_a_queue_that_came_later_has_gaps():
    hour = Hour()
    hour.add(0.0, Point(), None, {})
    hour.add(10.0, Point(depth=3), 1, {"q": Point(depth=3, oldest_age=0.5)})
    found = hour.history
    assert found.queues["q"].depth == (None, 3)
    assert found.queues["q"].oldest_age == (None, 0.5)
    assert found.failed == (None, 1)
    assert (Hour().failed(0), hour.failed(0), hour.failed(1), hour.failed(9)) == (
        None,
        1,
        None,
        None,
    )


def test_a_clock_that_was_set_back_begins_anew():
    hour = Hour()
    hour.add(1000.0, Point(), 0, {})
    hour.add(400.0, Point(), 0, {})
    assert hour.history.times == (400.0,)


def test_after_a_long_sleep_one_point_is_due_not_many():
    hour = Hour()
    assert hour.due(0.0)
    assert hour.due(1000.0)
    assert not hour.due(1001.0)
