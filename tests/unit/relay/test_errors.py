"""Errors as clients of the front see them, and what is told of them elsewhere."""

from queuerelay.relay import request as front_request
from tests.unit.relay.strict import request


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
    monkeypatch.setattr(front_request, "for_reply", lambda *args, **how: 1 / 0)
    stage.reply(stage.take(), body=b"lost")
    assert connection.response().status == 500
    assert stage.relay.snapshot().refusals == {"internal": 1}
    assert len(logged_failures.flush(ZeroDivisionError)) == 1
    assert [line for line in log_lines() if "answered 500 (internal)" in line]
