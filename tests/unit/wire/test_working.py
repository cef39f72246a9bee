import json

import pytest

from queuerelay.wire.working import SHOWN_BOUND, encode_working, iso_8601


def working(message):
    worker = "queuerelay.h:1:mails,b"
    return json.loads(encode_working(worker, "mails", message, run_at=1790000000.9))


def test_as_resque_writes_it():
    assert iso_8601(1790000000.9) == "2026-09-21T14:13:20Z"
    assert working(b'{"class":"Job","args":["\xc3\xbc",1],"queue":"mails","id":"a"}') == {
        "queue": "mails",
        "run_at": "2026-09-21T14:13:20Z",
        "worker": "queuerelay.h:1",
        "payload": {"class": "Job", "args": ["ü", 1]},
    }


@pytest.mark.parametrize(
    "message", [b"", b"\xff", b"[]", b"{}", b'{"class":"Job"}', b"1", b"[" * 2000]
)
def test_what_cannot_be_read(message):
    assert working(message)["payload"] == {"class": "Unreadable", "args": []}


def test_what_cannot_be_written_again():
    message = b'{"class":"Job","args":' + b"[" * 500 + b"]" * 500 + b"}"
    assert working(message)["payload"] == {"class": "Unreadable", "args": []}


def test_a_long_message_is_not_shown():
    message = json.dumps({"class": "Job", "args": ["x" * SHOWN_BOUND]}).encode()
    assert working(message)["payload"] == {"class": "Job", "args": [f"{len(message)} bytes"]}
