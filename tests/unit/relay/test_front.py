"""The front: bytes of a client in, bytes of one strict response for each request out."""

import pytest

from queuerelay.errors import ReplyError
from queuerelay.http.channel import LINGER
from queuerelay.http.connections import SWEEP
from queuerelay.wire.reply import encode_reply
from tests.helpers.strict import CONTINUE, Malformed, chunked, parse, request


def served(stage, data, *, method="GET", **reply):
    """The response to one request, by a worker that answers with `reply`."""
    connection = stage.connect().send(data)
    stage.reply(stage.take(), **reply)
    return connection.response(method)


def test_a_request_crosses_the_queue_and_comes_back(stage):
    connection = stage.connect().send(
        request("POST", "/a?b=c", ("X-A", "1"), ("X-a", "2"), ("Connection", "x-b"), ("X-B", "3"),
                body=b"\xff")
    )  # fmt: skip
    taken = stage.take()
    assert taken["method"] == "POST"
    assert taken["url"] == "/a?b=c"
    assert taken["http_version"] == "1.1"
    assert (taken["body"], taken["body_encoding"]) == ("/w==", "base64")
    assert taken["scheme"] == "http"
    assert [pair for pair in taken["headers"] if pair[0] != "x-request-id"] == [
        ["host", "example.org"],
        ["x-a", "1"],
        ["x-a", "2"],
        ["x-forwarded-for", "192.168.1.1"],
        ["x-forwarded-proto", "http"],
        ["via", "1.1 queuerelay"],
        ["x-forwarded-host", "example.org"],
    ]
    stage.reply(taken, status=404, headers=[("X-C", "1"), ("x-c", "2")], body=b"none")
    response = connection.response("POST")
    assert (response.status, response.body) == (404, b"none")
    assert response.all("x-c") == [b"1", b"2"]
    assert response.get("server") == b"queuerelay"
    assert response.get("date") == b"Mon, 21 Sep 2026 14:13:20 GMT"
    assert not response.closes


def test_the_workers_date_and_server_stay(stage):
    response = served(
        stage, request(), headers=[("Date", "Thu, 01 Jan 1970 00:00:00 GMT"), ("Server", "x")]
    )
    assert response.get("date") == b"Thu, 01 Jan 1970 00:00:00 GMT"
    assert response.get("server") == b"x"


FRAMING = [
    ("Content-Length", "3"),
    ("Transfer-Encoding", "chunked"),
    ("Connection", "close, x-mine"),
    ("Keep-Alive", "timeout=1"),
    ("Upgrade", "h2c"),
    ("Trailer", "x"),
    ("Proxy-Authenticate", "Basic"),
    ("X-Mine", "1"),
]


@pytest.mark.parametrize("form", [FRAMING, dict(FRAMING)])
def test_framing_is_ours_whatever_the_worker_says(stage, form):
    response = served(stage, request(), headers=form, body=b"longer than three")
    assert response.body == b"longer than three"
    assert response.get("content-length") == b"17"
    names = {name for name, _ in response.headers}
    assert not names & {"transfer-encoding", "connection", "keep-alive", "upgrade", "trailer"}
    assert not names & {"proxy-authenticate", "x-mine"}


@pytest.mark.parametrize("status", [204, 304, 205])
def test_these_statuses_have_no_body(stage, status):
    connection = stage.connect().send(request(), request())
    stage.reply(stage.take(), status=status, headers=[("content-length", "5")], body=b"12345")
    stage.reply(stage.take(), body=b"next")
    first, second = connection.responses("GET", "GET")
    assert (first.status, first.body) == (status, b"")
    assert first.get("content-length") == (b"0" if status == 205 else None)
    assert second.body == b"next"


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ({"body": b"12345"}, b"5"),
        ({"headers": [("Content-Length", "12345")]}, b"12345"),
        ({"headers": [("Content-Length", "-1")]}, None),
        ({}, None),
        ({"status": 204, "body": b"12345"}, None),
        ({"status": 205, "headers": [("Content-Length", "5")]}, b"0"),
    ],
)
def test_the_answer_to_head_has_the_length_of_get_and_no_body(stage, fields, length):
    connection = stage.connect().send(request("HEAD"), request())
    stage.reply(stage.take(), **fields)
    stage.reply(stage.take(), body=b"next")
    head, get = connection.responses("HEAD", "GET")
    assert head.get("content-length") == length
    assert (head.body, get.body) == (b"", b"next")


