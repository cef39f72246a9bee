"""Header fields that may cross the queue, in both directions.

Invariants:

1. Fields that belong to one connection never cross (RFC 9110 7.6.1): neither the known ones nor
   those that a ``Connection`` field names; but nobody takes away by it what decisions rest upon.
2. The framing of a message is ours: ``Content-Length`` and ``Transfer-Encoding`` never cross.
3. Text here is ISO-8859-1, one character for one byte, so that any field value survives a trip
   through JSON unchanged (the same convention as WSGI's, PEP 3333).
4. What tells who the client is comes from `queuerelay.http.forwarded` alone.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from queuerelay.errors import ReplyError
from queuerelay.wire.proxies import FORWARDED, X_FORWARDED

#: Fields that belong to one connection (RFC 9110 7.6.1, RFC 9112 9.6) or frame one message.
_NEVER_CROSS: Final = frozenset(
    {
        "connection",
        "content-length",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        # Written by the client for us, and already acted upon.
        "expect",
    }
)

#: Fields for all recipients, whatever ``Connection`` names (RFC 9110 7.6.1 forbids to name such
#: fields): without them a request would go elsewhere, or be another one than a proxy in front
#: has checked.
_END_TO_END: Final = frozenset(
    {
        "authorization",
        "cache-control",
        "content-encoding",
        "content-type",
        "cookie",
        "host",
        "origin",
        "range",
        "via",
        "x-request-id",
    }
)

#: RFC 9110 5.6.2: token.
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
#: RFC 9110 5.5: no controls in a field value, HTAB excepted.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
#: RFC 9110 8.6, with a bound so that no one makes us parse a number of a million digits.
_LENGTH: Final = re.compile(r"[0-9]{1,18}", re.ASCII)

#: Fields that applications believe and anybody can write; X-Forwarded-* are such, too.
_FORGED: Final = frozenset({"forwarded", "proxy", "x-real-ip"})

#: Fields that no option makes a matter of trust: ours, those of the request itself, and "httpoxy".
_NOT_FURTHER: Final = frozenset({"host", "proxy", "via", "x-request-id", "content-type"})

#: Lower-case field names as messages carry them: the text, or None where it must not cross. Field
#: names repeat, so this saves most of their cost; foreign names stop being remembered at the bound.
_names: dict[bytes, str | None] = {}
_NAMES_BOUND: Final = 1024


def is_token(text: str) -> bool:
    """Whether `text` is a token (RFC 9110 5.6.2): a method or a field name."""
    return _TOKEN.fullmatch(text) is not None


def _crosses(name: str) -> bool:
    return name not in _NEVER_CROSS and not name.startswith("proxy-")


def _is_forged(name: str) -> bool:
    """Whether applications would take the field for another one, or believe it without reason.

    CGI and WSGI write ``-`` as ``_``: ``X_Forwarded_For`` would pass for ``X-Forwarded-For``. And
    they write ``Proxy`` as HTTP_PROXY, by which many programs choose their proxy ("httpoxy"). The
    others say who the client is, and anybody can write them; those that are true are set anew.
    """
    return "_" in name or name in _FORGED or name.startswith("x-forwarded-")


def is_further(name: str) -> bool:
    """Whether a lower-case `name` can be that of a further field which trusted proxies alone may
    write: not one that says what the request is, that never crosses, or that is ours.
    """
    return (
        is_token(name)
        and "_" not in name
        and _crosses(name)
        and name not in _NOT_FURTHER
        and name not in (FORWARDED, *X_FORWARDED)
    )


def is_dropped(name: str) -> bool:
    """Whether `request_headers` drops a field of this lower-case name from everybody."""
    return not _crosses(name) or _is_forged(name)


def _request_name(raw: bytes) -> str | None:
    """The field name as the message carries it, or None where it is dropped."""
    name = raw.decode("latin-1").lower()
    kept = name if _crosses(name) and not _is_forged(name) else None
    if len(_names) < _NAMES_BOUND and len(raw) <= 64:
        _names[raw] = kept
    return kept


def request_headers(
    fields: Iterable[tuple[bytes, Sequence[bytes]]], *, proxied: bool = False
) -> list[tuple[str, str]]:
    """The header fields of a client that go into the message.

    `fields` are names with all their values, in the order of arrival (the shape of
    `twisted.web.http_headers.Headers.getAllRawHeaders`). Gives ``(name, value)`` pairs, names in
    lower case, repetition kept.

    With `proxied` they come from a trusted proxy, and what ``Connection`` names stays: haproxy
    leaves a client's ``Connection`` as it is, so that client could take away what the proxy has
    added (``X-User``, say). A field too many does no harm.
    """
    kept: list[tuple[str, str]] = []
    named: set[str] | None = None
    for raw, values in fields:
        try:
            name = _names[raw]
        except KeyError:
            name = _request_name(raw)
        if name is not None:
            for value in values:
                kept.append((name, value.decode("latin-1")))
        elif not proxied and raw.lower() == b"connection":
            named = (named or set()) | connection_options(values)
    if named:
        named -= _END_TO_END
        kept = [pair for pair in kept if pair[0] not in named]
    return kept


def connection_options(values: Iterable[bytes]) -> set[str]:
    """The options of all ``Connection`` fields, lower-case (RFC 9110 7.6.1: a list)."""
    text = b",".join(values).decode("latin-1").lower()
    return {option.strip(" \t") for option in text.split(",")} - {""}


def reply_headers(value: object) -> tuple[list[tuple[bytes, bytes]], int | None]:
    """The header fields of a reply's ``headers`` that go to the client.

    `value` is what the JSON had: a list of ``[name, value]`` pairs, or an object whose values are
    texts or lists of texts. Gives the pairs as bytes, and the length that the worker declared in
    ``Content-Length``, None where it did not or where it is no usable length: never used for
    framing, only to answer HEAD (RFC 9110 8.6).

    Raises `ReplyError` for anything that is not a header section (RFC 9110 5.1, 5.5).
    """
    kept: list[tuple[bytes, bytes]] = []
    named: set[str] | None = None
    length: str | None = None
    for name, text in _pairs(value):
        lowered = name.lower()
        if _TOKEN.fullmatch(name) is None:
            raise ReplyError(f"header name {name[:64]!r} is not a token (RFC 9110 5.1)")
        if _CONTROL.search(text) is not None:
            raise ReplyError(f"header {name[:64]!r} has a control character in its value")
        if not _crosses(lowered):
            if lowered == "content-length":
                given = text.strip(" \t")
                # Two that differ are none.
                length = given if length is None or length == given else ""
            elif lowered == "connection":
                options = connection_options([text.encode("latin-1", "replace")])
                named = (named or set()) | options
            continue
        try:
            kept.append((name.encode("ascii"), text.strip(" \t").encode("latin-1")))
        except UnicodeEncodeError:
            raise ReplyError(
                f"header {name[:64]!r} has characters outside ISO-8859-1; percent-encode them "
                "(RFC 8187)"
            ) from None
    if named:
        kept = [pair for pair in kept if pair[0].lower().decode("ascii") not in named]
    if length is None or _LENGTH.fullmatch(length) is None:
        return kept, None
    return kept, int(length)


def _pairs(value: object) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict):
        for name, texts in value.items():
            for text in texts if isinstance(texts, list) else (texts,):
                yield name, _text(name, text)
    elif isinstance(value, list):
        for pair in value:
            if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
                raise ReplyError("headers: expected [name, value] pairs")
            yield pair[0], _text(pair[0], pair[1])
    else:
        raise ReplyError(f"headers: expected a list or an object, got {type(value).__name__}")


def _text(name: str, value: object) -> str:
    # Node sets lengths and ages as numbers, and its own server takes them so.
    if type(value) is int:
        return str(value)
    if type(value) is float and name.lower() == "content-length":
        # JSON has no whole numbers beyond 64 bits; as a text it would be dropped for its size.
        return ""
    if not isinstance(value, str):
        raise ReplyError(f"header {name[:64]!r}: expected a text, got {type(value).__name__}")
    return value
