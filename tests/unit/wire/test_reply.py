import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.errors import ReplyError
from queuerelay.wire.reply import (
    LAST_NUMBER,
    Failed,
    Frame,
    Reply,
    decode_legacy_reply,
    decode_reply,
    encode_frame,
    encode_reply,
    salvage_node_id,
)

NODE_ID = "3f9c21aa-" + "0123456789abcdef" * 2
DEFAULT_HEADERS = [(b"Content-Type", b"text/plain; charset=utf-8")]


def reply(**value):
    return json.dumps({"node_id": NODE_ID, **value}).encode()


def wrong(raw, decode=decode_reply):
    with pytest.raises(ReplyError) as caught:
        decode(raw)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 300
    prefix = "a worker's reply cannot be understood: "
    assert text.startswith(prefix)
    return text.removeprefix(prefix)


@given(
    status=st.integers(200, 599),
    headers=st.lists(
        st.tuples(
            st.text("abcxyz", min_size=1).map("x-".__add__),
            st.text(
                st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f")
            ),
        )
    ),
    body=st.binary() | st.text().map(str.encode),
)
def test_round_trip(status, headers, body):
    raw = encode_reply(node_id=NODE_ID, status=status, headers=headers, body=body)
    decoded = decode_reply(raw)
    assert decoded == Reply(
        NODE_ID,
        status,
        [(name.encode(), value.encode("latin-1")) for name, value in headers],
        body,
        None,
    )


def test_node_id_is_enough():
    decoded = decode_reply(reply())
    # It may be the last frame of a streamed reply.
    assert decoded == Frame(NODE_ID, 200, decoded.headers, b"")
    assert list(decoded.headers) == DEFAULT_HEADERS


@pytest.mark.parametrize(
    ("raw", "opens", "more", "number"),
    [
        (encode_reply(node_id=NODE_ID, more=True), True, True, None),
        (encode_reply(node_id=NODE_ID, more=True, number=LAST_NUMBER), True, True, LAST_NUMBER),
        (encode_reply(node_id=NODE_ID, number=0), True, False, 0),
        (encode_frame(node_id=NODE_ID, body=b"", more=True), False, True, None),
        (encode_frame(node_id=NODE_ID, body=b"", more=False, number=7), False, False, 7),
        (reply(body="a"), False, False, None),
        (reply(headers=[]), True, False, None),
        (reply(headers=None, more=None, n=None), False, False, None),
        (reply(status=200, more=False), True, False, None),
    ],
)
def test_what_may_be_a_part_of_a_streamed_reply_is_a_frame(raw, opens, more, number):
    decoded = decode_reply(raw)
    assert isinstance(decoded, Frame)
    assert (decoded.opens, decoded.more, decoded.number) == (opens, more, number)


def test_what_is_whole_for_sure_is_no_frame():
    assert type(decode_reply(encode_reply(node_id=NODE_ID))) is Reply
    assert type(decode_legacy_reply(reply(body="a", more=True))) is Reply


@given(body=st.binary(), more=st.booleans(), number=st.none() | st.integers(0, LAST_NUMBER))
def test_round_trip_of_a_frame(body, more, number):
    decoded = decode_reply(encode_frame(node_id=NODE_ID, body=body, more=more, number=number))
    assert decoded == Frame(NODE_ID, 200, decoded.headers, body, more=more, number=number)


def test_unknown_keys_and_timing_are_no_harm():
    raw = encode_reply(node_id=NODE_ID, timing={"wait": 0.012, "run": 0.34})
    assert json.loads(raw)["timing"] == {"wait": 0.012, "run": 0.34}
    assert decode_reply(raw).body == b""
    assert decode_reply(raw).timing == (0.012, 0.34)
    assert decode_reply(reply(timing="odd", other=[])).status == 200


