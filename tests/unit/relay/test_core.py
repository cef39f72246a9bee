"""The relay without HTTP: every way that a held request can end."""

import json
import re

import pytest
from twisted.internet.defer import fail

from queuerelay.errors import Draining, QueueFull, Refused, TooManyHeld
from queuerelay.wire.reply import encode_reply
from tests.unit.relay.stage import FakeClient, to


def test_a_request_goes_to_the_queue_and_its_answer_to_its_client(stage):
    client = FakeClient()
    stage.hold(client, method="POST", url="/things?x=1", body=b"a=1")
    stage.turn()
    (request,) = stage.waiting()
    assert request["url"] == "/things?x=1"
    assert request["method"] == "POST"
    assert request["body"] == "a=1"
    assert request["reply_to"] == f"queuerelay:inbox:{stage.relay.id}"
    assert request["deadline"] == request["accepted_at"] + 60
    stage.reply(stage.take(), status=201, headers=[("x-a", "b")], body=b"made")
    (reply,) = client.told
    assert (reply.status, reply.headers, reply.body) == (201, [(b"x-a", b"b")], b"made")
    assert stage.relay.snapshot().held == 0
    assert stage.counter("answered") == 1


# Promise 1
def test_promise_1_ids_cannot_be_guessed_and_never_come_again(make_stage):
    first, second = make_stage(), make_stage()
    ids = [stage.hold().id for stage in (first, second) for _ in range(100)]
    assert len(set(ids)) == 200
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{32}", one) for one in ids)
    assert first.relay.id != second.relay.id


# Promise 1
def test_promise_1_each_gets_its_own_answer_whatever_the_order(stage):
    clients = [FakeClient() for _ in range(20)]
    for number, client in enumerate(clients):
        stage.hold(client, url=f"/{number}")
    stage.turn()
    taken = [stage.take() for _ in clients]
    # All in one batch, backwards, with what belongs to nobody in between.
    stage.push_reply(
        *[
            raw
            for request in reversed(taken)
            for raw in (
                encode_reply(node_id=request["node_id"], body=request["url"].encode()),
                encode_reply(node_id=f"{stage.relay.id}-{'0' * 32}", body=b"nobody's"),
                b"garbage",
            )
        ]
    )
    assert [client.told[0].body for client in clients] == [b"/%d" % n for n in range(20)]
    assert all(client.status == 200 for client in clients)
    assert stage.counter("replies_unknown") == 20


# Promise 1
def test_promise_1_a_relay_that_was_started_again_answers_nobody_with_an_old_reply(make_stage):
    before = make_stage()
    before.hold()
    before.turn()
    old = before.take()
    after = make_stage(store=before.broker.store, clock=before.clock)
    client = FakeClient()
    after.hold(client)
    after.turn()
    # Even if the old reply went to the new inbox.
    after.reply(old, body=b"old")
    assert client.told == []
    assert after.counter("replies_unknown") == 1


# Promise 2
def test_promise_2_a_second_reply_is_dropped_and_counted(stage):
    client = FakeClient()
    stage.hold(client)
    stage.turn()
    taken = stage.take()
    stage.reply(taken, body=b"first")
    stage.reply(taken, body=b"second")
    assert [reply.body for reply in client.told] == [b"first"]
    assert stage.counter("replies_doubled") == 1
    assert stage.counter("answered") == 1


def test_replies_that_find_nobody_are_counted_by_their_kind(stage):
    held = stage.hold(gone := FakeClient())
    expired = FakeClient()
    stage.hold(expired)
    stage.turn()
    first, second = stage.take(), stage.take()
    stage.relay.gone(held)
    stage.turn(61)
    stage.reply(first)
    stage.reply(second)
    stage.reply(f"{stage.relay.id}-{'f' * 32}")
    assert gone.told == []
    assert expired.status == 504
    assert stage.counter("replies_late") == 2
    assert stage.counter("replies_unknown") == 1
    assert stage.counter("replies_doubled") == 0


