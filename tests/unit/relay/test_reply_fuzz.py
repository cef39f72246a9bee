"""Whatever a worker replies, its client reads exactly one response: judged by h11, not by us.

Good replies come out as they are, bad ones as 502; what begins as a stream and goes wrong ends in a
broken connection that h11 takes for broken. Nothing of one answer leaks into the next.
"""

import json
from dataclasses import dataclass

import h11
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from tests.helpers.strict import request
from tests.unit.relay.stage import Stage

EXAMPLES = 5000

# Mostly choices from lists: hypothesis draws them ten times as fast as it makes up values.

#: What breaks parsers: controls, line ends, what is not ISO-8859-1, halves of characters.
NASTY = [
    *("\r\n", "\n", "\r", "\0", "\x0b", "\x7f", "\x85", "\xa0", "\t", " ", "", "\u20ac", "\u2028"),
    *(
        "a\r\nX: b",
        "a\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "a\n b",
        "\ud800",
        "a\0b",
        " a\t",
        "\xe9\xff",
    ),
]
TEXT = st.sampled_from(NASTY) | st.text(max_size=6)
#: What is no text, or no number.
ODD = [None, True, False, 0, -1, 2**70, 1.5, 1e300, [], {}, [[]], {"a": None}, [None], ["a", "b"]]
ANYTHING = st.sampled_from(ODD) | TEXT
FIELD_NAMES = """
    Content-Length Transfer-Encoding Connection Keep-Alive Trailer TE Upgrade Proxy-Authenticate
    Set-Cookie Date Server X-Request-Id Content-Type Host Status X-A
"""
NAMES = st.sampled_from([*FIELD_NAMES.split(), "", "a b", "a:", "\xe9", "a\r\nb", "a\0"])
LENGTHS = st.integers(-1, 12).map(str) | st.sampled_from(["0x5", "+5", "5, 5", "9" * 30, "\u0665"])
VALUES = (
    TEXT | LENGTHS | st.sampled_from(["chunked", "close", "x-a", "gzip, chunked", "keep-alive"])
)
HEADERS = (
    st.lists(st.tuples(NAMES, VALUES).map(list), max_size=4)
    | st.dictionaries(NAMES, VALUES | st.lists(VALUES, max_size=3) | st.integers(), max_size=4)
    | ANYTHING
)
STATUSES = (
    st.sampled_from([100, 101, 103, 199, 200, 204, 205, 206, 304, 404, 500, 599, 600, 999, 0, -200])
    | st.integers(200, 599)
    | ANYTHING
)
BODIES = TEXT | st.sampled_from(["12345", "HTTP/1.1 200 OK\r\n\r\n", "0\r\n\r\n", "=/w=", "%zz"])
FIELDS = {
    "status": STATUSES,
    "headers": HEADERS,
    "body": BODIES | ANYTHING,
    "body_encoding": st.sampled_from(["utf-8", "base64", "percent", "gzip", "", None]) | ANYTHING,
    "timing": st.sampled_from([{"wait": 0.1}, {"wait": "\r\n", "run": -1}, {"run": 1e9}, *ODD]),
    "reason": TEXT,
    "n": st.integers(0, 3) | ANYTHING,
}
GOOD = st.fixed_dictionaries(
    {
        "status": st.sampled_from([200, 204, 205, 206, 304, 404, 502, 599]),
        "headers": st.sampled_from([[], [["X-A", "a"]], {"Content-Length": "3"}, {"Date": "now"}]),
    },
    optional={"body": st.sampled_from(["12345", "0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"])},
)
#: A good reply with one field of any kind.
WHOLE = st.tuples(
    GOOD, st.one_of([st.fixed_dictionaries({name: field}) for name, field in FIELDS.items()])
).map(lambda pair: {**pair[0], **pair[1]})
FRAME = st.fixed_dictionaries({}, optional={**FIELDS, "more": st.booleans() | ANYTHING})
#: Streams that are good but for what `FIELDS` does to their first frame.
FIRST = st.fixed_dictionaries(
    {"status": st.integers(200, 599), "more": st.just(True)},
    optional={"headers": HEADERS, "body": BODIES},
)
FURTHER = st.fixed_dictionaries({"body": BODIES, "more": st.booleans()})
REPLIES = (
    WHOLE.map(lambda one: [one])
    | st.lists(FRAME, min_size=1, max_size=4)
    | st.tuples(FIRST, st.lists(FURTHER, max_size=4)).map(lambda pair: [pair[0], *pair[1]])
)
METHODS = st.sampled_from(["GET", "GET", "POST", "HEAD"])


