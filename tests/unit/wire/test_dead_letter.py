import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.wire.dead_letter import (
    SHOWN,
    Excerpt,
    Requeue,
    decode_entry,
    entry_id,
    message_id,
    names_of,
    requeue,
    text_of,
    was_retried,
)
from queuerelay.wire.failure import encode_failure
from queuerelay.wire.message import Attempt

PAYLOAD = {"class": "Job", "args": [1]}


def written(raw, queue="mails"):
    return encode_failure(
        raw=raw, queue=queue, worker="w:1:q", exception="E", error="e", failed_at=1.0
    )


def entry(**fields):
    return json.dumps({"queue": "mails", "payload": PAYLOAD, **fields}).encode()


def test_a_message_comes_back_as_it_was_but_for_its_age():
    args = b'[{"n":36893488147419103232,"t":"\xc3\xbc"}]'
    raw = b'{"class":"Job","args":' + args + b',"queue":"mails","id":"a-1","queue_time":1.5}'
    back = requeue(written(raw))
    assert back == Requeue(queue="mails", message=raw.replace(b',"queue_time":1.5', b""))


def test_php_resque_keeps_its_id_in_the_payload():
    raw = entry(payload={**PAYLOAD, "id": "php-1", "queue_time": 1.5, "prefix": "p"})
    assert message_id(decode_entry(raw)) == "php-1"
    assert json.loads(requeue(raw).message) == {
        **PAYLOAD,
        "prefix": "p",
        "queue": "mails",
        "id": "php-1",
    }


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not JSON",
        b"[1]",
        b"\xff",
        b"[" * 100_000,
        entry(queue=None),
        entry(queue=""),
        entry(queue=["q"]),
        entry(payload=None),
        entry(payload="x"),
        entry(payload={"class": "Job"}),
        entry(payload={"class": "", "args": []}),
        entry(payload={"class": 1, "args": []}),
        entry(payload={"class": "Job", "args": {}}),
        entry(payload={"class": "Job", "args": [float("nan")]}),
        written(b"not a message"),
    ],
)
def test_what_has_no_message_to_run(raw):
    assert requeue(raw) is None


@given(st.binary(max_size=200))
def test_any_message_that_failed_can_be_looked_at(raw):
    one = written(raw)
    assert decode_entry(one) is not None
    assert len(entry_id(one)) == 40
    back = requeue(one)
    assert back is None or json.loads(back.message)["queue"] == "mails"


@given(st.binary(max_size=200))
def test_any_bytes_can_be_looked_at(raw):
    assert isinstance(message_id(decode_entry(raw)), str)
    assert was_retried(raw) is False
    requeue(raw)


def test_names():
    raw = written(b'{"class":"Job","args":["other"],"id":"a-1"}')
    own = entry_id(raw)
    assert names_of(raw, {own, "a-1", "other", ""}) == {own, "a-1"}
    assert names_of(raw, {"other", "a", "", "\ud800"}) == set()
    assert names_of(entry(), {""}) == set()
    assert names_of(b"\xff", {entry_id(b"\xff")}) == {entry_id(b"\xff")}
    # Whoever wrote it may have escaped it.
    escaped = rb'{"queue":"q","payload":{"class":"J","args":[{"id":"x"}],"id" : "z\u00fc\/1"}}'
    assert names_of(escaped, {"zü/1", "x"}) == {"zü/1"}


def test_a_thousand_names_are_looked_for_as_quickly_as_one():
    raw = written(b'{"class":"Job","args":["other"],"id":"a-1"}')

    class Names(set):
        def __iter__(self):
            raise AssertionError("each name is looked at for each entry")

    assert names_of(raw, Names({"a-1", "other"})) == {"a-1"}
    assert names_of(raw, Names({"other"})) == set()


