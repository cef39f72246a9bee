import dataclasses
import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.errors import MessageError
from queuerelay.wire.message import (
    Attempt,
    Request,
    decode_message,
    encode_request,
    restamped,
    waited,
    with_attempt,
)

NODE_ID = "3f9c21aa-" + "0123456789abcdef" * 2
PLAIN = {
    "node_id": NODE_ID,
    "url": "/things?x=1",
    "method": "GET",
    "http_version": "1.1",
    "headers": [("host", "example.org"), ("accept", "*/*")],
    "body": b"",
    "remote_addr": "203.0.113.5",
    "scheme": "https",
    "reply_to": "queuerelay:inbox:3f9c21aa",
    "accepted_at": 1790000000.123,
    "deadline": 1790000060.123,
}
ATTEMPT = Attempt(started_at=1.5, run=0.25, error="worker died", worker="host:1")

latin = st.text(st.characters(max_codepoint=255))
json_values = st.recursive(
    # Integers of any length: Resque ids are sometimes longer than 64 bits.
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def message(first=None, **top):
    """A message of the request class, whose args[0] has at least what is required."""
    args = [{"node_id": "a-1", "url": "/", "reply_to": "r", **(first or {})}]
    return orjson.dumps({"class": "RequestProcessor", "args": args, **top})


def wrong(raw):
    with pytest.raises(MessageError) as caught:
        decode_message(raw)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 300
    prefix = "a message on a queue cannot be understood: "
    assert text.startswith(prefix)
    return text.removeprefix(prefix)


def test_exactly_as_the_protocol_page_has_it():
    raw = encode_request(queue="requests", **{**PLAIN, "body": "é".encode()})
    assert raw.decode() == (
        '{"class":"RequestProcessor","args":[{"node_id":"' + NODE_ID + '","url":"/things?x=1",'
        '"method":"GET","http_version":"1.1",'
        '"headers":[["host","example.org"],["accept","*/*"]],'
        '"body":"é","body_encoding":"utf-8",'
        '"remote_addr":"203.0.113.5","scheme":"https","reply_to":"queuerelay:inbox:3f9c21aa",'
        '"accepted_at":1790000000.123,"deadline":1790000060.123,"v":1}],'
        '"queue":"requests","id":"' + NODE_ID + '","queue_time":1790000000.123}'
    )


def test_what_is_empty_is_left_out():
    raw = encode_request(queue="q", **{**PLAIN, "headers": [], "remote_addr": ""})
    first = json.loads(raw)["args"][0]
    assert first.keys().isdisjoint({"headers", "body", "body_encoding", "remote_addr"})
    request = decode_message(raw).request
    assert request is not None
    assert (request.headers, request.body, request.remote_addr) == ([], b"", "")


@given(
    url=latin.filter(bool),
    method=st.sampled_from(["GET", "POST", "PROPFIND", "M-SEARCH", "x"]),
    headers=st.lists(st.tuples(latin, latin)),
    body=st.binary() | st.text().map(str.encode),
    remote_addr=st.text("0123456789abcdef:.%"),
    deadline=st.floats(0, 2**40),
)
def test_round_trip(**varied):
    fields = {**PLAIN, **varied}
    decoded = decode_message(encode_request(queue="q", **fields))
    assert decoded.request == Request(**fields)
    assert decoded.cls == "RequestProcessor"
    assert decoded.reply_to == fields["reply_to"]
    assert decoded.attempts == ()


def test_bytes_that_are_not_utf8_and_repeated_headers():
    fields = {**PLAIN, "headers": [("cookie", "a=\xff"), ("cookie", "b")], "body": b"\x00\xff"}
    raw = encode_request(queue="q", **fields)
    assert json.loads(raw)["args"][0]["body_encoding"] == "base64"
    request = decode_message(raw).request
    assert request is not None
    assert request.headers == [("cookie", "a=\xff"), ("cookie", "b")]
    assert request.body == b"\x00\xff"


def test_seeds_message_has_little_and_gets_defaults():
    decoded = decode_message(message())
    assert decoded.request == Request(
        node_id="a-1",
        url="/",
        method="GET",
        http_version="1.1",
        headers=[],
        body=b"",
        remote_addr="",
        scheme="http",
        reply_to="r",
        accepted_at=0.0,
        deadline=float("inf"),
    )


def test_unknown_keys_are_ignored():
    request = decode_message(message({"new": [1]}, other={})).request
    assert request == decode_message(message()).request


def test_job_of_another_class():
    decoded = decode_message(b'{"class":"Archive","args":[44,"master",{}]}')
    assert (decoded.cls, decoded.args, decoded.request) == ("Archive", [44, "master", {}], None)
    assert decoded.reply_to is None


@pytest.mark.parametrize(
    ("args", "reply_to"),
    [
        ([], None),
        ([1], None),
        ([{}], None),
        ([{"reply_to": 1}], None),
        ([{"reply_to": ""}], None),
        ([{"reply_to": "r"}], "r"),
        ([{"reply_to": "r"}, 2], "r"),
        ([2, {"reply_to": "r"}], None),
    ],
)
def test_who_waits_for_a_job(args, reply_to):
    assert decode_message(orjson.dumps({"class": "Job", "args": args})).reply_to == reply_to


@pytest.mark.parametrize(
    ("method", "idempotent"),
    [
        ("GET", True),
        ("HEAD", True),
        ("PUT", True),
        ("DELETE", True),
        ("OPTIONS", True),
        ("POST", False),
        ("PATCH", False),
        ("CONNECT", False),
        ("get", False),
        ("PROPFIND", False),
    ],
)
def test_idempotent(method, idempotent):
    request = decode_message(message({"method": method})).request
    assert request is not None
    assert request.idempotent is idempotent


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", "not JSON: "),
        (b"{", "not JSON: "),
        (b"\xff", "not JSON: "),
        (b'"\xff"', "not JSON: "),
        (b"\xef\xbb\xbf{}", "not JSON: "),
        (b"{'class':1}", "not JSON: "),
        (b"NaN", "not JSON: "),
        (b'{"class":"a","args":["\\ud800"]}', "not JSON: "),
        (b'{"class":"a","args":[' + b"9" * 5000 + b"]}", "not JSON: "),
        (b"[" * 10_000, "not JSON: "),
        (b"[" * 10_000 + b"]" * 10_000, "not JSON: "),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "not JSON: "),
        (b"null", "expected an object, got NoneType"),
        (b"[]", "expected an object, got list"),
        (b'"a"', "expected an object, got str"),
        (b"{}", "class: expected a text, got nothing"),
        (b'{"class":1}', "class: expected a text, got int"),
        (b'{"class":""}', "class: expected a text, got str"),
        (b'{"class":"A"}', "args: expected a list, got nothing"),
        (b'{"class":"A","args":{}}', "args: expected a list, got dict"),
        (b'{"class":"RequestProcessor","args":[]}', "args: expected one object in a request"),
        (b'{"class":"RequestProcessor","args":[1]}', "args: expected one object in a request"),
        (b'{"class":"RequestProcessor","args":[{},{}]}', "args: expected one object in a request"),
    ],
)
def test_malformed_message(raw, error):
    assert wrong(raw).startswith(error)