# Promise 6
def test_promise_6_at_the_deadline_what_nobody_took_is_503_and_off_the_queue(stage):
    client = FakeClient()
    stage.hold(client)
    stage.turn(59.9)
    assert client.told == []
    stage.turn(0.5)
    assert client.status == 503
    assert client.told[0].reason == "deadline-queued"
    assert client.told[0].retry_after is not None
    assert stage.waiting() == []
    assert stage.counter("expired") == 1


# Promise 6
def test_promise_6_at_the_deadline_what_a_worker_has_is_504(stage):
    client = FakeClient()
    stage.hold(client)
    stage.turn()
    stage.take()
    stage.turn(60.4)
    assert client.status == 504
    assert stage.relay.snapshot().held == 0


def test_each_route_has_its_own_deadline_and_queue(make_stage):
    stage = make_stage(routes=(to("high", path="/fast", deadline=5.0),))
    slow, fast = FakeClient(), FakeClient()
    stage.hold(slow)
    stage.hold(fast, url="/fast/1")
    stage.turn()
    assert [one["url"] for one in stage.waiting("high")] == ["/fast/1"]
    stage.turn(5.4)
    assert (slow.status, fast.status) == (None, 503)
    stage.turn(55)
    assert slow.status == 503


def test_a_reply_that_comes_while_the_expiry_is_under_way_wins_or_loses_but_never_both(stage):
    client = FakeClient()
    stage.hold(client)
    stage.turn()
    raw = encode_reply(node_id=stage.take()["node_id"], body=b"just in time")
    # The sweep's LREM has been sent, and its answer comes in the same turn as the reply.
    stage.clock.advance(60.0)
    stage.broker.store.append(f"queuerelay:inbox:{stage.relay.id}", [raw])
    stage.turn(1)
    assert len(client.told) == 1
    assert stage.counter("answered") + stage.counter("expired") == 1


def test_a_reply_between_the_look_at_the_queue_and_its_answer_is_the_answer(stage, monkeypatch):
    client = FakeClient()
    stage.hold(client)
    stage.turn()
    raw = encode_reply(node_id=stage.take()["node_id"], body=b"just in time")
    take_off = stage.broker.queues.take_off

    def and_reply(*args, **kwargs):
        removed = take_off(*args, **kwargs)
        stage.relay._replies.read([raw])
        return removed

    monkeypatch.setattr(stage.broker.queues, "take_off", and_reply)
    stage.turn(61)
    assert client.status == 200


def test_a_client_that_leaves_takes_its_request_off_the_queue(stage):
    held = [stage.hold() for _ in range(3)]
    stage.turn()
    stage.take()
    for one in held:
        stage.relay.gone(one)
        stage.relay.gone(one)
    stage.turn()
    assert stage.waiting() == []
    assert stage.counter("gone") == 3
    assert stage.counter("work_saved") == 2
    assert stage.relay.snapshot().held == 0


def test_a_client_that_leaves_in_the_turn_of_its_arrival_is_never_pushed(stage):
    stage.relay.gone(stage.hold())
    stage.turn()
    assert stage.waiting() == []
    assert stage.counter("work_saved") == 0


def test_a_client_that_leaves_while_its_push_is_under_way_is_taken_off(stage, monkeypatch):
    held = stage.hold()
    push = stage.broker.queues.push

    def and_leave(*args):
        pushed = push(*args)
        stage.relay.gone(held)
        return pushed

    monkeypatch.setattr(stage.broker.queues, "push", and_leave)
    stage.turn()
    assert stage.waiting() == []
    assert stage.counter("work_saved") == 1


def marks(stage, monkeypatch):
    """What is said of clients that have left: the calls, each with ids and seconds."""
    said = []
    mark_gone = stage.broker.clients.mark_gone

    def noted(ids, *, life):
        said.append((list(ids), life))
        return mark_gone(ids, life=life)

    monkeypatch.setattr(stage.broker.clients, "mark_gone", noted)
    return said


