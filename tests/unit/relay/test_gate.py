"""Paused queues: what the relay keeps for itself, for how long, and how it lets it go."""

import json

import orjson
import pytest
from twisted.internet.defer import Deferred, fail

from queuerelay.errors import NotConnected, QueueFull, Refused, TooManyHeld
from queuerelay.relay import outbox
from queuerelay.relay.held import HeldState
from tests.unit.relay.pushes import watch
from tests.unit.relay.stage import FakeClient, to


def pause(stage, queue="requests"):
    """Somebody pauses it, and all have had time to see."""
    stage.broker.store.pause(queue, "ops")
    stage.turn(0.55)


def resume(stage, queue="requests"):
    stage.broker.store.resume(queue)
    stage.turn(0.55)


def urls(stage, queue="requests"):
    return [one["url"] for one in stage.waiting(queue)]


@pytest.fixture
def pushes(stage, monkeypatch):
    return watch(stage, monkeypatch)


def test_a_paused_queue_gets_nothing_and_everything_in_order_when_it_is_resumed(stage, pushes):
    stage.hold(url="/before")
    stage.turn()
    pause(stage)
    clients = []
    for number in range(5):
        clients.append(FakeClient())
        held = stage.hold(clients[-1], url=f"/{number}")
        stage.turn(0.3)
        assert held.state is HeldState.GATED
    assert pushes == [("requests", ["/before"])]
    # What was on the queue before stays there.
    assert urls(stage) == ["/before"]
    stage.broker.store.resume("requests")
    stage.hold(url="/last")
    stage.turn(0.55)
    stage.hold(url="/after")
    stage.turn()
    assert urls(stage) == ["/before", "/0", "/1", "/2", "/3", "/4", "/last", "/after"]
    stage.take()
    for client in clients:
        stage.reply(stage.take())
        assert client.status == 200


def test_other_queues_go_on(make_stage):
    stage = make_stage(routes=(to("high", path="/h"),))
    pause(stage, "high")
    stage.hold(url="/h1")
    stage.hold(url="/1")
    stage.turn()
    assert urls(stage) == ["/1"]
    assert urls(stage, "high") == []
    resume(stage, "high")
    assert urls(stage, "high") == ["/h1"]


# Promise 6
def test_promise_6_at_its_deadline_a_request_that_was_kept_is_503_with_retry_after(stage):
    pause(stage)
    stage.hold(client := FakeClient())
    stage.turn(59.9)
    assert client.told == []
    stage.turn(0.5)
    assert (client.status, client.told[0].reason) == (503, "deadline-queued")
    assert client.told[0].retry_after is not None
    resume(stage)
    assert urls(stage) == []


# Promise 6
def test_promise_6_what_is_kept_is_bounded_and_nothing_remains_of_what_has_ended(make_stage):
    stage = make_stage(max_held=5)
    pause(stage)
    helds = [stage.hold() for _ in range(5)]
    with pytest.raises(TooManyHeld):
        stage.hold()
    for held in helds[:3]:
        stage.relay.gone(held)
    assert stage.relay.snapshot().gated == {"requests": 2}
    stage.turn(0.3)
    assert stage.relay._outbox._pending["requests"] == helds[3:]
    stage.hold(url="/new")
    resume(stage)
    assert urls(stage) == ["/", "/", "/new"]
    # Nobody had to be told of those that left.
    assert stage.counter("work_saved") == 0


def test_what_waits_in_memory_counts_for_the_queues_limit(make_stage):
    stage = make_stage(max_queue=4)
    for _ in range(2):
        stage.hold()
    stage.turn()
    pause(stage)
    for _ in range(2):
        stage.hold()
    with pytest.raises(QueueFull):
        stage.hold()
    stage.turn(1.1)
    with pytest.raises(QueueFull):
        stage.hold()
    resume(stage)
    assert len(urls(stage)) == 4


def test_a_client_that_leaves_while_its_queue_is_paused_is_simply_gone(stage, pushes):
    pause(stage)
    held = stage.hold()
    stage.relay.gone(held)
    resume(stage)
    assert pushes == []
    assert stage.counter("gone") == 1


def test_draining_answers_those_who_wait(make_stage):
    stage = make_stage(drain=5.0)
    pause(stage)
    stage.hold(client := FakeClient())
    drained = stage.relay.drain()
    stage.turn(5.1)
    assert (client.status, client.told[0].reason) == (503, "draining")
    assert drained.called


# How it goes out


@pytest.fixture
def slow(stage, monkeypatch):
    """Pushes are done at once, and answered when the test fires what stands here."""
    answers = []

    def push(queue, messages):
        stage.broker.store.push(queue, messages)
        answers.append(Deferred())
        return answers[-1]

    monkeypatch.setattr(stage.broker.queues, "push", push)
    return answers


