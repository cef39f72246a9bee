"""Streamed and large answers of the Resource, in a plain Site that knows nothing of us."""

import pytest

from queuerelay.wire.reply import encode_reply
from tests.helpers.strict import Broken, parse, request
from tests.unit.relay.mounted import Mounted

MIB = 1024 * 1024


@pytest.fixture
def mounted(stage):
    return Mounted(stage)


def asked(mounted, *args, **kwargs):
    connection = mounted.send(request(*(args or ("GET", "/app")), **kwargs))
    return connection, mounted.stage.take()


def test_frames_are_chunks_and_the_connection_is_kept(mounted):
    stage = mounted.stage
    connection, taken = asked(mounted)
    stage.stream(taken, b"", status=201, headers=[("x-a", "b")])
    assert connection.raw.startswith(b"HTTP/1.1 201 Created\r\n")
    for part in (b"one", b"two"):
        stage.frame(taken, part)
        assert connection.raw.endswith(b"3\r\n" + part + b"\r\n")
    stage.frame(taken, b"three", more=False)
    response = connection.response(streamed=True)
    assert response.body == b"onetwothree"
    assert response.get("x-a") == b"b"
    assert response.get("x-request-id")
    connection.send(request("GET", "/else"))
    assert connection.responses("GET", "GET", streamed=True)[1].body == b"somebody else's"
    assert len(stage.relay.senders) == 0


def test_http_1_0_gets_the_body_until_the_connection_closes(mounted):
    connection, taken = asked(mounted, "GET", "/app", version="1.0")
    mounted.stage.stream(taken, b"one")
    mounted.stage.frame(taken, b"two", more=False)
    head, _, body = connection.raw.partition(b"\r\n\r\n")
    assert body == b"onetwo"
    assert b"transfer-encoding" not in head.lower()
    assert connection.wire.disconnecting
    assert not connection.wire.aborted


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_an_answer_without_body_is_whole_at_once(mounted, method, status):
    stage = mounted.stage
    connection, taken = asked(mounted, method, "/app")
    stage.stream(taken, b"one", status=status)
    assert connection.response(method).status == status
    stage.frame(taken, b"two", more=False)
    connection.send(request("GET", "/else"))
    assert connection.responses(method, "GET")[1].body == b"somebody else's"
    assert stage.relay.snapshot().held == 0


def test_a_declared_length_is_the_clients_too_and_a_lie_is_broken_off(mounted):
    for body, good in ((b"345", True), (b"34", False), (b"3456", False)):
        connection, taken = asked(mounted)
        mounted.stage.stream(taken, b"12", headers=[("Content-Length", "5")])
        mounted.stage.frame(taken, body, more=False)
        assert connection.wire.aborted is not good
        if good:
            assert connection.response().body == b"12345"
        else:
            with pytest.raises(Broken):
                connection.response()


# Promise 2
@pytest.mark.parametrize("how", ["silent", "again", "stop"])
def test_promise_2_what_is_not_finished_is_aborted_and_never_ended(mounted, how):
    stage = mounted.stage
    connection, taken = asked(mounted)
    stage.stream(taken, b"one")
    if how == "silent":
        stage.turn(61)
    elif how == "again":
        stage.push_reply(encode_reply(node_id=taken["node_id"], status=500))
    else:
        stage.relay.hurry()
        stage.turn()
    assert connection.wire.aborted
    with pytest.raises(Broken):
        parse(connection.raw, streamed=True)
    stage.frame(taken, b"two", more=False)
    assert b"two" not in connection.raw
    assert stage.relay.snapshot().held == 0


def test_a_client_that_leaves_a_large_answer_leaves_nothing(mounted):
    connection, taken = asked(mounted)
    connection.wire.capacity = 64 * 1024
    mounted.stage.reply(taken, body=b"x" * MIB)
    assert mounted.stage.relay.snapshot().unsent_bytes > 0
    connection.leave()
    assert mounted.stage.relay.snapshot().unsent_bytes == 0
    assert len(mounted.stage.relay.senders) == 0


def test_a_client_that_leaves_is_told_to_its_worker(mounted):
    stage = mounted.stage
    connection, taken = asked(mounted)
    stage.stream(taken, b"one")
    connection.leave()
    assert stage.broker.store.which_gone([taken["node_id"]]) == {taken["node_id"]}
    stage.frame(taken, b"two", more=False)
    assert stage.counter("gone") == 1


# Promise 6
@pytest.mark.parametrize("streamed", [False, True])
def test_promise_6_a_slow_reader_is_served_and_one_that_takes_nothing_is_cut(mounted, streamed):
    stage = mounted.stage
    body = bytes(range(256)) * 4096
    connections = []
    for _ in range(2):
        connection, taken = asked(mounted)
        connection.wire.capacity = 64 * 1024
        connections.append(connection)
        if streamed:
            stage.stream(taken, body)
            stage.frame(taken, more=False)
        else:
            stage.reply(taken, body=body)
    stuck, reading = connections
    assert stage.relay.snapshot().unsent_bytes > MIB
    while len(stage.relay.senders):
        reading.wire.drain()
        stage.turn(55)
    assert stuck.wire.aborted
    assert stage.counter("aborted_stalled") == 1
    assert reading.response(streamed=streamed).body == body
    assert not reading.wire.aborted
    assert stage.relay.snapshot().unsent_bytes == 0
