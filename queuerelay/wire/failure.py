"""Entries of ``resque:failed``, as resque-web and node-resque read them.

All seven keys of Resque's own failures are always there (resque-web answers 500 without
``worker`` or with a numeric ``failed_at``); ours follow under one more key.
"""

import time
from collections.abc import Sequence
from typing import Any, Final

import orjson

from queuerelay.errors import MessageError
from queuerelay.wire import exact
from queuerelay.wire.message import Attempt, attempt_json

#: Longest part of an unreadable message that its failure keeps, in bytes.
READABLE_BOUND: Final = 64 * 1024
#: The class in the payload of a message that could not be read.
UNREADABLE_CLASS: Final = "Unreadable"


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
) -> bytes:
    """The entry for the message `raw` that failed for good at `failed_at` (Unix seconds).

    The payload is the message's class and args where it has them, else its bytes as escaped text.
    `worker` is ``name:pid:queues``.
    """
    message_id, payload = _payload(raw)
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
        return exact.dump({**value, "payload": _unreadable(raw)})


def _payload(raw: bytes) -> tuple[str, dict[str, Any]]:
    try:
        # orjson first: what the rest of us cannot read is unreadable, although Python might.
        orjson.loads(raw)
        value = exact.load(raw)
    except (orjson.JSONDecodeError, MessageError):
        return "", _unreadable(raw)
    if not (isinstance(value, dict) and isinstance(value.get("args"), list)):
        return "", _unreadable(raw)
    message_id = value.get("id")
    cls = value.get("class")
    return (
        message_id if isinstance(message_id, str) else "",
        {"class": cls if isinstance(cls, str) else UNREADABLE_CLASS, "args": value["args"]},
    )


def _unreadable(raw: bytes) -> dict[str, Any]:
    text = raw[:READABLE_BOUND].decode("utf-8", "backslashreplace")
    return {"class": UNREADABLE_CLASS, "args": [text]}
