"""The pool and its runner, with a Clock and processes that do what they are told."""

import base64
import errno
import gc
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from zope.interface.verify import verifyObject

from queuerelay.pool import filling
from queuerelay.pool.resque_worker import PRUNE_IN
from queuerelay.processes.interfaces import IGroupTransport, IProcesses
from queuerelay.wire.outcome import Outcome
from tests.unit.pool.stage import EPOCH, LEASE, REPLY_TO, FakeProcess, FakeProcesses, Stage

MiB = 1024 * 1024


@pytest.fixture
def make() -> Iterator[Callable[..., Stage]]:
    """Makes stages, and looks at the end whether they leave anything."""
    stages: list[Stage] = []

    def make(**options: Any) -> Stage:
        stage = Stage(**options)
        stages.append(stage)
        stage.turns()
        return stage

    yield make
    for stage in stages:
        stage.end()


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged."""
    found: list[str] = []

    def observe(event: LogEvent) -> None:
        if str(event.get("log_namespace", "")).startswith("queuerelay"):
            found.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


def test_the_doubles_are_what_they_stand_for():
    processes = FakeProcesses(Clock())
    verifyObject(IProcesses, processes)
    verifyObject(IGroupTransport, FakeProcess(processes, None, [b"x"], {}))


# What a script gets


def test_a_job_is_given_its_argument_on_stdin(make):
    stage = make()
    stage.job("7", size=12)
    (process,) = stage.processes.started
    assert json.loads(process.stdin) == {"name": "7", "size": 12}
    assert process.stdin_closed
    assert process.argv == [b"/bin/true"]
    assert process.env[b"QUEUERELAY_ID"] == b"7"
    assert process.env[b"QUEUERELAY_QUEUE"] == b"q"
    assert process.env[b"QUEUERELAY_ATTEMPT"] == b"1"
    assert b"QUEUERELAY_DEADLINE" not in process.env
    assert b"REQUEST_METHOD" not in process.env
    process.exit()


def test_a_request_is_cgi(make):
    stage = make()
    stage.request(method="POST", body=b"\xffbody", url="/a?b=1")
    (process,) = stage.processes.started
    assert process.stdin == b"\xffbody"
    assert process.env[b"REQUEST_METHOD"] == b"POST"
    assert process.env[b"PATH_INFO"] == b"/a"
    assert process.env[b"CONTENT_LENGTH"] == b"5"
    assert process.env[b"QUEUERELAY_DEADLINE"] == b"%.3f" % (EPOCH + 60)
    process.exit()


def test_placeholders(make):
    stage = make(command=("/bin/true", "--id={id}", "{big}"))
    stage.job(id="a b; rm", big=12345678901234567890123)
    (process,) = stage.processes.started
    assert process.argv == [b"/bin/true", b"--id=a b; rm", b"12345678901234567890123"]
    # orjson would have made a float of it.
    assert json.loads(process.stdin)["big"] == 12345678901234567890123
    process.exit()


def test_a_placeholder_that_is_missing_fails_the_message(make):
    stage = make(command=("/bin/true", "{id}"))
    stage.job()
    assert not stage.processes.started
    (entry,) = stage.failed
    assert "{id}" in entry["error"]
    assert stage.pool.snapshot().resting == ""


@pytest.mark.parametrize("args", [[], [None], ["text"], [[1, 2]], [{"a": 1}, 2]])
def test_any_args(make, args):
    stage = make()
    stage.put(json.dumps({"class": "J", "args": args}).encode())
    (process,) = stage.processes.started
    assert json.loads(process.stdin) == (args[0] if args else None)
    # Without an id the claim's token stands for one.
    assert process.env[b"QUEUERELAY_ID"]
    process.exit()


def test_a_large_body(make):
    stage = make()
    body = bytes(range(256)) * (64 * 1024)
    stage.request(method="PUT", body=body)
    (process,) = stage.processes.started
    assert process.stdin == body
    process.exit()


@pytest.mark.parametrize("depth", [200, 300, 900])
def test_nesting_that_can_be_read_reaches_the_script_or_fails(make, depth):
    stage = make()
    nested = "[" * depth + "]" * depth
    stage.put(b'{"class":"J","args":[{"x":%b}]}' % nested.encode())
    if stage.processes.started:
        assert stage.processes.started[0].stdin == b'{"x":%b}' % nested.encode()
        stage.processes.started[0].exit()
    else:
        assert len(stage.failed) == 1
    stage.turns()
    assert not stage.inflight


# What its exit means


def test_success(make):
    stage = make()
    stage.job()
    stage.processes.started[0].exit(0)
    stage.turns()
    assert not any([stage.inflight, stage.waiting, stage.delayed, stage.failed])
    assert stage.pool.snapshot().counters == {"success": 1}
    assert stage.pool.busy == 0


def test_a_request_is_answered(make):
    stage = make()
    stage.request(accepted_at=EPOCH - 1)
    (process,) = stage.processes.started
    process.print(b"Status: 201 Made\r\nContent-Type: text/x\r\n\r\nhel")
    stage.advance(0.5)
    process.print(b"lo")
    process.exit(0)
    stage.turns()
    (reply,) = stage.replies
    assert (reply["node_id"], reply["status"], reply["body"]) == ("r", 201, "hello")
    assert reply["headers"] == [["content-type", "text/x"]]
    assert reply["timing"]["run"] >= 0.5
    assert reply["timing"]["wait"] >= 1.0
    assert not stage.inflight


def test_a_jobs_result_goes_where_it_asks_for(make):
    stage = make()
    stage.job(reply_to="results", node_id="mine")
    stage.processes.started[0].print(b"\xff\x00")
    stage.processes.started[0].exit(0)
    stage.turns()
    (raw,) = stage.store.items("results")
    reply = json.loads(raw)
    assert reply["node_id"] == "mine"
    assert base64.b64decode(reply["body"]) == b"\xff\x00"


def test_who_asks_for_a_jobs_result_hears_of_its_failure(make):
    stage = make()
    stage.job("7", reply_to="results")
    stage.processes.started[0].exit(1)
    stage.turns()
    (raw,) = stage.store.items("results")
    assert json.loads(raw)["status"] == 502
    assert json.loads(raw)["node_id"] == "7"
    assert len(stage.failed) == 1


@pytest.mark.parametrize("printed", [b"", b"hello", b"X: 1\n\n", b"Status: 99\n\n", b"a\nb\n\n"])
def test_an_answer_that_is_none_is_502_and_failed(make, printed):
    stage = make()
    stage.request()
    stage.processes.started[0].print(printed)
    stage.processes.started[0].exit(0)
    stage.turns()
    assert [reply["status"] for reply in stage.replies] == [502]
    (entry,) = stage.failed
    assert [one["exit"] for one in entry["queuerelay"]["attempts"]] == [0]


def test_transient_is_tried_three_times_with_a_growing_pause(make, monkeypatch):
    monkeypatch.setattr("random.random", lambda: 0.5)
    stage = make()
    stage.job("7")
    for attempt, pause in ((1, 1.0), (2, 4.0)):
        process = stage.processes.started[-1]
        assert process.env[b"QUEUERELAY_ATTEMPT"] == b"%d" % attempt
        process.complain(b"not yet\n")
        process.exit(75)
        stage.turns()
        assert len(stage.delayed) == 1
        stage.advance(pause - 0.3)
        assert len(stage.processes.started) == attempt
        stage.advance(3.5)
        assert len(stage.processes.started) == attempt + 1
    stage.processes.started[-1].die(signal.SIGSEGV)
    stage.turns()
    (entry,) = stage.failed
    assert "tried 3 times" in entry["error"]
    assert entry["worker"] == "queuerelay.host:1:q"
    first, second, third = entry["queuerelay"]["attempts"]
    assert first["exit"] == second["exit"] == 75
    assert first["stderr"] == "not yet\n"
    assert first["worker"] == "host:1"
    assert third["signal"] == "SIGSEGV"
    assert "exit" not in third
    assert not any([stage.inflight, stage.waiting, stage.delayed])
    assert stage.pool.snapshot().counters == {"transient": 2, "crash": 1}


def test_critical_is_not_tried_again(make):
    stage = make()
    stage.job()
    stage.processes.started[0].exit(3)
    stage.turns()
    assert len(stage.failed) == 1
    assert stage.pool.snapshot().counters == {"critical": 1}


def test_the_mapping_is_an_option(make):
    stage = make(exits={3: Outcome.TRANSIENT})
    stage.job()
    stage.processes.started[0].exit(3)
    stage.turns()
    assert len(stage.delayed) == 1


@pytest.mark.parametrize(
    ("printed", "code", "place"),
    [(b"1", 0, "done"), (b" 2\n", 0, "delayed"), (b"3", 0, "failed"), (b"1", 9, "failed")],
)
def test_status_on_stdout(make, printed, code, place):
    stage = make(status="stdout")
    stage.job()
    stage.processes.started[0].print(printed)
    stage.processes.started[0].exit(code)
    stage.turns()
    found = {"delayed": len(stage.delayed), "failed": len(stage.failed)}
    assert found == {"delayed": 0, "failed": 0, **({} if place == "done" else {place: 1})}
    assert not stage.inflight


@pytest.mark.parametrize(("method", "delayed"), [("GET", 1), ("PUT", 1), ("POST", 0)])
def test_a_crash_is_tried_again_where_it_may_run_twice(make, method, delayed):
    stage = make()
    stage.request(method=method)
    stage.processes.started[0].die(signal.SIGKILL)
    stage.turns()
    assert len(stage.delayed) == delayed
    assert len(stage.failed) == len(stage.replies) == 1 - delayed


# Time


def test_a_script_that_takes_too_long(make):
    stage = make(timeout=10.0, grace=3.0, tries=1)
    stage.job()
    (process,) = stage.processes.started
    process.obedient = False
    stage.advance(7.5)
    assert process.signals == []
    stage.advance(1.0)
    assert process.signals == ["TERM"]
    assert stage.pool.snapshot().slots[0].state == "running"
    stage.advance(2.0)
    assert process.signals == ["TERM"]
    stage.advance(1.0)
    assert process.signals[:2] == ["TERM", "KILL"]
    (entry,) = stage.failed
    (attempt,) = entry["queuerelay"]["attempts"]
    assert attempt["signal"] == "SIGKILL"
    assert "time-out" in attempt["error"]


def test_a_requests_deadline_is_its_time_out_and_answered_504(make):
    stage = make(timeout=300.0)
    stage.request(deadline=stage.wall() + 5.0)
    stage.advance(3.5)
    assert stage.processes.started[0].signals == ["TERM"]
    stage.advance(0.5)
    assert [reply["status"] for reply in stage.replies] == [504]
    assert len(stage.failed) == 1


def test_a_request_whose_deadline_is_over_is_not_run(make):
    stage = make()
    stage.request(deadline=stage.wall() - 0.1)
    assert not stage.processes.started
    assert not any([stage.inflight, stage.failed, stage.replies])
    assert stage.pool.snapshot().counters == {"expired": 1}


def test_the_seeds_messages_have_no_deadline(make):
    stage = make(timeout=10.0)
    message = {"node_id": "n", "url": "/", "reply_to": REPLY_TO}
    stage.put(json.dumps({"class": "RequestProcessor", "args": [message]}).encode())
    assert b"QUEUERELAY_DEADLINE" not in stage.processes.started[0].env
    stage.processes.started[0].print(b"Content-Type: text/plain\n\nx")
    stage.processes.started[0].exit(0)
    stage.turns()
    assert stage.replies[0]["timing"]["wait"] == 0


# Output


def test_too_much_output_ends_it(make):
    stage = make(max_output=1000)
    stage.request(method="GET")
    (process,) = stage.processes.started
    process.print(b"x" * 1001)
    assert process.signals == ["TERM"]
    assert process.stdout_closed
    stage.turns()
    assert [reply["status"] for reply in stage.replies] == [502]
    (entry,) = stage.failed
    assert "output" in entry["queuerelay"]["attempts"][0]["error"]


def test_a_grandchild_that_holds_the_pipes_does_not_hold_the_slot(make):
    stage = make()
    stage.job("1")
    stage.job("2")
    first = stage.processes.started[0]
    first.exit(0, pipes=False)
    stage.advance(1.5)
    assert len(stage.processes.started) == 1
    assert stage.pool.snapshot().slots[0].state == "ending"
    first.print(b"late")
    stage.advance(1.0)
    assert len(stage.processes.started) == 2
    assert first.signals == []
    stage.processes.started[1].exit(0)


def test_what_a_script_that_we_ended_left_behind_is_killed_after_the_grace(make):
    stage = make(timeout=5.0, grace=4.0, tries=1)
    stage.job("1")
    (process,) = stage.processes.started
    process.obedient = False
    stage.advance(3.1)
    assert process.signals == ["TERM"]
    process.die(signal.SIGTERM, pipes=False)
    stage.advance(3.0)
    assert process.signals == ["TERM"]
    stage.advance(1.2)
    assert process.signals == ["TERM", "KILL"]
    assert len(stage.failed) == 1


def test_stderr_goes_to_the_log_as_a_field(make, lines):
    stage = make()
    stage.job("7")
    stage.processes.started[0].complain(b"{evil} 100%\nno end")
    stage.processes.started[0].exit(0)
    stage.turns()
    assert "p 7: {evil} 100%" in lines
    assert "p 7: no end" in lines


# Bad content


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not json",
        b"\xff\x00",
        b"[]",
        b"{}",
        b'{"class":"J"}',
        b'{"class":"","args":[]}',
        b'{"class":"J","args":{}}',
        b"[" * 10_000 + b"]" * 10_000,
        b'{"class":"J","args":[' + b"[" * 10_000 + b"]" * 10_000 + b"]}",
        b'{"class":"J","args":[%b]}' % (b"9" * 10_000),
        b'{"class":"RequestProcessor","args":[{}]}',
    ],
)
def test_what_cannot_be_understood_is_failed_and_counted(make, raw):
    stage = make()
    stage.put(raw)
    stage.job("next")
    assert len(stage.processes.started) == 1
    assert len(stage.failed) == 1
    assert stage.failed[0]["worker"].count(":") == 2
    assert stage.pool.snapshot().counters == {"unreadable": 1}
    stage.processes.started[0].exit(0)
    stage.turns()
    assert stage.pool.busy == 0


def test_an_unreadable_request_is_answered(make):
    stage = make()
    message = {"node_id": "n", "reply_to": REPLY_TO, "url": 7}
    stage.put(json.dumps({"class": "RequestProcessor", "args": [message]}).encode())
    assert [(reply["node_id"], reply["status"]) for reply in stage.replies] == [("n", 502)]


@pytest.mark.parametrize("more", [{"url": "/%00"}, {"headers": [("x", "y" * 200_000)]}])
def test_a_request_that_no_environment_can_carry_is_the_clients_fault(make, more):
    stage = make()
    stage.request(**more)
    assert not stage.processes.started
    assert [reply["status"] for reply in stage.replies] == [400]
    assert not any([stage.failed, stage.inflight])
    assert stage.pool.snapshot().counters == {"refused": 1}


def test_a_message_that_is_too_large_for_exec_is_not_put_back_for_ever(make):
    stage = make()
    stage.processes.errors = [OSError(errno.E2BIG, "too big"), OSError(errno.E2BIG, "too big")]
    stage.request()
    assert [reply["status"] for reply in stage.replies] == [431]
    stage.job()
    assert len(stage.failed) == 1
    assert stage.pool.snapshot().resting == ""


@pytest.mark.parametrize(
    ("method", "header", "status"),
    [
        ("GET", "Content-Length: 9", 502),
        ("GET", "Content-Length: 4", 200),
        # What echo adds to the end of it is no harm.
        ("GET", "Content-Length: 3", 200),
        ("HEAD", "Content-Length: 9", 200),
        ("GET", "Status: 304\nContent-Length: 9", 304),
    ],
)
def test_less_than_a_script_has_declared_is_no_answer(make, method, header, status):
    stage = make()
    stage.request(method=method)
    stage.processes.started[0].print(f"Content-Type: a/b\n{header}\n\nbody".encode())
    stage.processes.started[0].exit(0)
    stage.turns()
    assert [reply["status"] for reply in stage.replies] == [status]
    assert len(stage.failed) == (status == 502)


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
    messages = [stage.job(name) for name in "123"]
    stage.advance(40.0)
    pauses = [later - earlier for earlier, later in pairwise(begun)]
    # Then it works, and the others follow.
    assert [round(pause) for pause in pauses[:4]] == [1, 2, 4, 8]
    assert len(stage.processes.alive) == 3
    assert {process.env[b"QUEUERELAY_ATTEMPT"] for process in stage.processes.alive} == {b"1"}
    assert sorted(stage.inflight) == sorted(messages)
    assert len([line for line in lines if "cannot run its command" in line]) == 4
    assert stage.pool.snapshot().resting == ""
    for process in stage.processes.alive:
        process.exit(0)


def test_a_start_that_fails_late_uses_no_try_and_backs_off(make, lines):
    """As a launcher tells it, which does not wait for the start."""
    stage = make(size=2)
    messages = [stage.job(name) for name in "12"]
    for process in stage.processes.alive:
        process.never(OSError(errno.ENOENT, "no such interpreter"))
    stage.turns()
    assert stage.pool.busy == 0
    assert stage.pool.snapshot().resting.endswith("no such interpreter")
    # Both failed, and there is one rest.
    assert len([line for line in lines if "cannot run its command" in line]) == 1
    assert sorted(stage.waiting) == sorted(messages)
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
    stage.store.pool.paused = True
    stage.advance(1.5)
    stage.job("1")
    assert not stage.processes.started
    stage.store.pool.paused = False
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
    claim_many = stage.broker.claim_many

    def claim_and_go(*args: Any, **options: Any) -> Any:
        claims = claim_many(*args, **options)
        if stage.inflight:
            {
                "drain": stage.pool.drain,
                "stop": stage.pool.stop,
                "resize": lambda: stage.pool.set_size(1),
            }[how]()
        return claims

    monkeypatch.setattr(stage.broker, "claim_many", claim_and_go)
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
    for lease in stage.store._leases["q"].values():
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
    stage.store.pool.mark_gone(["r"], 60.0)
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
    stage.turns()
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
    assert list(stage.store.pool.workers) == [worker]
    stage.job("7")
    stage.advance(1.5)
    assert list(stage.store.pool.working) == [worker]
    stage.processes.started[0].exit(1)
    stage.advance(1.5)
    assert stage.store.pool.working == {}
    assert stage.store.pool.stats["processed", None] == 1
    assert stage.store.pool.stats["failed", None] == 1
    stage.pool.stop()
    stage.turns()
    assert not stage.store.pool.workers


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
        stage.broker.register_worker(other, ["q"])
    stage.advance(2.0)
    assert {*stage.store.pool.workers} == {"queuerelay.host:1:q", *others}
    stage.advance(PRUNE_IN)
    assert {*stage.store.pool.workers} == {"queuerelay.host:1:q", *others[1:]}


def test_who_beats_stays_on_resques_list_whatever_its_process_id_is_here(make):
    gone = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(gone, 0)
    stage = make()
    other = f"queuerelay.host:{gone}:q"
    stage.broker.register_worker(other, ["q"])
    for raw in (b"[]", b"\xff", b'{"host":"host"}'):
        stage.broker.beat(raw.hex(), raw, inbox_life=60.0)
    for _ in range(PRUNE_IN + 2):
        stage.broker.beat("it", b'{"host":"host","pid":%d}' % gone, inbox_life=60.0)
        stage.advance(1.0)
    assert {*stage.store.pool.workers} == {"queuerelay.host:1:q", other}


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
    monkeypatch.setattr(filling, "order", lambda *args: 1 / 0)
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
