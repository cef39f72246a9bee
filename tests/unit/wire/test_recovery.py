import json

import orjson
import pytest

from queuerelay.errors import MessageError
from queuerelay.wire.failure import REDACTED, Kept
from queuerelay.wire.keys import Keys
from queuerelay.wire.message import Attempt, decode_message, with_attempt
from queuerelay.wire.recovery import (
    Drop,
    Fail,
    Retry,
    failed,
    recover,
    unanswerable,
    unreadable,
)
from queuerelay.wire.reply import decode_reply

KEYS = Keys()
INBOX = "queuerelay:inbox:3f9c21aa"
NODE_ID = "3f9c21aa-" + "0123456789abcdef" * 2
LOST = Attempt(started_at=100.0, run=5.0, error="worker died", worker="host:7")
JOB = b'{"class":"Job","args":[1]}'


def request(method="GET", tried=0, **first):
    args = [{"node_id": NODE_ID, "url": "/", "method": method, "reply_to": INBOX, **first}]
    raw = orjson.dumps({"class": "RequestProcessor", "args": args, "id": NODE_ID})
    for _ in range(tried):
        raw = with_attempt(raw, LOST)
    return raw


def verdict(raw, **changed):
    given = {"keys": KEYS, "queue": "q", "worker": "host:7", "since": 100.0, "now": 105.0}
    return recover(raw, **{**given, **changed})


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_idempotent_request_goes_back_with_the_attempt_noted(method):
    found = verdict(request(method))
    assert found == Retry(message=with_attempt(request(method), LOST))
    assert decode_message(found.message).attempts == (LOST,)


@pytest.mark.parametrize("method", ["POST", "PATCH", "MYSTERY"])
def test_other_request_is_answered_502_and_never_tried_again(method):
    found = verdict(request(method))
    assert isinstance(found, Fail)
    assert found.reply_to == INBOX
    assert found.reply is not None
    reply = decode_reply(found.reply)
    assert (reply.node_id, reply.status) == (NODE_ID, 502)
    entry = json.loads(found.entry)
    assert entry["exception"] == "WorkerDied"
    assert entry["error"].endswith("; not idempotent, so not tried again")
    assert entry["payload"]["args"][0]["node_id"] == NODE_ID
    assert entry["worker"] == "queuerelay.host:7:q"
    assert entry["queue"] == "q"
    assert len(entry["queuerelay"]["attempts"]) == 1


def test_three_tries_in_all():
    assert isinstance(verdict(request(tried=0)), Retry)
    assert isinstance(verdict(request(tried=1)), Retry)
    found = verdict(request(tried=2))
    assert isinstance(found, Fail)
    assert found.reply_to == INBOX
    entry = json.loads(found.entry)
    assert entry["error"].endswith("; tried 3 times")
    assert len(entry["queuerelay"]["attempts"]) == 3


def test_tries_are_an_argument():
    assert isinstance(verdict(request(tried=4), tries=6), Retry)
    assert isinstance(verdict(request(tried=5), tries=6), Fail)
    assert isinstance(verdict(request(), tries=1), Fail)


def test_job_goes_back_and_then_fails_without_a_reply():
    assert verdict(JOB) == Retry(message=with_attempt(JOB, LOST))
    found = verdict(with_attempt(with_attempt(JOB, LOST), LOST))
    assert isinstance(found, Fail)
    assert (found.reply_to, found.reply) == (None, None)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("tried", [0, 2])
def test_nobody_waits_past_the_deadline(method, tried):
    assert verdict(request(method, tried, deadline=105.0)) == Drop()
    assert verdict(request(method, tried, deadline=105.001)) != Drop()


@pytest.mark.parametrize(
    "raw",
    [b"", b"\xff", b"{}", request(method="G T", reply_to=""), b"[" * 10_000],
)
def test_unreadable_message_fails_at_once(raw):
    found = verdict(raw)
    assert isinstance(found, Fail)
    assert (found.reply_to, found.reply) == (None, None)
    entry = json.loads(found.entry)
    assert entry["exception"] == "MessageError"
    assert entry["error"].startswith("a message on a queue cannot be understood: ")


def test_unreadable_request_is_answered_where_it_says_to_whom():
    raw = b'{"class":"RequestProcessor","args":[{"node_id":"a-1","reply_to":"queuerelay:inbox:a"}]}'
    with pytest.raises(MessageError) as caught:
        decode_message(raw)
    verdict = unreadable(raw, keys=KEYS, queue="q", worker="h:1", error=caught.value, now=100.0)
    assert verdict.reply_to == KEYS.inbox("a")
    reply = decode_reply(verdict.reply)
    assert (reply.node_id, reply.status) == ("a-1", 502)


@pytest.mark.parametrize("depth", [300, 600, 1000, 1018])
def test_deep_message_gets_a_verdict(depth):
    """orjson reads 1024 levels and writes 254: what it cannot write must not stop a reaper."""
    deep = b"[" * depth + b"]" * depth
    assert isinstance(verdict(b'{"class":"Job","args":[' + deep + b"]}"), Retry | Fail)
    found = verdict(request()[:-1] + b',"extra":' + deep + b"}")
    assert isinstance(found, Retry | Fail)
    if isinstance(found, Fail):
        assert found.reply_to == INBOX
        assert "not tried again: " in json.loads(found.entry)["error"]


def test_clock_that_went_back_is_no_negative_run():
    found = verdict(request(), since=100.0, now=99.0)
    assert isinstance(found, Retry)
    assert decode_message(found.message).attempts[0].run == 0.0


def test_unknown_worker_still_has_three_parts():
    found = unreadable(b"", keys=KEYS, queue="q", worker="", error=MessageError("x"), now=1.0)
    assert json.loads(found.entry)["worker"].split(":") == ["queuerelay.unknown", "0", "q"]


def test_failure_of_a_job_says_what_it_was_told():
    found = failed(
        JOB,
        decode_message(JOB),
        reply_to=None,
        queue="q",
        worker="host:7",
        exception="NotARequest",
        error="why",
        now=1.0,
        attempts=(LOST,),
    )
    entry = json.loads(found.entry)
    assert (entry["exception"], entry["error"]) == ("NotARequest", "why")
    assert entry["failed_at"] == "1970/01/01 00:00:01 UTC"
    assert found.reply is None


@pytest.mark.parametrize(
    "raw",
    [
        request(reply_to="queuerelay:gate"),
        request("POST", reply_to="queuerelay:inbox:other"),
        b'{"class":"J","args":[{"reply_to":"resque:failed","node_id":"x"}]}',
    ],
)
def test_what_would_be_answered_elsewhere_is_a_dead_letter_at_once(raw):
    found = verdict(raw)
    assert isinstance(found, Fail)
    assert (found.reply_to, found.reply) == (None, None)
    assert "reply_to: " in json.loads(found.entry)["error"]


def test_of_a_request_whose_reply_nobody_can_get_as_much_is_kept_as_of_others():
    raw = request(headers=[["x-tenant", "acme"], ["accept", "a/b"]], body="x" * 100)
    kept = Kept(redact=("x-tenant",), max_body=10)
    found = unanswerable(raw, queue="q", worker="w", error="WRONGTYPE", now=1.0, kept=kept)
    (first,) = json.loads(found.entry)["payload"]["args"]
    assert first["headers"] == [["x-tenant", REDACTED], ["accept", "a/b"]]
    assert "x" * 11 not in json.dumps(first)