def test_an_error_for_head_has_no_body(make_stage):
    stage = make_stage(max_held=1)
    stage.hold()
    response = stage.connect().send(request("HEAD")).response("HEAD")
    assert (response.status, response.body) == (503, b"")


# X-Request-Id


def test_a_sane_request_id_goes_to_the_worker_and_comes_back(stage):
    connection = stage.connect().send(request("GET", "/", ("X-Request-ID", "a-B.9/+=")))
    taken = stage.take()
    assert [value for name, value in taken["headers"] if name == "x-request-id"] == ["a-B.9/+="]
    stage.reply(taken, headers=[("X-Request-Id", "the worker's")])
    assert connection.response().get("x-request-id") == b"a-B.9/+="


@pytest.mark.parametrize(
    "hostile", ["", "a b", '"', "x" * 129, "a;b", "é", "<script>", "a,b"]
)  # fmt: skip
def test_a_hostile_request_id_is_replaced(stage, hostile):
    connection = stage.connect().send(request("GET", "/", ("X-Request-Id", hostile)))
    taken = stage.take()
    (ours,) = (value for name, value in taken["headers"] if name == "x-request-id")
    assert len(ours) == 24
    assert ours != hostile
    stage.reply(taken)
    assert connection.response().get("x-request-id") == ours.encode()


def test_of_two_request_ids_neither_is_taken(stage):
    response = served(stage, request("GET", "/", ("X-Request-Id", "a"), ("X-Request-Id", "b")))
    assert response.get("x-request-id") not in (b"a", b"b", None)


# Connections


def test_a_connection_is_kept_for_the_next_request(stage):
    connection = stage.connect()
    for number in range(3):
        connection.send(request("GET", f"/{number}"))
        stage.reply(stage.take(), body=b"%d" % number)
    assert [one.body for one in connection.responses(*["GET"] * 3)] == [b"0", b"1", b"2"]
    assert not connection.wire.disconnecting


# Promise 2
def test_promise_2_pipelined_requests_are_answered_in_order_once_each(stage):
    urls = [f"/{number}" for number in range(4)]
    connection = stage.connect().send(b"".join(request("GET", url) for url in urls))
    for url in urls:
        # One at a time: whatever the workers do, no answer can overtake another.
        (waiting,) = stage.waiting()
        assert waiting["url"] == url
        taken = stage.take()
        stage.reply(taken, body=url.encode())
        stage.reply(taken, body=b"again")
    assert [one.body.decode() for one in connection.responses(*["GET"] * 4)] == urls


def test_requests_in_single_bytes_are_requests(stage):
    data = request("POST", "/a", body=b"ab") + request("GET", "/b")
    connection = stage.connect().send(*(data[n : n + 1] for n in range(len(data))))
    for _ in range(2):
        taken = stage.take()
        stage.reply(taken, body=taken["url"].encode() + taken.get("body", "").encode())
    assert [one.body for one in connection.responses("POST", "GET")] == [b"/aab", b"/b"]


@pytest.mark.parametrize(
    ("version", "field", "closes"),
    [
        ("1.0", None, True),
        ("1.0", "keep-alive", False),
        ("1.0", "keep-alive, close", True),
        ("1.1", "close", True),
        ("1.1", "Close", True),
        ("1.1", "x, close", True),
        ("1.1", "keep-alive", False),
    ],
)
def test_the_client_says_when_it_wants_no_more(stage, version, field, closes):
    fields = [] if field is None else [("Connection", field)]
    connection = stage.connect().send(request("GET", "/", *fields, version=version) * 2)
    taken = stage.take()
    assert taken["http_version"] == version
    stage.reply(taken)
    response = connection.response()
    assert response.closes is closes
    if version == "1.0" and not closes:
        assert response.get("connection") == b"keep-alive"
    # What it sent after its last request was not read: a reset might cost it the answer.
    assert connection.wire.half_closed is closes
    assert len(stage.waiting()) == (0 if closes else 1)


