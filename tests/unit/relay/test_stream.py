"""Streamed answers: frames of a worker in, the bytes of one answer out, or a break."""

import json
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queuerelay.http.channel import LINGER
from queuerelay.http.connections import SWEEP
from queuerelay.relay.held import HeldState
from queuerelay.relay.stream import TOLD_EVERY
from queuerelay.wire.reply import Reply, encode_frame, encode_reply
from tests.helpers.strict import Broken, request
from tests.unit.relay.stage import FakeClient, Stage

MIB = 1024 * 1024


def asked(stage, *args, **kwargs):
    """A client that has sent a request, and that request as a worker has it."""
    connection = stage.connect().send(request(*args, **kwargs))
    return connection, stage.take()


def begun(stage, *args, **kwargs):
    """The same, with a streamed answer under way."""
    connection, taken = asked(stage, *args, **kwargs)
    stage.stream(taken, b"one", headers=[("x-a", "b")])
    return connection, taken


def broken_off(connection):
    """Whether the client can tell that its answer is not whole."""
    assert connection.wire.cut
    with pytest.raises(Broken):
        connection.responses("GET", streamed=True)
    assert connection.raw.count(b"HTTP/1.") == 1
    return True


def gone(stage, taken):
    """Whether the worker can know that nobody waits."""
    return stage.broker.store.which_gone([taken["node_id"]]) == {taken["node_id"]}


def test_each_frame_is_a_chunk_at_once(stage):
    connection, taken = asked(stage)
    stage.stream(taken, b"", status=201, headers=[("content-type", "text/event-stream")])
    head = connection.raw
    assert head.startswith(b"HTTP/1.1 201 Created\r\n")
    assert head.endswith(b"\r\n\r\n")
    for number in range(3):
        stage.frame(taken, b"data: %d\n\n" % number)
        assert connection.raw.endswith(b"9\r\ndata: %d\n\n\r\n" % number)
    stage.frame(taken, b"the end", more=False)
    response = connection.response(streamed=True)
    assert response.chunks == (b"data: 0\n\n", b"data: 1\n\n", b"data: 2\n\n", b"the end")
    assert response.get("content-type") == b"text/event-stream"
    assert response.get("x-request-id")
    assert not response.closes
    assert stage.counter("answered") == 1
    assert stage.relay.snapshot().held == 0


def test_the_connection_is_kept_for_the_next_request(stage):
    connection, taken = begun(stage)
    connection.send(request("GET", "/next"))
    assert stage.waiting() == []
    stage.frame(taken, more=False)
    stage.reply(stage.take(), body=b"next")
    first, second = connection.responses("GET", "GET", streamed=True)
    assert (first.body, second.body) == (b"one", b"next")
    assert len(stage.relay.senders) == 0


def test_the_last_frame_may_leave_more_out_and_have_no_body(stage):
    connection, taken = begun(stage)
    stage.push_reply(json.dumps({"node_id": taken["node_id"]}).encode())
    assert connection.response(streamed=True).body == b"one"


def test_frames_of_one_batch_go_out_in_one_write(stage, monkeypatch):
    connection, taken = asked(stage)
    writes = []
    monkeypatch.setattr(connection.wire, "write", writes.append)
    stage.stream(taken, b"one", b"two", b"", b"three")
    assert len(writes) == 1
    assert writes[0].endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n")
    stage.push_reply(
        encode_frame(node_id=taken["node_id"], body=b"four", more=True),
        encode_frame(node_id=taken["node_id"], body=b"five", more=False),
    )
    assert writes[1:] == [b"4\r\nfour\r\n4\r\nfive\r\n0\r\n\r\n"]


def test_all_of_it_in_one_batch(stage):
    connection, taken = asked(stage)
    id = taken["node_id"]
    stage.push_reply(
        encode_reply(node_id=id, body=b"one", more=True),
        encode_frame(node_id=id, body=b"two", more=False),
        encode_frame(node_id=id, body=b"late", more=True),
    )
    assert connection.response(streamed=True).body == b"onetwo"
    assert stage.counter("answered") == 1


