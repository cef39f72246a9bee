"""The value of ``resque:worker:<id>`` while a job runs, as Ruby Resque's `working_on` sets it."""

from datetime import UTC, datetime
from typing import Any, Final

import orjson

from queuerelay.wire.failure import UNREADABLE_CLASS

#: Longest message, in bytes, that is shown with its arguments.
SHOWN_BOUND: Final = 64 * 1024


def iso_8601(seconds: float) -> str:
    """Unix `seconds` as Ruby's ``Time.now.utc.iso8601`` writes them: ``2026-09-21T14:13:20Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def encode_working(worker_id: str, queue: str, message: bytes, *, run_at: float) -> bytes:
    """The value for `message` of `queue`, which runs since `run_at` (Unix seconds).

    node-resque finds its worker by the name in that value, ``host:pid`` without the queues; Ruby
    leaves that aside.
    orjson and not `exact`: it is for people to look at, and each job passes here.
    """
    worker = ":".join(worker_id.split(":")[:2])
    work: dict[str, Any] = {"queue": queue, "run_at": iso_8601(run_at), "worker": worker}
    try:
        value = orjson.loads(message)
        short = len(message) <= SHOWN_BOUND
        args = value["args"] if short else [f"{len(message)} bytes"]
        return orjson.dumps({**work, "payload": {"class": value["class"], "args": args}})
    except (orjson.JSONDecodeError, orjson.JSONEncodeError, KeyError, TypeError):
        return orjson.dumps({**work, "payload": {"class": UNREADABLE_CLASS, "args": []}})