def test_what_has_waited_goes_out_in_steps_each_after_the_other_was_answered(
    stage, slow, monkeypatch
):
    monkeypatch.setattr(outbox, "RELEASE", 10)
    pause(stage)
    for number in range(35):
        stage.hold(url=f"/{number}")
    resume(stage)
    assert urls(stage) == [f"/{n}" for n in range(10)]
    # What comes now stands behind.
    stage.hold(url="/new")
    stage.turn(1)
    for number, so_far in enumerate([10, 20, 30, 36]):
        assert len(slow) == number + 1
        assert len(urls(stage)) == so_far
        slow[-1].callback(so_far)
        stage.turn()
    assert urls(stage) == [*[f"/{n}" for n in range(35)], "/new"]
    # From here on it is as ever: what comes in a turn goes out, and waits for nobody.
    for url in ("/a", "/b"):
        stage.hold(url=url)
        stage.turn()
    assert urls(stage)[-2:] == ["/a", "/b"]


def test_a_step_is_bounded_in_bytes_and_one_message_may_be_larger(stage, pushes, monkeypatch):
    monkeypatch.setattr(outbox, "RELEASE_BYTES", 10_000)
    pause(stage)
    for size in (4000, 4000, 4000, 50_000, 10, 10):
        stage.hold(url=f"/{size}", method="POST", body=b"x" * size)
    resume(stage)
    assert [batch for _, batch in pushes] == [
        ["/4000", "/4000"],
        ["/4000"],
        ["/50000"],
        ["/10", "/10"],
    ]


def test_a_queue_that_is_paused_again_halfway_keeps_the_rest(stage, slow, monkeypatch):
    monkeypatch.setattr(outbox, "RELEASE", 10)
    pause(stage)
    for number in range(30):
        stage.hold(url=f"/{number}")
    resume(stage)
    pause(stage)
    slow.pop().callback(10)
    stage.turn(1)
    assert slow == []
    assert stage.relay.snapshot().gated == {"requests": 20}
    resume(stage)
    # Paused and resumed within one step: it goes on, and not twice.
    pause(stage)
    resume(stage)
    assert len(slow) == 1
    while slow:
        slow.pop().callback(0)
        stage.turn()
    assert urls(stage) == [f"/{n}" for n in range(30)]


def test_what_redis_refuses_of_it_is_503(stage, monkeypatch):
    monkeypatch.setattr(outbox, "RELEASE", 2)
    pause(stage)
    clients = [FakeClient() for _ in range(5)]
    for client in clients:
        stage.hold(client)
    stage.broker.refuse("OOM command not allowed")
    resume(stage)
    assert [client.status for client in clients] == [503] * 5
    stage.broker.refuse(None)


def test_a_connection_that_is_lost_halfway(stage, pushes, monkeypatch):
    monkeypatch.setattr(outbox, "RELEASE", 10)
    pause(stage)
    for number in range(30):
        stage.hold(url=f"/{number}")
    stage.broker.drop_next_push(applied=True, forgotten=True)
    resume(stage)
    # The first ten came twice, as nobody knew; the others once and in order.
    assert urls(stage) == [f"/{n}" for n in [*range(10), *range(10), *range(10, 30)]]
    assert stage.relay.snapshot().gated == {"requests": 0}


def test_what_could_not_be_sent_waits_for_the_next_connection(stage, monkeypatch):
    pause(stage)
    for number in range(3):
        stage.hold(url=f"/{number}")
    push, tried = stage.broker.queues.push, []

    def lost(queue, messages):
        tried.append(len(messages))
        assert len(tried) < 10, "again and again"
        return fail(NotConnected("gone"))

    monkeypatch.setattr(stage.broker.queues, "push", lost)
    resume(stage)
    assert tried == [3]
    monkeypatch.setattr(stage.broker.queues, "push", push)
    stage.broker.disconnect()
    stage.broker.reconnect()
    stage.turn()
    assert urls(stage) == ["/0", "/1", "/2"]


# Redis away


def test_nothing_is_pushed_before_the_gate_was_read(stage, pushes, monkeypatch):
    """Of a relay that comes up with requests, and one that comes back."""
    asked = []
    gates = stage.broker.gate.look
    stage.broker.disconnect()
    for number in range(3):
        stage.hold(url=f"/{number}")
    stage.turn(0.2)

    def slowly(queues):
        asked.append(Deferred())
        return asked[-1]

    monkeypatch.setattr(stage.broker.gate, "look", slowly)
    stage.broker.reconnect()
    stage.turn(0.2)
    stage.hold(url="/3")
    stage.turn(0.1)
    assert stage.broker.is_up
    assert asked
    assert pushes == []
    monkeypatch.setattr(stage.broker.gate, "look", gates)
    asked[0].callback({})
    stage.turn()
    assert pushes == [("requests", ["/0", "/1", "/2", "/3"])]
    for one in asked[1:]:
        one.callback({})


def test_a_queue_that_was_paused_while_the_relay_was_cut_off(stage, pushes):
    stage.broker.disconnect()
    stage.hold(client := FakeClient(), url="/0")
    stage.broker.store.pause("requests", "ops")
    stage.broker.reconnect()
    stage.turn(5)
    assert pushes == []
    assert client.told == []
    resume(stage)
    assert pushes == [("requests", ["/0"])]


