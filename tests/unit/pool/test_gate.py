"""Pools and paused queues, with a Clock."""

from collections import Counter

import pytest


def names(stage):
    """Of the messages whose scripts were started, in their order."""
    return [process.env[b"QUEUERELAY_ID"].decode() for process in stage.processes.started]


def test_a_paused_queue_is_left_alone_and_taken_up_when_it_is_resumed(make):
    stage = make(size=2)
    stage.store.pause("q", "test")
    for name in "123":
        stage.job(name)
    assert names(stage) == []
    assert len(stage.waiting) == 3
    stage.store.resume("q")
    # No time passes: the bell rings.
    stage.turns()
    assert names(stage) == ["1", "2"]
    for _ in range(3):
        stage.processes.alive[0].exit()
        stage.turns()
    assert names(stage) == ["1", "2", "3"]


def test_what_runs_goes_on(make):
    stage = make()
    stage.job("1")
    stage.job("2")
    stage.store.pause("q", "test")
    stage.processes.started[0].exit(75)
    stage.advance(10.0)
    # It came back on its queue, and stays there.
    assert len(stage.waiting) == 2
    assert not stage.delayed
    assert names(stage) == ["1"]
    stage.store.resume("q")
    stage.turns()
    assert names(stage) == ["1", "1"]
    stage.processes.alive[0].exit()
    stage.turns()
    stage.processes.alive[0].exit()
    stage.turns()
    assert names(stage) == ["1", "1", "2"]


def test_the_next_queue_in_order_is_served_in_the_meantime(make):
    stage = make(queues=("high", "q"))
    stage.store.pause("high", "test")
    stage.job("h", queue="high")
    stage.job("1")
    assert names(stage) == ["1"]
    assert stage.pool.snapshot().resting == ""
    stage.store.resume("high")
    stage.processes.alive[0].exit()
    stage.turns()
    assert names(stage) == ["1", "h"]
    stage.processes.alive[0].exit()


def test_with_weights_the_others_share(make):
    stage = make(queues=("a", "q", "c"), weights=(50.0, 1.0, 1.0))
    stage.store.pause("a", "test")
    for number in range(30):
        for queue in ("a", "q", "c"):
            stage.store_only(
                b'{"class":"J","args":[],"id":"%s%d"}' % (queue.encode(), number), queue
            )
    stage.advance(2.0)
    for _ in range(30):
        stage.processes.alive[0].exit()
        stage.turns()
    counted = Counter(name[0] for name in names(stage))
    assert "a" not in counted
    assert counted["q"]
    assert counted["c"]
    stage.processes.alive[0].exit()


@pytest.mark.parametrize("paused", [(), ("high",), ("high", "q")])
def test_a_pool_whose_queues_are_all_paused_rests(make, paused):
    stage = make(queues=("high", "q"))
    for queue in paused:
        stage.store.pause(queue, "test")
    stage.advance(1.25)
    resting = "all its queues are paused" if len(paused) == 2 else ""
    assert stage.pool.snapshot().resting == resting
    for queue in paused:
        stage.store.resume(queue)
    stage.advance(1.25)
    assert stage.pool.snapshot().resting == ""


def test_a_pool_that_is_paused_does_not_spin(make, monkeypatch):
    stage = make(queues=("high", "q"))
    asked = Counter()
    ask = stage.broker._connection.ask

    def count(effect, **options):
        asked["all"] += 1
        # Or the clock would never come to an end.
        assert asked["all"] < 1000, "it spins"
        return ask(effect, **options)

    monkeypatch.setattr(stage.broker._connection, "ask", count)
    stage.store.pause("q", "test")
    stage.job()
    stage.advance(20.0)
    # A claim each 2 s; the rest is what it sees to anyway.
    assert asked["all"] < 8 * 22


def test_a_paused_queue_is_no_reason_for_more_slots(make):
    stage = make(queues=("high", "q"), min=1, max=5, grow_after=1.0)
    stage.store.pause("q", "test")
    stage.advance(1.5)
    for _ in range(5):
        stage.store_only(b'{"class":"J","args":[],"queue_time":1}', "q")
    stage.job("h", queue="high")
    stage.advance(10.0)
    # All slots are busy, and what waits would not be taken by others.
    assert stage.pool.busy == stage.pool.size == 1
    stage.store.resume("q")
    stage.advance(10.0)
    assert stage.pool.size == 5
    stage.store.pause("high", "test")
    stage.store.pause("q", "test")
    for process in stage.processes.alive:
        process.exit()
    stage.advance(5.0)
    assert stage.pool.busy == 0


def test_a_gate_that_cannot_be_read_changes_nothing(make):
    stage = make()
    stage.broker.refuse("BUSY")
    stage.advance(3.0)
    assert stage.pool.snapshot().resting == ""
    stage.broker.refuse(None)
