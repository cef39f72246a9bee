"""Drain, pause, stop, and the size of a pool."""

import errno
from typing import Any

import pytest

# Life


def test_drain_and_resume(make):
    stage = make(size=2)
    stage.job("1")
    stage.pool.drain()
    stage.job("2")
    stage.advance(10.0)
    assert len(stage.processes.started) == 1
    assert stage.pool.snapshot().resting == "draining"
    stage.processes.started[0].exit(0)
    stage.turns()
    stage.pool.resume()
    stage.turns()
    assert len(stage.processes.started) == 2
    stage.processes.started[1].exit(0)


def test_all_workers_paused(make):
    stage = make()
    stage.store.all_paused = True
    stage.advance(1.5)
    stage.job("1")
    assert not stage.processes.started
    stage.store.all_paused = False
    stage.advance(1.5)
    stage.processes.started[0].exit(0)


def test_resize(make):
    stage = make(size=1)
    for name in "1234":
        stage.job(name)
    stage.pool.set_size(3)
    stage.turns()
    assert len(stage.processes.alive) == 3
    stage.pool.set_size(1)
    stage.turns()
    assert len(stage.processes.alive) == 3
    for left in (2, 1):
        stage.processes.alive[0].exit(0)
        stage.turns()
        assert len(stage.processes.alive) == left
    stage.pool.set_size(-1)
    assert stage.pool.size == 0
    stage.processes.alive[0].exit(0)
    stage.advance(5.0)
    assert not stage.processes.alive


@pytest.mark.parametrize("how", ["drain", "stop", "resize"])
def test_what_is_claimed_while_the_room_goes_is_given_back_in_order(make, monkeypatch, how):
    stage = make(size=3)
    messages = [b'{"class":"J","args":[%d]}' % number for number in range(3)]
    stage.store.push("q", messages)
    claim_many = stage.broker.leases.claim_many

    def claim_and_go(*args: Any, **options: Any) -> Any:
        claims = claim_many(*args, **options)
        if stage.inflight:
            {
                "drain": stage.pool.drain,
                "stop": stage.pool.stop,
                "resize": lambda: stage.pool.set_size(1),
            }[how]()
        return claims

    monkeypatch.setattr(stage.broker.leases, "claim_many", claim_and_go)
    stage.advance(2.5)
    kept = 1 if how == "resize" else 0
    assert stage.inflight == messages[:kept]
    assert stage.waiting == messages[kept:]
    assert len(stage.processes.started) == kept
    for process in stage.processes.alive:
        process.die()


def test_stop_lets_scripts_finish(make):
    stage = make()
    stage.job("1")
    stage.job("2")
    stopped = []
    stage.pool.stop(drain=10.0).addBoth(stopped.append)
    stage.advance(5.0)
    assert stage.processes.started[0].signals == []
    assert not stopped
    stage.processes.started[0].exit(0)
    stage.turns()
    assert stopped == [None]
    assert len(stage.waiting) == 1
    again = []
    stage.pool.stop().addBoth(again.append)
    assert again == [None]


def test_stop_ends_what_takes_longer_and_puts_it_back(make):
    stage = make(grace=3.0, size=3)
    job, get = stage.job("1"), stage.request("a")
    stage.request("b", method="POST")
    stopped = []
    for process in stage.processes.started:
        process.obedient = False
    stage.pool.stop(drain=5.0).addBoth(stopped.append)
    stage.advance(4.9)
    assert {tuple(process.signals) for process in stage.processes.started} == {()}
    stage.advance(0.2)
    assert {tuple(process.signals) for process in stage.processes.started} == {("TERM",)}
    stage.advance(3.2)
    assert stopped == [None]
    # As if never tried, but for the one that must not run twice.
    assert sorted(stage.waiting) == sorted([job, get])
    assert [reply["node_id"] for reply in stage.replies] == ["b"]


def test_hurry_ends_the_drain_time(make):
    stage = make()
    stage.job()
    stopped = []
    stage.pool.hurry()
    assert stage.processes.started[0].signals == []
    stage.pool.stop(drain=100.0).addBoth(stopped.append)
    stage.turns()
    stage.pool.hurry()
    stage.turns()
    assert stopped == [None]


def test_stop_while_redis_is_away_gives_up_in_time(make, lines):
    stage = make(grace=2.0)
    stage.job()
    stage.broker.disconnect()
    stage.processes.started[0].exit(0)
    stage.turns()
    assert [slot.state for slot in stage.pool.snapshot().slots] == ["ending"]
    stopped = []
    stage.pool.stop().addBoth(stopped.append)
    stage.advance(6.5)
    assert not stopped
    stage.advance(1.0)
    assert stopped == [None]
    assert any("could not settle" in line for line in lines)
    # Somebody finds it there.
    assert len(stage.inflight) == 1


def test_stop_when_the_broker_is_stopped_already(make):
    stage = make()
    stage.job()
    stage.broker.stop()
    stage.advance(3.0)
    stage.processes.started[0].exit(0)
    stopped = []
    stage.pool.stop().addBoth(stopped.append)
    stage.turns()
    assert stopped == [None]


@pytest.mark.parametrize("at", ["start", "claim", "rest"])
def test_stop_at_any_moment(make, at):
    stage = make()
    if at == "claim":
        stage.store.push("q", [b'{"class":"J","args":[]}'])
        while not stage.inflight:
            stage.clock.advance(0.1)
    if at == "rest":
        stage.processes.errors = [OSError(errno.EAGAIN, "no")] * 10
        stage.job()
    stopped = []
    stage.pool.stop().addBoth(stopped.append)
    stage.turns()
    assert stopped == [None]
    assert len(stage.waiting) == (at != "start")


# Size


def test_the_size_follows_the_backlog(make):
    stage = make(size=1, min=1, max=3, grow_after=5.0, shrink_after=20.0)
    # Without a queue_time, as Ruby's Resque pushes.
    for name in "123456":
        stage.store.push("q", [b'{"class":"J","args":["%b"]}' % name.encode()])
    stage.advance(4.0)
    assert len(stage.processes.alive) == 1
    stage.advance(4.0)
    assert stage.pool.size > 1
    stage.advance(10.0)
    assert stage.pool.size == len(stage.processes.alive) == 3
    while stage.processes.alive:
        stage.processes.alive[0].exit(0)
        stage.turns()
    stage.advance(19.0)
    assert stage.pool.size == 3
    stage.advance(45.0)
    assert stage.pool.size == 1


def test_weights(make):
    stage = make(queues=("high", "low"), weights=(3.0, 1.0))
    stage.store.push("high", [b'{"class":"J","args":["h"]}'] * 60)
    stage.store.push("low", [b'{"class":"J","args":["l"]}'] * 60)
    stage.advance(3.0)
    seen = []
    for _ in range(60):
        (process,) = stage.processes.alive
        seen.append(process.stdin)
        process.exit(0)
        stage.turns()
    assert 3 <= seen.count(b'"l"') <= 35
    stage.processes.alive[0].exit(0)


def test_priority(make):
    stage = make(queues=("high", "low"))
    stage.job("1", queue="low")
    stage.job("2", queue="low")
    stage.job("3", queue="high")
    for name in (b"1", b"3", b"2"):
        (process,) = stage.processes.alive
        assert process.env[b"QUEUERELAY_ID"] == name
        process.exit(0)
        stage.turns()