def test_an_idle_connection_is_closed_and_one_that_waits_for_its_answer_is_not(stage):
    idle, waiting = stage.connect(), stage.connect().send(request())
    stage.turn(60.0 - 1)
    assert not idle.wire.disconnecting
    stage.reply(stage.take())
    stage.turn(2)
    assert idle.wire.disconnecting
    assert not waiting.wire.disconnecting
    stage.turn(60.0)
    assert waiting.wire.disconnecting


# Promise 6
@pytest.mark.parametrize("field", ["close", "keep-alive"])
def test_promise_6_a_client_that_reads_nothing_is_let_go(stage, field):
    connection = stage.connect()
    connection.wire.stuck = True
    connection.send(request("GET", "/", ("Connection", field)))
    stage.reply(stage.take(), body=b"x" * 100_000)
    stage.turn(60.0 + 16)
    assert connection.wire.aborted


# Early answers


# Promise 2, Promise 6
@pytest.mark.parametrize("segments", ["one", "two", "many"])
@pytest.mark.parametrize("coding", ["length", "chunks"])
@pytest.mark.parametrize("more", [b"", request("GET", "/smuggled")])
def test_promise_2_a_body_that_is_too_large_is_refused_once_and_nothing_follows(
    make_stage, segments, coding, more
):
    stage = make_stage(max_body=10)
    body = b"x" * 11
    if coding == "chunks":
        data = request("POST", "/", ("Transfer-Encoding", "chunked"), body=chunked(*[body] * 3))
    else:
        data = request("POST", "/", body=body)
    data += more
    cut = data.index(b"\r\n\r\n") + 4
    parts = {
        "one": [data],
        "two": [data[:cut], data[cut:]],
        "many": [data[n : n + 1] for n in range(len(data))],
    }
    connection = stage.connect().send(*parts[segments])
    response = connection.response("POST")
    assert response.status == 413
    assert response.closes
    assert response.get("x-request-id")
    assert stage.waiting() == []
    assert stage.relay.snapshot().held == 0
    # The client gets time to read it before the connection is reset.
    assert connection.wire.half_closed
    stage.turn(LINGER + SWEEP)
    assert connection.wire.aborted
    assert stage.relay.budget.receiving == 0


@pytest.mark.parametrize("coding", ["length", "chunks"])
def test_a_body_of_just_the_limit_is_taken(make_stage, coding):
    stage = make_stage(max_body=10)
    if coding == "chunks":
        data = request(
            "PUT", "/", ("Transfer-Encoding", "chunked"), body=chunked(b"12345", b"67890")
        )
    else:
        data = request("PUT", "/", body=b"1234567890")
    connection = stage.connect().send(*(data[n : n + 1] for n in range(len(data))))
    taken = stage.take()
    assert taken["body"] == "1234567890"
    stage.reply(taken)
    assert connection.response("PUT").status == 200
    assert stage.relay.budget.receiving == 0


def test_a_length_that_is_too_large_is_refused_before_the_body(make_stage):
    stage = make_stage(max_body=10)
    fields = [("Content-Length", "11"), ("Expect", "100-continue")]
    connection = stage.connect().send(request("POST", "/", *fields))
    # Not even a 100 Continue goes out, before it or after it.
    assert connection.response("POST").status == 413


def test_who_asks_before_sending_is_told_to_go_on(stage):
    connection = stage.connect().send(
        request("POST", "/", ("Content-Length", "2"), ("Expect", "100-continue"))
    )
    assert connection.raw == CONTINUE
    connection.send(b"ab")
    taken = stage.take()
    assert "expect" not in dict(taken["headers"])
    stage.reply(taken)
    assert parse(connection.raw.removeprefix(CONTINUE), ["POST"])[0].status == 200