def test_http_1_0_gets_the_body_until_the_connection_closes(stage):
    connection, taken = begun(stage, "GET", "/", ("Connection", "keep-alive"), version="1.0")
    stage.frame(taken, b"two")
    assert not connection.wire.disconnecting
    stage.frame(taken, b"three", more=False)
    head, _, body = connection.raw.partition(b"\r\n\r\n")
    assert body == b"onetwothree"
    assert b"transfer-encoding" not in head.lower()
    assert b"content-length" not in head.lower()
    assert b"connection: close" in head.lower()
    assert connection.wire.disconnecting
    assert not connection.wire.cut


@pytest.mark.parametrize(
    ("method", "status", "length"),
    [("HEAD", 200, None), ("GET", 204, None), ("GET", 304, None), ("GET", 205, b"0")],
)
def test_an_answer_without_body_is_whole_at_once_and_frames_are_swallowed(
    stage, method, status, length
):
    connection, taken = asked(stage, method)
    stage.stream(taken, b"one", status=status)
    response = connection.response(method)
    assert (response.status, response.body) == (status, b"")
    assert response.get("content-length") == length
    assert stage.relay.snapshot().held == 0
    assert gone(stage, taken)
    connection.send(request())
    stage.frame(taken, b"two")
    stage.frame(taken, b"three", more=False)
    stage.reply(stage.take(), body=b"next")
    assert connection.responses(method, "GET")[1].body == b"next"
    assert stage.counter("frames_late") == 1


def test_a_declared_length_is_the_clients_too(stage):
    connection, taken = asked(stage)
    stage.stream(taken, b"12", headers=[("Content-Length", "5")])
    stage.frame(taken, b"345", more=False)
    response = connection.response()
    assert (response.get("content-length"), response.body) == (b"5", b"12345")


def test_head_of_a_stream_says_the_declared_length(stage):
    connection, taken = asked(stage, "HEAD")
    stage.stream(taken, b"12", headers=[("Content-Length", "5")])
    assert connection.response("HEAD").get("content-length") == b"5"


@pytest.mark.parametrize("bodies", [[b"123"], [b"1234567"], [b"1", b"23456"]])
def test_a_length_that_lies_is_broken_off(stage, bodies):
    connection, taken = asked(stage)
    stage.stream(taken, b"", headers=[("Content-Length", "5")])
    for number, body in enumerate(bodies, 1):
        stage.frame(taken, body, more=number < len(bodies))
    assert broken_off(connection)
    assert stage.counter("aborted_broken") == 1


def test_a_length_that_lies_at_once_is_502(stage):
    connection, taken = asked(stage)
    stage.stream(taken, b"123456", headers=[("Content-Length", "5")])
    assert connection.response().status == 502
    stage.frame(taken, b"more")
    assert gone(stage, taken)


def test_a_first_frame_has_a_status_or_header_fields(stage):
    connection, taken = asked(stage)
    stage.frame(taken, b"one")
    assert connection.response().status == 502
    connection, taken = asked(stage)
    stage.push_reply(
        json.dumps({"node_id": taken["node_id"], "headers": [], "more": True}).encode()
    )
    stage.frame(taken, more=False)
    assert connection.response(streamed=True).status == 200


@pytest.mark.parametrize("more", [True, False, None], ids=["more", "the last", "the last, unsaid"])
def test_promise_2_a_numbered_frame_without_the_first_is_no_answer(stage, more):
    connection, taken = asked(stage)
    # The frames before it got lost with an old master.
    frame = {"node_id": taken["node_id"], "body": "the end", "n": 71, "more": more}
    stage.push_reply(json.dumps({k: v for k, v in frame.items() if v is not None}).encode())
    assert connection.response().status == 502
    assert b"the end" not in connection.raw


