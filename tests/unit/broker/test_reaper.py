"""What becomes of messages whose worker died."""

import orjson
import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from queuerelay.broker import reaper as module
from queuerelay.broker.reaper import REST, Reaper
from queuerelay.errors import Refused
from queuerelay.testing import MemoryBroker
from queuerelay.wire.message import decode_message, encode_request
from queuerelay.wire.reply import decode_reply
from tests.unit.broker.contract import KEYS, claim_one

NOW = 1790000000.0
ID = "3f9c21aa-" + "0" * 32


def request(method="GET", deadline=NOW + 60):
    return encode_request(
        queue="q",
        node_id=ID,
        url="/",
        method=method,
        http_version="1.1",
        headers=[],
        body=b"",
        remote_addr="",
        scheme="http",
        reply_to=KEYS.inbox("3f9c21aa"),
        accepted_at=NOW - 5,
        deadline=deadline,
    )


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def broker(clock):
    broker = MemoryBroker(clock=clock, wall_clock=lambda: NOW)
    broker.start()
    clock.advance(0)
    return broker


@pytest.fixture
def reaper(broker):
    return Reaper(broker, ["q", "r"])


def result(clock, coroutine):
    got = []
    Deferred.fromCoroutine(coroutine).addBoth(got.append)
    clock.advance(0)
    assert got, "no result yet"
    if not isinstance(got[0], int):
        got[0].raiseException()
    return got[0]


def die_with(clock, broker, *messages, queue="q"):
    """A worker takes them, and is heard of no more."""
    broker.queues.push(queue, messages)
    for _ in messages:
        claim_one(broker, [queue], holder="web1:77", lease=10.0)
    clock.advance(11)
    assert broker.messages(queue) == []


def replies(broker):
    return [decode_reply(raw) for raw in broker.store.items(KEYS.inbox("3f9c21aa"))]


def test_nothing_to_do(clock, broker, reaper):
    assert result(clock, reaper.reap()) == 0


def test_a_living_worker_is_left_alone(clock, broker, reaper):
    broker.queues.push("q", [request()])
    claim_one(broker, ["q"], holder="h", lease=10.0)
    clock.advance(9)
    assert result(clock, reaper.reap()) == 0
    assert len(broker.inflight("q")) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_what_may_run_twice_is_tried_again(clock, broker, reaper, said, method):
    die_with(clock, broker, request(method))
    assert result(clock, reaper.reap()) == 1
    (again,) = broker.messages("q")
    (attempt,) = decode_message(again).attempts
    assert (attempt.worker, attempt.error) == ("web1:77", "worker died")
    assert broker.inflight("q") == []
    assert broker.store.dead_letters == []
    assert said == [("warn", "worker web1:77 died with a message of queue q: retry")]


def test_the_third_death_fails_it_and_answers_the_client(clock, broker, reaper):
    message = request()
    for _ in range(2):
        die_with(clock, broker, message)
        assert result(clock, reaper.reap()) == 1
        (message,) = broker.messages("q")
        broker.queues.take_off("q", [message])
    die_with(clock, broker, message)
    assert result(clock, reaper.reap()) == 1
    assert broker.messages("q") == []
    (entry,) = map(orjson.loads, broker.store.dead_letters)
    assert entry["exception"] == "WorkerDied"
    assert "tried 3 times" in entry["error"]
    assert len(entry["queuerelay"]["attempts"]) == 3
    (reply,) = replies(broker)
    assert (reply.node_id, reply.status) == (ID, 502)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_what_may_not_run_twice_fails_at_once(clock, broker, reaper, method):
    die_with(clock, broker, request(method))
    assert result(clock, reaper.reap()) == 1
    assert broker.messages("q") == []
    assert "not idempotent" in orjson.loads(broker.store.dead_letters[0])["error"]
    assert [reply.status for reply in replies(broker)] == [502]


def test_what_nobody_awaits_any_more_is_dropped(clock, broker, reaper):
    die_with(clock, broker, request("POST", deadline=NOW - 1))
    assert result(clock, reaper.reap()) == 1
    assert (broker.messages("q"), broker.inflight("q"), broker.store.dead_letters) == ([], [], [])
    assert replies(broker) == []


def test_what_cannot_be_read_is_kept_among_the_failures(clock, broker, reaper):
    die_with(clock, broker, b"\xffrubbish")
    assert result(clock, reaper.reap()) == 1
    assert orjson.loads(broker.store.dead_letters[0])["exception"] == "MessageError"


def test_a_job_is_tried_again(clock, broker, reaper):
    die_with(clock, broker, b'{"class":"Job","args":[]}', queue="r")
    assert result(clock, reaper.reap()) == 1
    assert len(broker.messages("r")) == 1


def test_all_that_are_found_are_settled(clock, broker, reaper):
    die_with(clock, broker, request(), request("POST"), b"rubbish")
    die_with(clock, broker, request(), queue="r")
    assert result(clock, reaper.reap()) == 4
    assert len(broker.store.dead_letters) == 2


def test_two_reapers_settle_each_message_once(clock, broker, reaper):
    other = MemoryBroker(clock=clock, store=broker.store)
    other.start()
    clock.advance(0)
    second = Reaper(other, ["q"])
    die_with(clock, broker, request("POST"), request("POST"))
    both = [Deferred.fromCoroutine(one.reap()) for one in (reaper, second)]
    clock.advance(0)
    assert sum(one.result for one in both) == 2
    assert len(broker.store.dead_letters) == 2
    assert len(replies(broker)) == 2


def test_one_bad_message_keeps_nobody_behind_it_from_their_turn(
    clock, broker, reaper, monkeypatch, logged_failures
):
    original = module.recover

    def recover(raw, **options):
        if raw == b"poison":
            raise ValueError("poison")
        return original(raw, **options)

    monkeypatch.setattr(module, "recover", recover)
    die_with(clock, broker, b"poison", request("POST"))
    assert result(clock, reaper.reap()) == 1
    assert len(broker.store.dead_letters) == 1
    assert [claim.message for claim in broker.inflight("q")] == [b"poison"]
    assert len(logged_failures.flush(ValueError)) == 1


def test_a_new_connection_gives_living_workers_time_to_renew(clock, broker, reaper):
    die_with(clock, broker, request("POST"))
    broker.disconnect()
    broker.reconnect()
    clock.advance(0)
    for _ in range(REST):
        assert result(clock, reaper.reap()) == 0
    assert broker.store.dead_letters == []
    assert result(clock, reaper.reap()) == 1


def test_what_is_under_way_when_the_connection_is_lost_is_settled_later(clock, broker, reaper):
    die_with(clock, broker, request("POST"))
    reaping = Deferred.fromCoroutine(reaper.reap())
    broker.disconnect()
    failed = []
    reaping.addErrback(failed.append)
    assert len(failed) == 1
    clock.advance(31)
    broker.reconnect()
    clock.advance(0)
    for _ in range(REST):
        result(clock, reaper.reap())
    assert result(clock, reaper.reap()) == 1
    assert len(broker.store.dead_letters) == 1


def test_a_queue_that_redis_refuses_costs_no_other(clock, broker, reaper, monkeypatch):
    die_with(clock, broker, request(), queue="r")
    reap = broker.leases.reap

    def refusing(queue, **how):
        return fail(Refused("WRONGTYPE")) if queue == "q" else reap(queue, **how)

    monkeypatch.setattr(broker.leases, "reap", refusing)
    with pytest.raises(Refused):
        result(clock, reaper.reap())
    assert len(broker.messages("r")) == 1