def test_who_left_after_the_work_had_begun_is_marked_in_one_call(make_stage, monkeypatch):
    stage = make_stage(deadline=60.0)
    said = marks(stage, monkeypatch)
    held = [stage.hold() for _ in range(4)]
    stage.turn()
    taken = [stage.take()["node_id"] for _ in range(2)]
    stage.turn(10)
    for one in held[:3]:
        stage.relay.gone(one)
    stage.turn()
    assert [ids for ids, _ in said] == [taken]
    # As long as a script may run for it.
    assert said[0][1] >= 49
    assert stage.broker.store.which_gone([one.id for one in held]) == set(taken)
    stage.turn(70)
    assert stage.broker.store.which_gone(taken) == set()


def test_nobody_is_marked_whose_request_nobody_has(stage, monkeypatch):
    said = marks(stage, monkeypatch)
    queued = stage.hold()
    stage.turn()
    answered = stage.hold()
    stage.turn()
    stage.relay.gone(queued)
    stage.turn()
    stage.reply(stage.take())
    stage.relay.gone(answered)
    stage.relay.gone(stage.hold())
    stage.turn()
    assert said == []


def test_who_is_refused_at_a_hurried_stop_waits_no_more(stage, monkeypatch):
    said = marks(stage, monkeypatch)
    for _ in range(2):
        stage.hold()
    stage.turn()
    taken = stage.take()["node_id"]
    stage.relay.hurry()
    stage.turn()
    assert [ids for ids, _ in said] == [[taken]]


def test_a_mark_that_redis_refuses_costs_nothing(stage, monkeypatch):
    monkeypatch.setattr(stage.broker.clients, "mark_gone", lambda ids, life: fail(Refused("OOM")))
    held = stage.hold()
    stage.turn()
    stage.take()
    stage.relay.gone(held)
    stage.turn()
    stage.hold()
    stage.turn()
    assert len(stage.waiting()) == 1


# Promise 6
def test_promise_6_no_more_are_held_than_the_limit_says(make_stage):
    stage = make_stage(max_held=2)
    first = stage.hold()
    stage.hold()
    with pytest.raises(TooManyHeld) as refused:
        stage.hold()
    assert (refused.value.status, refused.value.reason) == (503, "held-limit")
    assert refused.value.retry_after is not None
    stage.relay.gone(first)
    stage.hold()
    assert stage.relay.snapshot().refusals == {"held-limit": 1}


# Promise 6
def test_promise_6_no_more_bytes_are_held_than_the_limit_says(make_stage):
    stage = make_stage(max_body=1000, max_held_bytes=3000)
    stage.hold(body=b"x" * 1000)
    with pytest.raises(TooManyHeld):
        stage.hold(body=b"x" * 2000)
    stage.hold(body=b"x" * 500)
    snapshot = stage.relay.snapshot()
    assert 1500 < snapshot.held_bytes <= 3000
    assert stage.relay.budget.room == 3000 - snapshot.held_bytes


# Promise 6
def test_promise_6_a_queue_gets_no_longer_than_the_limit_says(make_stage):
    stage = make_stage(max_queue=3, routes=(to("other", path="/other"),))
    for _ in range(3):
        stage.hold()
        stage.turn()
    with pytest.raises(QueueFull) as refused:
        stage.hold()
    assert refused.value.retry_after is not None
    stage.hold(url="/other")
    # A worker takes one, and within a second there is room again.
    stage.take()
    stage.turn(1.1)
    stage.hold()


def test_a_burst_that_was_worked_off_leaves_room_at_once(make_stage):
    stage = make_stage(max_queue=3)
    for _ in range(5):
        for _ in range(3):
            stage.hold()
        with pytest.raises(QueueFull):
            stage.hold()
        stage.turn()
        for _ in range(3):
            stage.reply(stage.take())


