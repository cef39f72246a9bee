"""Scripts that are started, and those that cannot be."""

import errno
import gc
import json
import os
import shutil
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

# Starting


def test_never_more_than_its_size(make):
    stage = make(size=3)
    for name in "12345":
        stage.job(name)
    assert len(stage.processes.alive) == stage.pool.busy == 3
    assert [slot.number for slot in stage.pool.snapshot().slots] == [1, 2, 3]
    stage.processes.started[1].exit(0)
    stage.turns()
    assert len(stage.processes.alive) == 3
    assert sorted(slot.number for slot in stage.pool.snapshot().slots) == [1, 2, 3]
    assert len(stage.waiting) == 1


def name_of(message: bytes) -> str:
    return str(json.loads(message)["id"])


@pytest.mark.parametrize("error", [OSError(errno.EAGAIN, "no more"), ValueError("odd")])
def test_a_failed_start_uses_no_try_and_backs_off(make, error, lines):
    stage = make(size=4)
    begun: list[float] = []
    stage.processes.errors = [error] * 4

    spawn = stage.processes.spawnProcess

    def noting(*args: Any, **options: Any) -> Any:
        begun.append(stage.clock.seconds())
        return spawn(*args, **options)

    stage.processes.spawnProcess = noting
    for name in "123":
        stage.job(name)
    stage.advance(40.0)
    pauses = [later - earlier for earlier, later in pairwise(begun)]
    # Then it works, and the others follow.
    assert [round(pause) for pause in pauses[:4]] == [1, 2, 4, 8]
    assert len(stage.processes.alive) == 3
    assert {process.env[b"QUEUERELAY_ATTEMPT"] for process in stage.processes.alive} == {b"1"}
    assert sorted(map(name_of, stage.inflight)) == ["1", "2", "3"]
    assert len([line for line in lines if "cannot run its command" in line]) == 4
    assert stage.pool.snapshot().resting == ""
    for process in stage.processes.alive:
        process.exit(0)


def test_a_start_that_fails_late_uses_no_try_and_backs_off(make, lines):
    """As a launcher tells it, which does not wait for the start."""
    stage = make(size=2)
    for name in "12":
        stage.job(name)
    for process in stage.processes.alive:
        process.never(OSError(errno.ENOENT, "no such interpreter"))
    stage.turns()
    assert stage.pool.busy == 0
    assert stage.pool.snapshot().resting.endswith("no such interpreter")
    # Both failed, and there is one rest.
    assert len([line for line in lines if "cannot run its command" in line]) == 1
    assert sorted(map(name_of, stage.waiting)) == ["1", "2"]
    stage.advance(5.0)
    assert {process.env[b"QUEUERELAY_ATTEMPT"] for process in stage.processes.alive} == {b"1"}
    for process in stage.processes.alive:
        process.exit(0)
    stage.advance(5.0)
    assert stage.pool.snapshot().resting == ""
    assert stage.pool.snapshot().counters == {"misconfigured": 2, "success": 2}
    assert not stage.waiting
    assert not stage.inflight


