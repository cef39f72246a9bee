"""The filling of a pool, as health sees it."""

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from queuerelay.config import PoolConfig
from queuerelay.pool import filling
from queuerelay.pool.pools import Pools
from queuerelay.testing import MemoryBroker
from tests.unit.pool.stage import PROGRAM, Stage


def watched(stage: Stage):
    (found,) = [loop for loop in stage.pool.loops() if loop.name == "filling of p"]
    return found


def is_stuck(stage: Stage) -> bool:
    return watched(stage).still > watched(stage).limit


class Bug(BaseException):
    """What no loop catches."""


def test_the_loops_of_a_process_have_the_filling_of_each_pool(make):
    stage = make()
    config = PoolConfig(name="other", queues=("q",), command=(PROGRAM,))
    broker = MemoryBroker(clock=stage.clock, store=stage.store)
    pools = Pools([config], broker, reactor=stage.clock, processes=stage.processes)
    broker.start()
    pools.start()
    (loop,) = [loop for loop in pools.published().loops if loop.name == "filling of other"]
    assert (loop.age, loop.limit) == (0.0, 18.0)
    stopped = []
    pools.stop(0.0).addBoth(stopped.append)
    stage.advance(5)
    assert stopped == [None]
    broker.stop()


def test_an_idle_pool_goes_on(make):
    stage = make()
    for _ in range(100):
        stage.advance(1.7)
        assert not watched(stage).still


def test_a_busy_pool_goes_on(make):
    stage = make(timeout=1000)
    stage.job()
    for _ in range(100):
        stage.advance(1.7)
        assert not watched(stage).still
    assert stage.pool.busy == 1
    stage.processes.alive[0].exit(0)


def test_a_pool_with_job_after_job_goes_on(make):
    stage = make()
    for number in range(40):
        stage.job(str(number))
        stage.processes.alive[0].exit(0)
        stage.advance(0)
        assert not is_stuck(stage)


def test_a_pool_that_never_waits_goes_on(make, monkeypatch):
    stage = make(size=100)
    claim_many = stage.broker.leases.claim_many

    def slow(*args, **options):
        stage.store_only(b'{"class":"Job","args":[{}]}', "q")
        return deferLater(stage.clock, 1.0, claim_many, *args, **options)

    monkeypatch.setattr(stage.broker.leases, "claim_many", slow)
    for _ in range(40):
        stage.advance(1.0)
        assert watched(stage).still < 3.0
    assert stage.pool.busy > 30
    monkeypatch.undo()
    for process in stage.processes.alive:
        process.exit(0)


def test_a_pool_that_takes_no_messages_goes_on(make):
    stage = make()
    stage.pool.drain()
    stage.advance(100)
    assert not watched(stage).still
    stage.pool.resume()
    stage.advance(100)
    assert not watched(stage).still


def test_a_pool_that_rests_goes_on(make):
    stage = make()
    stage.processes.errors += [OSError("no more")] * 50
    stage.job()
    for _ in range(100):
        stage.advance(1.0)
        assert not is_stuck(stage)
    assert stage.pool.snapshot().resting
    stage.processes.errors.clear()


def test_a_pool_whose_redis_is_away_goes_on(make):
    stage = make()
    stage.broker.disconnect()
    for _ in range(100):
        stage.advance(1.0)
        assert not is_stuck(stage)


def test_a_pool_whose_redis_says_no_goes_on_and_says_so_now_and_then(make, log_lines):
    stage = make()
    stage.broker.refuse("BUSY")
    for _ in range(100):
        stage.advance(1.0)
        assert not is_stuck(stage)
    told = [line for line in log_lines() if "cannot take messages: Redis refused" in line]
    assert len(told) == 4
    stage.broker.refuse(None)


@pytest.mark.parametrize("after", ["a wait", "a job"])
def test_a_claim_that_never_returns_turns_it_stale(make, monkeypatch, after):
    stage = make()
    stage.advance(100)
    if after == "a job":
        stage.job()
    claim: Deferred[list] = Deferred()
    monkeypatch.setattr(stage.broker.leases, "claim_many", lambda *args, **options: claim)
    if after == "a job":
        stage.processes.alive[0].exit(0)
    stage.advance(2)
    stage.advance(15)
    assert not is_stuck(stage)
    stage.advance(4)
    assert is_stuck(stage)
    monkeypatch.undo()
    claim.callback([])
    stage.turns()
    assert not watched(stage).still
    stage.job("next")
    assert stage.processes.alive
    stage.processes.alive[0].exit(0)


def test_one_that_a_bug_has_ended_turns_stale(make, monkeypatch, logged_failures):
    stage = make()
    stage.advance(100)

    def broken(*args):
        raise Bug

    monkeypatch.setattr(filling, "prioritized", broken)
    stage.advance(2)
    monkeypatch.undo()
    stage.advance(15)
    assert not is_stuck(stage)
    stage.advance(4)
    assert is_stuck(stage)
    (failure,) = logged_failures.flush(Bug)
    assert failure


def test_one_that_fails_at_each_turn_turns_stale_until_a_turn_goes_well(
    make, monkeypatch, logged_failures
):
    stage = make()
    stage.advance(100)
    monkeypatch.setattr(filling, "prioritized", lambda *args: 1 / 0)
    stage.advance(15)
    assert not is_stuck(stage)
    stage.advance(6)
    assert is_stuck(stage)
    monkeypatch.undo()
    stage.advance(2)
    assert not watched(stage).still
    assert len(logged_failures.flush(ZeroDivisionError)) > 10


@pytest.mark.parametrize("busy", [False, True])
def test_a_pool_that_stops_is_not_stuck(make, busy):
    stage = make(timeout=1000)
    if busy:
        stage.job()
    stage.pool.stop(drain=100.0)
    stage.advance(90)
    assert not watched(stage).still
    assert stage.pool.busy == busy
