"""Clients that close their side of the connection and read on."""

import pytest

from queuerelay.http.connections import SWEEP
from queuerelay.http.half_closed import FIRST_PAUSE, OPENING
from queuerelay.http.site import Site
from queuerelay.relay.framing import MOST_ZEROS
from queuerelay.relay.resource import RelayResource
from tests.helpers.strict import request
from tests.unit.relay.stage import Connection


@pytest.fixture(params=["front", "site"])
def connect(request, stage):
    """Connects to the daemon's own front, or to a Site with the relay's Resource."""
    if request.param == "front":
        return stage.connect

    def connect():
        site = Site(RelayResource(stage.relay, max_body=1000), reactor=stage.clock)
        stage.connections.append(Connection(stage, site.buildProtocol(None)))
        return stage.connections[-1]

    return connect


def test_a_held_request_is_answered_and_the_connection_closed(stage, connect):
    connection = connect().send(request()).half_close()
    assert len(stage.waiting()) == 1
    stage.reply(stage.take(), body=b"here")
    assert connection.response().body == b"here"
    stage.turn()
    assert connection.wire.lost
    assert not connection.wire.half_closed, "it is closed, as nothing can come that resets it"


def test_all_pipelined_requests_are_answered(stage, connect):
    connection = connect().send(request("GET", "/1") + request("GET", "/2") + request("GET", "/3"))
    connection.half_close()
    for body in (b"1", b"2", b"3"):
        stage.reply(stage.take(), body=body)
    assert [one.body for one in connection.responses("GET", "GET", "GET")] == [b"1", b"2", b"3"]
    assert connection.wire.lost


def test_the_last_answer_says_that_it_is_the_last(stage):
    connection = stage.connect().send(request("GET", "/1") + request("GET", "/2")).half_close()
    for _ in range(2):
        stage.reply(stage.take())
    assert [one.closes for one in connection.responses("GET", "GET")] == [False, True]


@pytest.mark.parametrize(
    "cut", [b"GET / HT", request("POST", "/", body=b"abc")[:-1], request()[:-2], b"\x16"]
)
@pytest.mark.parametrize("before", [False, True])
def test_a_request_that_is_cut_short_is_400(stage, connect, cut, before):
    connection = connect().send((request("GET", "/1") if before else b"") + cut).half_close()
    if before:
        stage.reply(stage.take())
    responses = connection.responses(*["GET", "GET"][: 1 + before])
    assert [one.status for one in responses] == [200, 400][1 - before :]
    assert connection.wire.lost
    assert stage.waiting() == []


@pytest.mark.parametrize("sent", [b"", b"\r\n"])
def test_a_connection_without_a_request_is_closed_without_a_word(stage, connect, sent):
    connection = connect().send(sent).half_close()
    assert connection.wire.lost
    assert connection.raw == b""


def test_the_end_after_the_last_answer_closes_the_rest(stage):
    connection = stage.connect().send(b"BAD\r\n\r\n")
    assert connection.wire.half_closed
    connection.half_close()
    assert connection.wire.lost


def test_the_beginning_of_the_answer_goes_ahead_byte_by_byte(stage, connect):
    connection = connect().send(request()).half_close()
    assert connection.raw == OPENING[:1], "a client that has left resets the connection at that"
    stage.turn(FIRST_PAUSE + SWEEP)
    assert connection.raw == OPENING[:2]
    stage.turn(55.0)
    sent = len(connection.raw)
    assert 5 <= sent <= len(OPENING)
    assert connection.raw == OPENING[:sent]
    stage.turn(10.0)
    assert connection.response().status == 503


def test_no_more_than_the_beginning_goes_ahead(make_stage):
    stage = make_stage(deadline=1000.0)
    connection = stage.connect().send(request()).half_close()
    stage.turn(900.0)
    assert connection.raw == OPENING
    stage.reply(stage.take())
    assert connection.response().status == 200


def test_the_client_of_a_streamed_answer_gets_all_of_it(stage):
    connection = stage.connect().send(request())
    taken = stage.take()
    stage.stream(taken, b"one", status=200)
    head = connection.raw
    connection.half_close()
    stage.turn(FIRST_PAUSE + SWEEP)
    stage.frame(taken, b"two")
    stage.frame(taken, more=False)
    assert connection.raw.removeprefix(head) == b"003\r\ntwo\r\n0\r\n\r\n"
    assert connection.wire.lost


def test_a_chunk_has_few_zeros_ahead(make_stage):
    stage = make_stage(frame_timeout=1000.0)
    connection = stage.connect().send(request())
    stage.stream(stage.take(), b"one", status=200)
    head = connection.raw
    connection.half_close()
    stage.turn(900.0)
    assert connection.raw.removeprefix(head) == b"0" * MOST_ZEROS


def test_nothing_goes_ahead_within_a_body_of_known_length(stage):
    connection = stage.connect().send(request())
    stage.stream(stage.take(), b"one", status=200, headers=[("Content-Length", "6")])
    head = connection.raw
    connection.half_close()
    stage.turn(5.0)
    assert connection.raw == head


def test_nothing_goes_ahead_while_the_client_has_not_read_what_was_sent_before(stage):
    connection = stage.connect()
    connection.wire.capacity = 1
    connection.send(request("GET", "/1") + request("GET", "/2"))
    stage.reply(stage.take(), body=b"1")
    connection.half_close()
    before = connection.raw
    stage.turn(5.0)
    assert connection.raw == before
    connection.wire.capacity = None
    connection.wire.drain()
    stage.turn()
    stage.reply(stage.take(), body=b"2")
    assert [one.body for one in connection.responses("GET", "GET")] == [b"1", b"2"]


def test_with_leave_the_request_is_taken_off_and_what_was_written_goes_out(make_stage):
    stage = make_stage(half_close="leave")
    connection = stage.connect().send(request("GET", "/1") + request("GET", "/2"))
    stage.reply(stage.take(), body=b"1")
    connection.wire.stuck = True
    connection.half_close()
    assert not connection.wire.aborted
    connection.wire.lose()
    stage.turn()
    assert connection.response().body == b"1"
    assert stage.waiting() == []
    assert stage.counter("gone") == 1


def test_promise_6_with_leave_a_client_that_reads_nothing_is_let_go(make_stage):
    stage = make_stage(half_close="leave", idle=5.0)
    connection = stage.connect().send(request())
    connection.wire.stuck = True
    connection.half_close()
    stage.turn(5.0 + 2 * SWEEP)
    assert connection.wire.aborted