@dataclass
class Seen:
    """How often each kind of outcome was seen."""

    whole: int = 0
    bad: int = 0
    streamed: int = 0
    broken: int = 0


class Broken(Exception):
    """the connection ended before the response did"""


def read(raw: bytes, methods: list[str], *, closed: bool) -> list[tuple[int, bytes]]:
    """The responses that h11 finds, and nothing else may be there."""
    client = h11.Connection(h11.CLIENT)
    found = []
    client.receive_data(raw)
    if closed:
        client.receive_data(b"")
    for number, method in enumerate(methods):
        if number:
            client.start_next_cycle()
        fields = [("Host", "a"), *([("Content-Length", "0")] if method == "POST" else [])]
        client.send(h11.Request(method=method, target="/", headers=fields))
        client.send(h11.EndOfMessage())
        status, body = 0, b""
        while True:
            try:
                event = client.next_event()
            except h11.RemoteProtocolError as error:
                if closed and ("without" in str(error) or "closed" in str(error)):
                    raise Broken from error
                raise
            if isinstance(event, h11.Response):
                assert not status, raw
                status = event.status_code
                reason = event.reason
                assert b"\r" not in reason, raw
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert not event.headers, raw
                break
            else:
                raise AssertionError((event, raw))
        found.append((status, body))
    assert client.trailing_data[0] == b"", raw
    return found


@pytest.fixture(scope="module")
def stage():
    one = Stage()
    yield one
    one.close()
    assert one.clock.getDelayedCalls() == []


@pytest.fixture(scope="module")
def seen():
    counts = Seen()
    yield counts
    # Else the strategies have become worthless.
    assert min(counts.whole, counts.bad, counts.streamed, counts.broken) > EXAMPLES // 100, counts


@pytest.mark.heavy
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(method=METHODS, replies=REPLIES, together=st.booleans())
@example(
    "GET", [{"status": 200, "headers": [["X", "a\r\nContent-Length: 0\r\n\r\nHTTP/1.1"]]}], True
)
@example("GET", [{"headers": [["Content-Length", "3"]], "body": "123456"}], True)
@example("HEAD", [{"status": 200, "body": "123456", "more": True}, {"body": "x"}], False)
def test_any_reply_is_exactly_one_response(stage, seen, logged_failures, method, replies, together):
    connection = stage.connect().send(request(method))
    id = stage.take()["node_id"]
    # As a worker in any language writes it: \ud800 and its kind too.
    raws = [json.dumps({"node_id": id, **one}).encode() for one in replies]
    if together:
        stage.push_reply(*raws)
    else:
        for raw in raws:
            stage.push_reply(raw)
    aborted = connection.wire.cut
    if not aborted and stage.relay.snapshot().streaming:
        stage.push_reply(json.dumps({"node_id": id, "status": 500}).encode())
        aborted = connection.wire.cut
        assert aborted
    assert stage.relay.snapshot().held == 0
    if aborted:
        try:
            read(connection.raw, [method], closed=True)
        except Broken:
            seen.broken += 1
        else:
            # All that was declared had come before it went wrong.
            assert b"\r\nContent-Length: " in connection.raw
    else:
        methods = [method]
        if not connection.wire.disconnecting:
            # What follows belongs to the next request, and is complete.
            connection.send(request("GET", "/next"))
            stage.reply(stage.take(), body=b"next", headers=[])
            methods.append("GET")
        first, *rest = read(connection.raw, methods, closed=connection.wire.disconnecting)
        assert 200 <= first[0] <= 599
        assert rest in ([], [(200, b"next")])
        if first[0] == 502:
            assert not rest or b"502" in connection.raw
            seen.bad += 1
        elif b"Transfer-Encoding: chunked" in connection.raw:
            seen.streamed += 1
        else:
            seen.whole += 1
        asked = replies[0].get("status", 200)
        assert first[0] in (asked, 502) or len(replies) > 1, (first, asked)
    connection.leave()
    stage.connections.clear()
    assert len(stage.relay.senders) == 0
    assert stage.relay.snapshot().unsent_bytes == 0


def test_h11_notices():
    good = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na"
    assert read(good, ["GET"], closed=False) == [(200, b"a")]
    with pytest.raises(AssertionError):
        read(good + b"x", ["GET"], closed=False)
    with pytest.raises(Broken):
        read(good[:-1], ["GET"], closed=True)
    with pytest.raises(h11.RemoteProtocolError):
        read(good.replace(b"OK", b"OK\r\nContent-Length: 2"), ["GET"], closed=True)