@pytest.mark.parametrize(
    ("raw", "retried"),
    [
        (entry(), False),
        (entry(retried_at="2026/11/22 10:20:30"), True),
        (entry(retried_at=None), False),
        (entry(payload={**PAYLOAD, "retried_at": "x"}), False),
        (b'"retried_at"', False),
    ],
)
def test_what_resque_web_has_retried(raw, retried):
    assert was_retried(raw) is retried


def test_a_request_is_not_run_again():
    first = {"node_id": "a-1", "url": "/", "reply_to": "queuerelay:inbox:a"}
    raw = json.dumps({"class": "RequestProcessor", "args": [first], "id": "a-1"}).encode()
    assert requeue(written(raw)) is None
    assert requeue(written(raw), {"class": "Job", "args": []}) is None


LARGE = [{"text": "x" * SHOWN, "exception": "mine", "error": ["a", {"queue": "theirs"}]}]
NODE = ("worker", "queue", "payload", "exception", "error", "backtrace", "failed_at")


@pytest.mark.parametrize("order", [None, NODE], ids=["as Ruby and we write it", "node-resque"])
def test_of_a_large_entry_its_beginning_and_end_are_enough(order):
    ours = json.loads(
        encode_failure(
            raw=json.dumps({"class": "Job", "args": LARGE, "id": "a-1"}).encode(),
            queue="mails",
            worker="w:1:q",
            exception="E",
            error="e",
            failed_at=1790000000.0,
            backtrace=["x" * 8000],
            attempts=[Attempt(started_at=1.0, run=2.0, error="again", stderr="y" * 8000)] * 3,
        )
    )
    if order is not None:
        ours = {key: ours[key] for key in order}
    raw = json.dumps(ours).encode()
    found = Excerpt.of(raw)
    assert (found.size, len(found.head) + len(found.tail)) == (len(raw), SHOWN)
    assert found.decode() == {**ours, "payload": {"class": "Job"}}
    assert entry_id(raw) == found.id != entry_id(raw.replace(b"w:1:q", b"w:2:q"))


@given(st.binary(min_size=SHOWN // 64), st.binary())
def test_whatever_it_is_an_excerpt_can_be_read(head, tail):
    assert isinstance(
        Excerpt(10**6, b'{"failed_at":' + head, tail + b'","queue":"q"}').decode(), dict
    )


#: What careless producers write.
UNREAD = [
    b'{"class":"Mail","args":[{"preview":"hello \\ud83d"}]}',
    b'\xef\xbb\xbf{"class":"Mail","args":[1]}',
    b'{"class":"Mail","args":[{"x":NaN}]}',
    b'{"class":"Mail","args":[Infinity]}',
]


@pytest.mark.parametrize("raw", UNREAD)
def test_what_could_not_be_read_has_its_text_and_comes_back_mended(raw):
    letter = written(raw)
    assert text_of(decode_entry(letter)) == raw.decode()
    assert requeue(letter) is None
    assert requeue(letter, {"args": [2]}) is None
    back = requeue(letter, {"class": "Mail", "args": [2]})
    assert back.queue == "mails"
    assert json.loads(back.message) == {"class": "Mail", "args": [2], "queue": "mails"}


def test_what_could_be_read_can_be_mended_too_and_shows_no_text():
    letter = written(b'{"class":"Mail","args":[1],"id":"a"}')
    assert text_of(decode_entry(letter)) == ""
    back = requeue(letter, {"args": ["x"]})
    assert json.loads(back.message) == {
        "class": "Mail",
        "args": ["x"],
        "queue": "mails",
        "id": "a",
    }


def test_nobody_mends_a_request_or_makes_one():
    request = b'{"class":"RequestProcessor","args":[{"cookie":"x\\ud83d"}]}'
    assert text_of(decode_entry(written(request))) == ""
    mended = {"class": "RequestProcessor", "args": [{"remote_addr": "127.0.0.1"}]}
    assert requeue(written(UNREAD[0]), mended) is None
    plain = written(b'{"class":"RequestProcessor","args":[{}]}')
    assert requeue(plain, {"args": [{"remote_addr": "127.0.0.1"}]}) is None