# Promise 2: who begins anew


AGAIN = {
    "a first frame": lambda id: encode_reply(node_id=id, body=b"again", more=True),
    "a whole reply": lambda id: encode_reply(node_id=id, body=b"again"),
    "an error": lambda id: encode_reply(node_id=id, status=500),
    "a numbered frame": lambda id: encode_frame(node_id=id, body=b"x", more=True, number=1),
}


@pytest.mark.parametrize("again", AGAIN)
def test_promise_2_another_try_is_never_spliced_into_an_answer(stage, again):
    connection, taken = begun(stage)
    stage.push_reply(AGAIN[again](taken["node_id"]))
    assert broken_off(connection)
    assert gone(stage, taken)
    stage.frame(taken, b"two")
    stage.frame(taken, b"three", more=False)
    assert b"again" not in connection.raw
    assert stage.counter("aborted_restarted") == stage.counter("aborted") == 1
    assert stage.counter("frames_late") == 1


@pytest.mark.parametrize("again", AGAIN)
def test_promise_2_another_try_in_the_same_batch_is_not_spliced_either(stage, again):
    connection, taken = asked(stage)
    id = taken["node_id"]
    stage.push_reply(
        encode_reply(node_id=id, body=b"one", more=True),
        AGAIN[again](id),
        encode_frame(node_id=id, body=b"two", more=False),
    )
    response = connection.response()
    # A whole reply wins while nothing was sent.
    expected = {"a whole reply": (200, b"again"), "an error": (500, b"")}
    if again in expected:
        assert (response.status, response.body) == expected[again]
    else:
        assert response.status == 502


def test_promise_2_numbered_frames_tell_two_tries_apart_without_a_status(stage):
    connection, taken = asked(stage)
    id = taken["node_id"]
    stage.push_reply(encode_reply(node_id=id, body=b"a", more=True, number=100))
    stage.push_reply(encode_frame(node_id=id, body=b"b", more=True, number=101))
    # A restarted worker's, whose first frame got lost with an old master.
    stage.push_reply(encode_frame(node_id=id, body=b"z", more=True, number=71))
    assert broken_off(connection)
    assert b"z\r\n" not in connection.raw


@pytest.mark.parametrize(
    "stray",
    [
        lambda id: encode_frame(node_id=id, body=b"z", more=True, number=103),
        lambda id: encode_frame(node_id=id, body=b"z", more=True),
        lambda id: encode_reply(node_id=id, body=b"z", more=True, number=102),
        lambda id: json.dumps({"node_id": id, "body": "z"}).encode(),
    ],
    ids=["a gap", "without a number", "with a status", "as old workers answer"],
)
def test_promise_2_a_numbered_stream_takes_nothing_else(stage, stray):
    connection, taken = asked(stage)
    id = taken["node_id"]
    stage.push_reply(encode_reply(node_id=id, body=b"a", more=True, number=100))
    stage.push_reply(encode_frame(node_id=id, body=b"b", more=True, number=101))
    stage.push_reply(stray(id))
    assert broken_off(connection)


def test_numbered_frames_may_be_pushed_twice(stage):
    connection, taken = asked(stage)
    id = taken["node_id"]
    frames = [
        encode_reply(node_id=id, body=b"a", more=True, number=7),
        encode_frame(node_id=id, body=b"b", more=True, number=8),
        encode_frame(node_id=id, body=b"c", more=False, number=9),
    ]
    stage.push_reply(frames[0], frames[0])
    stage.push_reply(frames[1])
    stage.push_reply(frames[0], frames[1], frames[2], frames[2])
    assert connection.response(streamed=True).body == b"abc"
    assert stage.counter("frames_doubled") == 4