def test_a_job_leaves_nothing_for_the_collector(make):
    """What is a cycle stays until a collection, which costs as much as the rest of the job."""
    stage = make(size=2)

    def some_jobs(first: int) -> None:
        for number in range(first, first + 20):
            stage.job(str(number))
            (process,) = stage.processes.alive
            process.print(b"out")
            process.complain(b"err")
            process.exit(0)
            stage.turns()
            # The test's own: it keeps all it has started, and each knows its protocol.
            stage.processes.started.clear()
            process.protocol = None

    some_jobs(0)
    gc.collect()
    gc.disable()
    try:
        some_jobs(20)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = Counter(type(one).__name__ for one in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    # Of one job there are twenty.
    assert max(left.values(), default=0) < 20, left


def test_a_program_that_is_not_there(make, tmp_path):
    program = tmp_path / "script"
    stage = make(command=(str(program),))
    stage.job()
    assert not stage.processes.started
    assert "script" in stage.pool.snapshot().resting
    assert len(stage.waiting) == 1
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    stage.advance(8.0)
    assert len(stage.processes.started) == 1
    stage.advance(2.5)
    assert stage.pool.snapshot().resting == ""
    stage.processes.started[0].exit(0)


def test_exit_127_backs_off_too(make):
    stage = make(size=2)
    stage.job("1")
    stage.job("2")
    begun = []
    for _ in range(5):
        while not stage.processes.alive:
            stage.advance(0.25)
        begun.append(stage.clock.seconds())
        for process in stage.processes.alive:
            process.exit(127)
        stage.turns()
        assert len(stage.waiting) + len(stage.delayed) == 2
    pauses = [round(later - earlier) for earlier, later in pairwise(begun)]
    assert pauses == [1, 2, 4, 8]
    assert not stage.failed
    while not stage.processes.alive:
        stage.advance(0.25)
    # One at a time, until it works.
    assert len(stage.processes.alive) == 1
    stage.processes.alive[0].exit(0)
    stage.turns()
    assert len(stage.processes.alive) == 1
    stage.processes.alive[0].exit(0)


def test_a_message_that_makes_its_script_exit_127_does_not_starve_the_others(make):
    stage = make(size=1)
    stage.job("poison")
    done = 0
    for number in range(6):
        stage.job(str(number))
    for _ in range(400):
        for process in stage.processes.alive:
            poison = process.env[b"QUEUERELAY_ID"] == b"poison"
            done += not poison
            process.exit(127 if poison else 0)
        stage.turns()
        if done == 6:
            break
        stage.advance(0.25)
    assert done == 6
    # It was tried at 0 s, 1 s and 3 s, and then the pool was well again.
    assert stage.pool.snapshot().counters == {"misconfigured": 3, "success": 6}
    assert stage.pool.snapshot().resting == ""
    assert len(stage.delayed) == 1
    before = stage.clock.seconds()
    while not stage.processes.alive:
        stage.advance(0.25)
    stage.processes.alive[0].exit(127)
    stage.turns()
    # Now it is the message's affair: the next one waits for nobody.
    assert stage.pool.snapshot().resting == ""
    stage.job("another")
    assert [process.env[b"QUEUERELAY_ID"] for process in stage.processes.alive] == [b"another"]
    stage.processes.alive[0].exit(0)
    assert before < stage.clock.seconds()
    assert not stage.failed


def test_a_rest_is_not_cut_short(make):
    stage = make(size=2)
    stage.processes.errors = [OSError(errno.EAGAIN, "no")]
    stage.job("1")
    stage.advance(0.5)
    # It was put again in job()'s own time; another failure begins the next rest.
    stage.processes.alive[0].exit(127)
    stage.turns()
    for _ in range(3):
        stage.pool.drain()
        stage.pool.resume()
        stage.pool.set_size(3)
        stage.pool.set_size(2)
        stage.turns()
    assert not stage.processes.alive
    stage.advance(4.0)
    stage.processes.alive[0].exit(0)


def test_the_longest_rest_is_a_minute(make):
    stage = make()
    stage.processes.errors = [OSError(errno.ENOENT, "gone")] * 100
    stage.job()
    stage.advance(600.0, step=1.0)
    left = len(stage.processes.errors)
    stage.advance(600.0, step=1.0)
    assert left - len(stage.processes.errors) == 10


# What can never be started


def unstartable(how, stage):
    if how == "127":
        for process in stage.processes.alive:
            process.exit(127)
    elif how == "ENOENT":
        stage.processes.errors = [FileNotFoundError(errno.ENOENT, "no such interpreter")] * 9


@pytest.mark.parametrize("how", ["127", "ENOENT", "cwd"])
def test_what_can_never_be_started_is_a_dead_letter_after_an_hour(make, how, tmp_path):
    cwd = tmp_path / "gone"
    stage = make(**({"cwd": str(cwd)} if how == "cwd" else {}))
    unstartable(how, stage)
    stage.job("poison")
    begun = stage.clock.seconds()
    while not stage.failed:
        assert stage.clock.seconds() < begun + 3700
        assert stage.pool.snapshot().counters.keys() <= {"misconfigured"}
        unstartable(how, stage)
        stage.advance(1.0, step=1.0)
    assert stage.clock.seconds() >= begun + 3600 - 3
    (entry,) = stage.failed
    assert "could not be started, 6" in entry["error"]
    assert "times in 1 h" in entry["error"]
    assert str(cwd) in entry["error"] or how != "cwd"
    assert not any([stage.waiting, stage.delayed, stage.inflight])
    # What comes next has an hour of its own.
    stage.processes.errors = []
    assert stage.pool.snapshot().unstartable == ""


def test_so_many_tries_as_the_operator_says(make):
    stage = make(start_tries=3)
    stage.job("poison")
    for _ in range(3):
        while not stage.processes.alive:
            stage.advance(0.5)
        assert not stage.failed
        stage.processes.alive[0].complain(b"no_such_helper: not found\n")
        stage.processes.alive[0].exit(127)
        stage.turns()
    (entry,) = stage.failed
    assert "could not be started, 3 times in" in entry["error"]
    assert "no_such_helper: not found" in entry["error"]
    assert entry["queuerelay"]["attempts"][-1]["exit"] == 127


def test_tries_are_counted_over_restarts_and_for_messages_without_an_id(make):
    stage = make(start_tries=3)
    stage.put(b'{"class":"Job","args":[{}]}')
    for _ in range(3):
        while not stage.processes.alive:
            stage.advance(0.5)
        stage.processes.alive[0].exit(127)
        stage.turns()
        stage.pool.stop()
        stage.turns()
        stage.pool, stage.broker = stage.another(stage.processes)
    assert len(stage.failed) == 1


def test_it_is_told_while_others_are_well(make):
    stage = make(size=2)
    stage.job("poison")
    told = set()
    for number in range(200):
        if number % 10 == 0:
            stage.store_only(b'{"class":"J","args":[{}],"id":"fine"}', "q")
        for process in stage.processes.alive:
            poison = process.env[b"QUEUERELAY_ID"] == b"poison"
            if poison:
                process.complain(b"sh: no_such_helper: not found")
            process.exit(127 if poison else 0)
        stage.advance(0.5)
        if not stage.pool.snapshot().resting:
            told.add(stage.pool.snapshot().unstartable)
    assert "1 message cannot be started: exit status 127; sh: no_such_helper: not found" in told
    # It can be started after all: nothing is told any more, and it has used no try.
    while b"poison" not in [one.env[b"QUEUERELAY_ID"] for one in stage.processes.alive]:
        stage.advance(0.5)
    (process,) = stage.processes.alive
    assert process.env[b"QUEUERELAY_ATTEMPT"] == b"1"
    process.exit(0)
    stage.turns()
    assert stage.pool.snapshot().unstartable == ""
    assert not stage.failed


# Its directory


def release(app, number):
    folder = app / f"release{number}"
    folder.mkdir()
    (folder / "job.sh").write_text("#!/bin/sh\n")
    (folder / "job.sh").chmod(0o755)
    (app / "new").symlink_to(folder)
    (app / "new").rename(app / "current")
    return folder


@pytest.mark.parametrize("cwd", ["absolute", "relative", None])
def test_a_directory_that_is_removed_is_said_so_and_comes_back(make, tmp_path, monkeypatch, cwd):
    first = release(tmp_path, 1)
    current = tmp_path / "current"
    # As a shell enters it, and tells the daemon.
    monkeypatch.chdir(tmp_path if cwd == "relative" else current)
    monkeypatch.setenv("PWD", str(tmp_path if cwd == "relative" else current))
    given = {"absolute": str(current), "relative": "current"}
    options = {"cwd": given[cwd]} if cwd else {}
    stage = make(command=("./job.sh",), **options)
    stage.job("1")
    stage.processes.started[0].exit(0)
    shutil.rmtree(first)
    stage.job("2")
    assert len(stage.processes.started) == 1
    told = stage.pool.snapshot().resting
    assert str(current) in told
    assert "Errno" not in told
    assert "make it" in told
    release(tmp_path, 2)
    stage.advance(8.0)
    assert len(stage.processes.started) == 2
    stage.processes.started[1].exit(0)
    stage.advance(1.0)
    assert stage.pool.snapshot().resting == ""
    assert not stage.failed


def test_a_program_elsewhere_is_not_run_in_a_directory_that_is_gone(make, tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PWD", str(folder))
    stage = make()
    stage.job("1")
    stage.processes.started[0].exit(0)
    folder.rmdir()
    stage.job("2")
    assert len(stage.processes.started) == 1
    assert "own directory" in stage.pool.snapshot().resting
    folder.mkdir()
    stage.advance(8.0)
    # It is started there, not where we are.
    argv = stage.processes.started[1].argv
    assert os.fsencode(folder) in argv
    stage.processes.started[1].exit(0)
