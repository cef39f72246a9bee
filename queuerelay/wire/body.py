"""Bodies as JSON text: ``utf-8`` where the bytes are, ``base64`` otherwise and where that is
shorter, ``percent`` from old workers.

A large body does not go through the JSON library, which would copy it several times and stand
still meanwhile: its text is put into the JSON of all else, and cut out of it. The text is the same.
"""

import binascii
import os
import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import orjson

#: Bytes from which on a body goes past the JSON library.
LARGE: Final = 256 * 1024
#: Of so many bytes of a large text one may have to be escaped; where more have, base64 takes much
#: less time.
_SELDOM: Final = 32

#: Bytes that JSON writes as six (RFC 8259 7), and all that it does not write as one.
_SIXFOLD: Final = bytes(set(range(0x20)) - set(b"\b\t\n\f\r"))
_ESCAPED: Final = bytes(range(0x20)) + b'"\\'
#: How a large body begins in JSON; within a JSON text its quotes would be escaped.
_BEGIN: Final = re.compile(rb'"body"[ \t\r\n]*:[ \t\r\n]*"')
#: Stands for a large body while all else is read: nobody can guess it.
_MARK: Final = os.urandom(16).hex()


def encode_body(body: bytes) -> tuple[str, str]:
    """The text for `body` and its ``body_encoding``."""
    if not _shorter_as_base64(body):
        try:
            return body.decode("utf-8"), "utf-8"
        except UnicodeDecodeError:
            pass
    return binascii.b2a_base64(body, newline=False).decode("ascii"), "base64"


def _shorter_as_base64(body: bytes) -> bool:
    size = len(body)
    most = (size + 2) // 3 * 4 - size
    escaped = size - len(body.translate(None, _ESCAPED))
    if escaped * 5 <= most:
        return False
    sixfold = size - len(body.translate(None, _SIXFOLD))
    return escaped + 4 * sixfold > most


def put_body(value: dict[str, Any], body: bytes) -> bytes:
    """Add `body` to the object `value`. What is given is for `dump`."""
    if len(body) < LARGE:
        value["body"], value["body_encoding"] = encode_body(body)
        return b""
    text, encoding = _large_text(body)
    value["body"], value["body_encoding"] = _MARK, encoding
    return text


def dump(value: object, text: bytes) -> bytes:
    """The JSON of `value`; `text` is what `put_body` gave for an object in it."""
    raw = orjson.dumps(value)
    if not text:
        return raw
    before, _, after = raw.partition(_MARK.encode())
    return b"".join((before, text, after))


def _large_text(body: bytes) -> tuple[bytes, str]:
    """The text for `body` as it stands between the quotes of JSON, and its encoding."""
    escaped = len(body) - len(body.translate(None, _ESCAPED))
    if escaped * _SELDOM <= len(body):
        try:
            # Bytes that are no text are most often none from the beginning on.
            text = "" if body.isascii() else body.decode("utf-8")
        except UnicodeDecodeError:
            pass
        else:
            return (orjson.dumps(text or body.decode("ascii"))[1:-1] if escaped else body), "utf-8"
    return binascii.b2a_base64(body, newline=False), "base64"


def cut_body(raw: bytes, load: Callable[[bytes], dict[str, Any]]) -> tuple[dict[str, Any], object]:
    """The object in `raw`, as `load` reads it, and what its ``body`` is: text, or the bytes of one
    that is too large to be read with all else, as `decode_body` takes both.
    """
    found = _BEGIN.search(raw)
    if found is not None:
        start = found.end()
        end = raw.find(b'"', start)
        if end - start >= LARGE // 2 and raw.find(b"\\", start, end) < 0:
            value = load(b"".join((raw[:start], _MARK.encode(), raw[end:])))
            if value.get("body") == _MARK:
                return value, raw[start:end]
    value = load(raw)
    return value, value.get("body")


def decode_body(text: object, encoding: object) -> bytes:
    """The bytes that `text` stands for; both may be None, for no body and for ``utf-8``. Where
    `text` is bytes, these stand between the quotes of JSON, without a backslash among them.

    ``percent`` is RFC 3986 2.1 escaping and gives *bytes*: old workers escape pages of any
    charset. Raises `ValueError` that names the key and what was expected.
    """
    if text is None:
        return b""
    if not isinstance(text, str | bytes):
        raise ValueError(f"body: expected a text, got {type(text).__name__}")
    if encoding is None or encoding == "utf-8":
        return text.encode("utf-8") if isinstance(text, str) else _checked(text)
    if encoding == "base64":
        try:
            data = text.encode("ascii") if isinstance(text, str) else text
            # Line ends are allowed: the usual functions of Ruby and of MIME write them.
            if b"\n" in data or b"\r" in data:
                data = data.translate(None, b"\r\n")
            return binascii.a2b_base64(data, strict_mode=True)
        except (binascii.Error, UnicodeEncodeError) as error:
            raise ValueError(f"body: not base64: {error}") from error
    if encoding == "percent":
        return unquote_to_bytes(text)
    got = repr(encoding[:32]) if isinstance(encoding, str) else type(encoding).__name__
    raise ValueError(f"body_encoding: got {got}, expected 'utf-8', 'base64' or 'percent'")


def _checked(text: bytes) -> bytes:
    """`text`, which was not read by the JSON library: it has to be fit to stand in JSON."""
    if len(text.translate(None, _ESCAPED)) != len(text):
        raise ValueError("body: a control character that is not escaped")
    if not text.isascii():
        try:
            text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError("body: not UTF-8") from error
    return text