@pytest.mark.parametrize(
    "broken",
    [
        b'{"node_id":"%b","body":{},"more":true}',
        b'{"node_id":"%b","body":"=","body_encoding":"base64","more":true}',
        b'{"node_id":"%b","more":1}',
        b'{"node_id":"%b","body":"cut o',
    ],
)
def test_a_broken_frame_breaks_the_answer_off(stage, broken):
    connection, taken = begun(stage)
    stage.push_reply(broken % taken["node_id"].encode())
    assert broken_off(connection)
    assert stage.counter("aborted_broken") == 1
    assert stage.counter("replies_undecodable") == 1


def test_a_reply_on_the_old_list_breaks_it_off(make_stage):
    stage = make_stage(legacy_replies="responses")
    connection, taken = begun(stage)
    raw = json.dumps({"node_id": taken["node_id"], "body": "old"}).encode()
    stage.broker.store.append("responses", [raw])
    stage.turn()
    assert broken_off(connection)


# Time


# Promise 6
def test_promise_6_a_worker_that_stops_in_the_middle_is_an_abort_and_never_an_end(make_stage):
    stage = make_stage(frame_timeout=20.0, deadline=5.0)
    # The one that goes on came first.
    other, other_taken = begun(stage)
    connection, taken = begun(stage)
    stage.turn(19)
    # The deadline is for the first frame only.
    assert not connection.wire.cut
    stage.frame(other_taken, b"two")
    stage.turn(1.5)
    assert broken_off(connection)
    assert gone(stage, taken)
    assert stage.counter("aborted_timeout") == 1
    # 0 bytes count as well: a worker may keep a stream alive.
    for _ in range(3):
        stage.turn(15)
        stage.frame(other_taken, b"")
    stage.frame(other_taken, b"three", more=False)
    assert other.response(streamed=True).body == b"onetwothree"


def test_no_first_frame_by_the_deadline_is_504(stage):
    connection, taken = asked(stage)
    stage.turn(61)
    stage.stream(taken, b"late")
    assert connection.response().status == 504
    assert gone(stage, taken)


@pytest.mark.parametrize("fails", [False, True])
def test_promise_2_a_first_frame_while_the_expiry_is_under_way_is_not_followed_by_an_error(
    stage, monkeypatch, fails
):
    from twisted.internet.defer import fail

    from queuerelay.errors import NotConnected

    connection, taken = asked(stage)
    raw = encode_reply(node_id=taken["node_id"], body=b"just in time", more=True)
    take_off = stage.broker.queues.take_off

    def and_begin(*args, **kwargs):
        removed = fail(NotConnected()) if fails else take_off(*args, **kwargs)
        stage.relay._replies.read([raw])
        return removed

    monkeypatch.setattr(stage.broker.queues, "take_off", and_begin)
    stage.turn(61)
    stage.frame(taken, b"!", more=False)
    assert connection.response(streamed=True).body == b"just in time!"
    assert stage.counter("expired") == 0


@pytest.mark.parametrize("when", ["before the push is known to be lost", "after"])
def test_a_push_that_is_uncertain_is_not_repeated_where_its_answer_has_begun(stage, when):
    client = FakeClient()
    held = stage.hold(client)
    stage.relay._outbox._flush()
    first = encode_reply(node_id=held.id, more=True)
    if when == "after":
        stage.broker.disconnect()
        stage.turn()
        stage.relay._replies.read([first])
        stage.broker.reconnect()
    else:
        stage.relay._replies.read([first])
        stage.broker.disconnect()
        stage.turn()
        stage.broker.reconnect()
    stage.turn()
    assert held.pushes == 1
    assert held.state is HeldState.ANSWERING
    stage.frame(held.id, b"two", more=False)
    assert client.ended
    assert stage.counter("answered") == 1


# Clients


def test_a_client_that_leaves_while_its_answer_begins_is_gone_and_counted_off_once(stage):
    class Leaving(FakeClient):
        def begin(self, reply, parts, *, last):
            stage.relay.gone(held)
            return super().begin(reply, parts, last=last)

    held = stage.hold(Leaving())
    stage.turn()
    taken = stage.take()
    stage.stream(taken, b"one")
    assert held.state is HeldState.GONE
    snapshot = stage.relay.snapshot()
    assert (snapshot.held, snapshot.held_bytes, snapshot.streaming) == (0, 0, 0)
    assert (stage.counter("gone"), stage.counter("answered"), stage.counter("aborted")) == (1, 0, 0)
    assert gone(stage, taken)