def test_requests_of_one_turn_count_against_the_queue_before_they_are_pushed(make_stage):
    stage = make_stage(max_queue=2)
    stage.hold()
    stage.hold()
    with pytest.raises(QueueFull):
        stage.hold()


def test_an_outage_leaves_the_length_of_the_queue_as_it_was(make_stage):
    stage = make_stage(max_queue=3)
    stage.broker.disconnect()
    clients = []
    for _ in range(5):
        for _ in range(3):
            stage.hold(client := FakeClient())
            clients.append(client)
        stage.turn(2.5)
    assert [client.told[0].reason for client in clients] == ["redis-unavailable"] * 15
    stage.broker.reconnect()
    stage.turn()
    for _ in range(3):
        stage.hold()


# Promise 6
def test_promise_6_while_redis_is_away_a_new_request_waits_two_seconds(stage):
    stage.broker.disconnect()
    stage.hold(client := FakeClient())
    stage.turn(1.9)
    assert client.told == []
    stage.turn(0.5)
    assert client.status == 503
    assert client.told[0].reason == "redis-unavailable"
    assert client.told[0].retry_after is not None
    stage.broker.reconnect()
    stage.turn(1)
    assert stage.waiting() == []


# Promise 4
def test_promise_4_whoever_is_held_when_redis_goes_is_answered_when_it_is_back(stage):
    stage.hold(client := FakeClient())
    stage.turn()
    taken = stage.take()
    for _ in range(5):
        stage.broker.disconnect()
        stage.turn(3)
        stage.broker.reconnect()
        stage.turn(0.5)
    assert client.told == []
    stage.broker.disconnect()
    stage.reply(taken, body=b"kept")
    stage.turn(1)
    assert client.told == []
    stage.broker.reconnect()
    stage.turn(0.1)
    assert client.told[0].body == b"kept"


# Promise 4
def test_promise_4_a_bad_reply_costs_no_other_of_its_batch(stage, monkeypatch):
    clients = [FakeClient() for _ in range(3)]
    for client in clients:
        stage.hold(client)
    stage.turn()
    first, second, third = (stage.take()["node_id"] for _ in clients)
    stage.push_reply(
        encode_reply(node_id=first),
        json.dumps({"node_id": second, "status": 99}).encode(),
        encode_reply(node_id=third),
    )
    assert [client.status for client in clients] == [200, 502, 200]
    assert stage.counter("replies_undecodable") == 1


def test_a_bug_in_decoding_costs_only_the_reply_that_has_it(stage, monkeypatch, logged_failures):
    from queuerelay.relay import replies

    clients = [FakeClient(), FakeClient()]
    for client in clients:
        stage.hold(client)
    stage.turn()
    first, second = stage.take()["node_id"], stage.take()["node_id"]
    decode = replies.decode_reply

    def buggy(raw):
        if first.encode() in raw:
            raise KeyError("bug")
        return decode(raw)

    monkeypatch.setattr(replies, "decode_reply", buggy)
    stage.push_reply(encode_reply(node_id=first), encode_reply(node_id=second))
    assert [client.status for client in clients] == [502, 200]
    assert len(logged_failures.flush(KeyError)) == 1


def test_an_undecodable_reply_is_502_for_whom_it_was_and_one_line(stage, log_lines):
    stage.hold(client := FakeClient())
    stage.turn()
    id = stage.take()["node_id"]
    stage.push_reply(b'{"node_id":"%b","status":"fine"}' % id.encode())
    assert client.status == 502
    (line,) = (line for line in log_lines() if "502" in line)
    assert line.startswith("answered 502 (bad-reply): the worker's reply was not usable")
    assert "status" in line


