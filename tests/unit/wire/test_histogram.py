"""Durations in buckets: adding up, estimating, and what comes from elsewhere."""

import json
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.wire.histogram import (
    BOUNDS,
    BUCKETS,
    NO_DURATIONS,
    Histogram,
    cumulative,
    publish,
    quantile,
    read,
)

seconds = st.floats(0, 10_000)


def of(*durations: float) -> Histogram:
    histogram = Histogram()
    for one in durations:
        histogram.observe(one)
    return histogram


def test_bounds_rise_and_belong_to_the_bucket_below():
    assert list(BOUNDS) == sorted(set(BOUNDS))
    for place, bound in enumerate(BOUNDS):
        assert of(bound).counts[place] == 1
        assert of(bound * 1.0001).counts[place + 1] == 1


@pytest.mark.parametrize("nothing", [0.0, -0.0, -5.0])
def test_less_than_nothing_is_nothing(nothing):
    histogram = of(nothing)
    assert (histogram.counts[0], histogram.count, histogram.sum) == (1, 1, 0.0)


@given(st.lists(seconds))
def test_published_and_read_it_is_the_same(durations):
    histogram = of(*durations)
    counts, total = read(json.loads(json.dumps(publish(histogram.durations()))))
    assert counts == tuple(histogram.counts)
    assert total == pytest.approx(histogram.sum, abs=1e-6)
    assert sum(counts) == len(durations)


def test_an_empty_one_is_published_in_few_bytes():
    assert publish(NO_DURATIONS) == [0.0]


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        "x",
        [0.0] + [1] * (BUCKETS + 1),
        ["0", 1],
        [0.0, 1.5],
        [0.0, -1],
        [0.0, True],
        [0.0, 2**60],
        [-1.0, 1],
        [float("nan"), 1],
        [float("inf"), 1],
    ],
)
def test_what_is_no_histogram_is_refused(value):
    with pytest.raises(ValueError, match=r"no histogram|that is none"):
        read(value)


@given(st.lists(seconds, min_size=1), st.sampled_from([0.5, 0.95, 0.99]))
def test_the_estimate_is_in_the_bucket_of_the_true_one(durations, q):
    durations.sort()
    rank = next(place for place in range(len(durations)) if place + 1 >= q * len(durations))
    estimate = quantile(of(*durations).counts, q)
    assert estimate is not None
    true = min(durations[rank], BOUNDS[-1])
    assert bisect_left(BOUNDS, estimate) == bisect_left(BOUNDS, true)


def test_of_nothing_there_is_no_estimate():
    assert quantile([0] * BUCKETS, 0.5) is None


def test_as_prometheus_has_it():
    lines = list(cumulative(of(0.0005, 0.3, 0.3, 9999).counts))
    assert len(lines) == BUCKETS
    assert lines[0] == ("0.001", 1)
    assert ("0.5", 3) in lines
    assert ("1.0", 3) in lines
    assert ("5000.0", 3) in lines
    assert lines[-1] == ("+Inf", 4)
