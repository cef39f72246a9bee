"""The outbox: what is pushed, how often, and what becomes of it when Redis is away."""

import pytest
from twisted.internet.defer import Deferred

from queuerelay.errors import ConnectionDropped, NotConnected
from queuerelay.relay.held import HeldState
from queuerelay.relay.outbox import RELEASE_BYTES
from tests.unit.relay.pushes import watch
from tests.unit.relay.stage import FakeClient, to


@pytest.fixture
def pushes(stage, monkeypatch):
    """Notes every push of the stage: the queue and the targets."""
    return watch(stage, monkeypatch)


def test_what_comes_in_one_turn_goes_out_in_one_push_in_its_order(stage, pushes):
    for number in range(5):
        stage.hold(url=f"/{number}")
    assert pushes == []
    stage.turn()
    assert pushes == [("requests", ["/0", "/1", "/2", "/3", "/4"])]
    stage.hold(url="/5")
    stage.turn()
    assert pushes[1:] == [("requests", ["/5"])]
    assert [one["url"] for one in stage.waiting()] == ["/0", "/1", "/2", "/3", "/4", "/5"]


def test_each_queue_has_a_push_of_its_own(make_stage, monkeypatch):
    stage = make_stage(routes=(to("high", path="/h"),))
    pushes = watch(stage, monkeypatch)
    for url in ("/1", "/h1", "/2", "/h2"):
        stage.hold(url=url)
    stage.turn()
    assert sorted(pushes) == [("high", ["/h1", "/h2"]), ("requests", ["/1", "/2"])]


def test_what_waits_for_redis_is_pushed_in_order_when_it_is_there(stage, pushes):
    stage.broker.disconnect()
    for number in range(3):
        stage.hold(url=f"/{number}")
        stage.turn(0.1)
    assert pushes == []
    stage.broker.reconnect()
    stage.turn()
    assert pushes == [("requests", ["/0", "/1", "/2"])]


# Promise 3
@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "PATCH"])
def test_promise_3_a_push_whose_answer_is_lost_is_done_exactly_once(stage, pushes, method, applied):
    stage.broker.drop_next_push(applied=applied)
    stage.hold(client := FakeClient(), method=method)
    stage.hold(other := FakeClient(), method=method, url="/other")
    stage.turn(5)
    assert len(pushes) == 1 + (not applied)
    assert [one["url"] for one in stage.waiting()] == ["/", "/other"]
    # A connection that is lost later is no reason for another.
    stage.broker.disconnect()
    stage.broker.reconnect()
    stage.turn(1)
    assert len(pushes) == 1 + (not applied)
    for _ in range(2):
        stage.reply(stage.take())
    assert (client.status, other.status) == (200, 200)


# Promise 3
def test_promise_3_what_has_left_before_it_is_known_is_not_pushed_again(stage, pushes):
    stage.broker.drop_next_push(applied=False)
    held = stage.hold(FakeClient(), method="POST")
    stage.broker._connection.reach(False)
    stage.turn(1)
    assert len(pushes) == 1
    stage.relay.gone(held)
    stage.broker.reconnect()
    stage.turn(1)
    assert len(pushes) == 1
    assert stage.waiting() == []


# Promise 3
@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_promise_3_an_idempotent_request_of_unknown_outcome_is_pushed_again(
    stage, pushes, method, applied
):
    stage.broker.drop_next_push(applied=applied, forgotten=True)
    stage.hold(client := FakeClient(), method=method)
    stage.turn(5)
    assert len(pushes) == 2
    assert len(stage.waiting()) == 1 + applied
    # A connection that is lost later is no reason for a third.
    stage.broker.disconnect()
    stage.broker.reconnect()
    stage.turn(1)
    assert len(pushes) == 2
    stage.reply(stage.take())
    assert client.status == 200


# Promise 3
@pytest.mark.parametrize("method", ["POST", "PATCH", "get", "PROPPATCH", "FETCH"])
@pytest.mark.parametrize("applied", [True, False])
def test_promise_3_any_other_request_of_unknown_outcome_is_never_pushed_again(
    stage, pushes, method, applied
):
    stage.broker.drop_next_push(applied=applied, forgotten=True)
    stage.hold(client := FakeClient(), method=method)
    stage.turn(30)
    assert len(pushes) == 1
    assert client.told == []
    if applied:
        stage.reply(stage.take())
        assert client.status == 200
    else:
        stage.turn(31)
        assert client.status == 504


# Promise 3
def test_promise_3_what_has_ended_in_the_meantime_is_not_pushed_again(stage, pushes, monkeypatch):
    stage.broker.drop_next_push(applied=True, forgotten=True)
    held = stage.hold()
    lose = stage.broker._connection.lose

    def lose_and_leave(reason):
        lose(reason)
        stage.relay.gone(held)

    monkeypatch.setattr(stage.broker._connection, "lose", lose_and_leave)
    stage.turn(1)
    assert len(pushes) == 1


def test_both_copies_of_what_was_pushed_twice_are_taken_off(stage):
    stage.broker.drop_next_push(applied=True, forgotten=True)
    held = stage.hold()
    stage.turn()
    assert len(stage.waiting()) == 2
    stage.relay.gone(held)
    stage.turn()
    assert stage.waiting() == []
    assert stage.counter("work_saved") == 1


