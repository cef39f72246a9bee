import json

import pytest

from queuerelay.errors import MessageError
from queuerelay.wire.destination import LONGEST_NAME, destination, overlap, salvage
from queuerelay.wire.keys import Keys
from queuerelay.wire.message import decode_message

KEYS = Keys(prefix="p:", results="answers:")
NODE_ID = "3f9c21aa-" + "0123456789abcdef" * 2


def request(**changed):
    first = {"node_id": NODE_ID, "url": "/", "reply_to": "p:inbox:3f9c21aa", **changed}
    return json.dumps({"class": "RequestProcessor", "args": [first]}).encode()


def job(reply_to):
    return json.dumps({"class": "J", "args": [{"reply_to": reply_to}]}).encode()


def refused(raw):
    with pytest.raises(MessageError) as caught:
        destination(decode_message(raw), KEYS)
    return str(caught.value).partition(": ")[2]


OURS = [
    "p:gate",
    "p:inflight:q",
    "p:inbox:3f9c21aa",
    "p:results:x",
    "queuerelay:results:x",
    "resque:failed",
    "resque:queue:q",
    "x",
    "",
    "answers",
]


@pytest.mark.parametrize("reply_to", [name for name in OURS if name])
def test_a_jobs_reply_goes_nowhere_else(reply_to):
    assert refused(job(reply_to)) == f"reply_to: {reply_to!r} is not under 'answers:'"


def test_a_jobs_reply_goes_under_the_prefix():
    assert destination(decode_message(job("answers:x")), KEYS) == "answers:x"
    longest = "answers:".ljust(LONGEST_NAME, "x")
    assert destination(decode_message(job(longest)), KEYS) == longest
    assert "has more than 512 characters" in refused(job(longest + "x"))
    assert len(refused(job(longest + "x" * 10_000))) < 200
    assert refused(job("answers:")) == "reply_to: 'answers:' is not under 'answers:'"
    for nobody in (None, "", 7, ["answers:x"]):
        assert destination(decode_message(job(nobody)), KEYS) is None


@pytest.mark.parametrize("reply_to", [*(name for name in OURS if name), "p:inbox:other"])
def test_a_requests_reply_goes_to_the_inbox_of_its_own_relay(reply_to):
    assert destination(decode_message(request()), KEYS) == "p:inbox:3f9c21aa"
    if reply_to != "p:inbox:3f9c21aa":
        why = f"reply_to: {reply_to!r} is not 'p:inbox:3f9c21aa'"
        assert refused(request(reply_to=reply_to)) == why


def test_what_is_wrong_is_answered_only_where_its_client_waits():
    assert salvage(request(url=7), KEYS) == (NODE_ID, "p:inbox:3f9c21aa")
    assert salvage(request(url=7, reply_to="p:inbox:other"), KEYS) is None
    assert salvage(request(url=7, reply_to="p:gate"), KEYS) is None
    assert salvage(request(node_id=7), KEYS) is None
    assert salvage(request().replace(b"RequestProcessor", b"J"), KEYS) is None
    for raw in (b"", b"\xff", b"[]", b"{}", b'{"args":[]}', b'{"args":[1]}'):
        assert salvage(raw, KEYS) is None


@pytest.mark.parametrize(
    ("results", "taken"),
    [
        ("queuerelay:", "queuerelay:nodes"),
        ("queuerelay:inbox:", "queuerelay:inbox:"),
        ("queuerelay:inbox:abc", "queuerelay:inbox:"),
        ("queuerelay:gate", "queuerelay:gate"),
        ("queuerelay:infl", "queuerelay:inflight:"),
        ("q", "queuerelay:nodes"),
        ("resque:", "resque:"),
        ("resque:queue:", "resque:"),
        ("r", "resque:"),
        ("", "resque:"),
        ("queuerelay:results:", None),
        ("answers:", None),
    ],
)
def test_a_prefix_that_could_be_confused(results, taken):
    assert overlap(results, Keys()) == taken


def test_every_key_of_ours_has_its_beginning():
    keys = Keys()
    beginnings = tuple(keys.beginnings())
    for name in dir(Keys):
        made = getattr(keys, name)
        if callable(made) and not name.startswith("_") and name not in ("beginnings",):
            made = made("x") if name not in ("lease", "claim") else None
        if isinstance(made, str) and made.startswith(keys.prefix):
            assert made in (keys.prefix, keys.results) or made.startswith(beginnings), name
