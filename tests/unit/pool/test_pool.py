"""What a pool shows of itself, and errors of ours."""

import os

from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from queuerelay.pool import filling
from queuerelay.pool.resque_worker import PRUNE_IN
from queuerelay.processes.interfaces import IGroupTransport, IProcesses
from queuerelay.wire.outcome import Outcome
from tests.unit.pool.stage import FakeProcess, FakeProcesses


def test_the_doubles_are_what_they_stand_for():
    processes = FakeProcesses(Clock())
    verifyObject(IProcesses, processes)
    verifyObject(IGroupTransport, FakeProcess(processes, None, [b"x"], {}))


# Being seen


def test_the_snapshot(make):
    stage = make(size=2)
    stage.job("7")
    stage.advance(3.0)
    shown = stage.pool.snapshot()
    (slot,) = shown.slots
    assert (slot.state, slot.message, slot.queue, slot.attempt) == ("running", "7", "q", 1)
    assert slot.pid == stage.processes.started[0].pid
    assert slot.age is not None
    assert slot.age >= 3.0
    stage.processes.started[0].complain(b"oh\n")
    stage.processes.started[0].exit(4)
    stage.advance(1.0)
    (one,) = stage.pool.snapshot().exits
    assert (one.code, one.signal, one.outcome, one.stderr) == (4, None, Outcome.CRITICAL, "oh\n")
    assert one.run >= 3.0
    assert stage.pool.snapshot().rates == {"critical": 1 / 60}
    stage.advance(61.0)
    assert stage.pool.snapshot().rates == {}


def test_resques_tools_see_it(make):
    stage = make()
    worker = "queuerelay.host:1:q"
    stage.advance(1.5)
    assert list(stage.store.workers) == [worker]
    stage.job("7")
    stage.advance(1.5)
    assert list(stage.store.working) == [worker]
    stage.processes.started[0].exit(1)
    stage.advance(2.5)
    assert stage.store.working == {}
    assert stage.store.stats["processed", None] == 1
    assert stage.store.stats["failed", None] == 1
    stage.pool.stop()
    stage.turns()
    assert not stage.store.workers


def test_what_was_killed_on_this_host_is_taken_off_resques_list(make):
    # Ended and waited for, so that nothing has its number.
    gone = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(gone, 0)
    stage = make()
    others = [
        f"queuerelay.host:{gone}:q",
        f"queuerelay.host:{os.getpid()}:q",
        f"queuerelay.elsewhere:{gone}:q",
        f"host:{gone}:q",
        "queuerelay.host:x:q",
        f"queuerelay.host:{10**30}:q",
    ]
    for other in others:
        stage.broker.registry.register(other, ["q"])
    stage.advance(2.0)
    assert {*stage.store.workers} == {"queuerelay.host:1:q", *others}
    stage.advance(PRUNE_IN)
    assert {*stage.store.workers} == {"queuerelay.host:1:q", *others[1:]}


def test_who_beats_stays_on_resques_list_whatever_its_process_id_is_here(make):
    gone = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(gone, 0)
    stage = make()
    other = f"queuerelay.host:{gone}:q"
    stage.broker.registry.register(other, ["q"])
    for raw in (b"[]", b"\xff", b'{"host":"host"}'):
        stage.broker.nodes.beat(raw.hex(), raw, inbox_life=60.0)
    for _ in range(PRUNE_IN + 2):
        stage.broker.nodes.beat("it", b'{"host":"host","pid":%d}' % gone, inbox_life=60.0)
        stage.advance(1.0)
    assert {*stage.store.workers} == {"queuerelay.host:1:q", other}


# Errors of ours


def test_an_error_of_ours_counts_as_a_crash(make, monkeypatch, logged_failures):
    stage = make()

    def broken(*args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(stage.pool._runner._workshop, "outcome", broken)
    stage.job()
    stage.processes.started[0].exit(0)
    stage.turns()
    assert len(stage.delayed) == 1
    assert stage.pool.busy == 0
    assert len(logged_failures.flush(ZeroDivisionError)) == 1


def test_an_error_in_claiming_ends_nothing(make, monkeypatch, logged_failures):
    stage = make()
    monkeypatch.setattr(filling, "prioritized", lambda *args: 1 / 0)
    stage.advance(5.0)
    assert 1 <= len(logged_failures.flush(ZeroDivisionError)) <= 6
    monkeypatch.undo()
    stage.advance(2.0)
    stage.job()
    stage.processes.started[0].exit(0)


def test_a_program_that_is_replaced_or_goes_while_the_pool_runs(make, tmp_path):
    program = tmp_path / "script"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    stage = make(command=(str(program),))
    for _ in range(2):
        stage.job()
        stage.processes.alive[0].exit(0)
        stage.turns()
    program.chmod(0o644)
    stage.job()
    assert not stage.processes.alive
    assert "not executable" in stage.pool.snapshot().resting
    program.chmod(0o755)
    stage.advance(8.0)
    stage.processes.alive[0].exit(0)
    stage.turns()
    program.unlink()
    stage.job()
    assert not stage.processes.alive
    assert stage.pool.snapshot().resting
