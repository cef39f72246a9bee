"""The Resource in a plain Site that knows nothing of us."""

import pytest

from queuerelay.wire.reply import encode_reply
from tests.helpers.strict import chunked, parse, request
from tests.unit.relay.mounted import Mounted


@pytest.fixture
def mounted(stage):
    return Mounted(stage)


def test_a_bug_of_ours_is_500(mounted, monkeypatch, logged_failures):
    monkeypatch.setattr(mounted.stage.relay, "hold", lambda *args, **fields: 1 / 0)
    response = mounted.send(request("GET", "/app")).response()
    assert (response.status, response.get("retry-after")) == (500, None)
    assert response.body == b"500 Internal Server Error: this server failed.\n"
    assert len(logged_failures.flush(ZeroDivisionError)) == 1
    monkeypatch.undo()
    monkeypatch.setattr("queuerelay.relay.answering.for_reply", lambda *args, **how: 1 / 0)
    connection = mounted.send(request("GET", "/app"))
    mounted.stage.reply(mounted.stage.take())
    assert connection.response().status == 500
    assert mounted.stage.relay.snapshot().refusals == {"internal": 2}
    assert len(logged_failures.flush(ZeroDivisionError)) == 1


def test_a_bug_as_a_streamed_answer_begins_is_500_and_counted_for_its_queue_alone(
    mounted, monkeypatch, logged_failures
):
    monkeypatch.setattr("queuerelay.relay.answering.for_reply", lambda *args, **how: 1 / 0)
    connection = mounted.send(request("GET", "/app"))
    mounted.stage.stream(mounted.stage.take(), b"lost")
    assert connection.response().status == 500
    assert len(logged_failures.flush(ZeroDivisionError)) == 1
    assert mounted.stage.relay.snapshot().refusals == {"internal": 1}
    queues = mounted.stage.relay.published().queues
    assert queues[""].codes["5xx"] == 0
    assert queues["requests"].taken == 1


def test_it_is_mounted_beside_others_and_sends_the_whole_target(mounted):
    connection = mounted.send(
        request("POST", "/app/things/1?x=1", ("X-A", "1"), ("X-a", "2"), body=b"a=1")
    )
    taken = mounted.stage.take()
    assert taken["url"] == "/app/things/1?x=1"
    assert taken["body"] == "a=1"
    assert taken["http_version"] == "1.1"
    assert [value for name, value in taken["headers"] if name == "x-a"] == ["1", "2"]
    mounted.stage.reply(
        taken,
        status=201,
        headers=[("Set-Cookie", "a=1"), ("X-B", "b"), ("Set-Cookie", "b=2"), ("Server", "w")],
        body=b"made",
    )
    response = connection.response("POST")
    assert (response.status, response.body) == (201, b"made")
    assert response.all("set-cookie") == [b"a=1", b"b=2"]
    assert response.get("server") == b"w"
    assert mounted.send(request("GET", "/else")).response().body == b"somebody else's"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PROPFIND", "x-y"])
def test_any_method_goes_to_the_queue(mounted, method):
    connection = mounted.send(request(method, "/app"))
    taken = mounted.stage.take()
    assert taken["method"] == method
    mounted.stage.reply(taken, headers=[])
    response = connection.response(method)
    assert response.status == 200
    assert response.get("content-type") is None


@pytest.mark.parametrize("status", [204, 304, 205])
def test_these_statuses_have_no_body(mounted, status):
    connection = mounted.send(request("GET", "/app"))
    mounted.stage.reply(mounted.stage.take(), status=status, body=b"12345")
    assert connection.response().body == b""


def test_the_answer_to_head_may_have_the_length_of_get(mounted):
    connection = mounted.send(request("HEAD", "/app"))
    mounted.stage.reply(mounted.stage.take(), headers=[("Content-Length", "12345")])
    response = connection.response("HEAD")
    assert response.get("content-length") == b"12345"


def test_framing_is_ours_whatever_the_worker_says(mounted):
    connection = mounted.send(request("GET", "/app"))
    mounted.stage.reply(
        mounted.stage.take(),
        headers=[
            ("Content-Length", "1"),
            ("Transfer-Encoding", "chunked"),
            ("Connection", "close"),
        ],
        body=b"abc",
    )
    response = connection.response()
    assert response.body == b"abc"
    assert not response.closes


def test_the_request_id_is_the_clients_or_ours_never_the_workers(mounted):
    for given in ("mine", "not sane"):
        connection = mounted.send(request("GET", "/app", ("X-Request-Id", given)))
        taken = mounted.stage.take()
        (id,) = (value for name, value in taken["headers"] if name == "x-request-id")
        assert (id == given) is (given == "mine")
        mounted.stage.reply(taken, headers=[("x-request-id", "the worker's")])
        assert connection.response().get("x-request-id") == id.encode()