@pytest.mark.parametrize("problem", ["worker-failed", "worker-timeout"])
def test_a_reply_may_say_that_there_is_no_answer(problem):
    raw = encode_reply(node_id=NODE_ID, status=502, body=b"x", problem=problem)
    decoded = decode_reply(raw)
    assert decoded == Failed(NODE_ID, 502, decoded.headers, b"x", None, None, problem)


@pytest.mark.parametrize("problem", ["other", None, ["worker-failed"], {}, 1])
def test_a_problem_that_nobody_knows_is_a_reply_as_any_other(problem):
    decoded = decode_reply(reply(status=502, body="x", problem=problem))
    assert type(decoded) is Reply
    assert (decoded.status, decoded.body) == (502, b"x")


@pytest.mark.parametrize(
    ("timing", "kept"),
    [
        (b"null", None),
        (b"[1,2]", None),
        (b"{}", None),
        (b'{"wait":0,"run":2}', (0.0, 2.0)),
        (b'{"run":1.5}', (None, 1.5)),
        (b'{"wait":0.5,"run":-1.0}', (0.5, None)),
        (b'{"wait":0.5,"run":1000000.0}', (0.5, None)),
        (b'{"wait":1000000.0,"run":0.5}', (None, 0.5)),
        (b'{"wait":-0.5,"run":0.5}', (None, 0.5)),
        (b'{"wait":-0.001,"run":1e300}', None),
        (b'{"wait":true,"run":"1"}', None),
        (b'{"wait":999999,"run":1e6}', (999999.0, None)),
        (b'{"wait":18446744073709551615,"run":[]}', None),
    ],
)
def test_of_a_timing_only_times_are_kept(timing, kept):
    raw = b'{"node_id":"%b","timing":%b}' % (NODE_ID.encode(), timing)
    assert decode_reply(raw).timing == kept


@pytest.mark.parametrize(
    ("body", "encoding", "decoded"),
    [
        ("é", "utf-8", "é".encode()),
        ("6Q==", "base64", b"\xe9"),
        ("%E9%20", "percent", b"\xe9 "),
        (None, "base64", b""),
    ],
)
def test_body_encodings(body, encoding, decoded):
    assert decode_reply(reply(body=body, body_encoding=encoding)).body == decoded


def test_headers_in_both_forms_mean_the_same():
    pairs = decode_reply(reply(headers=[["A", "1"], ["A", "2"], ["Content-Length", "7"]]))
    assert pairs == decode_reply(reply(headers={"A": ["1", "2"], "Content-Length": "7"}))
    assert pairs.headers == [(b"A", b"1"), (b"A", b"2")]
    assert pairs.declared_length == 7


def test_empty_headers_are_not_the_default_ones():
    assert decode_reply(reply(headers=[])).headers == []
    assert list(decode_reply(reply(headers=None)).headers) == DEFAULT_HEADERS


