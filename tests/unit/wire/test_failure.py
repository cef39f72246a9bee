import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.wire.failure import READABLE_BOUND, encode_failure
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
