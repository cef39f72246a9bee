"""What nodes and workers leave in Redis."""

import json

from queuerelay.wire.failure import encode_failure


def job(id, at, cls="Job"):
    message = {"class": cls, "args": [{"secret": "canary"}], "queue": "q", "id": id}
    return json.dumps({**message, "queue_time": at}).encode()


def pool(**fields):
    return {
        "name": "p",
        "queues": ["requests"],
        "size": 3,
        "min": 1,
        "max": 3,
        "busy": 1,
        "resting": "",
        "slots": [],
        "exits": [],
        "counters": {},
        "rates": {},
        **fields,
    }


def failure(number):
    return encode_failure(
        raw=job(f"m{number}", 1.0),
        queue="q",
        worker="queuerelay.h:1:q",
        exception="E",
        error="it failed",
        failed_at=1_790_000_000.0,
    )
