"""What a relay weighs when clients send all that they may, and more."""

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.helpers.strict import request

MiB = 1024 * 1024
BODY, BODIES, BUDGET = 8 * MiB, 30, 64 * MiB


def highest(pid):
    """The most memory that the process had so far, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def test_promise_6_large_bodies_at_once_stay_near_the_budget(relay, worker):
    one = relay("--max-held-bytes", str(BUDGET), "--max-body", str(BODY), "--deadline", "600")
    before = highest(one.process.pid)
    data = request("POST", body=bytes(BODY))
    clients = [socket.create_connection(("127.0.0.1", one.port), 60) for _ in range(BODIES)]

    def send(client):
        try:
            client.sendall(data)
        except ConnectionError:
            # It was refused, and sends on all the same.
            return False
        return True

    with ThreadPoolExecutor(BODIES) as threads:
        list(threads.map(send, clients))
    weighs = highest(one.process.pid) - before
    worker.redis.flushdb()
    for client in clients:
        client.close()
    # Each body was three times its size, and each of six times that in its message.
    assert weighs < 2 * BUDGET, f"{weighs / MiB:.0f} MiB"
