"""What ends because the daemon stops is no failure, also where it ends before the daemon hears."""

import signal

import pytest

from queuerelay.pool.stopping import DOUBT

#: How scripts end that a service manager has sent TERM: by it, as a shell puts it, and otherwise.
ENDS = [-signal.SIGTERM, -signal.SIGINT, 143, 130, 1, 75, 255, -signal.SIGKILL]


def end(process, how):
    process.die(-how) if how < 0 else process.exit(how)


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("before", [0.9, 0.0, -0.5])
def test_an_end_around_the_stop_uses_no_try(make, how, before):
    stage = make(size=2)
    first, second = stage.job("1"), stage.job("2")
    if before >= 0:
        for process in stage.processes.alive:
            end(process, how)
        stage.advance(before)
        stage.pool.stop(10.0)
    else:
        stage.pool.stop(10.0)
        stage.advance(-before)
        for process in stage.processes.alive:
            end(process, how)
    stage.turns()
    # Both are at the head, in their order.
    assert sorted(stage.waiting) == [first, second]
    if before >= 0:
        assert stage.waiting == [first, second]
    assert not any([stage.failed, stage.delayed, stage.inflight])
    assert stage.pool.snapshot().counters == {"interrupted": 2}


def test_what_goes_well_around_the_stop_is_done(make):
    stage = make()
    stage.job()
    stage.pool.stop(10.0)
    stage.turns()
    stage.processes.started[0].exit(0)
    stage.turns()
    assert not any([stage.waiting, stage.failed, stage.delayed, stage.inflight])


def test_an_end_long_before_the_stop_is_a_failure(make):
    stage = make()
    stage.job()
    stage.processes.started[0].exit(1)
    stage.advance(DOUBT - 0.25)
    assert not stage.failed
    stage.advance(0.5)
    stage.pool.stop()
    stage.turns()
    assert not stage.waiting
    assert stage.failed


@pytest.mark.parametrize("how", [-signal.SIGTERM, 143, 1])
def test_a_request_that_may_not_be_repeated_fails_as_ever(make, how):
    stage = make()
    stage.request(method="POST")
    end(stage.processes.started[0], how)
    stage.turns()
    # Nobody waits a second for it.
    assert [reply["status"] for reply in stage.replies] == [502]


@pytest.mark.parametrize(("how", "before"), [(-signal.SIGTERM, 0.9), (143, 0.9), (1, 0.05)])
def test_a_request_that_may_be_repeated_goes_back(make, how, before):
    stage = make()
    message = stage.request(method="GET")
    end(stage.processes.started[0], how)
    stage.advance(before, step=0.05)
    stage.pool.stop()
    stage.turns()
    assert stage.waiting == [message]
    assert not stage.replies


def test_half_an_answer_because_of_the_stop_goes_back(make):
    stage = make()
    message = stage.request(method="GET")
    stage.processes.started[0].exit(0)
    stage.pool.stop()
    stage.turns()
    assert stage.waiting == [message]
    assert not stage.replies


def test_a_client_that_waits_hears_of_a_failure_at_once(make):
    stage = make()
    stage.request(method="GET")
    stage.processes.started[0].exit(1)
    stage.advance(0.25)
    assert [reply["status"] for reply in stage.replies] == [502]


def test_an_end_in_doubt_keeps_no_slot_and_a_flood_of_them_waits_not(make):
    stage = make(size=2)
    for number in range(12):
        stage.store_only(b'{"class":"J","args":[{}],"id":"%d"}' % number, "q")
    stage.advance(2.0)
    before = stage.clock.seconds()
    while stage.processes.alive:
        for process in stage.processes.alive:
            process.exit(1)
        stage.turns()
    assert stage.clock.seconds() == before
    assert len(stage.processes.started) == 12
    # As many as can run at a time are in doubt.
    assert len(stage.failed) == 10
    assert len(stage.inflight) == 2
    stage.advance(DOUBT)
    assert len(stage.failed) == 12


def test_a_retry_after_doubt_comes_when_it_would_without(make, monkeypatch):
    monkeypatch.setattr("random.random", lambda: 0.5)
    stage = make()
    stage.job()
    stage.processes.started[0].exit(75)
    stage.advance(1.75)
    assert len(stage.processes.started) == 2


def test_its_lease_is_renewed_while_it_is_in_doubt(make):
    stage = make(lease=1.0)
    stage.job()
    stage.processes.started[0].exit(1)
    stage.advance(DOUBT)
    assert len(stage.failed) == 1


def test_a_script_that_we_end_and_that_says_later_has_used_no_try(make):
    stage = make()
    message = stage.job()
    stage.processes.started[0].obedient = False
    stage.pool.stop(0.0)
    stage.advance(0.5)
    assert stage.processes.started[0].signals == ["TERM"]
    stage.processes.started[0].exit(75)
    stage.turns()
    assert stage.waiting == [message]