@pytest.mark.parametrize(
    ("status", "got"),
    [
        (0, "0"),
        (-200, "-200"),
        (101, "101"),
        (199, "199"),
        (600, "600"),
        (2**63, "9223372036854775808"),
        (200.0, "float"),
        (200.5, "float"),
        (10**300, "float"),
        (True, "bool"),
        ("200", "str"),
        (None, "NoneType"),
        ([200], "list"),
        ({}, "dict"),
    ],
)
def test_wrong_status(status, got):
    expected = f"status: got {got}, expected a whole number from 200 to 599"
    assert wrong(reply(status=status)) == expected


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", "not JSON: "),
        (b"OK", "not JSON: "),
        (b"\xff\xfe", "not JSON: "),
        (b"[" * 10_000 + b"]" * 10_000, "not JSON: "),
        (b'{"node_id":"a","body":"\\ud800"}', "not JSON: "),
        (b'{"node_id":"a","body":"\\udc00\\ud800"}', "not JSON: "),
        (b'{"node_id":"a","status":' + b"2" * 5000 + b"}", "not JSON: "),
        (b"null", "expected an object, got NoneType"),
        (b"[]", "expected an object, got list"),
        (b"{}", "node_id: expected a text, got NoneType"),
        (b'{"node_id":""}', "node_id: expected a text, got str"),
        (b'{"node_id":1}', "node_id: expected a text, got int"),
        (b'{"node_id":["a"]}', "node_id: expected a text, got list"),
        (b'{"node_id":"a","more":1}', "more: expected true or false, got int"),
        (b'{"node_id":"a","more":"true"}', "more: expected true or false, got str"),
        (b'{"node_id":"a","status":200,"n":-1}', "n: got -1, expected a whole number from 0"),
        (b'{"node_id":"a","status":200,"n":9007199254740992}', "n: got 9007199254740992, expected"),
        (b'{"node_id":"a","n":1.0}', "n: got float, expected"),
        (b'{"node_id":"a","n":true}', "n: got bool, expected"),
        (b'{"node_id":"a","headers":"A: b"}', "headers: expected a list or an object, got str"),
        (b'{"node_id":"a","headers":{"A":1.5}}', "header 'A': expected a text, got float"),
        (b'{"node_id":"a","headers":{"A":"\\r\\n"}}', "header 'A' has a control character"),
        (b'{"node_id":"a","body":{}}', "body: expected a text, got dict"),
        (b'{"node_id":"a","body":"a","body_encoding":"base64"}', "body: not base64: "),
        (b'{"node_id":"a","body":"a","body_encoding":"b64"}', "body_encoding: got 'b64', expected"),
    ],
)
def test_malformed_reply(raw, error):
    assert wrong(raw).startswith(error)


@pytest.mark.parametrize("depth", [500, 1000])
@pytest.mark.parametrize("key", ["status", "body", "body_encoding", "headers", "node_id"])
def test_deep_nesting_anywhere_is_only_a_wrong_reply(key, depth):
    deep = b"[" * depth + b"]" * depth
    raw = b'{"node_id":"a","body":"x","%s":%s}' % (key.encode(), deep)
    assert wrong(raw).startswith((key, "header"))


@given(st.binary())
def test_any_bytes_decode_or_say_why(raw):
    try:
        decode_reply(raw)
    except ReplyError:
        assert wrong(raw)


class TestLegacy:
    def test_body_is_percent_escaped_bytes(self):
        raw = reply(body="caf%E9+%00")
        assert decode_legacy_reply(raw) == Reply(
            NODE_ID, 200, decode_legacy_reply(raw).headers, b"caf\xe9+\0"
        )
        assert list(decode_legacy_reply(raw).headers) == DEFAULT_HEADERS

    def test_nothing_else_of_it_is_believed(self):
        raw = reply(body="a", status=500, headers=[["host", "x"]], body_encoding="base64")
        assert decode_legacy_reply(raw) == decode_legacy_reply(reply(body="a"))

    @pytest.mark.parametrize(
        ("raw", "error"),
        [
            (b"x", "not JSON: "),
            (b"[]", "expected an object"),
            (b'{"body":"a"}', "node_id: expected a text"),
            (b'{"node_id":"a","body":1}', "body: expected a text, got int"),
        ],
    )
    def test_malformed(self, raw, error):
        assert wrong(raw, decode_legacy_reply).startswith(error)


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (reply(status="x"), NODE_ID),
        (b'{"body":"unfinished","node_id" : "' + NODE_ID.encode() + b'"', NODE_ID),
        (b'\xff{"node_id":\n"' + NODE_ID.encode() + b'","body":"\xff', NODE_ID),
        (b'{"body":"\\"node_id\\":\\"' + NODE_ID.encode() + b'\\"', None),
        (b'{"node_id":"' + NODE_ID.encode()[:-1] + b'"', None),
        (b'{"node_id":"' + NODE_ID.encode() + b'0"', None),
        (b'{"node_id":"' + NODE_ID.upper().encode() + b'"', None),
        (b"", None),
    ],
)
def test_whom_a_broken_reply_was_for(raw, found):
    assert salvage_node_id(raw) == found