def test_all_copies_are_taken_off_after_any_number_of_lost_connections(stage, monkeypatch):
    push, answers = stage.broker.queues.push, []

    def lose(queue, messages):
        if len(answers) == 3:
            return push(queue, messages)
        stage.broker.store.push(queue, messages)
        answers.append(Deferred())
        return answers[-1]

    monkeypatch.setattr(stage.broker.queues, "push", lose)
    stage.hold(client := FakeClient())
    for number in range(3):
        stage.turn()
        stage.broker.disconnect()
        answers[number].errback(ConnectionDropped("lost"))
        stage.broker.reconnect()
    stage.turn()
    assert len(stage.waiting()) == 4
    stage.turn(61)
    assert client.status == 503
    assert stage.waiting() == []


def test_an_idempotent_request_of_unknown_outcome_expires_while_redis_is_away(stage):
    stage.broker.drop_next_push(applied=True, forgotten=True)
    stage.hold(client := FakeClient())
    stage.clock.advance(0)
    stage.broker.disconnect()
    stage.turn(61)
    assert client.status == 504
    assert stage.relay.snapshot().held == 0


def test_what_could_not_be_sent_at_all_waits_its_two_seconds(stage, monkeypatch):
    answers = [Deferred()]
    push = stage.broker.queues.push
    monkeypatch.setattr(stage.broker.queues, "push", lambda *_: answers[0])
    stage.hold(client := FakeClient(), method="POST")
    stage.turn()
    stage.broker.disconnect()
    answers[0].errback(NotConnected("too late"))
    monkeypatch.setattr(stage.broker.queues, "push", push)
    stage.turn(1)
    assert client.told == []
    stage.broker.reconnect()
    stage.turn()
    # Nothing was sent: this is the first push, and a POST may have it.
    assert len(stage.waiting()) == 1


def test_a_second_push_that_could_not_be_sent_stays_a_second_push(stage, monkeypatch):
    stage.broker.drop_next_push(applied=True, forgotten=True)
    held = stage.hold()
    answers = []
    push = stage.broker.queues.push

    def refuse_second(*args):
        if answers or not stage.waiting():
            return push(*args)
        answers.append(Deferred())
        return answers[0]

    monkeypatch.setattr(stage.broker.queues, "push", refuse_second)
    stage.turn()
    assert held.pushes == 2
    stage.broker.disconnect()
    answers[0].errback(NotConnected("gone again"))
    assert (held.pushes, held.state) == (1, HeldState.QUEUED)
    stage.turn(3)
    assert held.alive, "it may be on the queue, so its client goes on waiting"
    stage.broker.reconnect()
    stage.turn()
    assert (held.pushes, len(stage.waiting())) == (2, 2)


@pytest.mark.parametrize("reason", ["OOM command not allowed", "MISCONF disk", "NOPERM no"])
def test_redis_says_no_and_the_client_hears_of_it(stage, reason, log_lines):
    stage.broker.refuse(reason)
    stage.hold(client := FakeClient(), method="POST")
    stage.turn()
    assert client.status == 503
    assert client.told[0].reason == "redis-unavailable"
    assert client.told[0].retry_after is not None
    assert any(reason in line for line in log_lines())
    assert stage.waiting() == []


def test_a_failure_nobody_thought_of_is_a_refusal_as_well(stage, monkeypatch):
    def push(*_):
        failed = Deferred()
        failed.errback(TypeError("bug"))
        return failed

    monkeypatch.setattr(stage.broker.queues, "push", push)
    stage.hold(client := FakeClient())
    stage.turn()
    assert client.status == 503


def test_ended_requests_are_forgotten_while_redis_is_away(stage, monkeypatch):
    answers = [Deferred()]
    monkeypatch.setattr(stage.broker.queues, "push", lambda *_: answers[0])
    unknown = stage.hold()
    stage.turn()
    stage.broker.disconnect()
    answers[0].errback(ConnectionDropped("lost"))
    waiting = stage.hold()
    for held in (unknown, waiting):
        stage.relay.gone(held)
    stage.turn(0.5)
    outbox = stage.relay._outbox
    assert [*outbox._pending.values(), *outbox._uncertain.values()] == [[], []]


def test_promise_6_large_messages_go_out_one_after_the_other(stage, monkeypatch):
    sent = []

    def push(queue, messages):
        sent.append((len(messages), Deferred()))
        return sent[-1][1]

    monkeypatch.setattr(stage.broker.queues, "push", push)
    for number in range(2):
        stage.hold(url=f"/{number}", body=b"x" * RELEASE_BYTES)
    stage.hold(url="/small")
    stage.turn()
    # What comes now waits for its turn, too.
    stage.hold(url="/later")
    stage.turn()
    assert [count for count, _ in sent] == [1]
    assert RELEASE_BYTES < stage.relay._outbox.sending < 2 * RELEASE_BYTES
    sent[0][1].callback(1)
    assert [count for count, _ in sent] == [1, 1]
    sent[1][1].errback(ConnectionDropped("gone"))
    assert [count for count, _ in sent] == [1, 1, 2]
    sent[2][1].callback(4)
    assert stage.relay._outbox.sending == 0
