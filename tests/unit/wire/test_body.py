import base64
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.wire.body import decode_body, encode_body


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
        ("é\0\n".encode(), ("é\0\n", "utf-8")),
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
