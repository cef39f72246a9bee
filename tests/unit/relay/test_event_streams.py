"""Clients that want an event stream, and get an error of ours: they come back only where the
connection breaks.
"""

import pytest

from queuerelay.http.site import Site
from queuerelay.relay.resource import RelayResource
from queuerelay.wire.reply import encode_reply
from tests.helpers.strict import request
from tests.unit.relay.stage import Connection

EVENTS = ("Accept", "text/event-stream")


@pytest.fixture(params=["front", "site"])
def connect(request):
    """Connects to the daemon's own front, or to a Site with the relay's Resource."""

    def connect(stage):
        if request.param == "front":
            return stage.connect()
        site = Site(RelayResource(stage.relay, max_body=1000), reactor=stage.clock)
        stage.connections.append(Connection(stage, site.buildProtocol(None)))
        return stage.connections[-1]

    return connect


def _expire(stage, taken):
    stage.turn(61.0)


def _fail(stage, taken):
    stage.reply(taken, status=502, problem="worker-failed")


def _time_out(stage, taken):
    stage.reply(taken, status=504, problem="worker-timeout")


def _stop(stage, taken):
    stage.relay.hurry()


@pytest.mark.parametrize("end", [_expire, _fail, _time_out, _stop])
@pytest.mark.parametrize("taken", [False, True])
def test_a_temporary_error_is_a_broken_connection(make_stage, connect, end, taken):
    stage = make_stage()
    connection = connect(stage).send(request("GET", "/", EVENTS))
    (waiting,) = stage.waiting()
    if taken:
        stage.take()
    end(stage, waiting["node_id"])
    stage.turn()
    assert connection.raw == b""
    assert connection.wire.lost


def test_one_that_cannot_be_held_is_a_broken_connection(make_stage, connect):
    stage = make_stage(max_held=1)
    connect(stage).send(request())
    connection = connect(stage).send(request("GET", "/", EVENTS))
    stage.turn()
    assert (connection.raw, connection.wire.lost) == (b"", True)
    assert connect(stage).send(request()).response().status == 503


@pytest.mark.parametrize(
    ("method", "accept"),
    [
        # What others send that can take events, too; and what no EventSource sends.
        ("POST", "text/event-stream"),
        ("GET", "application/json, text/event-stream"),
        ("GET", "text/event-stream;q=0.9, */*"),
        ("GET", "text/event-stream;q=0"),
        ("GET", "*/*"),
    ],
)
def test_others_get_the_error(make_stage, connect, method, accept):
    stage = make_stage(max_held=1)
    connect(stage).send(request())
    connection = connect(stage).send(request(method, "/", ("Accept", accept)))
    assert connection.response(method).status == 503


def test_answers_of_workers_pass(stage, connect):
    connection = connect(stage).send(request("GET", "/", EVENTS))
    stage.reply(stage.take(), status=503, body=b"mine")
    assert (connection.response().status, connection.response().body) == (503, b"mine")


def test_what_will_not_pass_is_said(stage, connect):
    connection = connect(stage).send(request("GET", "/", EVENTS, version="2.0"))
    assert connection.response().status == 505


def test_answers_before_it_on_the_connection_are_whole(make_stage):
    stage = make_stage()
    connection = stage.connect().send(request("GET", "/1") + request("GET", "/2", EVENTS))
    stage.reply(stage.take(), body=b"1")
    stage.push_reply(
        encode_reply(node_id=stage.take()["node_id"], status=502, problem="worker-failed")
    )
    stage.turn()
    assert connection.response().body == b"1"
    assert connection.wire.lost