def test_promise_6_a_reply_that_is_too_large_is_502_and_names_the_queue(make_stage, log_lines):
    stage = make_stage(max_reply=2000)
    client, other = FakeClient(), FakeClient()
    stage.hold(client)
    stage.hold(other)
    stage.turn()
    taken = stage.take()
    stage.reply(taken, body=b"x" * 2000)
    assert (client.status, client.told[0].reason) == (502, "reply-too-large")
    (line,) = [line for line in log_lines() if "not read" in line]
    assert "queue requests" in line
    assert stage.counter("replies_too_large") == 1
    taken = stage.take()
    stage.stream(taken, b"a")
    stage.frame(taken, b"x" * 2000)
    assert other.aborted
    stage.push_reply(b"x" * 2001)
    assert stage.counter("replies_too_large") == 3


def test_an_undecodable_reply_for_nobody_ends_nobody(stage):
    stage.hold(client := FakeClient())
    stage.turn()
    stage.push_reply(b"{", b"[]", b'{"node_id":""}', b"\xff", b"", b'{"node_id":"\\ud800"}')
    assert client.told == []
    assert stage.counter("replies_undecodable") == 6


@pytest.mark.parametrize("how", ["answer", "refuse"])
def test_a_front_that_fails_is_aborted_and_costs_no_other_client(stage, logged_failures, how):
    bad, good = FakeClient(), FakeClient()
    bad.broken = True
    stage.hold(bad)
    stage.hold(good)
    stage.turn()
    first, second = stage.take(), stage.take()
    if how == "answer":
        stage.push_reply(*(encode_reply(node_id=one["node_id"]) for one in (first, second)))
    else:
        stage.turn(61)
    assert (bad.aborted, good.aborted) == (1, 0)
    assert good.status == (200 if how == "answer" else 504)
    assert len(bad.told) == 1
    assert stage.relay.snapshot().held == 0
    assert len(logged_failures.flush(RuntimeError)) == 1


# The seed's workers


def test_the_seeds_worker_is_answered_from_the_legacy_list(make_stage):
    stage = make_stage(legacy_replies="responses")
    stage.hold(client := FakeClient(), method="POST", body=b"\xff\x00", headers=[("a", "b")])
    stage.turn()
    args = stage.take()
    # What the Ruby worker does: hash.delete("url"); hash["body"] = URI.escape(body); to_json.
    del args["url"]
    args["body"] = "caf%C3%A9 %FF%00 100%25 %"
    assert args["body_encoding"] == "base64", "it is the request's, and says nothing of the answer"
    stage.broker.store.append("responses", [json.dumps(args).encode()])
    stage.turn()
    (reply,) = client.told
    assert reply.status == 200
    assert reply.headers == ((b"Content-Type", b"text/plain; charset=utf-8"),)
    assert reply.body == b"caf\xc3\xa9 \xff\x00 100% %"
    assert stage.broker.store.items("responses") == []


def test_a_legacy_reply_is_forwarded_to_the_relay_that_holds_its_client(make_stage):
    mine = make_stage(legacy_replies="responses")
    other = make_stage(store=mine.broker.store, clock=mine.clock)
    other.hold(client := FakeClient())
    other.turn()
    id = other.take()["node_id"]
    mine.broker.store.append(
        "responses",
        [
            json.dumps({"node_id": id, "body": "a%20b"}).encode(),
            b'{"node_id": 17, "body": "a counter id of the seed"}',
            b'{"node_id": "no-relay-of-ours", "body": ""}',
        ],
    )
    mine.turn()
    assert client.told[0].body == b"a b"
    assert mine.counter("replies_undecodable") == 1
    assert mine.counter("replies_unknown") == 1


def test_a_legacy_reply_survives_a_lost_connection_on_its_way_to_its_relay(make_stage):
    mine = make_stage(legacy_replies="responses")
    other = make_stage(store=mine.broker.store, clock=mine.clock)
    other.hold(client := FakeClient())
    other.turn()
    id = other.take()["node_id"]
    mine.broker.disconnect()
    mine.broker.store.append("responses", [json.dumps({"node_id": id, "body": "x"}).encode()])
    mine.broker.refuse("OOM command not allowed")
    mine.broker.reconnect()
    mine.turn(1)
    assert client.told == []
    mine.broker.refuse(None)
    mine.turn(1)
    assert client.told[0].body == b"x"