def test_a_client_that_leaves_in_the_middle_is_told_to_its_worker(make_stage):
    stage = make_stage(frame_timeout=20.0)
    connection, taken = begun(stage)
    connection.leave()
    assert gone(stage, taken)
    assert stage.counter("gone") == 1
    # For as long as a worker may be silent, and again when it speaks.
    stage.turn(24)
    assert gone(stage, taken)
    stage.turn(2)
    assert not gone(stage, taken)
    stage.frame(taken, b"two")
    assert gone(stage, taken)
    assert stage.relay.snapshot().held == 0


def test_frames_for_nobody_ever_are_counted_and_nobody_is_told(stage):
    stage.frame("nobody", b"x")
    stage.frame(f"{stage.relay.id}-{'0' * 33}", b"x")
    assert stage.counter("frames_late") == 2
    assert stage.broker.store.gone == {}


def slow(stage, capacity=64 * 1024):
    """A client with a streamed answer under way, of which it takes nothing."""
    connection, taken = begun(stage)
    connection.wire.capacity = capacity
    return connection, taken


# Promise 6
def test_promise_6_a_client_that_is_too_far_behind_is_cut_and_others_are_not(stage):
    connection, taken = slow(stage)
    fine, fine_taken = begun(stage)
    part = b"x" * 256 * 1024
    for _ in range(5):
        stage.frame(taken, part)
        stage.frame(fine_taken, part)
    assert not connection.wire.cut
    # What is given to the transport is at most its own buffer and a piece.
    assert len(connection.raw) < 200_000
    assert 5 * len(part) - 200_000 < stage.relay.snapshot().unsent_bytes < 5 * len(part)
    stage.frame(taken, part)
    stage.frame(fine_taken, part, more=False)
    assert broken_off(connection)
    assert gone(stage, taken)
    assert stage.counter("aborted_behind") == 1
    assert stage.relay.snapshot().unsent_bytes == 0
    assert len(fine.response(streamed=True).body) == 3 + 6 * len(part)


def test_a_client_that_catches_up_is_not_cut(stage):
    connection, taken = slow(stage)
    part = b"x" * 256 * 1024
    for _ in range(20):
        stage.frame(taken, part)
        for _ in range(10):
            connection.wire.drain()
    stage.frame(taken, more=False)
    connection.wire.drain()
    assert len(connection.response(streamed=True).body) == 3 + 20 * len(part)
    assert stage.relay.snapshot().unsent_bytes == 0


# Promise 6
def test_promise_6_all_clients_together_are_not_further_behind_than_the_memory(make_stage):
    stage = make_stage(max_held_bytes=300_000, max_body=1000)
    clients = [slow(stage) for _ in range(3)]
    for _ in range(2):
        for _, taken in clients:
            stage.frame(taken, b"x" * 150_000)
    # Each had its first; then those in whose turn there was too much already were cut.
    assert [connection.wire.cut for connection, _ in clients] == [True, True, False]
    assert stage.relay.snapshot().unsent_bytes <= 300_000
    assert stage.relay.budget.room >= 150_000


