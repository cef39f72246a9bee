"""What goes to a client: header fields and body for a worker's reply, or for an error of ours.

Pure: used by the front of our own and by the Resource in anybody's Site alike.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

import orjson

from queuerelay.errors import Refusal
from queuerelay.wire.reply import NO_BODY_STATUSES, Reply

Fields = Sequence[tuple[bytes, bytes]]

#: Reason phrases; a worker's own never reach a client.
REASONS: Final = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}

_TEXT: Final = b"text/plain; charset=utf-8"
_PROBLEM: Final = b"application/problem+json"


def reason_phrase(status: int) -> bytes:
    """The phrase for `status`; "Unknown" is as good as any (RFC 9112 4: clients ignore it)."""
    return REASONS.get(status, b"Unknown")


def for_reply(reply: Reply, method: bytes) -> tuple[Fields, bytes]:
    """Header fields, framing among them, and body for a worker's reply to `method`."""
    status = reply.status
    if status in NO_BODY_STATUSES:
        return reply.headers, b""
    # RFC 9110 15.3.6: a 205 has no content, and says so.
    body = b"" if status == 205 else reply.body
    if method == b"HEAD":
        # RFC 9110 8.6: the length that GET would have had, where it is known.
        length = len(body) if body or status == 205 else reply.declared_length
        if length is None:
            return reply.headers, b""
        body = b""
    else:
        length = len(body)
    return [*reply.headers, (b"content-length", b"%d" % length)], body


def for_refusal(refusal: Refusal, method: bytes, accept: Sequence[bytes]) -> tuple[Fields, bytes]:
    """Header fields and body for an error of ours: text, or JSON (RFC 9457) where the client's
    ``Accept`` fields ask for that. Nothing of the request is in it.
    """
    title = reason_phrase(refusal.status).decode("ascii")
    summary = (type(refusal).__doc__ or "").partition("\n")[0]
    if _wants_json(accept):
        kind = _PROBLEM
        body = orjson.dumps({"title": title, "status": refusal.status, "detail": summary})
    else:
        kind = _TEXT
        body = f"{refusal.status} {title}: {summary}.\n".encode()
    fields = [
        (b"content-type", kind),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    if refusal.retry_after is not None:
        fields.append((b"retry-after", b"%d" % refusal.retry_after))
    return fields, b"" if method == b"HEAD" else body


def _wants_json(accept: Sequence[bytes]) -> bool:
    wanted = b",".join(accept).lower()
    return b"json" in wanted and b"text/html" not in wanted