def test_what_is_kept_outlasts_an_outage_and_what_was_paused_stays_so(stage, pushes):
    pause(stage)
    clients = [FakeClient(), FakeClient()]
    stage.hold(clients[0], url="/0")
    stage.broker.disconnect()
    stage.turn(5)
    stage.hold(clients[1], url="/1")
    stage.turn(10)
    # Longer than anybody waits for Redis; these wait for something else.
    assert [client.told for client in clients] == [[], []]
    stage.broker.reconnect()
    stage.turn(1)
    assert pushes == []
    resume(stage)
    assert pushes == [("requests", ["/0", "/1"])]


def test_a_queue_that_was_resumed_during_the_outage(stage, pushes):
    pause(stage)
    stage.hold(client := FakeClient(), url="/0")
    stage.broker.disconnect()
    stage.turn(5)
    stage.broker.store.resume("requests")
    stage.turn(5)
    stage.broker.reconnect()
    stage.turn()
    assert pushes == [("requests", ["/0"])]
    assert client.told == []


def test_a_relay_that_cannot_read_the_gate_says_so_within_two_seconds(stage, pushes, monkeypatch):
    stage.broker.disconnect()
    gates = stage.broker.gate.look
    monkeypatch.setattr(
        stage.broker.gate, "look", lambda queues: fail(Refused("WRONGTYPE no hash"))
    )
    stage.broker.reconnect()
    stage.hold(client := FakeClient())
    stage.turn(2.4)
    assert (client.status, client.told[0].reason) == (503, "redis-unavailable")
    assert "what is paused" in str(client.told[0])
    assert pushes == []
    monkeypatch.setattr(stage.broker.gate, "look", gates)
    stage.hold(url="/well")
    stage.turn(0.6)
    assert pushes == [("requests", ["/well"])]


def test_a_gate_that_cannot_be_read_later_stays_as_it_was(stage, pushes):
    pause(stage)
    stage.broker.refuse("BUSY a script")
    stage.hold(client := FakeClient(), url="/0")
    stage.turn(5)
    assert client.told == []
    stage.broker.refuse(None)
    resume(stage)
    assert pushes == [("requests", ["/0"])]


def test_a_bug_of_ours_while_the_gate_is_read_is_told(stage, monkeypatch, logged_failures):
    gates = stage.broker.gate.look
    monkeypatch.setattr(stage.broker.gate, "look", lambda queues: fail(TypeError("bug")))
    stage.broker.disconnect()
    stage.broker.reconnect()
    stage.turn()
    monkeypatch.setattr(stage.broker.gate, "look", gates)
    stage.turn(0.6)
    assert logged_failures.flush(TypeError)
    stage.hold()
    stage.turn()
    assert len(stage.waiting()) == 1


# A push of unknown outcome


def test_what_may_be_on_the_queue_is_pushed_again_only_when_it_is_resumed(stage, pushes):
    stage.broker.drop_next_push(applied=False, forgotten=True)
    stage.hold(client := FakeClient())
    stage.broker.store.pause("requests", "ops")
    stage.turn(5)
    assert len(pushes) == 1
    resume(stage)
    assert len(pushes) == 2
    stage.reply(stage.take())
    assert client.status == 200


def test_a_push_of_unknown_outcome_that_ended_during_the_pause_is_forgotten(stage, pushes):
    stage.broker.drop_next_push(applied=False, forgotten=True)
    held = stage.hold()
    stage.broker.store.pause("requests", "ops")
    stage.turn(1)
    stage.relay.gone(held)
    stage.turn(0.5)
    assert not any(stage.relay._outbox._uncertain.values())
    resume(stage)
    assert len(pushes) == 1


# What it tells


def test_snapshot_and_beat(make_stage, log_lines):
    stage = make_stage(routes=(to("high", path="/h"),))
    assert stage.relay.snapshot().gates == {}
    assert stage.relay.snapshot().gated == {"high": 0, "requests": 0}
    pause(stage, "high")
    stage.broker.store.pause("not ours", "ops")
    for url in ("/h1", "/h2", "/1"):
        stage.hold(url=url)
    stage.turn(2.1)
    snapshot = stage.relay.snapshot()
    assert snapshot.gated == {"high": 2, "requests": 0}
    assert snapshot.gates["high"].by == "ops"
    assert {*snapshot.gates} == {"high"}
    assert snapshot.held == 3
    told = orjson.loads(stage.broker.store.nodes[stage.relay.id].snapshot)
    assert told["gates"] == {"high": {"since": snapshot.gates["high"].since, "by": "ops"}}
    assert told["queues"]["high"]["gated"] == 2
    resume(stage, "high")
    assert stage.relay.snapshot().gates == {}
    lines = [line for line in log_lines() if "queue high" in line]
    assert lines == [
        "queue high is paused by ops: its requests wait here",
        "queue high is resumed",
    ]


def test_a_look_that_finds_nothing_new_pushes_nothing_early(stage, pushes, monkeypatch):
    # All of one turn goes out together, whatever the gate's loop does in between.
    stage.hold(url="/0")
    stage.relay._gate._seen({})
    assert pushes == []
    stage.turn()
    assert json.loads(stage.broker.messages("requests")[0])["args"][0]["url"] == "/0"
