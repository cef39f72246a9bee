import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.wire.body import decode_body, encode_body
from queuerelay.wire.failure import READABLE_BOUND, REDACTED, Kept, encode_failure
from queuerelay.wire.message import Attempt

RESQUE = {"failed_at", "payload", "exception", "error", "backtrace", "worker", "queue"}


def failure(raw=b'{"class":"Job","args":[1],"id":"a-1"}', **fields):
    given = {
        "queue": "mails",
        "worker": "queuerelay.host:17:mails",
        "exception": "ExitStatus",
        "error": "exit status 1",
        "failed_at": 1790000000.9,
    }
    return json.loads(encode_failure(raw=raw, **{**given, **fields}))


def test_all_seven_keys_with_their_types():
    entry = failure(
        backtrace=("line 1", "line 2"),
        attempts=(Attempt(started_at=1.5, run=0.5, error="worker died", worker="host:1"),),
    )
    assert entry == {
        "failed_at": "2026/09/21 14:13:20 UTC",
        "payload": {"class": "Job", "args": [1]},
        "exception": "ExitStatus",
        "error": "exit status 1",
        "backtrace": ["line 1", "line 2"],
        "worker": "queuerelay.host:17:mails",
        "queue": "mails",
        "queuerelay": {
            "id": "a-1",
            "attempts": [
                {"started_at": 1.5, "run": 0.5, "error": "worker died", "worker": "host:1"}
            ],
        },
    }


@given(
    raw=st.binary(), error=st.text(st.characters()), backtrace=st.lists(st.text(st.characters()))
)
def test_always_readable_whatever_failed(raw, error, backtrace):
    entry = failure(raw=raw, error=error, backtrace=backtrace)
    assert entry.keys() == RESQUE | {"queuerelay"}
    assert re.fullmatch(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d UTC", entry["failed_at"])
    assert isinstance(entry["payload"]["class"], str)
    assert isinstance(entry["payload"]["args"], list)
    for key in ("exception", "error", "worker", "queue"):
        assert isinstance(entry[key], str)
    assert all(isinstance(line, str) for line in entry["backtrace"])


def test_half_characters_are_replaced():
    assert failure(error="no file \udcff")["error"] == "no file ?"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"no json",
        b"\xff\x00",
        b"[]",
        b'{"class":"A"}',
        b'{"class":"A","args":"x"}',
        b'{"class":"A","args":["\\ud800"]}',
        b'{"class":"A","args":[' + b"9" * 5000 + b"]}",
        b'{"class":"A","args":[NaN]}',
        b"[" * 10_000 + b"]" * 10_000,
    ],
)
def test_unreadable_message_is_kept_as_text(raw):
    payload = failure(raw=raw)["payload"]
    assert payload["class"] == "Unreadable"
    assert payload["args"] == [raw.decode("utf-8", "backslashreplace")]


def test_unreadable_message_is_kept_as_far_as_its_bound():
    payload = failure(raw=b"x" * (READABLE_BOUND + 1))["payload"]
    assert payload["args"] == ["x" * READABLE_BOUND]


@pytest.mark.parametrize("depth", [300, 600, 1000, 1020])
def test_deep_message_is_kept_one_way_or_the_other(depth):
    raw = b'{"class":"A","args":[' + b"[" * depth + b"]" * depth + b"]}"
    entry = encode_failure(raw=raw, queue="q", worker="w", exception="E", error="e", failed_at=1.0)
    assert b"[" * depth in entry


def test_integers_past_64_bits_survive():
    raw = b'{"class":"A","args":[123456789012345678901234567890]}'
    assert failure(raw=raw)["payload"]["args"] == [123456789012345678901234567890]


@pytest.mark.parametrize("cls", ["1", "null", "[]", "[[" * 400 + "]]" * 400])
def test_class_that_is_no_text(cls):
    payload = failure(raw=f'{{"class":{cls},"args":[1]}}'.encode())["payload"]
    assert payload == {"class": "Unreadable", "args": [1]}


@pytest.mark.parametrize("identity", ["1", "null", "{}"])
def test_id_that_is_no_text(identity):
    entry = failure(raw=f'{{"class":"A","args":[],"id":{identity}}}'.encode())
    assert entry["queuerelay"]["id"] == ""


def a_request(**first):
    given = {"node_id": "a-1", "url": "/", "reply_to": "queuerelay:inbox:a", **first}
    return json.dumps({"class": "RequestProcessor", "args": [given], "id": "a-1"}).encode()


SECRET = [
    *("authorization", "Cookie", "proxy-authorization", "set-cookie", "x-api-key", "X-Auth-Token"),
    *("x-forwarded-access-token", "api_key", "x-session-id", "x-client-secret", "x-own"),
]


@pytest.mark.parametrize("name", SECRET)
def test_of_a_request_no_credentials_are_kept(name):
    headers = [["host", "h"], [name, "s3cret"], ["accept", "*/*"]]
    entry = failure(a_request(headers=headers), kept=Kept(redact=("x-own",)))
    (first,) = entry["payload"]["args"]
    assert first["headers"] == [["host", "h"], [name, REDACTED], ["accept", "*/*"]]
    assert first["url"] == "/"


@pytest.mark.parametrize(
    "headers",
    [{"authorization": "s3cret"}, "authorization: s3cret", [["cookie", "s3cret", 1]], [["cookie"]]],
)
@pytest.mark.parametrize("broken", [False, True])
def test_nor_where_the_request_is_none(headers, broken):
    raw = a_request(headers=headers)
    entry = failure(raw[:-1] if broken and isinstance(headers, dict) else raw)
    assert "s3cret" not in json.dumps(entry)


def test_nor_in_the_text_of_one_that_cannot_be_read():
    raw = a_request(headers=[["authorization", 's3"cret'], ["host", "h.example"]])[:-3]
    entry = failure(raw)
    assert entry["payload"]["class"] == "Unreadable"
    assert "cret" not in json.dumps(entry)
    assert "h.example" in entry["payload"]["args"][0]


def test_the_fields_of_a_job_are_its_own():
    argument = {"headers": [["cookie", "mine"]], "body": "x" * 99}
    raw = json.dumps({"class": "Job", "args": [argument]})
    entry = failure(raw.encode(), kept=Kept(max_body=10))
    assert entry["payload"]["args"] == json.loads(raw)["args"]


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (b"x" * 10, b"x" * 10),
        (b"x" * 11, b"x" * 10),
        ("ä".encode() * 10, "ä".encode() * 5),
        (("x" + "ä" * 10).encode(), ("x" + "ä" * 4).encode()),
        (b"\xff\x00" * 10, b"\xff\x00" * 5),
    ],
)
def test_of_a_body_the_beginning_is_kept_and_how_long_it_was(body, left):
    text, encoding = encode_body(body)
    raw = a_request(body=text, body_encoding=encoding)
    (first,) = failure(raw, kept=Kept(max_body=10))["payload"]["args"]
    assert decode_body(first["body"], first["body_encoding"]) == left
    assert first.get("body_size") == (len(body) if left != body else None)