# Promise 6
@pytest.mark.parametrize("streamed", [False, True])
def test_promise_6_a_client_that_takes_nothing_is_cut_and_one_that_takes_little_is_not(
    make_stage, streamed
):
    stage = make_stage(send_stall=60.0, frame_timeout=30.0)
    body = bytes(range(256)) * 4096
    connections = []
    for _ in range(2):
        connection, taken = asked(stage)
        connection.wire.capacity = 64 * 1024
        if streamed:
            stage.stream(taken, body)
            stage.frame(taken, more=False)
        else:
            stage.reply(taken, body=body)
        connections.append(connection)
    stuck, reading = connections
    stage.turn(55)
    assert not stuck.wire.cut
    while len(stage.relay.senders):
        reading.wire.drain()
        stage.turn(55)
    assert stuck.wire.cut
    assert stage.counter("aborted_stalled") == 1
    # 1 MiB in 15 minutes: twisted.web would have reset it after 75 s.
    response = reading.response(streamed=streamed)
    assert response.body == body
    assert not response.closes
    assert not reading.wire.cut


def test_a_worker_can_know_how_much_its_client_has_taken(stage):
    connection, taken = begun(stage)
    told = stage.broker.store.taken
    stage.frame(taken, b"x" * 60_000)
    # Not for every event of a few bytes.
    assert told == {}
    stage.frame(taken, b"x" * 60_000)
    assert [count for count, _ in told.values()] == [120_003]
    connection.wire.capacity = 64 * 1024
    stage.frame(taken, b"x" * 500_000)
    before = told[taken["node_id"]][0]
    assert before < 400_000
    counts = []
    for _ in range(8):
        connection.wire.drain()
        stage.turn()
        counts.append(told[taken["node_id"]][0])
    assert counts[1] > before
    assert counts == sorted(counts)
    assert 620_003 - TOLD_EVERY < counts[-1] <= 620_003


def test_a_worker_of_few_bytes_knows_from_time_to_time_that_there_is_a_relay(stage):
    _, taken = begun(stage)
    told = stage.broker.store.taken
    for _ in range(4):
        stage.turn(25)
        stage.frame(taken, b"event")
    # After 30 s each, so with every other one.
    assert [count for count, _ in told.values()] == [23]
    stage.turn(25)
    stage.frame(taken, b"")
    stage.turn(10)
    stage.frame(taken, b"")
    # Nothing new.
    assert [count for count, _ in told.values()] == [23]


@pytest.mark.parametrize("what", ["taken", "gone"])
def test_what_a_worker_is_to_know_is_said_again_where_redis_was_away(stage, what):
    connection, taken = begun(stage)
    connection.wire.capacity = 0
    stage.frame(taken, b"x" * 300_000)
    known = stage.broker.store.taken.get(taken["node_id"], (0, 0))[0]
    stage.broker.disconnect()
    if what == "gone":
        connection.leave()
    for _ in range(5):
        connection.wire.drain()
    stage.turn(3)
    stage.broker.reconnect()
    stage.turn(0.5)
    if what == "gone":
        assert gone(stage, taken)
    else:
        assert stage.broker.store.taken[taken["node_id"]][0] > max(known, 200_000)


def test_while_a_client_is_behind_its_worker_may_be_silent(make_stage):
    stage = make_stage(send_stall=60.0, frame_timeout=10.0)
    connection, taken = slow(stage)
    stage.frame(taken, b"x" * 500_000)
    stage.turn(40)
    assert not connection.wire.cut
    for _ in range(20):
        connection.wire.drain()
    stage.turn(9)
    assert not connection.wire.cut
    stage.turn(2)
    assert broken_off(connection)


# Promise 6
def test_promise_6_a_large_answer_counts_until_it_is_taken(make_stage):
    stage = make_stage(max_held_bytes=2 * MIB, max_body=MIB)
    clients = []
    for _ in range(3):
        connection, taken = asked(stage)
        connection.wire.capacity = 64 * 1024
        clients.append(connection)
        stage.reply(taken, body=b"x" * (MIB + 100_000))
    # The first always; the others have no room beside it in the answers' half.
    assert [connection.raw.startswith(b"HTTP/1.1 200") for connection in clients] == [
        True,
        False,
        False,
    ]
    assert clients[2].response().status == 503
    assert clients[2].response().get("retry-after")
    snapshot = stage.relay.snapshot()
    assert MIB - 100_000 < snapshot.unsent_bytes < MIB + 100_000
    assert stage.relay.budget.room == MIB - snapshot.held_bytes
    for _ in range(30):
        clients[0].wire.drain()
    assert len(clients[0].response().body) == MIB + 100_000
    assert stage.relay.snapshot().unsent_bytes == 0