@pytest.mark.parametrize(
    ("first", "error"),
    [
        ({"node_id": None}, "args[0].node_id: expected a text, got nothing"),
        ({"node_id": ""}, "args[0].node_id: expected a text, got str"),
        ({"node_id": 7}, "args[0].node_id: expected a text, got int"),
        ({"url": None}, "args[0].url: expected a text, got nothing"),
        ({"url": ""}, "args[0].url: expected a text, got str"),
        ({"url": ["/"]}, "args[0].url: expected a text, got list"),
        ({"reply_to": None}, "args[0].reply_to: expected a text, got nothing"),
        ({"reply_to": ""}, "args[0].reply_to: expected a text, got str"),
        ({"method": 1}, "args[0].method: expected a text, got int"),
        ({"method": ""}, "args[0].method: expected a token, got ''"),
        ({"method": "G T\r\n"}, "args[0].method: expected a token, got 'G T\\r\\n'"),
        ({"method": "G T" * 999}, f"args[0].method: expected a token, got {('G T' * 99)[:32]!r}"),
        ({"http_version": 1.1}, "args[0].http_version: expected a text, got float"),
        ({"scheme": None}, "args[0].scheme: expected a text, got nothing"),
        ({"remote_addr": 1}, "args[0].remote_addr: expected a text, got int"),
        ({"headers": {}}, "args[0].headers: expected a list of pairs, got dict"),
        ({"headers": "a"}, "args[0].headers: expected a list of pairs, got str"),
        ({"headers": ["a"]}, "args[0].headers: expected [name, value] pairs of texts"),
        ({"headers": [["a"]]}, "args[0].headers: expected [name, value] pairs of texts"),
        ({"headers": [["a", 1]]}, "args[0].headers: expected [name, value] pairs of texts"),
        ({"headers": [["a", "b", "c"]]}, "args[0].headers: expected [name, value] pairs of texts"),
        ({"body": 1}, "args[0].body: expected a text, got int"),
        ({"body": "YQ", "body_encoding": "base64"}, "args[0].body: not base64: "),
        ({"body": "", "body_encoding": "gzip"}, "args[0].body_encoding: got 'gzip', expected"),
        ({"deadline": "1"}, "args[0].deadline: expected a number, got str"),
        ({"deadline": True}, "args[0].deadline: expected a number, got bool"),
        ({"accepted_at": []}, "args[0].accepted_at: expected a number, got list"),
    ],
)
def test_malformed_request(first, error):
    assert wrong(message(first)).startswith(error)


