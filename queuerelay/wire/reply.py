"""Replies: what a worker pushes for a held request.

Only ``node_id`` is required. A reply that cannot be understood ends its request with 502, so
`decode_reply` says precisely what is wrong, and `salvage_node_id` finds whom it was for.

A streamed reply comes in frames. Whether one is the first, a further one or the last, only whoever
has seen those before it can tell (`queuerelay.relay.stream`); here each is merely decoded.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from queuerelay.errors import ReplyError
from queuerelay.wire.body import LARGE, cut_body, decode_body, dump, put_body
from queuerelay.wire.headers import reply_headers
from queuerelay.wire.json_object import load_object

_DEFAULT_HEADERS: Final = ((b"Content-Type", b"text/plain; charset=utf-8"),)
_NODE_ID: Final = re.compile(rb'"node_id"\s*:\s*"([0-9a-f]+-[0-9a-f]{32})"')
#: Longest time in seconds; a worker that measured more has measured something else.
_LONGEST_TIME: Final = 1e6
#: Highest number of a frame: what every language's JSON carries exactly (RFC 8259 6).
LAST_NUMBER: Final = 2**53 - 1
#: Problems for which there is no worker's answer: it died or failed, or it took too long.
PROBLEMS: Final = ("worker-failed", "worker-timeout")
#: Statuses without a body (RFC 9110 15.3.5, 15.4.5).
NO_BODY_STATUSES: Final = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class Reply:
    """A worker's answer, checked: it can be sent as it is.

    Not keyword-only, and built once for every request: this is the relay's hot path.
    """

    #: Id of the held request that the reply answers.
    node_id: str
    #: HTTP status, 200 to 599; 101 and its kind never come from a worker.
    status: int
    #: Pairs ``(name, value)``, no framing and no hop-by-hop field among them.
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    #: Content-Length as the worker gave it: the answer to HEAD may say it (RFC 9110 8.6).
    declared_length: int | None = None
    #: Seconds in the queue and in the worker, None for what the worker did not measure.
    timing: tuple[float | None, float | None] | None = None


@dataclass(frozen=True, slots=True)
class Frame(Reply):
    """A reply that may be a part of a streamed one, or the whole."""

    #: Whether the frame has a status or header fields, as the first frame has and no other.
    opens: bool = False
    #: Whether more frames follow.
    more: bool = False
    #: Number of the frame, one more than that of the frame before it; None where the worker
    #: gives none.
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Failed(Reply):
    """No worker's answer, but the word of whoever found that there will be none; it can be sent as
    it is, by a relay that has no answer of its own for that.
    """

    #: The problem, one of `PROBLEMS`.
    problem: str = ""


def decode_reply(raw: bytes) -> Reply:
    """The reply in `raw`, a `Frame` where it may be part of a streamed one, `Failed` where it says
    that there is no answer, or `ReplyError` that says which part is wrong.
    """
    value, text, node_id = _load(raw)
    status = value.get("status", 200)
    if type(status) is not int or not 200 <= status <= 599:
        got = status if type(status) is int else type(status).__name__
        raise ReplyError(f"status: got {got}, expected a whole number from 200 to 599")
    fields = value.get("headers")
    headers: Sequence[tuple[bytes, bytes]]
    if fields is None:
        headers, declared = _DEFAULT_HEADERS, None
    else:
        headers, declared = reply_headers(fields)
    body = _body(text, value.get("body_encoding"))
    timing = value.get("timing")
    if timing is not None:
        timing = _timing(timing)
    if "status" not in value or "more" in value or "n" in value:
        opens = "status" in value or fields is not None
        return Frame(node_id, status, headers, body, declared, timing, opens, *_place(value))
    if value.get("problem") in PROBLEMS:
        return Failed(node_id, status, headers, body, declared, timing, value["problem"])
    return Reply(node_id, status, headers, body, declared, timing)


def _place(value: dict[str, Any]) -> tuple[bool, int | None]:
    """Whether more frames follow, and the number of this one."""
    more, number = value.get("more"), value.get("n")
    if more is not None and type(more) is not bool:
        raise ReplyError(f"more: expected true or false, got {type(more).__name__}")
    if number is not None and not (type(number) is int and 0 <= number <= LAST_NUMBER):
        got = number if type(number) is int else type(number).__name__
        raise ReplyError(f"n: got {got}, expected a whole number from 0 to {LAST_NUMBER}")
    return bool(more), number


def decode_legacy_reply(raw: bytes) -> Reply:
    """The reply of one of the seed's workers: ``node_id`` and a percent-escaped ``body``.

    Those workers send the request's own keys back with it, its headers among them, so nothing but
    these two is believed. Raises `ReplyError`.
    """
    _, text, node_id = _load(raw)
    return Reply(node_id, 200, _DEFAULT_HEADERS, _body(text, "percent"))


def _timing(value: object) -> tuple[float | None, float | None] | None:
    """The times in a reply's timing; others are left out: no answer fails for a measurement."""
    if not isinstance(value, dict):
        return None
    wait, run = value.get("wait"), value.get("run")
    # As nearly all are.
    if type(wait) is type(run) is float and 0 <= wait < _LONGEST_TIME and 0 <= run < _LONGEST_TIME:
        return wait, run
    timing = _seconds(wait), _seconds(run)
    return None if timing == (None, None) else timing