def test_slow_readers_leave_requests_their_half(make_stage):
    stage = make_stage(max_held_bytes=2 * MIB, max_body=MIB)
    connection, taken = asked(stage)
    connection.wire.capacity = 64 * 1024
    # The only one that waits is always sent, and here it is more than all there is.
    stage.reply(taken, body=b"x" * 3 * MIB)
    assert stage.relay.snapshot().unsent_bytes > 2 * MIB
    assert stage.relay.budget.room == MIB
    assert not stage.relay.budget.fits(1)
    other = stage.connect().send(request("POST", "/", body=b"y" * 700_000))
    taken = stage.take()
    stage.reply(taken, body=b"small")
    assert other.response().body == b"small"


def test_answers_wait_in_half_of_the_room(make_stage):
    stage = make_stage(max_held_bytes=4 * MIB, max_body=MIB)
    clients = []
    for _ in range(3):
        connection, taken = asked(stage)
        connection.wire.capacity = 64 * 1024
        clients.append(connection)
        stage.reply(taken, body=b"x" * (MIB - 100_000))
    assert [one.raw.startswith(b"HTTP/1.1 200") for one in clients] == [True, True, False]
    assert stage.relay.budget.room > 2 * MIB


def test_a_client_that_leaves_a_large_answer_leaves_nothing(stage):
    connection, taken = asked(stage)
    connection.wire.capacity = 64 * 1024
    stage.reply(taken, body=b"x" * MIB)
    assert stage.relay.snapshot().unsent_bytes > 0
    connection.leave()
    assert stage.relay.snapshot().unsent_bytes == 0
    assert len(stage.relay.senders) == 0


def test_requests_behind_a_slow_answer_wait_for_it(stage):
    connection, taken = asked(stage)
    connection.wire.capacity = 64 * 1024
    stage.reply(taken, body=b"x" * MIB)
    connection.send(request("GET", "/next"))
    assert stage.waiting() == []
    for _ in range(20):
        connection.wire.drain()
    stage.turn()
    stage.reply(stage.take(), body=b"y" * MIB)
    for _ in range(20):
        connection.wire.drain()
    first, second = connection.responses("GET", "GET")
    assert (first.body[:1], second.body[:1], len(second.body)) == (b"x", b"y", MIB)


# The end of the relay


# Promise 2
def test_promise_2_at_the_end_of_the_drain_a_streamed_answer_is_broken_off(make_stage):
    stage = make_stage(drain=10.0)
    connection, taken = begun(stage)
    fine, fine_taken = begun(stage)
    drained = []
    stage.relay.drain().addCallback(drained.append)
    stage.front.drain()
    stage.turn(5)
    stage.frame(fine_taken, b"two", more=False)
    # It was promised to be kept, and is closed all the same.
    assert fine.response(streamed=True).body == b"onetwo"
    assert fine.wire.disconnecting
    assert not connection.wire.cut
    assert drained == []
    stage.turn(6)
    assert broken_off(connection)
    assert stage.counter("aborted_stopping") == 1
    assert gone(stage, taken)
    assert drained == [None]


# Bugs of ours


# Promise 2
def test_promise_2_a_front_that_fails_in_the_middle_costs_no_other_client(stage, logged_failures):
    bad, good = FakeClient(), FakeClient()
    bad.broken = True
    for client in (bad, good):
        stage.hold(client)
    stage.turn()
    taken = [stage.take(), stage.take()]
    stage.push_reply(*(encode_reply(node_id=one["node_id"], more=True) for one in taken))
    assert (bad.aborted, good.aborted) == (1, 0)
    assert len(logged_failures.flush(RuntimeError)) == 1
    for one in taken:
        stage.frame(one, b"x", more=False)
    assert good.ended
    assert not bad.writes
    assert stage.relay.snapshot().held == 0


