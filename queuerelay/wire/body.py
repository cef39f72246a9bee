"""Bodies as JSON text: ``utf-8`` where the bytes are, ``base64`` otherwise, ``percent`` from old
workers.
"""

import base64
import binascii
from urllib.parse import unquote_to_bytes


def encode_body(body: bytes) -> tuple[str, str]:
    """The text for `body` and its ``body_encoding``."""
    try:
        return body.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(body).decode("ascii"), "base64"


def decode_body(text: object, encoding: object) -> bytes:
    """The bytes that `text` stands for; both may be None, for no body and for ``utf-8``.

    ``percent`` is RFC 3986 2.1 escaping and gives *bytes*: old workers escape pages of any
    charset. Raises `ValueError` that names the key and what was expected.
    """
    if text is None:
        return b""
    if not isinstance(text, str):
        raise ValueError(f"body: expected a text, got {type(text).__name__}")
    if encoding is None or encoding == "utf-8":
        return text.encode("utf-8")
    if encoding == "base64":
        try:
            # Line ends are allowed: the usual functions of Ruby and of MIME write them.
            data = text.encode("ascii").translate(None, b"\r\n")
            return base64.b64decode(data, validate=True)
        except (binascii.Error, UnicodeEncodeError) as error:
            raise ValueError(f"body: not base64: {error}") from error
    if encoding == "percent":
        return unquote_to_bytes(text)
    got = repr(encoding[:32]) if isinstance(encoding, str) else type(encoding).__name__
    raise ValueError(f"body_encoding: got {got}, expected 'utf-8', 'base64' or 'percent'")
