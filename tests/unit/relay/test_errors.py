"""Errors as clients of the front see them, and what is told of them elsewhere."""

import pytest

from queuerelay.relay import answering
from queuerelay.wire.reply import encode_reply
from tests.helpers.strict import request
from tests.unit.relay.stage import FakeClient


def test_a_bug_while_it_is_held_is_500_and_nothing_is_held(stage, monkeypatch, logged_failures):
    monkeypatch.setattr(stage.relay._outbox, "add", lambda held: 1 / 0)
    connection = stage.connect().send(request("GET", "/s3cr3t"))
    response = connection.response()
    assert (response.status, response.get("cache-control")) == (500, b"no-store")
    assert response.body == b"500 Internal Server Error: this server failed.\n"
    snapshot = stage.relay.snapshot()
    assert (snapshot.held, snapshot.held_bytes, snapshot.refusals) == (0, 0, {"internal": 1})
    assert len(logged_failures.flush(ZeroDivisionError)) == 1
    # The connection goes on.
    monkeypatch.undo()
    connection.send(request())
    stage.reply(stage.take())
    assert [one.status for one in connection.responses("GET", "GET")] == [500, 200]


def test_a_bug_while_it_is_answered_is_500(stage, monkeypatch, logged_failures, log_lines):
    connection = stage.connect().send(request())
    monkeypatch.setattr(answering, "for_reply", lambda *args, **how: 1 / 0)
    stage.reply(stage.take(), body=b"lost")
    assert connection.response().status == 500
    assert stage.relay.snapshot().refusals == {"internal": 1}
    assert len(logged_failures.flush(ZeroDivisionError)) == 1
    assert [line for line in log_lines() if "answered 500 (internal)" in line]


@pytest.mark.parametrize(
    ("problem", "status", "text"),
    [
        ("worker-failed", 502, b"502 Bad Gateway: the worker that had this request failed.\n"),
        (
            "worker-timeout",
            504,
            b"504 Gateway Timeout: the worker that had this request took too long.\n",
        ),
    ],
)
def test_where_there_is_no_workers_answer_the_error_is_ours(
    make_stage, log_lines, problem, status, text
):
    stage = make_stage()
    stage.front.pages = {status: b"<p>page"}
    connection = stage.connect().send(request(), request("GET", "/", ("Accept", "text/html")))
    for _ in range(2):
        taken = stage.take()
        raw = encode_reply(node_id=taken["node_id"], status=500, body=b"theirs", problem=problem)
        stage.push_reply(raw, raw)
    plain, page = connection.responses("GET", "GET")
    assert (plain.status, plain.body) == (status, text)
    assert (page.status, page.body) == (status, b"<p>page")
    snapshot = stage.relay.snapshot()
    assert snapshot.refusals == {problem: 2}
    assert snapshot.counters["refused"] == 2
    assert snapshot.counters["replies_late"] == 2
    assert len([line for line in log_lines() if problem in line]) == 1


def test_an_answer_that_has_begun_is_broken_off_by_it(stage):
    stage.hold(client := FakeClient())
    stage.turn()
    id = stage.take()["node_id"]
    stage.push_reply(encode_reply(node_id=id, body=b"a", more=True))
    stage.push_reply(encode_reply(node_id=id, status=502, problem="worker-failed"))
    assert client.aborted == 1
    assert stage.counter("aborted") == 1
