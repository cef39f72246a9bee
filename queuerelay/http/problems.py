"""An error of ours as its client reads it: text, JSON (RFC 9457), or a page of the operator's."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

import orjson

from queuerelay.errors import Refusal
from queuerelay.http.error_pages import Pages
from queuerelay.http.negotiate import Format, preferred_format

Fields = Sequence[tuple[bytes, bytes]]

#: Reason phrases; a worker's own never reach a client.
REASONS: Final = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}

_TYPES: Final = {
    Format.HTML: b"text/html; charset=utf-8",
    Format.PROBLEM: b"application/problem+json",
    Format.TEXT: b"text/plain; charset=utf-8",
}
_NO_PAGES: Final[Pages] = {}


def reason_phrase(status: int) -> bytes:
    """The phrase for `status`; "Unknown" is as good as any (RFC 9112 4: clients ignore it)."""
    return REASONS.get(status, b"Unknown")


def for_refusal(
    refusal: Refusal,
    method: bytes,
    accept: Sequence[bytes],
    id: bytes,
    pages: Pages = _NO_PAGES,
) -> tuple[Fields, bytes]:
    """Header fields and body for an error of ours, in the format that the client's ``Accept``
    fields ask for: text, JSON (RFC 9457), or one of the operator's `pages`.

    Nothing of the request is in the answer but its `id`, of letters that are safe anywhere.

    The answer is not to be stored, so it needs no ``Vary`` (RFC 9110 12.5.5: for what caches may
    reuse).
    """
    status = refusal.status
    page = pages.get(status)
    chosen = preferred_format(accept, html=page is not None)
    if page is not None and chosen is Format.HTML:
        body = page
    elif chosen is Format.PROBLEM:
        # Not as `instance`, a URI reference: an id is none.
        body = orjson.dumps({**_problem(type(refusal)), "request_id": id.decode("ascii")})
    else:
        body = _text(type(refusal))
    fields = [
        (b"Content-Type", _TYPES[chosen]),
        (b"Content-Length", b"%d" % len(body)),
        (b"Cache-Control", b"no-store"),
    ]
    if refusal.retry_after is not None:
        fields.append((b"Retry-After", b"%d" % refusal.retry_after))
    if refusal.allow is not None:
        fields.append((b"Allow", refusal.allow.encode("ascii")))
    return fields, b"" if method == b"HEAD" else body


def _title(kind: type[Refusal]) -> str:
    return reason_phrase(kind.status).decode("ascii")


def _summary(kind: type[Refusal]) -> str:
    return (kind.__doc__ or "").partition("\n")[0]


def _problem(kind: type[Refusal]) -> Mapping[str, object]:
    """The JSON of a problem (RFC 9457 3.1), of the type "about:blank", whose title is the status's
    own phrase (4.2.1).
    """
    return {
        "type": "about:blank",
        "title": _title(kind),
        "status": kind.status,
        "detail": _summary(kind),
    }


def _text(kind: type[Refusal]) -> bytes:
    return f"{kind.status} {_title(kind)}: {_summary(kind)}.\n".encode()
