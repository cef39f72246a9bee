"""Redis away or saying no, leases, and clients that leave."""

import pytest

from tests.unit.pool.stage import LEASE, FakeProcesses

# Redis away, Redis saying no, leases


def test_redis_away_while_a_script_runs(make):
    stage = make()
    stage.request()
    stage.broker.disconnect()
    stage.processes.started[0].print(b"Content-Type: a/b\n\nx")
    stage.processes.started[0].exit(0)
    stage.advance(10.0)
    assert not stage.replies
    assert stage.pool.snapshot().slots[0].state == "ending"
    stage.broker.reconnect()
    stage.advance(1.0)
    assert len(stage.replies) == 1
    assert stage.pool.busy == 0
    stage.job("next")
    stage.processes.started[-1].exit(0)


def test_redis_away_before(make):
    stage = make()
    stage.broker.disconnect()
    stage.advance(5.0)
    stage.job()
    stage.broker.reconnect()
    stage.advance(2.0)
    stage.processes.started[0].exit(0)


def test_redis_says_no_to_a_claim(make):
    stage = make()
    stage.broker.refuse("BUSY a script runs")
    stage.job()
    stage.advance(5.0)
    assert not stage.processes.started
    stage.broker.refuse(None)
    stage.advance(2.0)
    stage.processes.started[0].exit(0)


def test_what_redis_refuses_to_settle_is_asked_again_and_not_run_again(make):
    stage = make()
    stage.request()
    stage.broker.refuse("MISCONF no disk")
    stage.processes.started[0].print(b"Content-Type: a/b\n\nx")
    stage.processes.started[0].exit(0)
    stage.advance(60.0)
    assert len(stage.inflight) == 1
    stage.broker.refuse(None)
    stage.advance(6.0)
    assert len(stage.replies) == 1
    assert not any([stage.inflight, stage.waiting])
    assert len(stage.processes.started) == 1


def test_leases_are_renewed(make):
    stage = make()
    stage.job()
    other = FakeProcesses(stage.clock)
    stage.another(other)
    stage.advance(10 * LEASE)
    assert not other.started
    assert len(stage.inflight) == 1
    stage.processes.started[0].exit(0)


def test_a_lost_lease_ends_the_script_and_nothing_of_it_counts(make):
    stage = make()
    stage.request()
    (claim,) = stage.store.inflight("q")
    assert stage.store.end(claim)
    stage.advance(5.5)
    assert stage.processes.started[0].signals == ["TERM"]
    assert not any([stage.replies, stage.failed, stage.waiting])
    assert stage.pool.busy == 0
    assert stage.pool.snapshot().counters == {"abandoned": 1}


def test_a_lease_lost_before_the_end_is_noticed_at_the_end(make, lines):
    stage = make()
    stage.request()
    (claim,) = stage.store.inflight("q")
    stage.store.end(claim)
    stage.processes.started[0].print(b"Content-Type: a/b\n\nx")
    stage.processes.started[0].exit(0)
    stage.turns()
    assert not stage.replies
    assert any("no longer ours" in line for line in lines)


def test_a_pool_that_was_frozen_for_twice_its_lease(make):
    stage = make()
    stage.job("1")
    # Nothing else runs in that time: one step of the clock.
    stage.clock.advance(2 * LEASE)
    stage.turns()
    stage.advance(10.0)
    # Nobody took it over, and we did not take it from ourselves.
    assert stage.processes.started[0].signals == []
    assert len(stage.processes.started) == 1
    stage.processes.started[0].exit(0)
    stage.turns()
    assert not stage.inflight


def test_it_does_not_take_over_from_itself(make):
    stage = make()
    stage.job("1")
    stage.advance(11.0)
    for lease in stage.store.leases["q"].values():
        lease.expires = stage.clock.seconds()
    # As if it had been frozen, and this loop was the first to be woken.
    stage.pool._upkeep._reap()
    stage.turns()
    assert len(stage.inflight) == 1
    assert stage.waiting == []
    stage.processes.started[0].exit(0)


def test_another_pool_takes_over_from_a_dead_one(make):
    stage = make()
    stage.job("1")
    stage.broker.disconnect()
    other = FakeProcesses(stage.clock)
    pool, _ = stage.another(other)
    stage.advance(LEASE + 12.0)
    assert len(other.started) == 1
    assert other.started[0].env[b"QUEUERELAY_ATTEMPT"] == b"2"
    stage.broker.reconnect()
    stage.advance(6.0)
    assert stage.processes.started[0].signals == ["TERM"]
    other.started[0].exit(0)
    stage.turns()
    assert not any([stage.inflight, stage.waiting, stage.failed])
    assert pool.busy == 0


@pytest.mark.parametrize("option", ["finish", "kill"])
def test_the_client_left(make, option):
    stage = make(client_gone=option)
    stage.request("r")
    stage.store.mark_gone(["r"], 60.0)
    stage.advance(2.0)
    (process,) = stage.processes.started
    if option == "finish":
        assert process.signals == []
        process.exit(0)
    else:
        assert process.signals == ["TERM"]
        assert not any([stage.failed, stage.inflight, stage.waiting])


@pytest.mark.parametrize("kill", [False, True])
def test_an_operator_stops_a_job(make, kill):
    stage = make()
    stage.job("7")
    assert not stage.pool.stop_job("8")
    assert stage.pool.stop_job("7", kill=kill)
    stage.advance(0.5)
    assert stage.processes.started[0].signals[0] == ("KILL" if kill else "TERM")
    (entry,) = stage.failed
    assert "requested" in entry["error"]
    assert not stage.pool.stop_job("7")