# Drain


def test_a_drain_answers_who_is_held_and_refuses_who_comes(stage):
    stage.hold(client := FakeClient())
    stage.turn()
    taken = stage.take()
    done: list[None] = []
    stage.relay.drain().addCallback(done.append)
    with pytest.raises(Draining) as refused:
        stage.hold()
    assert refused.value.status == 503
    stage.turn(5)
    assert done == []
    stage.reply(taken)
    assert client.status == 200
    assert done == [None]


def test_a_drain_without_anybody_held_is_done_at_once(stage):
    done: list[None] = []
    stage.relay.drain().addCallback(done.append)
    stage.relay.drain().addCallback(done.append)
    assert done == [None, None]


# Promise 6
def test_promise_6_a_drain_ends_after_its_time_and_takes_the_rest_off_the_queue(make_stage):
    stage = make_stage(drain=10.0)
    queued, taken = FakeClient(), FakeClient()
    stage.hold(taken)
    stage.turn()
    stage.take()
    stage.hold(queued)
    stage.turn()
    done: list[None] = []
    stage.relay.drain().addCallback(done.append)
    stage.turn(9.9)
    assert done == []
    stage.turn(0.2)
    assert done == [None]
    assert (queued.status, taken.status) == (503, 503)
    assert queued.told[0].reason == "draining"
    assert stage.waiting() == []


def test_hurry_cuts_a_drain_short(stage):
    stage.hold(client := FakeClient())
    stage.turn()
    done: list[None] = []
    stage.relay.drain().addCallback(done.append)
    stage.relay.hurry()
    stage.turn()
    assert (client.status, done) == (503, [None])


def test_hurry_before_the_drain_is_a_drain_that_is_over(stage):
    stage.hold(client := FakeClient())
    stage.relay.hurry()
    with pytest.raises(Draining):
        stage.hold()
    done: list[None] = []
    stage.relay.drain().addCallback(done.append)
    stage.turn()
    assert (client.status, done) == (503, [None])


def test_clients_that_leave_during_a_drain_end_it(stage):
    held = [stage.hold() for _ in range(2)]
    stage.turn()
    done: list[None] = []
    stage.relay.drain().addCallback(done.append)
    for one in held:
        stage.relay.gone(one)
    stage.turn()
    assert done == [None]
    assert stage.waiting() == []


def test_a_client_that_is_refused_in_the_drain_may_leave_in_the_same_breath(stage):
    held = []

    class Leaving(FakeClient):
        def refuse(self, refusal):
            super().refuse(refusal)
            stage.relay.gone(held[0])

    client = Leaving()
    held.append(stage.hold(client))
    stage.turn()
    stage.relay.hurry()
    stage.turn()
    assert client.status == 503
    assert stage.counter("refused") == 1
    assert stage.counter("gone") == 0


def test_a_stopped_relay_has_left_the_list_and_a_new_connection_does_not_put_it_back(make_stage):
    stage = make_stage()
    assert stage.broker.store.nodes.keys() == {stage.relay.id}
    stage.relay.stop()
    stage.turn()
    stage.broker.disconnect()
    stage.broker.reconnect()
    stage.turn()
    assert stage.broker.store.nodes == {}


def test_the_snapshot_tells_what_is_going_on(stage):
    stage.hold()
    stage.turn(1.1)
    snapshot = stage.relay.snapshot()
    assert (snapshot.held, snapshot.draining) == (1, False)
    assert snapshot.queues["requests"].length == 1
    assert snapshot.queues["requests"].oldest_at == pytest.approx(stage.clock.seconds() - 1.1)
    published = json.loads(stage.broker.store.nodes[stage.relay.id].snapshot)
    assert published["id"] == stage.relay.id
    assert published["role"] == "relay"