# Promise 6
def test_promise_6_bodies_that_are_coming_in_count_against_the_bytes_held(make_stage):
    stage = make_stage(max_body=1000, max_held_bytes=2500)
    part = request("POST", "/", ("Content-Length", "1000"))
    connections = [stage.connect().send(part, b"x" * 900) for _ in range(3)]
    assert [len(one.raw) > 0 for one in connections] == [False, False, True]
    refused = connections[2].response("POST")
    assert (refused.status, refused.closes) == (503, True)
    assert refused.get("retry-after")
    assert stage.relay.snapshot().refusals == {"held-limit": 1}
    # A client that gives up makes room.
    connections[0].leave()
    assert stage.relay.budget.receiving == 900
    assert stage.connect().send(part, b"x" * 900).raw == b""


MALFORMED = [
    b"nonsense\r\n\r\n",
    b"GET /\r\n\r\n",
    b"GET /\x7f\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
    b"GET / HTTP/1.1\r\nno colon\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nbad name: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
]


@pytest.mark.parametrize("data", MALFORMED, ids=range(len(MALFORMED)))
@pytest.mark.parametrize("more", [b"", request("GET", "/smuggled")], ids=["", "and another"])
@pytest.mark.parametrize("whole", [True, False], ids=["one segment", "many"])
def test_what_is_malformed_is_400_once_and_nothing_follows(stage, data, more, whole):
    data += more
    parts = [data] if whole else [data[n : n + 7] for n in range(0, len(data), 7)]
    connection = stage.connect().send(*parts)
    response = connection.response()
    assert response.status == 400
    assert response.closes
    assert response.get("x-request-id")
    assert b"smuggled" not in connection.raw
    assert stage.waiting() == []


def test_what_is_malformed_after_a_good_request_does_not_spoil_its_answer(stage):
    connection = stage.connect().send(request("GET", "/good") + b"nonsense\r\n\r\n")
    assert connection.raw == b""
    stage.reply(stage.take(), body=b"good")
    good, bad = connection.responses("GET", "GET")
    assert (good.status, good.body, bad.status) == (200, b"good", 400)


@pytest.mark.parametrize("data", [request("POST", "/", body=b"x" * 11), MALFORMED[0]])
def test_what_follows_an_early_answer_is_read_and_thrown_away(make_stage, data):
    stage = make_stage(max_body=10)
    # A client that is still sending must get at its answer, so its bytes are taken off the wire.
    connection = stage.connect().send(data + b"x" * 100_000, *[b"y" * 50_000] * 4)
    assert connection.wire.producerState == "producing"
    assert sum(map(len, connection.protocol._dataBuffer)) == 0
    assert len(connection.protocol._buffer) < 10_000
    connection.response()


def test_without_half_closing_an_early_answer_closes_at_once(stage):
    from tests.unit.relay import stage as module

    wire = module.StringTransport()
    protocol = stage.front.buildProtocol(None)
    protocol.makeConnection(wire)
    protocol.dataReceived(b"nonsense\r\n\r\n")
    assert wire.disconnecting
    assert parse(wire.value())[0].status == 400
    protocol.connectionLost(module.Failure(module.ConnectionDone()))


# Errors


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, b"text/plain; charset=utf-8"),
        ("*/*", b"text/plain; charset=utf-8"),
        ("application/json", b"application/problem+json"),
        ("application/problem+json;q=0.9, */*;q=0.1", b"application/problem+json"),
        ("text/html,application/json", b"application/problem+json"),
        ("text/html,*/*;q=0.8", b"text/plain; charset=utf-8"),
        ("\xff\xfe", b"text/plain; charset=utf-8"),
    ],
)
def test_an_error_is_text_or_json_as_the_client_accepts_and_never_echoes(make_stage, accept, kind):
    stage = make_stage(max_held=1)
    stage.hold()
    fields = [("X-Secret", "s3cr3t"), ("Cookie", "s3cr3t")]
    if accept is not None:
        fields.append(("Accept", accept))
    response = stage.connect().send(request("GET", "/s3cr3t?s3cr3t", *fields)).response()
    assert response.status == 503
    assert response.get("content-type") == kind
    assert response.get("retry-after") == b"5"
    assert response.get("cache-control") == b"no-store"
    assert b"s3cr3t" not in response.body
    assert b"too many requests are waiting" in response.body
    assert not response.closes


