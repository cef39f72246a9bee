"""What goes out to the status page: always JSON, and never much."""

import json

import pytest

from queuerelay.pool.exits import ProcessEnd
from queuerelay.pool.publish import published
from queuerelay.pool.tally import exit_record
from queuerelay.wire.histogram import Histogram
from queuerelay.wire.node import JobDurations, PoolNode, PoolState, SlotState, encode
from queuerelay.wire.outcome import Outcome

WAIT = Histogram()
WAIT.observe(0.0005)


def snapshot(exits=1, slots=1, text="x", size=1, at=1.5):
    shown = exit_record(
        ProcessEnd(code=1, run=0.5),
        at=at,
        message=text,
        queue="q",
        outcome=Outcome.CRITICAL,
        stderr=text,
        stdout=text,
    )
    return PoolState(
        name="p",
        queues=("q",),
        size=size,
        min=1,
        max=size,
        resting=text,
        unstartable=text,
        slots=[
            SlotState(number=number + 1, state="running", message=text, age=float(number))
            for number in range(slots)
        ],
        exits=[shown] * exits,
        counters={"critical": exits},
        rates={"critical": 0.1},
        busy=slots,
        left={"q": 3},
        durations={"q": JobDurations(wait=WAIT.durations())},
    )


def sent(pools):
    return encode(PoolNode(id="n", pools=published(pools)))


def test_all_of_a_small_pool_is_published():
    (pool,) = json.loads(sent([snapshot()]))["pools"]
    assert pool == {
        "name": "p",
        "queues": ["q"],
        "size": 1,
        "min": 1,
        "max": 1,
        "resting": "x",
        "slots": [
            {
                "number": 1,
                "state": "running",
                "pid": None,
                "message": "x",
                "queue": None,
                "age": 0.0,
                "attempt": None,
            }
        ],
        "exits": [
            {
                "at": 1.5,
                "message": "x",
                "queue": "q",
                "code": 1,
                "signal": None,
                "run": 0.5,
                "outcome": "critical",
                "stderr": "x",
                "stdout": "x",
            }
        ],
        "counters": {"critical": 1},
        "rates": {"critical": 0.1},
        "resident": False,
        "busy": 1,
        "looping": 0,
        "unstartable": "x",
        "left": {"q": 3},
        "durations": {"q": {"wait": [0.0005, 1], "run": [0.0]}},
    }


@pytest.mark.heavy
@pytest.mark.parametrize("pools", [1, 10, 1000])
@pytest.mark.parametrize("text", ["x" * 10_000, "\x00" * 10_000, "\ud800" * 10_000, "€" * 10_000])
def test_much_is_bounded(pools, text):
    raw = sent([snapshot(200, 10_000, text, 10_000)] * pools)
    # Each pool has something to show, however many there are.
    assert len(raw) < 2_500_000 + pools * 7000
    shown = json.loads(raw)["pools"]
    assert len(shown) == pools
    for pool in shown:
        assert pool["busy"] == 10_000
        assert 1 <= len(pool["exits"]) <= 20
        assert 1 <= len(pool["slots"]) <= 200


def test_the_longest_busy_slots_are_shown_in_their_order():
    (pool,) = published([snapshot(slots=1000)])
    assert [slot.number for slot in pool.slots] == list(range(801, 1001))


@pytest.mark.parametrize("at", [float("nan"), float("inf")])
def test_what_is_no_number_is_json_too(at):
    assert json.loads(sent([snapshot(at=at)]))["pools"][0]["exits"][0]["at"] is None