def _seconds(value: object) -> float | None:
    # Not isinstance: True is an int for Python. Neither NaN nor infinity gets through orjson.
    if (type(value) is float or type(value) is int) and 0 <= value < _LONGEST_TIME:
        return float(value)
    return None


def _load(raw: bytes) -> tuple[dict[str, Any], object, str]:
    if len(raw) < LARGE:
        value = load_object(raw, error=ReplyError)
        text = value.get("body")
    else:
        value, text = cut_body(raw, partial(load_object, error=ReplyError))
    node_id = value.get("node_id")
    if not isinstance(node_id, str) or not node_id:
        raise ReplyError(f"node_id: expected a text, got {type(node_id).__name__}")
    return value, text, node_id


def _body(text: object, encoding: object) -> bytes:
    try:
        return decode_body(text, encoding)
    except ValueError as error:
        raise ReplyError(str(error)) from error


def encode_reply(
    *,
    node_id: str,
    status: int = 200,
    headers: Sequence[tuple[str, str]] | None = None,
    body: bytes = b"",
    timing: Mapping[str, float] | None = None,
    more: bool = False,
    number: int | None = None,
    problem: str | None = None,
) -> bytes:
    """The reply as a worker pushes it; header values are ISO-8859-1 text.

    `timing` has seconds under ``wait`` (in the queue) and ``run`` (in the worker). With `more` it
    is the first frame of a streamed reply, numbered `number`. With `problem` (see `PROBLEMS`) it
    says that there is no worker's answer.
    """
    value: dict[str, Any] = {"node_id": node_id, "status": status}
    if headers is not None:
        value["headers"] = headers
    text = put_body(value, body) if body else b""
    if timing:
        value["timing"] = timing
    if more:
        value["more"] = True
    if number is not None:
        value["n"] = number
    if problem is not None:
        value["problem"] = problem
    return dump(value, text)


def encode_frame(*, node_id: str, body: bytes, more: bool, number: int | None = None) -> bytes:
    """A further frame of a streamed reply; without `more` the last."""
    value: dict[str, Any] = {"node_id": node_id, "more": more}
    text = put_body(value, body) if body else b""
    if number is not None:
        value["n"] = number
    return dump(value, text)


def salvage_node_id(raw: bytes) -> str | None:
    """The ``node_id`` of an undecodable reply, if its bytes still tell; else None.

    Ids are unguessable, so a text that looks like one of ours and is held *is* ours.
    """
    found = _NODE_ID.search(raw)
    return found.group(1).decode("ascii") if found else None
