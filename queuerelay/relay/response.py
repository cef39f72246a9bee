"""A worker's reply as its client gets it: header fields and body. Pure."""

from queuerelay.http.problems import Fields
from queuerelay.wire.reply import NO_BODY_STATUSES, Reply


def for_reply(reply: Reply, method: bytes, *, timed: bool = True) -> tuple[Fields, bytes]:
    """Header fields, framing among them, and body for a worker's reply to `method`; with a
    ``Server-Timing`` of ours where `timed` and the reply has its times.
    """
    status = reply.status
    headers = reply.headers
    if timed and reply.timing is not None:
        # Behind a worker's own, as one more line of the same list (RFC 9110 5.3).
        headers = [*headers, (b"Server-Timing", server_timing(*reply.timing))]
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
    return [*headers, (b"Content-Length", b"%d" % length)], body


def server_timing(wait: float | None, run: float | None) -> bytes:
    """The value of ``Server-Timing`` (W3C) for seconds in the queue and in the worker, at least one
    of them known; durations there are milliseconds.
    """
    if wait is None or run is None:
        name, seconds = (b"work", run) if wait is None else (b"queue", wait)
        return (b"%b;dur=%.1f" % (name, (seconds or 0.0) * 1000)).replace(b".0", b"")
    return (b"queue;dur=%.1f, work;dur=%.1f" % (wait * 1000, run * 1000)).replace(b".0", b"")
