"""Slow clients: each wait for one is over in time, and single bytes extend none."""

import pytest

from queuerelay.http.channel import EAGER, LEAST_RATE, LINGER
from queuerelay.http.connections import SURPLUS, SWEEP, open_files_allow
from tests.helpers.strict import CONTINUE, chunked, parse, request

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"


def drip(stage, connection, data, every):
    """Send `data` in single bytes, until the connection is answered or closed."""
    for byte in data:
        if connection.raw or connection.wire.disconnecting:
            return
        connection.send(bytes([byte]))
        stage.turn(every)


def seconds_until(stage, ended, limit=1000.0):
    """Seconds until `ended()`, to a sweep."""
    began = stage.clock.seconds()
    while not ended():
        stage.turn(SWEEP / 2)
        assert stage.clock.seconds() - began < limit
    return stage.clock.seconds() - began


# Promise 6
@pytest.mark.parametrize("every", [0.5, 3.0, 9.5])
def test_promise_6_a_head_in_single_bytes_is_answered_408(make_stage, every):
    stage = make_stage(header_time=10.0)
    began = stage.clock.seconds()
    connection = stage.connect()
    drip(stage, connection, b"GET / HTTP/1.1\r\nX: " + b"y" * 1000, every)
    assert stage.clock.seconds() - began <= 10.0 + SWEEP + every
    response = connection.response()
    assert (response.status, response.closes) == (408, True)
    assert response.get("x-request-id")
    assert connection.wire.half_closed
    stage.turn(LINGER + SWEEP)
    assert connection.wire.aborted


@pytest.mark.parametrize(
    "begun", [b"G", b"GET / HTTP/1.1", b"GET / HTTP/1.1\r\nHost: a\r\n", b"\r"]
)
def test_a_head_that_stops_is_answered_408_on_time(make_stage, begun):
    stage = make_stage(header_time=10.0)
    connection = stage.connect()
    stage.turn(30)
    connection.send(begun)
    assert 10.0 <= seconds_until(stage, lambda: connection.raw) <= 10.0 + 2 * SWEEP
    assert connection.response().status == 408


def test_the_time_for_a_head_begins_with_its_first_byte_each_time(make_stage):
    stage = make_stage(header_time=10.0, idle=60.0)
    connection = stage.connect()
    for _ in range(3):
        stage.turn(50)
        connection.send(b"GET / HTTP/1.1\r\n")
        stage.turn(8)
        connection.send(b"Host: a\r\n\r\n")
        # Whoever waits for an answer has all the time.
        stage.turn(50)
        stage.reply(stage.take())
    assert len(connection.responses(*["GET"] * 3)) == 3
    assert not connection.wire.disconnecting


def test_empty_lines_keep_no_connection_open(make_stage):
    stage = make_stage(idle=60.0)
    connection = stage.connect()
    began = stage.clock.seconds()
    for _ in range(6):
        stage.turn(9)
        connection.send(b"\r\n")
    seconds_until(stage, lambda: connection.wire.disconnecting)
    # There was no request, so there is no answer.
    assert connection.raw == b""
    assert stage.clock.seconds() - began <= 60.0 + 2 * SWEEP


# Promise 6
@pytest.mark.parametrize("coding", ["length", "chunks"])
def test_promise_6_a_body_in_single_bytes_is_answered_408(make_stage, coding):
    stage = make_stage(body_time=30.0)
    head = HEAD
    if coding == "chunks":
        head = HEAD.replace(b"Content-Length: 100000", b"Transfer-Encoding: chunked")
    connection = stage.connect().send(head)
    began = stage.clock.seconds()
    drip(stage, connection, b"1\r\nx\r\n" * 100, 2.0)
    assert stage.clock.seconds() - began <= 30.0 + 2.0 + SWEEP
    assert connection.response("POST").status == 408
    assert stage.relay.budget.receiving == 0
    assert stage.waiting() == []


def test_a_body_that_stops_after_much_of_it_is_answered_408(make_stage):
    stage = make_stage(body_time=30.0)
    connection = stage.connect().send(HEAD, b"x" * 90_000)
    # What has come counts once.
    assert seconds_until(stage, lambda: connection.raw) <= 60.0 + 2 * SWEEP
    assert connection.response("POST").status == 408
    assert stage.relay.budget.receiving == 0


def test_a_large_upload_over_a_slow_line_succeeds(make_stage):
    stage = make_stage(body_time=30.0)
    connection = stage.connect().send(HEAD)
    sent = 0
    began = stage.clock.seconds()
    while sent < 100_000:
        part = min(100_000 - sent, LEAST_RATE * 5 + 100)
        connection.send(b"x" * part)
        sent += part
        stage.turn(5)
    assert stage.clock.seconds() - began > 90
    taken = stage.take()
    assert len(taken["body"]) == 100_000
    stage.reply(taken)
    assert connection.response("POST").status == 200