# The body of a Site's request is a temporary file from 100,000 bytes on, and where it is chunked.
@pytest.mark.parametrize("size", [0, 1, 99_999, 100_001, 300_000])
@pytest.mark.parametrize("coding", ["length", "chunks"])
def test_a_body_of_any_size_arrives(mounted, size, coding):
    body = bytes(97 + n % 26 for n in range(size))
    if coding == "chunks":
        fields = [("Transfer-Encoding", "chunked")]
        parts = (body[:7], body[7:]) if size > 7 else ((body,) if body else ())
        data = request("POST", "/app", *fields, body=chunked(*parts))
    else:
        data = request("POST", "/app", body=body)
    connection = mounted.send(data)
    taken = mounted.stage.take()
    assert taken.get("body", "").encode() == body
    mounted.stage.reply(taken)
    assert connection.response("POST").status == 200


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_form_arrives_as_it_was_sent(mounted, kind):
    fields = [("Content-Type", kind + "; boundary=x" * (kind[0] == "m"))]
    body = b"a=1&b=%32"
    if kind[0] == "m":
        body = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n'
    mounted.send(request("POST", "/app", *fields, body=body))
    assert mounted.stage.take()["body"].encode() == body


def test_a_body_that_is_too_large_is_413(make_stage):
    mounted = Mounted(make_stage(max_body=10))
    response = mounted.send(request("POST", "/app", body=b"x" * 11)).response("POST")
    assert response.status == 413
    assert response.get("x-request-id")
    assert mounted.stage.waiting() == []


def test_an_error_is_as_the_client_accepts(make_stage):
    mounted = Mounted(make_stage(max_held=1))
    mounted.stage.hold()
    response = mounted.send(request("GET", "/app", ("Accept", "application/json"))).response()
    assert response.status == 503
    assert response.get("content-type") == b"application/problem+json"
    assert response.get("retry-after") == b"5"


def test_a_client_that_leaves_is_taken_off_and_its_answer_is_dropped(mounted):
    stage = mounted.stage
    connections = [mounted.send(request("GET", "/app")) for _ in range(2)]
    taken = stage.take()
    for connection in connections:
        connection.leave()
    assert stage.waiting() == []
    assert stage.counter("work_saved") == 1
    stage.reply(taken)
    assert [connection.raw for connection in connections] == [b"", b""]


# Promise 2
def test_promise_2_pipelined_requests_are_answered_in_order(mounted):
    connection = mounted.send(b"".join(request("GET", f"/app/{n}") for n in range(3)))
    for number in range(3):
        taken = mounted.stage.take()
        assert taken["url"] == f"/app/{number}"
        mounted.stage.reply(taken, body=b"%d" % number)
    assert [one.body for one in connection.responses(*["GET"] * 3)] == [b"0", b"1", b"2"]


# Promise 2
def test_promise_2_a_site_that_fails_aborts_and_costs_no_other_client(
    mounted, monkeypatch, logged_failures
):
    from queuerelay.relay import resource

    bad, good = (mounted.send(request("GET", f"/app/{url}")) for url in ("bad", "good"))
    first, second = mounted.stage.take(), mounted.stage.take()
    reason_phrase = resource.reason_phrase

    def failing(status):
        if status == 201:
            raise RuntimeError("bug")
        return reason_phrase(status)

    monkeypatch.setattr(resource, "reason_phrase", failing)
    mounted.stage.push_reply(
        encode_reply(node_id=first["node_id"], status=201), encode_reply(node_id=second["node_id"])
    )
    assert good.response().status == 200
    assert bad.raw == b""
    assert bad.wire.aborted
    assert len(logged_failures.flush(RuntimeError)) == 1


def test_times_and_pages_are_those_of_the_front(mounted):
    resource = mounted.site.resource.children[b"app"]
    resource.pages = {504: b"<p>late"}
    connection = mounted.send(
        request("GET", "/app"), request("GET", "/app", ("Accept", "text/html"))
    )
    timing = {"wait": 0.012, "run": 0.34}
    mounted.stage.reply(
        mounted.stage.take(), headers=[("Server-Timing", "db;dur=3")], timing=timing
    )
    mounted.stage.take()
    mounted.stage.turn(61)
    first, second = connection.responses("GET", "GET")
    assert first.all("server-timing") == [b"db;dur=3", b"queue;dur=12, work;dur=340"]
    assert (second.status, second.body) == (504, b"<p>late")
    assert second.get("content-type") == b"text/html; charset=utf-8"
    resource.server_timing = False
    connection = mounted.send(request("GET", "/app"))
    mounted.stage.reply(mounted.stage.take(), timing=timing)
    assert connection.response().get("server-timing") is None


def test_http_1_0_is_answered_and_closed(mounted):
    connection = mounted.send(request("GET", "/app", version="1.0"))
    mounted.stage.reply(mounted.stage.take(), body=b"old")
    # twisted.web answers with the client's version.
    assert connection.raw.startswith(b"HTTP/1.0 200 OK\r\n")
    (response,) = parse(connection.raw.replace(b"HTTP/1.0", b"HTTP/1.1", 1))
    assert response.body == b"old"
    assert connection.wire.disconnecting


def test_a_deadline_in_a_site_is_an_error_like_any_other(mounted):
    connection = mounted.send(request("GET", "/app"))
    mounted.stage.turn(61)
    assert connection.response().status == 503