@given(st.binary())
def test_any_bytes_decode_or_say_why(raw):
    try:
        decode_message(raw)
    except MessageError:
        assert wrong(raw)


class TestAttempts:
    def test_are_added_in_order(self):
        second = Attempt(started_at=2.0, run=0.0, error="worker died")
        raw = encode_request(queue="q", **PLAIN)
        twice = with_attempt(with_attempt(raw, ATTEMPT), second)
        decoded = decode_message(twice)
        assert decoded.attempts == (ATTEMPT, second)
        assert decoded.request == decode_message(raw).request

    def test_queue_time_stays_last(self):
        raw = with_attempt(encode_request(queue="q", **PLAIN), ATTEMPT)
        assert raw.endswith(b',"queue_time":1790000000.123}')

    def test_message_without_queue_time_gets_none(self):
        assert b"queue_time" not in with_attempt(b'{"class":"A","args":[]}', ATTEMPT)

    @given(args=st.lists(json_values), extra=json_values)
    def test_leave_the_rest_as_it_was(self, args, extra):
        value = {"class": "Job", "args": args, "extra": extra}
        raw = json.dumps(value).encode()
        noted = json.loads(with_attempt(raw, ATTEMPT))
        assert noted.pop("queuerelay")["attempts"]
        assert noted == value

    def test_integers_past_64_bits_and_empty_arrays_survive(self):
        raw = b'{"class":"Job","args":[123456789012345678901234567890,[],{},18446744073709551615]}'
        assert with_attempt(raw, ATTEMPT).startswith(raw[:-1])

    def test_text_is_written_as_it_is(self):
        raw = '{"class":"Job","args":["é☃😀"]}'.encode()
        assert with_attempt(raw, ATTEMPT).startswith(raw[:-1])

    @pytest.mark.parametrize("depth", [100, 300, 600])
    def test_deep_ones_survive(self, depth):
        raw = b'{"class":"Job","args":[' + b"[" * depth + b"]" * depth + b"]}"
        assert decode_message(raw).cls == "Job"
        assert with_attempt(raw, ATTEMPT).startswith(raw[:-1])

    def test_half_characters_in_an_error_are_replaced(self):
        odd = Attempt(started_at=1.0, run=1.0, error="no file \udcff")
        noted = decode_message(with_attempt(b'{"class":"Job","args":[]}', odd))
        assert noted.attempts[0].error == "no file ?"

    @pytest.mark.parametrize("raw", [b"", b"[]", b"1", b"{", b"\xff", b"[" * 100_000])
    def test_cannot_be_added_to_what_is_no_object(self, raw):
        with pytest.raises(MessageError):
            with_attempt(raw, ATTEMPT)

    @pytest.mark.parametrize(
        "ours",
        [1, [], {}, {"attempts": 1}, {"attempts": {}}, {"attempts": [1, None, "x"]}],
    )
    def test_that_are_none(self, ours):
        assert decode_message(message(queuerelay=ours)).attempts == ()

    def test_with_wrong_parts_count_all_the_same(self):
        ours = {"attempts": [{}, {"started_at": "x", "run": True, "error": [[]], "worker": 1}]}
        nothing = Attempt(started_at=0.0, run=0.0, error="", worker="")
        assert decode_message(message(queuerelay=ours)).attempts == (nothing, nothing)


@pytest.mark.parametrize("seconds", [0.0, 300.0, -300.0, -0.25])
@pytest.mark.parametrize("body", [b"", b'"accepted_at":1.0,"deadline":2.0,"queue_time":3.0}'])
def test_restamped_it_is_the_same_message_at_another_time(seconds, body):
    raw = encode_request(queue="q", **{**PLAIN, "body": body})
    then = PLAIN["accepted_at"] + seconds
    again = restamped(raw, then)
    assert len(again) == len(raw)
    found, request = decode_message(again), decode_message(raw).request
    assert found.pushed_at == found.request.accepted_at == pytest.approx(then, abs=0.002)
    assert found.request.deadline == pytest.approx(PLAIN["deadline"] + seconds, abs=0.002)
    times = {"accepted_at": 0.0, "deadline": 0.0}
    assert dataclasses.replace(found.request, **times) == dataclasses.replace(request, **times)


def test_a_message_without_times_stays_as_it_is():
    assert restamped(message(), 5.0) == message()


@pytest.mark.parametrize(
    ("pushed_at", "wait"),
    [
        (None, None),
        (1_790_000_000.0, 10.0),
        (1_790_000_040.0, 0.0),
        (1_790_000_310.0, None),
        (1_790_000_000_000.0, None),
        (0.0, None),
        (-5.0, None),
        (float("inf"), None),
        (float("nan"), None),
    ],
)
def test_how_long_a_message_has_waited_where_its_producer_can_be_believed(pushed_at, wait):
    assert waited(pushed_at, 1_790_000_010.0) == wait
