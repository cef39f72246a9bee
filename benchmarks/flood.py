"""What a script that prints 2 GB does to requests: ``python benchmarks/flood.py [--rounds 5]``

A daemon is relay and pool in one process. One client after the other asks it, through Redis and a
fast worker, while nothing else happens (quiet), while a resident script of the daemon's own prints
2 GB as fast as it is read (flood), and while two other processes pass as much between each other
(beside), which is what the machine does to us anyway. Exit status 1 where a request of the flood
takes 20 ms more than the slowest that the other two had.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from browser import request
from processes import wait_for
from rig import Bench

#: Bytes that the script prints, and seconds that a request may be delayed.
BYTES = 2_000_000_000
DELAY = 0.020
#: Seconds of a quiet turn, and between two requests.
QUIET = 2.0
PACE = 0.002

#: Prints `BYTES` whenever it is told to by a file `go`, and then writes a file `over`.
SCRIPT = """\
#!{python}
import os, pathlib, time
os.sched_setaffinity(0, range(os.cpu_count()))
line = b"x" * 4000 + b"\\n"
folder = pathlib.Path({folder!r})
while True:
    if (folder / "go").exists():
        (folder / "go").unlink()
        for _ in range({bytes} // (16 * len(line))):
            os.write(1, line * 16)
        (folder / "over").touch()
    time.sleep(0.01)
"""


class Client:
    """Asks one thing after the other on one connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 30.0)

    def ask(self) -> float:
        """Seconds of one request."""
        began = time.perf_counter()
        self._socket.sendall(request("/things"))
        answer = b""
        while not answer.endswith(b"/things"):
            part = self._socket.recv(65536)
            if not part:
                raise SystemExit(f"the relay closed the connection: {answer!r}")
            answer += part
        return time.perf_counter() - began

    def until(self, over: Callable[[], bool]) -> list[float]:
        """Seconds of each request until `over`."""
        taken = []
        while not over():
            taken.append(self.ask())
            time.sleep(PACE)
        return taken


def beside() -> Callable[[], bool]:
    """Two others pass as much between each other; gives whether they are done."""
    both = subprocess.Popen(["/bin/sh", "-c", f"head -c {BYTES} /dev/zero | cat >/dev/null"])
    return lambda: both.poll() is not None


def later(seconds: float) -> Callable[[], bool]:
    """Whether so much time has passed."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def spread(values: list[float]) -> str:
    """Median, 99th percentile and maximum in milliseconds."""
    ordered = sorted(values)
    parts = [ordered[len(ordered) * 99 // 100], ordered[-1]]
    return " / ".join(f"{part * 1000:.1f}" for part in [statistics.median(ordered), *parts])


def measure(stack: ExitStack, folder: Path, rounds: int) -> bool:
    script = folder / "flood.py"
    script.write_text(SCRIPT.format(python=sys.executable, folder=str(folder), bytes=BYTES))
    script.chmod(0o755)
    config = folder / "queuerelay.toml"
    config.write_text(
        f'[[pool]]\nname = "flood"\nqueues = ["none"]\nresident = true\ncommand = ["{script}"]\n'
    )
    bench = Bench(stack, folder)
    subject = bench.fast(bench.relay("flood", "--role", "relay,pool", "--config", str(config)))
    daemon = subject.processes[0]
    client = Client(subject.port)
    taken: dict[str, list[float]] = {"quiet": [], "flood": [], "beside": []}
    memory = daemon.memory().rss
    for _ in range(rounds):
        taken["quiet"] += client.until(later(QUIET))
        (folder / "go").touch()
        taken["flood"] += client.until((folder / "over").exists)
        (folder / "over").unlink()
        # What it printed may still be on its way.
        wait_for("quiet", lambda: client.ask() < DELAY)
        taken["beside"] += client.until(beside())
    grown = daemon.memory().rss - memory
    for name, values in taken.items():
        print(f"{name:6} {len(values):6} requests, ms p50 / p99 / max: {spread(values)}")
    slowest = max(*taken["quiet"], *taken["beside"])
    delay = max(taken["flood"]) - slowest
    good = delay <= DELAY
    print(json.dumps({"delay_ms": round(delay * 1e3, 1), "grown_kib": grown, "as_promised": good}))
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    with tempfile.TemporaryDirectory(prefix="qr-flood-") as name, ExitStack() as stack:
        return 0 if measure(stack, Path(name), options.rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