def test_a_workers_garbage_is_502_and_not_shown(stage):
    connection = stage.connect().send(request())
    id = stage.take()["node_id"].encode()
    stage.push_reply(b'{"node_id":"%b","headers":[["x","s3cr3t\\r\\ninjected: 1"]]}' % id)
    response = connection.response()
    assert response.status == 502
    assert b"s3cr3t" not in connection.raw


# Clients that leave


def test_a_client_that_leaves_before_the_push_is_never_pushed(stage):
    connection = stage.connect()
    connection.protocol.dataReceived(request())
    connection.leave()
    assert stage.waiting() == []
    assert stage.counter("gone") == 1


def test_a_client_that_leaves_after_the_push_is_taken_off(stage):
    connection = stage.connect().send(request())
    assert len(stage.waiting()) == 1
    connection.leave()
    assert stage.waiting() == []
    assert stage.counter("work_saved") == 1


# Promise 2
def test_promise_2_nothing_is_written_to_a_client_that_has_left(stage):
    connection = stage.connect().send(request())
    taken = stage.take()
    connection.leave()
    stage.reply(taken)
    assert connection.raw == b""
    assert stage.counter("replies_late") == 1


def test_a_client_that_leaves_halfway_through_its_request_leaves_nothing(stage):
    for data in (b"GET / HT", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc", MALFORMED[0]):
        stage.connect().send(data).leave()
    assert stage.relay.snapshot().held == 0
    assert stage.front.connections.channels == set()
    assert stage.relay.budget.receiving == 0


# Promise 2
def test_promise_2_a_front_that_fails_aborts_and_costs_no_other_client(
    stage, monkeypatch, logged_failures
):
    bad, good = (stage.connect().send(request("GET", url)) for url in ("/bad", "/good"))
    taken = {one["url"]: one for one in (stage.take(), stage.take())}
    head = stage.front.head

    def failing(status, fields, id, **kwargs):
        if (b"x-fail", b"1") in fields:
            raise ReplyError("bug")
        return head(status, fields, id, **kwargs)

    monkeypatch.setattr(stage.front, "head", failing)
    stage.push_reply(
        encode_reply(node_id=taken["/bad"]["node_id"], headers=[("x-fail", "1")]),
        encode_reply(node_id=taken["/good"]["node_id"], body=b"good"),
    )
    assert good.response().body == b"good"
    assert bad.raw == b""
    assert bad.wire.aborted
    assert len(logged_failures.flush(ReplyError)) == 1


# Drain


def test_in_a_drain_idle_connections_are_closed_and_answers_are_the_last(stage):
    idle, busy = stage.connect(), stage.connect().send(request())
    half = stage.connect().send(b"GET / HTTP/1.1\r\n")
    taken = stage.take()
    stage.relay.drain()
    stage.front.drain()
    assert idle.wire.disconnecting
    assert not busy.wire.disconnecting
    half.send(b"Host: a\r\n\r\n")
    refused = half.response()
    assert (refused.status, refused.closes) == (503, True)
    closed = []
    stage.front.closed().addCallback(closed.append)
    stage.reply(taken, body=b"last")
    assert busy.response().body == b"last"
    assert busy.response().closes
    stage.turn()
    assert closed == [None]


def test_closed_fires_at_once_where_nobody_is_connected(stage):
    closed = []
    stage.front.closed().addCallback(closed.append)
    assert closed == [None]


def test_abort_ends_every_connection(stage):
    stuck = stage.connect()
    stuck.wire.stuck = True
    stage.front.abort()
    stage.turn()
    assert stuck.wire.lost


def test_the_strict_parser_is_strict():
    good = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na"
    assert parse(good)[0].body == b"a"
    for bad in (
        good + b"x",
        good[:-1],
        good.replace(b"200", b"999"),
        good.replace(b": 1", b":1"),
        good.replace(b"content-length: 1", b"transfer-encoding: chunked"),
        good.replace(b"content-length: 1", b"x: 1"),
        good.replace(b" 200 OK\r\n", b" 200 OK\n"),
    ):
        with pytest.raises((Malformed, AssertionError, EOFError)):
            parse(bad)


def test_nothing_of_a_request_is_kept_after_its_answer(stage):
    import gc
    import weakref

    connection = stage.connect().send(request())
    held = next(iter(stage.relay._table.all()))
    gone = weakref.ref(held.client)
    gc.disable()
    try:
        stage.reply(stage.take())
        assert connection.response().status == 200
        held = None
        # By reference counts alone: the collector seldom looks.
        assert gone() is None
    finally:
        gc.enable()


def test_promise_6_heads_that_are_not_complete_count(make_stage):
    stage = make_stage(max_body=1000, max_held_bytes=6000)
    budget = stage.relay.budget
    slow = stage.connect().send(b"GET / HTTP/1.1\r\n", b"Host: x\r\nA: " + b"a" * 1000)
    assert budget.room < 4000
    other = stage.connect().send(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 1000)
    assert budget.room >= 0
    assert not other.raw
    third = stage.connect().send(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 1000)
    answer = third.response()
    assert (answer.status, answer.get("retry-after")) == (503, b"5")
    # Who is complete gives room again; so does who leaves.
    slow.send(b"\r\n\r\n")
    other.leave()
    third.leave()
    assert stage.front.connections.kept == 0
    assert stage.relay.snapshot().held == 1


def test_promise_6_what_is_sent_behind_a_request_counts_and_is_let_go_of(make_stage):
    stage = make_stage(max_body=1000, max_held_bytes=6000)
    client = stage.connect().send(request(), request() + b"POST / HTTP/1.1\r\n" + b"a" * 1500)
    assert stage.front.connections.kept > 1500
    client.send(b"a" * 5000)
    assert stage.front.connections.kept == 0
    assert client.wire.producerState == "paused"
    # Nothing that comes now is taken for a request, before the answer or after it.
    client.send(request())
    stage.reply(stage.take())
    assert client.response().closes
    client.send(request())
    assert len(client.responses("GET")) == 1
    client.leave()
    assert stage.front.connections.kept == 0
    assert stage.relay.snapshot().held == 0


@pytest.mark.parametrize(
    "data",
    [
        # TLS, its records in pieces; SSH is text, and may be a request until its line ends.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x16",
        b"\x80\x2e\x01\x03\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"\r\n\x00",
        b"\0\0\0\0",
    ],
)
def test_another_protocol_is_400_at_once(stage, data):
    assert stage.connect().send(data).response().status == 400
    # However it comes.
    connection = stage.connect().send(*(bytes([byte]) for byte in data))
    assert connection.response().status == 400


@pytest.mark.parametrize("data", [b"G", b"GET", b"GET ", b"\r", b"\r\n", b"\r\nG", b"M" * 100])
def test_what_may_become_a_request_is_waited_for(stage, data):
    assert stage.connect().send(data).raw == b""


def test_names_of_fields_are_the_workers_and_ours_in_their_usual_case(stage):
    fields = [("x-lower", "1"), ("X-UPPER", "2"), ("ETag", '"a"'), ("content-TYPE", "a/b")]
    connection = stage.connect().send(request())
    stage.reply(stage.take(), headers=fields, body=b"x", timing={"wait": 0.1, "run": 0.1})
    head = connection.raw.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    assert [line.partition(b":")[0] for line in head] == [
        *(b"x-lower", b"X-UPPER", b"ETag", b"content-TYPE", b"Server-Timing", b"Content-Length"),
        *(b"Date", b"Server", b"X-Request-Id"),
    ]
    refused = stage.connect().send(b"BAD\r\n\r\n")
    head = refused.raw.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    assert [line.partition(b":")[0] for line in head] == [
        *(b"Content-Type", b"Content-Length", b"Cache-Control"),
        *(b"Date", b"Server", b"X-Request-Id", b"Connection"),
    ]
