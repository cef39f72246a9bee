import base64
from urllib.parse import quote_from_bytes

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.wire.body import LARGE, cut_body, decode_body, dump, encode_body, put_body


@given(st.binary() | st.text().map(lambda text: text.encode()))
def test_round_trip(body):
    text, encoding = encode_body(body)
    assert decode_body(text, encoding) == body


@given(st.binary())
def test_percent_gives_bytes(body):
    assert decode_body(quote_from_bytes(body), "percent") == body


@pytest.mark.parametrize(
    ("body", "encoded"),
    [
        (b"", ("", "utf-8")),
        ("é\t\n".encode(), ("é\t\n", "utf-8")),
        (b"\0", ("AA==", "base64")),
        # As many characters either way: a worker that looks at the text alone has it.
        (b'""', ('""', "utf-8")),
        (b"\x1fxxxxxxxxxxxxxx", ("\x1fxxxxxxxxxxxxxx", "utf-8")),
        (b"\x1fxxxxxxxxxxx", ("H3h4eHh4eHh4eHh4", "base64")),
        (b'{"a": "b"}', ('{"a": "b"}', "utf-8")),
        (b"\xff", ("/w==", "base64")),
        # UTF-8 proper has no halves of characters (RFC 3629 3).
        (b"\xed\xa0\x80", ("7aCA", "base64")),
    ],
)
def test_text_where_it_is_text(body, encoded):
    assert encode_body(body) == encoded


@pytest.mark.parametrize(
    ("text", "encoding", "body"),
    [
        (None, None, b""),
        (None, "base64", b""),
        ("", "base64", b""),
        ("é", None, "é".encode()),
        ("a+b%20c%zz%", "percent", b"a+b c%zz%"),
        ("%E9%00", "percent", b"\xe9\0"),
        ("é%E9", "percent", b"\xc3\xa9\xe9"),
        # As Ruby's Base64.encode64 and MIME write it.
        (base64.encodebytes(b"x" * 100).decode(), "base64", b"x" * 100),
        ("eHh4\r\neHh4\r\n", "base64", b"xxxxxx"),
    ],
)
def test_decodes(text, encoding, body):
    assert decode_body(text, encoding) == body


@pytest.mark.parametrize(
    ("text", "encoding", "error"),
    [
        (1, None, "body: expected a text, got int"),
        (["a"], "utf-8", "body: expected a text, got list"),
        ({}, None, "body: expected a text, got dict"),
        (False, None, "body: expected a text, got bool"),
        ("a", "utf8", "body_encoding: got 'utf8', expected 'utf-8', 'base64' or 'percent'"),
        ("a", "", "body_encoding: got '', expected 'utf-8', 'base64' or 'percent'"),
        ("a", 1, "body_encoding: got int, expected 'utf-8', 'base64' or 'percent'"),
        ("a", ["base64"], "body_encoding: got list, expected 'utf-8', 'base64' or 'percent'"),
        (
            "a",
            "x" * 1000,
            f"body_encoding: got {'x' * 32!r}, expected 'utf-8', 'base64' or 'percent'",
        ),
    ],
)
def test_says_what_is_wrong(text, encoding, error):
    with pytest.raises(ValueError, match="body") as caught:
        decode_body(text, encoding)
    assert str(caught.value) == error


@pytest.mark.parametrize("text", ["YQ", "Y", "YQ===", "YQ==YQ==", "Y Q=", "-_-_", "=", "YQ=é"])
def test_not_base64(text):
    with pytest.raises(ValueError, match=r"^body: not base64: "):
        decode_body(text, "base64")


def _escaped(body):
    return len(orjson.dumps(body.decode())) - 2


@given(st.text(st.sampled_from('a"\\\0\x1f\n\x7fé')))
def test_the_shorter_of_both_goes_out(text):
    body = text.encode()
    base64_size = (len(body) + 2) // 3 * 4
    encoding = encode_body(body)[1]
    assert encoding == ("base64" if base64_size < _escaped(body) else "utf-8")


LARGE_BODIES = {
    "ascii": b"x" * LARGE,
    "utf-8": "é".encode() * LARGE,
    "escaped": b'"body":"x\n" ' * LARGE,
    "control": b"\0" * LARGE,
    "bytes": bytes(range(256)) * LARGE,
}


@pytest.mark.parametrize("body", LARGE_BODIES.values(), ids=LARGE_BODIES)
def test_a_large_body_is_written_as_a_small_one_would_be(body):
    body = body[: 2 * LARGE]
    value = {"url": '"body":""', "first": 1}
    text = put_body(value, body)
    raw = dump({"args": [value], "last": 2}, text)
    whole = dict.fromkeys(("url", "first", "body", "body_encoding"))
    whole |= {"url": '"body":""', "first": 1}
    whole["body"], whole["body_encoding"] = encode_body(body)
    assert raw == orjson.dumps({"args": [whole], "last": 2})


@pytest.mark.parametrize("body", LARGE_BODIES.values(), ids=LARGE_BODIES)
def test_a_large_body_is_read_as_a_small_one_would_be(body):
    body = body[: 2 * LARGE]
    value = {"headers": {"body": "x" * LARGE}}
    raw = dump(value, put_body(value, body))
    value, text = cut_body(raw, orjson.loads)
    assert decode_body(text, value["body_encoding"]) == body
    value = {"n": 1}
    raw = dump(value, put_body(value, body))
    value, text = cut_body(raw.replace(b'"body":', b'"body" :\n'), orjson.loads)
    assert decode_body(text, value["body_encoding"]) == body


def test_what_json_does_not_allow_is_no_large_body_either():
    for wrong in (b"\n", b"\xff"):
        value, text = cut_body(b'{"body":"%b%b"}' % (b"x" * LARGE, wrong), orjson.loads)
        with pytest.raises(ValueError, match="body: "):
            decode_body(text, value.get("body_encoding"))