# Promise 2: any number of tries at one message, whose frames come in any order


@dataclass
class Try:
    """The frames of one worker's one try; the last of them may never come."""

    bodies: list[bytes]
    numbered: bool
    #: How many of them it sends before it dies.
    sent: int

    def frames(self, id, number):
        last = len(self.bodies) - 1
        found = []
        for place, body in enumerate(self.bodies):
            n = number * 1000 + place if self.numbered else None
            if place == 0:
                found.append(encode_reply(node_id=id, body=body, more=last > 0, number=n))
            else:
                found.append(encode_frame(node_id=id, body=body, more=place < last, number=n))
        return found[: self.sent]


@st.composite
def tries(draw):
    found = []
    for number in range(draw(st.integers(1, 3))):
        size = draw(st.integers(1, 4))
        bodies = [b"%d.%d " % (number, place) for place in range(size)]
        sent = size - draw(st.sampled_from([0, 0, 1, 2]))
        found.append(Try(bodies, draw(st.booleans()), max(1, sent)))
    return found


@pytest.mark.heavy
@settings(max_examples=300, deadline=None, database=None)
@given(tries=tries(), data=st.data())
def test_promise_2_an_answer_is_of_one_try_in_order_and_ends_only_where_that_ended(tries, data):
    stage = Stage()
    client = FakeClient()
    held = stage.hold(client)
    stage.turn()
    left = [one.frames(held.id, number) for number, one in enumerate(tries)]
    batch = []
    while any(left):
        which = data.draw(st.sampled_from([n for n, frames in enumerate(left) if frames]))
        batch.append(left[which].pop(0))
        if tries[which].numbered and data.draw(st.integers(0, 3)) == 0:
            batch.append(batch[-1])
        if data.draw(st.booleans()):
            stage.push_reply(*batch)
            batch = []
    if batch:
        stage.push_reply(*batch)
    whole = [b"".join(one.bodies) for one in tries]
    if client.writes:
        got = b"".join(part for parts in client.writes for part in parts)
        assert any(one.startswith(got) for one in whole)
        assert not client.ended or got in whole
        assert client.ended or client.aborted or held.alive
        assert not (client.ended and client.aborted)
    elif client.told:
        assert not isinstance(client.told[0], Reply) or client.told[0].body in whole
    stage.turn(61)
    assert not held.alive
    stage.close()


@pytest.mark.parametrize(
    ("version", "fields", "reset"),
    [
        ("1.1", [], False),
        ("1.1", [("Content-Length", "9")], False),
        ("1.0", [("Content-Length", "9")], False),
        # Nothing but the end says that the body has ended, so the end must not look like one.
        ("1.0", [], True),
    ],
)
def test_a_break_is_an_end_where_the_framing_tells_that_it_is_none(stage, version, fields, reset):
    connection = stage.connect().send(request(version=version))
    taken = stage.take()
    stage.stream(taken, b"one", headers=fields)
    stage.push_reply(b'{"node_id":"%b","more":7}' % taken["node_id"].encode())
    assert (connection.wire.aborted, connection.wire.half_closed) == (reset, not reset)
    assert not connection.raw.endswith(b"0\r\n\r\n")
    # What it still sends is thrown away, and it does not stay for ever.
    connection.send(request())
    assert stage.waiting() == []
    stage.turn(LINGER + 2 * SWEEP)
    assert connection.wire.aborted


def test_a_break_is_a_reset_for_a_client_that_takes_nothing(stage):
    connection = stage.connect()
    connection.wire.capacity = 1
    connection.send(request())
    taken = stage.take()
    stage.stream(taken, b"one")
    stage.push_reply(b'{"node_id":"%b","more":7}' % taken["node_id"].encode())
    assert connection.wire.aborted