def test_one_slow_client_costs_no_other(make_stage):
    stage = make_stage(header_time=10.0, body_time=30.0)
    heads = [stage.connect().send(b"GET / HT") for _ in range(20)]
    bodies = [stage.connect().send(HEAD, b"x") for _ in range(20)]
    good = stage.connect()
    for number in range(8):
        good.send(request("GET", f"/{number}"))
        stage.reply(stage.take())
        stage.turn(5)
    assert {one.response().status for one in heads} == {408}
    assert {one.response("POST").status for one in bodies} == {408}
    assert [one.status for one in good.responses(*["GET"] * 8)] == [200] * 8
    assert len(stage.front.connections.channels) == 1


def test_a_client_that_reads_an_answer_gets_time_for_its_next_request(make_stage):
    stage = make_stage(header_time=10.0, idle=60.0)
    connection = stage.connect().send(b"GET / HT")
    # The transport is full: what the client sends meanwhile is not read.
    connection.protocol.pauseProducing()
    assert connection.wire.producerState == "paused"
    stage.turn(30)
    assert connection.raw == b""
    connection.protocol.resumeProducing()
    connection.send(b"TP/1.1\r\nHost: a\r\n\r\n")
    stage.reply(stage.take())
    assert connection.response().status == 200


def test_and_not_for_ever(make_stage):
    stage = make_stage(header_time=10.0, idle=60.0)
    connection = stage.connect().send(b"GET / HT")
    connection.protocol.pauseProducing()
    stage.turn(10.0 + 60.0 + 2 * SWEEP)
    assert connection.response().status == 408
    stage.turn(60.0 + 2 * SWEEP)
    assert connection.wire.aborted


# What is read while a request waits


def test_what_is_read_ahead_is_bounded(stage):
    connection = stage.connect().send(request("GET", "/first"))
    more = request("GET", "/more") * 400
    assert len(more) > EAGER
    for start in range(0, len(more), 1000):
        if connection.wire.producerState == "producing":
            connection.send(more[start : start + 1000])
    # Nothing of it is looked at.
    assert connection.wire.producerState == "paused"
    assert len(connection.protocol._pending) <= EAGER + 1000
    assert [one["url"] for one in stage.waiting()] == ["/first"]
    stage.reply(stage.take())
    assert connection.wire.producerState == "producing"
    assert [one["url"] for one in stage.waiting()] == ["/more"]


def test_who_does_not_read_its_answer_is_not_read_from_either(stage):
    connection = stage.connect().send(request("GET", "/first"))
    # The answer fills the transport while the request is still being answered.
    connection.protocol.pauseProducing()
    stage.reply(stage.take())
    more = request("GET", "/more") * 400
    for start in range(0, len(more), 1000):
        if connection.wire.producerState == "producing":
            connection.send(more[start : start + 1000])
    assert connection.wire.producerState == "paused"
    assert len(connection.protocol._pending) <= EAGER + 1000
    assert stage.waiting() == []
    connection.protocol.resumeProducing()
    stage.turn()
    assert connection.wire.producerState == "producing"
    assert [one["url"] for one in stage.waiting()] == ["/more"]


def test_who_reads_no_answers_gets_no_further_ones(make_stage):
    stage = make_stage(max_held=1)
    stage.hold()
    connection = stage.connect()
    connection.protocol.pauseProducing()
    connection.send(request() * 100)
    assert connection.raw == b""
    connection.protocol.resumeProducing()
    # Each of them is answered at once, without a stack that grows.
    assert [one.status for one in connection.responses(*["GET"] * 100)] == [503] * 100


def test_a_thousand_requests_that_are_answered_at_once_need_no_deep_stack(make_stage):
    stage = make_stage(max_held=1)
    stage.hold()
    connection = stage.connect().send(request() * 2000)
    assert len(connection.responses(*["GET"] * 2000)) == 2000


# Before the body


def test_nothing_is_said_to_a_body_that_is_coming_already(stage):
    fields = [("Content-Length", "2"), ("Expect", "100-continue")]
    connection = stage.connect().send(request("POST", "/", *fields) + b"a")
    assert connection.raw == b""
    connection.send(b"b")
    stage.reply(stage.take())
    assert connection.response("POST").status == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("POST", "/", ("Content-Length", "1001"), ("Expect", "100-continue")), 413),
        (request("POST", "/", ("Content-Length", "10"), ("Expect", "200-ok")), 417),
        (request("POST", "/", ("Content-Length", "x"), ("Expect", "100-continue")), 400),
        (request("POST", "/", ("Transfer-Encoding", "gzip"), ("Expect", "100-continue")), 501),
    ],
)
def test_a_refusal_takes_the_place_of_100_continue(make_stage, data, status):
    stage = make_stage(max_body=1000)
    connection = stage.connect().send(data)
    assert connection.response("POST").status == status
    assert CONTINUE not in connection.raw


