"""What scripts are given and print, and messages that cannot be understood."""

import errno
import json
import signal

import pytest

from tests.unit.pool.stage import EPOCH

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


def test_what_has_no_end_is_shown_within_seconds_and_seldom(make, lines):
    stage = make(timeout=3000.0)
    stage.job("7")
    process = stage.processes.started[0]
    process.complain(b"working")
    stage.advance(2.25)
    assert lines[-1] == "p 7: working"
    for _ in range(600):
        process.complain(b".")
        stage.advance(1.0, step=1.0)
    dots = [line for line in lines if "." in line]
    assert len(dots) < 20
    assert sum(line.count(".") for line in dots) > 500
    process.exit(0)
    stage.turns()
    assert sum(line.count(".") for line in lines) == 600


def test_a_progress_bar_is_one_line_of_the_log(make, lines):
    stage = make()
    stage.job("7")
    process = stage.processes.started[0]
    for step in range(200):
        process.complain(b"\r%d of 200" % (step + 1))
        stage.advance(0.25)
    process.exit(0)
    stage.turns()
    assert [line for line in lines if "of 200" in line] == ["p 7: 200 of 200"]


def test_what_a_failed_job_said_on_stdout_is_kept_logged_and_shown(make, lines):
    stage = make()
    stage.job("7")
    process = stage.processes.started[0]
    process.print(b"x" * 20_000 + b"\nPHP Fatal error: no \x1bdatabase\n")
    process.exit(255)
    stage.advance(1.0)
    (entry,) = stage.failed
    (attempt,) = entry["queuerelay"]["attempts"]
    assert len(attempt["stdout"]) <= 8192 + 3
    assert attempt["stdout"].endswith("\nPHP Fatal error: no \\x1bdatabase\n")
    assert "stderr" not in attempt
    assert entry["backtrace"][-1] == "PHP Fatal error: no \\x1bdatabase"
    assert stage.pool.snapshot().exits[0].stdout == attempt["stdout"][-2048:]
    assert "p 7: stdout: PHP Fatal error: no \\x1bdatabase" in lines


def test_of_a_tried_job_stdout_is_kept_for_each_try(make):
    stage = make(tries=2)
    stage.job("7")
    for said in (b"first", b"second"):
        while not stage.processes.alive:
            stage.advance(0.25)
        stage.processes.alive[0].print(said)
        stage.processes.alive[0].exit(75)
        stage.advance(1.0)
    (entry,) = stage.failed
    assert [one["stdout"] for one in entry["queuerelay"]["attempts"]] == ["first", "second"]


def test_what_goes_well_and_what_is_a_clients_is_shown_to_nobody(make, lines):
    stage = make(size=2)
    stage.job("7")
    stage.request(method="POST")
    for process, code in zip(stage.processes.alive, (0, 1), strict=True):
        process.print(b"a secret")
        process.exit(code)
    stage.advance(1.0)
    assert len(stage.failed) == 1
    assert [one.stdout for one in stage.pool.snapshot().exits] == ["", ""]
    assert "a secret" not in str([stage.failed, lines])


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
    message = {"node_id": "n", "reply_to": "queuerelay:inbox:n", "url": 7}
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
    stage.advance(1.0)
    assert [reply["status"] for reply in stage.replies] == [status]
    assert len(stage.failed) == (status == 502)


@pytest.mark.parametrize(
    "reply_to", ["queuerelay:gate", "queuerelay:inflight:q", "queuerelay:inbox:n", "resque:queue:q"]
)
def test_a_job_writes_only_where_results_may_be(make, reply_to):
    stage = make()
    stage.job(reply_to=reply_to, node_id="n")
    assert not stage.processes.started
    (entry,) = stage.failed
    assert f"reply_to: '{reply_to}' is not under 'queuerelay:results:'" in entry["error"]
    assert not any([stage.replies, stage.inflight, stage.waiting])
    assert set(stage.store.lists.content) <= {"resque:failed", "resque:queue:q"}


def test_a_request_is_answered_only_where_its_own_client_waits(make):
    stage = make()
    stage.request("a-1", reply_to="queuerelay:inbox:b")
    assert not stage.processes.started
    (entry,) = stage.failed
    assert "reply_to: 'queuerelay:inbox:b' is not 'queuerelay:inbox:a'" in entry["error"]
    assert not any([stage.replies, stage.inflight, stage.waiting])
