"""Header fields and body for replies and errors, as values."""

import json
import re
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from queuerelay.errors import BadReply, NoReply, Refusal, TooManyHeld
from queuerelay.http.problems import for_refusal, reason_phrase
from queuerelay.http.request_id import request_id
from queuerelay.relay.response import for_reply
from queuerelay.wire.reply import Reply

ID = "3f9c21aa-" + "0" * 32


def length_of(fields):
    values = [value for name, value in fields if name == b"Content-Length"]
    assert len(values) < 2
    return int(values[0]) if values else None


@given(
    status=st.integers(200, 599),
    body=st.binary(max_size=20),
    method=st.sampled_from([b"GET", b"HEAD", b"POST"]),
    declared=st.none() | st.integers(0, 10**18),
)
def test_the_length_is_that_of_the_body_or_there_is_no_body(status, body, method, declared):
    fields, sent = for_reply(Reply(ID, status, [(b"a", b"b")], body, declared), method)
    assert fields[0] == (b"a", b"b")
    if status in (204, 304):
        assert (length_of(fields), sent) == (None, b"")
    elif status == 205:
        assert (length_of(fields), sent) == (0, b"")
    elif method == b"HEAD":
        assert sent == b""
        assert length_of(fields) == (len(body) if body else declared)
    else:
        assert (length_of(fields), sent) == (len(body), body)


@pytest.mark.parametrize(
    ("status", "phrase"), [(200, b"OK"), (418, b"I'm a Teapot"), (299, b"Unknown")]
)
def test_the_reason_phrase_is_the_registered_one(status, phrase):
    assert reason_phrase(status) == phrase


def every_refusal(cls=Refusal):
    for one in cls.__subclasses__():
        # Other tests have some of their own.
        if one.__module__ == Refusal.__module__:
            yield one
            yield from every_refusal(one)


def test_each_error_has_a_word_of_its_own_and_the_page_has_it_with_its_status():
    words = {cls.reason: cls.status for cls in every_refusal()}
    assert len(words) == len(list(every_refusal()))
    page = (Path(__file__).parents[3] / "docs" / "http.md").read_text("utf-8")
    _, _, rest = page.partition("## What clients see\n")
    table, _, _ = rest.partition("\nEvery answer")
    told, statuses = {}, []
    for row in table.splitlines():
        if not row.startswith("| ") or "`" not in row:
            continue
        first, second = row.split("|")[1:3]
        # A row without statuses goes on with those of the row before.
        statuses = re.findall(r"[45][0-9]{2}", first) or statuses
        for number, word in enumerate(re.findall(r"`([a-z-]+)`", second)):
            told[word] = int(statuses[min(number, len(statuses) - 1)])
    assert told == words


@pytest.mark.parametrize("cls", list(every_refusal()))
def test_every_error_says_why_and_a_429_or_503_when_to_come_back(cls):
    fields, body = for_refusal(cls("s3cr3t"), b"GET", [b"application/json"], b"x-1")
    named = dict(fields)
    problem = json.loads(body)
    assert problem == {
        "type": "about:blank",
        "title": reason_phrase(cls.status).decode(),
        "status": cls.status,
        "detail": cls.__doc__.partition("\n")[0],
        "request_id": "x-1",
    }
    assert named[b"Content-Type"] == b"application/problem+json"
    assert named[b"Cache-Control"] == b"no-store"
    assert b"vary" not in named
    assert b"s3cr3t" not in body
    assert (b"Retry-After" in named) is (cls.status in (429, 503))
    assert int(named[b"Content-Length"]) == len(body)
    assert named.get(b"Allow") == (cls.allow and cls.allow.encode())
    assert (cls.allow is not None) is (cls.status == 405)
    fields, text = for_refusal(cls("s3cr3t"), b"GET", [], b"x-1")
    assert dict(fields)[b"Content-Type"] == b"text/plain; charset=utf-8"
    assert len(text) < 200
    assert text.startswith(b"%d " % cls.status)
    assert text.endswith(b".\n")
    assert b"s3cr3t" not in text


def test_an_error_may_name_its_own_time():
    fields, _ = for_refusal(TooManyHeld(retry_after=77), b"GET", [], b"x")
    assert (b"Retry-After", b"77") in fields
    assert b"Retry-After" not in dict(for_refusal(NoReply(), b"GET", [], b"x")[0])


def test_the_error_for_head_has_its_length_and_no_body():
    fields, body = for_refusal(BadReply(), b"HEAD", [], b"x")
    assert body == b""
    assert length_of(fields) == len(for_refusal(BadReply(), b"GET", [], b"x")[1])


PAGES = {502: b"<p>s\xc3\xb6"}


@pytest.mark.parametrize(
    ("refusal", "accept", "kind"),
    [
        (BadReply(), b"text/html", b"text/html; charset=utf-8"),
        (BadReply(), b"*/*", b"text/plain; charset=utf-8"),
        (BadReply(), b"application/json", b"application/problem+json"),
        (NoReply(), b"text/html", b"text/plain; charset=utf-8"),
    ],
)
def test_a_page_is_for_those_who_ask_for_html(refusal, accept, kind):
    fields, body = for_refusal(refusal, b"GET", [accept], b"x", PAGES)
    assert dict(fields)[b"Content-Type"] == kind
    assert (body == PAGES[502]) is (kind.startswith(b"text/html"))
    assert length_of(fields) == len(body)
    assert dict(fields)[b"Cache-Control"] == b"no-store"
    assert for_refusal(refusal, b"HEAD", [accept], b"x", PAGES) == (fields, b"")


@pytest.mark.parametrize(
    ("timing", "shown"),
    [
        ((0.012, 0.34), b"queue;dur=12, work;dur=340"),
        ((None, 0.0004), b"work;dur=0.4"),
        ((100.0, None), b"queue;dur=100000"),
        ((0.0, 12.0306), b"queue;dur=0, work;dur=12030.6"),
    ],
)
def test_times_are_told_behind_the_workers_own(timing, shown):
    own = [(b"Server-Timing", b"db;dur=3"), (b"a", b"b")]
    reply = Reply(ID, 200, own, b"x", None, timing)
    for method in (b"GET", b"HEAD"):
        fields, _ = for_reply(reply, method)
        assert list(fields)[:3] == [*own, (b"Server-Timing", shown)]
        assert for_reply(reply, method, timed=False)[0] == [*own, fields[-1]]
    assert list(for_reply(Reply(ID, 304, own, b"", None, timing), b"GET")[0])[2:] == [
        (b"Server-Timing", shown)
    ]
    assert own == reply.headers[:2]


@given(st.none() | st.lists(st.binary(max_size=200), max_size=2))
def test_a_request_id_is_always_safe_to_show(values):
    id = request_id(values)
    assert 1 <= len(id) <= 128
    text = id.decode("ascii")
    assert text.isprintable()
    assert not set(text) & set(" \"'\\;,<>&%$`")


def test_a_sane_request_id_is_kept_and_a_missing_one_is_made():
    assert request_id([b"abc-123"]) == b"abc-123"
    assert request_id(None) != request_id(None)
    assert request_id([]) != request_id([b""])
    assert request_id([b"abc\n"]) != b"abc\n"
