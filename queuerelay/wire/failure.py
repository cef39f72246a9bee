"""Entries of ``resque:failed``, as resque-web and node-resque read them.

All seven keys of Resque's own failures are always there (resque-web answers 500 without
``worker`` or with a numeric ``failed_at``); ours follow under one more key.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from queuerelay.errors import MessageError
from queuerelay.wire import exact
from queuerelay.wire.body import decode_body, encode_body
from queuerelay.wire.message import REQUEST_CLASS, Attempt, attempt_json

#: Longest part of an unreadable message that its failure keeps, in bytes.
READABLE_BOUND: Final = 64 * 1024
#: The class in the payload of a message that could not be read.
UNREADABLE_CLASS: Final = "Unreadable"
#: What stands where a credential was.
REDACTED: Final = "[redacted]"
#: Names of header fields that have credentials in them, by their last word.
_CREDENTIAL: Final = re.compile(
    r"(?:.*[-_])?(?:authorization|cookie2?|token|api-?key|key|secret|password|session|jwt)"
    r"(?:-id)?",
    re.IGNORECASE,
)
_IN_TEXT: Final = re.compile(r'("([\w-]{1,64})"\s*[:,]\s*)"(?:[^"\\]|\\.)*"?')


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is kept of messages that failed for good, and for how long; ``[failed]`` in the file."""

    #: Most dead letters; the oldest are dropped.
    max_count: int = 10_000
    #: Most bytes of all dead letters, as Redis counts its memory.
    max_bytes: int = 256 * 1024 * 1024
    #: Seconds after which a dead letter is dropped.
    max_age: float = 180 * 86400.0
    #: Bytes of a request's body.
    max_body: int = 16 * 1024
    #: Names of header fields, lower-case, whose values are left out beside those of credentials.
    redact: tuple[str, ...] = ()

    def hides(self, name: str) -> bool:
        """Whether the value of the header field `name` is left out."""
        return _CREDENTIAL.fullmatch(name) is not None or name.lower() in self.redact


#: What is kept where nobody says anything.
KEPT: Final = Kept()


def encode_failure(
    *,
    raw: bytes,
    queue: str,
    worker: str,
    exception: str,
    error: str,
    failed_at: float,
    backtrace: Sequence[str] = (),
    attempts: Sequence[Attempt] = (),
    kept: Kept = KEPT,
) -> bytes:
    """The entry for the message `raw` that failed for good at `failed_at` (Unix seconds).

    The payload is the message's class and args where it has them, else its bytes as escaped text;
    of a request as much as is `kept`.
    `worker` is ``name:pid:queues``.
    """
    message_id, payload = _payload(raw, kept)
    value = {
        "failed_at": time.strftime("%Y/%m/%d %H:%M:%S UTC", time.gmtime(failed_at)),
        "payload": payload,
        "exception": exception,
        "error": error,
        "backtrace": list(backtrace),
        "worker": worker,
        "queue": queue,
        "queuerelay": {
            "id": message_id,
            "attempts": [attempt_json(attempt) for attempt in attempts],
        },
    }
    try:
        return exact.dump(value)
    except MessageError:
        # What cannot be written again is kept as text, like what cannot be read.
        return exact.dump({**value, "payload": _unreadable(raw, kept)})


def _payload(raw: bytes, kept: Kept) -> tuple[str, dict[str, Any]]:
    try:
        # orjson first: what the rest of us cannot read is unreadable, although Python might.
        value = orjson.loads(raw)
        if not (isinstance(value, dict) and value.get("class") == REQUEST_CLASS):
            value = exact.load(raw)
    except (orjson.JSONDecodeError, MessageError):
        return "", _unreadable(raw, kept)
    if not (isinstance(value, dict) and isinstance(value.get("args"), list)):
        return "", _unreadable(raw, kept)
    message_id = value.get("id")
    cls = value.get("class")
    if cls == REQUEST_CLASS:
        value["args"] = [_request(one, kept) for one in value["args"]]
    return (
        message_id if isinstance(message_id, str) else "",
        {"class": cls if isinstance(cls, str) else UNREADABLE_CLASS, "args": value["args"]},
    )


def _request(first: Any, kept: Kept) -> Any:
    """``args[0]`` of a request without credentials, and with the beginning of its body.

    ``body_size`` says how many bytes the body had, where some of them are missing.
    """
    if not isinstance(first, dict):
        return first
    found, headers = dict(first), first.get("headers")
    if isinstance(headers, list):
        found["headers"] = [_field(one, kept) for one in headers]
    elif headers is not None:
        found["headers"] = REDACTED
    text = first.get("body")
    if text is not None:
        try:
            body = decode_body(text, first.get("body_encoding"))
        except ValueError:
            body = str(text).encode("utf-8", "replace")
        if len(body) > kept.max_body:
            # Not base64 for half a character at the cut.
            cut = body[: kept.max_body].decode("utf-8", "ignore").encode()
            if len(cut) < kept.max_body - 3:
                cut = body[: kept.max_body]
            found["body"], found["body_encoding"] = encode_body(cut)
            found["body_size"] = len(body)
    return found


def _field(pair: Any, kept: Kept) -> Any:
    match pair:
        case [str(name), str(value)]:
            return [name, REDACTED if kept.hides(name) else value]
    return REDACTED


def _unreadable(raw: bytes, kept: Kept) -> dict[str, Any]:
    text = raw[:READABLE_BOUND].decode("utf-8", "backslashreplace")
    if REQUEST_CLASS in text:
        # What stands in the place of a value: a pair of a list, or a key of an object.
        text = _IN_TEXT.sub(
            lambda found: f'{found[1]}"{REDACTED}"' if kept.hides(found[2]) else found[0], text
        )
    return {"class": UNREADABLE_CLASS, "args": [text]}
