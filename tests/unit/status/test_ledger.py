"""Sums over nodes that come and go."""

from queuerelay.status.collect.ledger import REMEMBERED, YOUNG, Counts, Ledger
from queuerelay.wire.histogram import BUCKETS

END = ("end", "answered")
TOTAL = ("total", "q")


def counts(number, uptime=0.0, buckets=0):
    return Counts(
        numbers={END: number},
        durations={TOTAL: ([buckets] + [0] * (BUCKETS - 1), float(buckets))},
        uptime=uptime,
    )


def test_sums_are_over_all_nodes():
    ledger = Ledger()
    ledger.update({"a": counts(3, buckets=3), "b": counts(4, buckets=4)})
    ledger.update({"a": counts(5, buckets=5), "b": counts(4, buckets=4)})
    assert ledger.totals.numbers[END] == 9
    assert ledger.totals.durations[TOTAL][0][0] == 9
    assert ledger.totals.durations[TOTAL][1] == 9.0


def test_what_a_node_counted_stays_when_it_leaves():
    ledger = Ledger()
    ledger.update({"a": counts(3), "b": counts(4)})
    ledger.update({"b": counts(5)})
    ledger.update({})
    assert ledger.totals.numbers[END] == 8


def test_a_silent_node_that_comes_back_is_not_counted_twice():
    ledger = Ledger()
    ledger.update({"a": counts(3)})
    ledger.update({})
    ledger.update({"a": counts(10)})
    assert ledger.totals.numbers[END] == 10


def test_a_sum_does_not_go_down():
    ledger = Ledger()
    ledger.update({"a": counts(10, buckets=10)})
    ledger.update({"a": counts(2, buckets=2)})
    assert ledger.totals.numbers[END] == 10
    assert ledger.totals.durations[TOTAL] == ([10] + [0] * (BUCKETS - 1), 10.0)


def test_flow_leaves_out_what_was_before_us():
    ledger = Ledger()
    ledger.update({"old": counts(1_000_000, uptime=YOUNG + 1), "new": counts(3, uptime=YOUNG)})
    assert ledger.flow.numbers[END] == 3
    ledger.update({"old": counts(1_000_005, uptime=YOUNG + 2), "new": counts(3)})
    assert ledger.flow.numbers[END] == 8
    assert ledger.totals.numbers[END] == 1_000_008


def test_nodes_that_have_left_are_forgotten_in_the_end_and_stay_in_the_sums():
    ledger = Ledger()
    many = REMEMBERED * 3
    for number in range(many):
        ledger.update({f"n{number}": counts(1)})
    assert len(ledger._last) <= REMEMBERED + 1
    assert ledger.totals.numbers[END] == many