def test_a_body_for_which_there_is_no_room_is_refused_before_it_comes(make_stage):
    stage = make_stage(max_body=1000, max_held_bytes=2000)
    stage.hold(body=b"x" * 900)
    fields = [("Content-Length", "1000"), ("Expect", "100-continue")]
    connection = stage.connect().send(request("POST", "/", *fields))
    response = connection.response("POST")
    assert (response.status, response.closes) == (503, True)
    assert response.get("retry-after")


# Promise 6
def test_promise_6_chunks_for_which_there_is_no_room_are_refused_while_they_come(make_stage):
    stage = make_stage(max_body=1000, max_held_bytes=2500)
    head = request("POST", "/", ("Transfer-Encoding", "chunked"))
    connections = [stage.connect().send(head, chunked(b"x" * 900)[:-5]) for _ in range(3)]
    assert [one.raw == b"" for one in connections] == [True, True, False]
    assert connections[2].response("POST").status == 503
    assert stage.relay.budget.receiving == 1800
    for one in connections:
        one.leave()
    assert stage.relay.budget.receiving == 0


def test_trace_is_told_what_is_allowed(stage):
    response = stage.connect().send(request("TRACE")).response()
    assert response.status == 405
    assert response.get("allow") == b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


def test_an_early_answer_to_head_has_no_body(make_stage):
    for data in (request("HEAD", "/", ("Expect", "x")), b"HEAD / HTTP/1.1\r\nX : y\r\n\r\n"):
        stage = make_stage()
        assert stage.connect().send(data).response("HEAD").body == b""


def test_an_early_answer_has_the_form_and_the_id_that_the_client_asked_for(stage):
    fields = [("Accept", "application/json"), ("X-Request-Id", "mine"), ("Expect", "x")]
    response = stage.connect().send(request("GET", "/", *fields)).response()
    assert response.get("content-type") == b"application/problem+json"
    assert response.get("x-request-id") == b"mine"


# How many


# Promise 6
def test_promise_6_beyond_the_limit_clients_are_told_and_then_closed(make_stage):
    stage = make_stage(max_connections=2)
    served = [stage.connect() for _ in range(2)]
    told = stage.connect()
    response = told.response()
    assert (response.status, response.closes) == (503, True)
    assert response.get("retry-after") == b"5"
    surplus = [stage.connect() for _ in range(SURPLUS - 1)]
    assert {one.response().status for one in surplus} == {503}
    closed = stage.front.buildProtocol(None)
    assert closed not in stage.front.connections.channels
    refused = stage.connect()
    # Nothing is kept for it, and it hears why.
    assert refused.response().status == 503
    assert refused.wire.disconnecting
    # Those that are connected are served.
    for one in served:
        one.send(request())
        stage.reply(stage.take())
        assert one.response().status == 200
    for one in (*served, told, *surplus):
        one.leave()
    assert stage.connect().raw == b""


def test_without_an_option_the_open_files_decide(make_stage, monkeypatch):
    import resource

    for soft, allowed in ((1024, 896), (100, 50), (1, 1), (10**6, 65_536), (-1, 65_536)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert open_files_allow() == allowed


def test_a_failure_while_one_is_sent_away_costs_no_other(make_stage, monkeypatch, logged_failures):
    stage = make_stage(header_time=10.0)
    bad, good = stage.connect().send(b"GET"), stage.connect().send(b"GET")
    monkeypatch.setattr(bad.protocol, "expire", lambda now: 1 / 0)
    aborted = []
    monkeypatch.setattr(bad.protocol, "abort", lambda: aborted.append(True))
    stage.turn(10 + 4 * SWEEP)
    assert aborted == [True]
    assert good.response().status == 408
    assert len(logged_failures.flush(ZeroDivisionError)) == 1


def test_chunks_that_bring_nothing_are_no_progress(make_stage):
    stage = make_stage(body_time=30.0)
    connection = stage.connect().send(
        request("POST", "/", ("Transfer-Encoding", "chunked")), chunked(b"a" * 10)[:-5]
    )
    stage.turn(30 + 2 * SWEEP)
    assert connection.response("POST").status == 408
    assert parse(connection.raw, ["POST"])
