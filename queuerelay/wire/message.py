"""Messages on a queue, in Resque's format: requests that a client waits for, and jobs.

A message is ``{"class": …, "args": […], "queue": …, "id": …, "queue_time": …}``, compact UTF-8
JSON; the last three keys are php-resque's and may be missing. Attempts that failed travel in one
more key, ``queuerelay``, which other libraries ignore. ``queue_time`` stands last on purpose: the
age of a queue's oldest message is read from the tail of its bytes.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from queuerelay.errors import MessageError
from queuerelay.wire import exact
from queuerelay.wire.body import decode_body, dump, put_body
from queuerelay.wire.headers import is_token
from queuerelay.wire.json_object import load_object

#: The Resque class of requests; its name is the seed's.
REQUEST_CLASS: Final = "RequestProcessor"
#: Version of the message format, ``args[0].v``.
VERSION: Final = 1
#: Methods that may run twice without harm (RFC 9110 9.2.2).
IDEMPOTENT_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"})


#: Seconds by which a producer's clock may be ahead, and ago that a message may have been pushed;
#: what says more is taken for what says nothing.
AHEAD: Final = 60.0
LONG_AGO: Final = 10 * 365.25 * 24 * 3600.0
#: The times in a message of `encode_request`.
_STAMPS: Final = re.compile(
    rb'"accepted_at":([0-9]+\.[0-9]+),"deadline":([0-9]+\.[0-9]+),.*"queue_time":([0-9]+\.[0-9]+)}$'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt at a message that did not succeed; what ``resque:failed`` shows of it."""

    #: Unix seconds at which the attempt began.
    started_at: float
    #: Seconds from the attempt's beginning to its end, or until the attempt was missed.
    run: float
    #: Why the attempt ended.
    error: str
    #: The worker that made the attempt, as ``hostname:pid`` or the like.
    worker: str = ""
    #: Exit status of the script, None where it had none.
    exit: int | None = None
    #: Name of the signal that ended the script, or that its exit status stands for; "" for none.
    signal: str = ""
    #: The last output on stderr, and on stdout.
    stderr: str = ""
    stdout: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedStarts:
    """The starts of a message's script that came to nothing since its last attempt."""

    number: int = 0
    #: Unix seconds of the first of them.
    since: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A client's HTTP request, as its message carries it (``args[0]``)."""

    #: Id of the held request; ``<relay>-<32 hex digits>``.
    node_id: str
    #: The request target, ISO-8859-1 text: one character for one byte.
    url: str
    method: str
    #: HTTP version, ``1.0`` or ``1.1``.
    http_version: str
    #: Pairs ``(lower-case name, ISO-8859-1 value)`` in the order of arrival.
    headers: Sequence[tuple[str, str]]
    body: bytes
    #: IP address of the client, "" where it has none (a Unix socket).
    remote_addr: str
    #: Scheme, ``http`` or ``https``.
    scheme: str
    #: Redis list that takes the reply.
    reply_to: str
    #: Unix seconds at which the relay took the request.
    accepted_at: float
    #: Unix seconds after which no client waits.
    deadline: float

    @property
    def idempotent(self) -> bool:
        """Whether the request may run twice (RFC 9110 9.2.2)."""
        return self.method in IDEMPOTENT_METHODS


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A decoded message of any class."""

    cls: str
    args: Sequence[Any]
    #: The request in the message, None for a job.
    request: Request | None
    #: Attempts that failed, oldest first.
    attempts: Sequence[Attempt] = field(default_factory=tuple)
    failed_starts: FailedStarts = FailedStarts()
    #: Top-level ``id``, "" where the message has none.
    id: str = ""
    #: Unix seconds at which the message was pushed first, None where it does not say.
    pushed_at: float | None = None

    @property
    def reply_to(self) -> str | None:
        """The list that the message names for its reply: `destination` says whether to follow."""
        if self.request is not None:
            return self.request.reply_to
        first = self.args[0] if self.args else None
        reply_to = first.get("reply_to") if isinstance(first, dict) else None
        return reply_to if isinstance(reply_to, str) and reply_to else None


def waited(pushed_at: float | None, now: float) -> float | None:
    """Seconds that a message has waited that says that it was pushed at `pushed_at`.

    None where it does not say, or cannot be believed: any producer writes what its own clock says.
    """
    if pushed_at is None:
        return None
    wait = now - pushed_at
    return max(0.0, wait) if -AHEAD <= wait <= LONG_AGO else None


def encode_request(
    *,
    queue: str,
    node_id: str,
    url: str,
    method: str,
    http_version: str,
    headers: Sequence[tuple[str, str]],
    body: bytes,
    remote_addr: str,
    scheme: str,
    reply_to: str,
    accepted_at: float,
    deadline: float,
) -> bytes:
    """The message for one request; the fields are those of `Request`.

    A plain function of plain values, because it runs once for every request of the relay.
    """
    first: dict[str, Any] = {
        "node_id": node_id,
        "url": url,
        "method": method,
        "http_version": http_version,
    }
    if headers:
        first["headers"] = headers
    text = put_body(first, body) if body else b""
    if remote_addr:
        first["remote_addr"] = remote_addr
    first["scheme"] = scheme
    first["reply_to"] = reply_to
    first["accepted_at"] = accepted_at
    first["deadline"] = deadline
    first["v"] = VERSION
    return dump(
        {
            "class": REQUEST_CLASS,
            "args": [first],
            "queue": queue,
            "id": node_id,
            "queue_time": accepted_at,
        },
        text,
    )


def restamped(message: bytes, accepted_at: float) -> bytes:
    """A message of `encode_request` as of `accepted_at`, its deadline as much later as before.

    It has as many bytes as before, so the times are as exact as there is room for.
    """
    # The last ones are ours: a body and header fields stand before them.
    found = _STAMPS.search(message, message.rfind(b'"accepted_at":'))
    if found is None:
        return message
    ahead = accepted_at - float(found[1])
    parts, end = [], 0
    for group in (1, 2, 3):
        start, stop = found.span(group)
        whole, _, fraction = found[group].partition(b".")
        stamp = b"%.*f" % (len(fraction), float(found[group]) + ahead)
        parts += [message[end:start], stamp.rjust(len(whole) + 1 + len(fraction))]
        end = stop
    return b"".join((*parts, message[end:]))


def decode_message(raw: bytes) -> Message:
    """The message in `raw`, or `MessageError` that says which part is wrong.

    Unknown keys are ignored; keys that php-resque adds may be missing.
    """
    value = load_object(raw, error=MessageError)
    cls, args = value.get("class"), value.get("args")
    if not isinstance(cls, str) or not cls:
        raise MessageError(f"class: expected a text, got {_kind(cls)}")
    if not isinstance(args, list):
        raise MessageError(f"args: expected a list, got {_kind(args)}")
    request = None
    if cls == REQUEST_CLASS:
        if len(args) != 1 or not isinstance(args[0], dict):
            raise MessageError("args: expected one object in a request")
        request = _decode_request(args[0])
    return Message(
        cls=cls,
        args=args,
        request=request,
        attempts=_decode_attempts(value),
        failed_starts=_decode_failed_starts(value),
        id=_text(value.get("id")),
        pushed_at=_number(value.get("queue_time")),
    )


def with_attempt(raw: bytes, attempt: Attempt) -> bytes:
    """The message in `raw`, with `attempt` added to the failed attempts.

    Raises `MessageError` where `raw` is not an object, or is nested too deeply to be written.
    """
    return _rewritten(raw, lambda attempts: {"attempts": [*attempts, attempt_json(attempt)]})


def with_failed_starts(raw: bytes, starts: FailedStarts) -> bytes:
    """The message in `raw`, with `starts` noted. Raises `MessageError` as `with_attempt` does."""
    noted = {"number": starts.number, "since": _milliseconds(starts.since)}
    return _rewritten(raw, lambda attempts: {"attempts": attempts, "failed_starts": noted})


def _rewritten(raw: bytes, ours: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> bytes:
    value = exact.load(raw)
    if not isinstance(value, dict):
        raise MessageError(f"expected an object, got {type(value).__name__}")
    attempts = [attempt_json(one) for one in _decode_attempts(value)]
    queue_time = value.pop("queue_time", None)
    value["queuerelay"] = ours(attempts)
    if queue_time is not None:
        value["queue_time"] = queue_time
    return exact.dump(value)


def attempt_json(attempt: Attempt) -> dict[str, Any]:
    """The attempt as JSON writes it, in messages and in failures."""
    written: dict[str, Any] = {
        "started_at": _milliseconds(attempt.started_at),
        "run": _milliseconds(attempt.run),
        "error": attempt.error,
        "worker": attempt.worker,
    }
    if attempt.exit is not None:
        written["exit"] = attempt.exit
    if attempt.signal:
        written["signal"] = attempt.signal
    if attempt.stderr:
        written["stderr"] = attempt.stderr
    if attempt.stdout:
        written["stdout"] = attempt.stdout
    return written


def _milliseconds(seconds: float) -> float:
    """`seconds` to the millisecond, as JavaScript would write it: 5 for 5.0, and no exponent.

    node-resque finds a failure to remove or retry by the text that it would write for that failure.
    """
    rounded = round(seconds, 3)
    return int(rounded) if rounded.is_integer() else rounded


def _decode_attempts(value: dict[str, Any]) -> tuple[Attempt, ...]:
    ours = value.get("queuerelay")
    listed = ours.get("attempts") if isinstance(ours, dict) else None
    attempts = []
    for one in listed if isinstance(listed, list) else ():
        if not isinstance(one, dict):
            continue
        attempts.append(
            Attempt(
                started_at=_number(one.get("started_at")) or 0.0,
                run=_number(one.get("run")) or 0.0,
                error=_text(one.get("error")),
                worker=_text(one.get("worker")),
                exit=_exit(one.get("exit")),
                signal=_text(one.get("signal")),
                stderr=_text(one.get("stderr")),
                stdout=_text(one.get("stdout")),
            )
        )
    return tuple(attempts)


def _decode_failed_starts(value: dict[str, Any]) -> FailedStarts:
    ours = value.get("queuerelay")
    noted = ours.get("failed_starts") if isinstance(ours, dict) else None
    if not isinstance(noted, dict):
        return FailedStarts()
    number, since = _number(noted.get("number")), _number(noted.get("since"))
    if number is None or since is None or not 0 < number < 2**31:
        return FailedStarts()
    return FailedStarts(number=int(number), since=since)


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _exit(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= 255 else None


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return None


def _decode_request(first: dict[str, Any]) -> Request:
    def text(name: str, default: str | None = None) -> str:
        value = first.get(name, default)
        if not isinstance(value, str) or (default is None and not value):
            raise MessageError(f"args[0].{name}: expected a text, got {_kind(value)}")
        return value

    def seconds(name: str) -> float:
        value = first.get(name)
        number = _number(value)
        if number is None:
            if value is not None:
                raise MessageError(f"args[0].{name}: expected a number, got {_kind(value)}")
            # The seed's messages have node_id and url alone: no deadline.
            return 0.0 if name == "accepted_at" else float("inf")
        return number

    method = text("method", "GET")
    if not is_token(method):
        raise MessageError(f"args[0].method: expected a token, got {method[:32]!r}")
    url = text("url")
    return Request(
        node_id=text("node_id"),
        url=url,
        method=method,
        http_version=text("http_version", "1.1"),
        headers=_decode_headers(first.get("headers")),
        body=_decode_body(first),
        remote_addr=text("remote_addr", ""),
        scheme=text("scheme", "http"),
        reply_to=text("reply_to"),
        accepted_at=seconds("accepted_at"),
        deadline=seconds("deadline"),
    )


def _decode_headers(value: object) -> list[tuple[str, str]]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise MessageError(f"args[0].headers: expected a list of pairs, got {_kind(value)}")
    pairs = []
    for pair in value:
        if not (
            isinstance(pair, list)
            and len(pair) == 2
            and isinstance(pair[0], str)
            and isinstance(pair[1], str)
        ):
            raise MessageError("args[0].headers: expected [name, value] pairs of texts")
        pairs.append((pair[0], pair[1]))
    return pairs


def _decode_body(first: dict[str, Any]) -> bytes:
    try:
        return decode_body(first.get("body"), first.get("body_encoding"))
    except ValueError as error:
        raise MessageError(f"args[0].{error}") from error
