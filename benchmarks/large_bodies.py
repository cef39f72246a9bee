"""How long the reactor stands still for one large body, step by step, and what it holds meanwhile.

    python benchmarks/large_bodies.py [MiB]

Prints milliseconds, the best of five: a request is encoded and packed for Redis, and a reply is
decoded. Nobody else is served meanwhile. The second figure is what one run holds at most.
"""

import os
import sys
import time
import tracemalloc
from collections.abc import Callable

import hiredis

from queuerelay.wire.message import encode_request
from queuerelay.wire.reply import decode_reply, encode_reply


def best(step: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds of the fastest run, and MiB at most that one run holds."""
    times = []
    for _ in range(5):
        since = time.perf_counter()
        step()
        times.append(time.perf_counter() - since)
    tracemalloc.start()
    step()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return min(times) * 1e3, peak / 2**20


def request(body: bytes) -> bytes:
    return encode_request(
        queue="requests",
        node_id="0a1b2c3d-" + "0" * 32,
        url="/",
        method="POST",
        http_version="1.1",
        headers=[("host", "example.org")],
        body=body,
        remote_addr="192.0.2.1",
        scheme="http",
        reply_to="queuerelay:inbox:0a1b2c3d",
        accepted_at=1.0,
        deadline=2.0,
    )


def main(size: int) -> None:
    """Measure bodies of `size` bytes."""
    bodies = {
        "text": b"x" * size,
        "utf-8": "é".encode() * (size // 2),
        "json": b'{"a": "b"},\n' * (size // 12),
        "bytes": os.urandom(size),
        "control": bytes(size),
    }
    print(f"{'body':10}{'step':10}{'ms':>8}{'MiB':>8}")
    for name, body in bodies.items():
        message, reply = request(body), encode_reply(node_id="a", body=body)
        steps: dict[str, Callable[[], object]] = {
            "encode": lambda body=body: request(body),  # type: ignore[misc]
            "pack": lambda message=message: hiredis.pack_command(("RPUSH", "q", message)),  # type: ignore[misc]
            "decode": lambda reply=reply: decode_reply(reply),  # type: ignore[misc]
        }
        for step, run in steps.items():
            taken, held = best(run)
            print(f"{name:10}{step:10}{taken:8.1f}{held:8.0f}")


if __name__ == "__main__":
    main(int(sys.argv[1] if len(sys.argv) > 1 else 16) * 2**20)
