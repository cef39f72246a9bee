"""Probes: alive, ready, and a request that does nothing."""

import json

import pytest
from twisted.internet.defer import CancelledError, Deferred

from queuerelay.broker.records import WrongType
from queuerelay.errors import Unusable
from queuerelay.relay.probe import BOUND
from queuerelay.relay.replies import Replies
from queuerelay.status.collect.snapshot import Severity


def test_alive_and_ready(stage):
    assert stage.json("/healthz") == {"ok": True, "stuck": []}
    assert stage.json("/readyz") == {"ok": True, "reasons": []}


def test_redis_away_is_no_reason_to_be_started_anew(stage):
    stage.broker.disconnect()
    stage.turn(60.0)
    assert stage.ask("/healthz").status == 200
    response = stage.ask("/readyz")
    assert response.status == 503
    assert json.loads(response.body)["reasons"] == ["redis-down"]


def test_a_redis_that_cannot_be_used_is_no_redis_that_is_away(stage):
    stage.broker.disconnect(Unusable("it is a cluster", code="redis-cluster"))
    stage.turn(1.0)
    response = stage.ask("/readyz")
    assert (response.status, json.loads(response.body)["reasons"]) == (503, ["redis-cluster"])
    (reason,) = stage.snapshot.health.reasons
    assert (reason.severity, reason.code) == (Severity.CRITICAL, "redis-cluster")
    assert reason.text == "this Redis cannot be used: it is a cluster"
    stage.broker.reconnect()
    stage.turn(1.0)
    assert stage.reasons == []
    assert stage.ask("/readyz").status == 200


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        ("NOPERM No permissions to access a key (GET x)", "redis-permission"),
        ("ERR no such thing", "redis-refused"),
    ],
)
def test_a_redis_that_refuses_is_no_redis_that_is_away(stage, refusal, code):
    stage.broker.refuse(refusal)
    stage.turn(1.0)
    (reason,) = stage.snapshot.health.reasons
    assert reason.code == code
    assert refusal in reason.text
    stage.broker.refuse(None)
    stage.turn(1.0)
    assert stage.reasons == []


def test_a_key_of_the_wrong_type_is_named_and_the_rest_is_shown(stage):
    stage.hold()
    wrong = WrongType(key="queuerelay:gate", type="list", expected="hash")
    stage.broker.store.wrong_types = [wrong]
    stage.turn(6.0)
    (reason,) = [one for one in stage.snapshot.health.reasons if one.code == "wrong-type"]
    assert (reason.severity, reason.subject) == (Severity.CRITICAL, "queuerelay:gate")
    assert "queuerelay:gate is a list, expected a hash" in reason.text
    assert reason.text.endswith("redis-cli DEL queuerelay:gate")
    assert stage.snapshot.redis.up
    assert stage.queue().depth == 1
    response = stage.ask("/readyz")
    assert response.status == 503
    assert json.loads(response.body)["reasons"] == ["wrong-type"]
    stage.broker.store.wrong_types = []
    stage.turn(1.0)
    assert stage.json("/readyz") == {"ok": True, "reasons": []}


def test_a_stuck_loop_is_named(stage, logged_failures):
    def broken():
        raise RuntimeError("stuck")

    (loop,) = [loop for loop in stage.relay.loops() if loop.name == "sweep"]
    loop._turn = broken
    stage.turn(30.0)
    response = stage.ask("/healthz")
    assert response.status == 503
    (stuck,) = json.loads(response.body)["stuck"]
    assert stuck["loop"] == "sweep"
    assert stuck["age"] > stuck["limit"]
    assert ("loop-stale", stage.relay.id) in stage.reasons
    assert logged_failures.flush(RuntimeError)


def test_a_loop_that_waits_for_ever_is_stuck_too(stage):
    stage.broker.nodes.survey = lambda: stage.broker.when_up().addCallback(lambda _: never)
    never = Deferred()
    stage.turn(30.0)
    assert "collect" in stage.ask("/healthz").body.decode()


def test_replies_that_are_not_read_any_more_are_a_stuck_loop(make_stage, monkeypatch):
    never = Deferred()
    monkeypatch.setattr(Replies, "read", lambda self, batch: never)
    stage = make_stage()
    stage.turn(60.0)
    assert stage.ask("/healthz").status == 200
    stage.push_reply(b"{}")
    stage.turn(30.0)
    response = stage.ask("/healthz")
    assert response.status == 503
    (stuck,) = json.loads(response.body)["stuck"]
    assert stuck["loop"] == "inbox"
    assert ("loop-stale", stage.relay.id) in stage.reasons
    # To wait for Redis is to go on.
    stage.broker.disconnect()
    stage.turn(60.0)
    assert stage.ask("/healthz").status == 200


def test_draining_is_not_ready_and_alive(stage):
    stage.draining = True
    response = stage.ask("/readyz")
    assert (response.status, json.loads(response.body)["reasons"]) == (503, ["draining"])
    assert stage.ask("/healthz").status == 200


class Asked:
    """A deep check under way."""

    def __init__(self, stage):
        self.results = []
        stage.status.probe.check().addCallback(self.results.append)
        stage.turn()

    @property
    def result(self):
        (result,) = self.results
        return result


@pytest.mark.parametrize(("status", "ok"), [(200, True), (404, True), (405, True), (502, False)])
def test_a_request_that_does_nothing_goes_all_the_way(stage, status, ok):
    asked = Asked(stage)
    (message,) = stage.waiting()
    assert (message["method"], message["url"]) == ("OPTIONS", "*")
    stage.turn(0.5)
    stage.work(status=status)
    assert (asked.result.ok, asked.result.status) == (ok, status)
    assert asked.result.seconds == pytest.approx(0.5)


def test_through_http(stage):
    connection_answer = []
    stage.status.probe.check().addCallback(connection_answer.append)
    stage.turn()
    stage.work(status=204)
    # Just now: the same result again, and nothing is sent.
    response = stage.ask("/healthz/deep")
    assert response.status == 200
    assert json.loads(response.body)["status"] == 204
    assert stage.waiting() == []


def test_one_at_a_time(stage):
    first, second = Asked(stage), Asked(stage)
    assert len(stage.waiting()) == 1
    stage.work()
    assert first.result is second.result


def test_whoever_asks_no_more_starts_no_second_one(stage):
    waiter = stage.status.probe.check()
    waiter.addErrback(lambda failure: failure.trap(CancelledError))
    waiter.cancel()
    stage.turn()
    second = Asked(stage)
    assert len(stage.waiting()) == 1
    stage.work()
    assert second.result.ok


def test_nobody_answers(stage):
    asked = Asked(stage)
    stage.turn(BOUND + 0.1)
    assert (asked.result.ok, asked.result.reason) == (False, "no-answer")
    # Nobody has it any more.
    assert stage.waiting() == []
    assert stage.ask("/healthz/deep").status == 503
    stage.turn(2.0)
    again = Asked(stage)
    stage.work()
    assert again.result.ok


def test_a_relay_that_takes_nothing_says_so_at_once(make_stage):
    stage = make_stage(max_held=1)
    stage.hold()
    assert Asked(stage).result.reason == "held-limit"


def test_stopped_under_way(stage):
    asked = Asked(stage)
    stage.status.stop()
    assert asked.result.reason == "no-answer"
