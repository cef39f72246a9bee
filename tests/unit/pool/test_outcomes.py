"""What a script's exit and its time do to the message."""

import base64
import json
import signal

import pytest

from queuerelay.wire.outcome import Outcome
from tests.unit.pool.stage import EPOCH, REPLY_TO

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
    assert reply["headers"] == [["Content-Type", "text/x"]]
    assert reply["timing"]["run"] >= 0.5
    assert reply["timing"]["wait"] >= 1.0
    assert not stage.inflight


def test_a_jobs_result_goes_where_it_asks_for(make):
    stage = make()
    stage.job(reply_to=REPLY_TO, node_id="mine")
    stage.processes.started[0].print(b"\xff\x00")
    stage.processes.started[0].exit(0)
    stage.turns()
    (raw,) = stage.store.items(REPLY_TO)
    reply = json.loads(raw)
    assert reply["node_id"] == "mine"
    assert base64.b64decode(reply["body"]) == b"\xff\x00"


def test_who_asks_for_a_jobs_result_hears_of_its_failure(make):
    stage = make()
    stage.job("7", reply_to=REPLY_TO)
    stage.processes.started[0].exit(1)
    stage.advance(1.0)
    (raw,) = stage.store.items(REPLY_TO)
    assert json.loads(raw)["status"] == 502
    assert json.loads(raw)["node_id"] == "7"
    assert len(stage.failed) == 1


@pytest.mark.parametrize("printed", [b"", b"hello", b"X: 1\n\n", b"Status: 99\n\n", b"a\nb\n\n"])
def test_an_answer_that_is_none_is_502_and_failed(make, printed):
    stage = make()
    stage.request()
    stage.processes.started[0].print(printed)
    stage.processes.started[0].exit(0)
    stage.advance(1.0)
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
        # The second in which our stop may come is part of the pause.
        stage.advance(pause - 0.3)
        assert len(stage.inflight) + len(stage.delayed) == 1
        assert len(stage.processes.started) == attempt
        stage.advance(3.5)
        assert len(stage.processes.started) == attempt + 1
    stage.processes.started[-1].die(signal.SIGSEGV)
    stage.advance(1.0)
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
    stage.advance(1.0)
    assert len(stage.failed) == 1
    assert stage.pool.snapshot().counters == {"critical": 1}


def test_the_mapping_is_an_option(make, monkeypatch):
    monkeypatch.setattr("random.random", lambda: 0.99)
    stage = make(exits={3: Outcome.TRANSIENT})
    stage.job()
    stage.processes.started[0].exit(3)
    stage.advance(1.0)
    assert len(stage.delayed) == 1


@pytest.mark.parametrize(
    ("printed", "code", "place"),
    [(b"1", 0, "done"), (b" 2\n", 0, "delayed"), (b"3", 0, "failed"), (b"1", 9, "failed")],
)
def test_status_on_stdout(make, printed, code, place, monkeypatch):
    monkeypatch.setattr("random.random", lambda: 0.99)
    stage = make(status="stdout")
    stage.job()
    stage.processes.started[0].print(printed)
    stage.processes.started[0].exit(code)
    stage.advance(1.0)
    found = {"delayed": len(stage.delayed), "failed": len(stage.failed)}
    assert found == {"delayed": 0, "failed": 0, **({} if place == "done" else {place: 1})}
    assert not stage.inflight


@pytest.mark.parametrize(("method", "delayed"), [("GET", 1), ("PUT", 1), ("POST", 0)])
def test_a_crash_is_tried_again_where_it_may_run_twice(make, method, delayed, monkeypatch):
    monkeypatch.setattr("random.random", lambda: 0.99)
    stage = make()
    stage.request(method=method)
    stage.processes.started[0].die(signal.SIGKILL)
    stage.advance(1.0)
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
    message = {"node_id": "n", "url": "/", "reply_to": "queuerelay:inbox:n"}
    stage.put(json.dumps({"class": "RequestProcessor", "args": [message]}).encode())
    assert b"QUEUERELAY_DEADLINE" not in stage.processes.started[0].env
    stage.processes.started[0].print(b"Content-Type: text/plain\n\nx")
    stage.processes.started[0].exit(0)
    stage.turns()
    assert stage.replies[0]["timing"]["wait"] == 0
