"""What goes to a client: header fields and body for a worker's reply, or for an error of ours.

Pure: used by the front of our own and by the Resource in anybody's Site alike.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

import orjson

from queuerelay.errors import Refusal
from queuerelay.http.error_pages import Pages
from queuerelay.http.negotiate import Form, form
from queuerelay.wire.reply import NO_BODY_STATUSES, Reply

Fields = Sequence[tuple[bytes, bytes]]

#: Reason phrases; a worker's own never reach a client.
REASONS: Final = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}

_TYPES: Final = {
    Form.HTML: b"text/html; charset=utf-8",
    Form.PROBLEM: b"application/problem+json",
    Form.TEXT: b"text/plain; charset=utf-8",
}
_NO_PAGES: Final[Pages] = {}


def reason_phrase(status: int) -> bytes:
    """The phrase for `status`; "Unknown" is as good as any (RFC 9112 4: clients ignore it)."""
    return REASONS.get(status, b"Unknown")


def for_reply(reply: Reply, method: bytes, *, timed: bool = True) -> tuple[Fields, bytes]:
    """Header fields, framing among them, and body for a worker's reply to `method`; with a
    ``Server-Timing`` of ours where `timed` and the reply has its times.
    """
    status = reply.status
    headers = reply.headers
    if timed and reply.timing is not None:
        # Behind a worker's own, as one more line of the same list (RFC 9110 5.3).
        headers = [*headers, (b"server-timing", server_timing(*reply.timing))]
    if status in NO_BODY_STATUSES:
        return headers, b""
    # RFC 9110 15.3.6: a 205 has no content, and says so.
    body = b"" if status == 205 else reply.body
    if method == b"HEAD":
        # RFC 9110 8.6: the length that GET would have had, where it is known.
        length = len(body) if body or status == 205 else reply.declared_length
        if length is None:
            return headers, b""
        body = b""
    else:
        length = len(body)
    return [*headers, (b"content-length", b"%d" % length)], body


def server_timing(wait: float | None, run: float | None) -> bytes:
    """The value of ``Server-Timing`` (W3C) for seconds in the queue and in the worker, at least one
    of them known; durations there are milliseconds.
    """
    if wait is None or run is None:
        name, seconds = (b"work", run) if wait is None else (b"queue", wait)
        return (b"%b;dur=%.1f" % (name, (seconds or 0.0) * 1000)).replace(b".0", b"")
    return (b"queue;dur=%.1f, work;dur=%.1f" % (wait * 1000, run * 1000)).replace(b".0", b"")


def for_refusal(
    refusal: Refusal,
    method: bytes,
    accept: Sequence[bytes],
    id: bytes,
    pages: Pages = _NO_PAGES,
) -> tuple[Fields, bytes]:
    """Header fields and body for an error of ours, in the form that the client's ``Accept`` fields
    ask for: text, JSON (RFC 9457), or one of the operator's `pages`.

    Nothing of the request is in it but the request's `id`, of letters that are safe anywhere.

    It is not to be stored, so it needs no ``Vary`` (RFC 9110 12.5.5: for what caches may reuse).
    """
    status = refusal.status
    page = pages.get(status)
    chosen = form(accept, html=page is not None)
    if page is not None and chosen is Form.HTML:
        body = page
    elif chosen is Form.PROBLEM:
        # Not as `instance`, a URI reference: an id is none.
        body = orjson.dumps({**_problem(type(refusal)), "request_id": id.decode("ascii")})
    else:
        body = _text(type(refusal))
    fields = [
        (b"content-type", _TYPES[chosen]),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    if refusal.retry_after is not None:
        fields.append((b"retry-after", b"%d" % refusal.retry_after))
    if refusal.allow is not None:
        fields.append((b"allow", refusal.allow.encode("ascii")))
    return fields, b"" if method == b"HEAD" else body


def _title(kind: type[Refusal]) -> str:
    return reason_phrase(kind.status).decode("ascii")


def _summary(kind: type[Refusal]) -> str:
    return (kind.__doc__ or "").partition("\n")[0]


def _problem(kind: type[Refusal]) -> Mapping[str, object]:
    """RFC 9457 3.1; of the type "about:blank", whose title is the status's own phrase (4.2.1)."""
    return {
        "type": "about:blank",
        "title": _title(kind),
        "status": kind.status,
        "detail": _summary(kind),
    }


def _text(kind: type[Refusal]) -> bytes:
    return f"{kind.status} {_title(kind)}: {_summary(kind)}.\n".encode()
