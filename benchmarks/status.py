"""What looking costs: a scrape while 10,000 clients wait. ``python status.py [HELD]``

A relay with 10 queues and a pool, its status listener, and no worker. Scrapes are a bit more than a
second apart, so that each meets a snapshot that nobody has written out yet, and then once more at
once, which meets the same.
"""

import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from processes import free_port, wait_for

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
HELD = 10_000
QUEUES = 10
ROUNDS = 8
TICK = os.sysconf("SC_CLK_TCK")


def scrape(port: int, path: str, accept: str = "") -> tuple[float, bytes]:
    """Milliseconds that it took, and what came."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    began = time.perf_counter()
    connection.request("GET", path, headers={"Accept": accept})
    content = connection.getresponse().read()
    took = time.perf_counter() - began
    connection.close()
    return 1000 * took, content


def cpu(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def measure(held: int, directory: str) -> None:
    """All of it."""
    relay, status = free_port(), free_port()
    routes = "".join(
        f'[[relay.route]]\npath = "/{number}/"\nqueue = "q{number}"\n' for number in range(QUEUES)
    )
    config = Path(directory, "c.toml")
    config.write_text(
        f'[relay]\nlisten = ["tcp:{relay}:interface=127.0.0.1"]\nmax_held = {held + 100}\n{routes}'
        f'[status]\nlisten = "tcp:{status}:interface=127.0.0.1"\n'
        '[[pool]]\nname = "p"\nqueues = ["jobs"]\ncommand = ["true"]\nsize = 4\n'
    )
    with (
        open(Path(directory, "log"), "wb") as log,
        subprocess.Popen(
            [
                *(BIN / "twistd", "-n", "--pidfile=", "queuerelay"),
                *("--redis", "embedded", "--config", config),
            ],
            cwd=directory,
            stdout=log,
            stderr=log,
        ) as daemon,
    ):
        holders: subprocess.Popen[bytes] | None = None
        try:
            wait_for("the daemon", lambda: b"redis_up 1.0" in scrape(status, "/metrics")[1])
            show(status, daemon.pid, "nobody waits")
            holders = subprocess.Popen(
                [sys.executable, HERE / "holders.py", str(relay), str(held), "30"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            assert holders.stdin is not None
            assert holders.stdout is not None
            holders.stdout.readline()
            holders.stdin.write(b"\n")
            holders.stdin.flush()
            wanted = f"queuerelay_held {float(held)}\n".encode()
            wait_for("those who wait", lambda: wanted in scrape(status, "/metrics")[1])
            show(status, daemon.pid, f"{held:,} wait")
        finally:
            for process in (holders, daemon):
                if process is not None:
                    process.kill()


def show(port: int, pid: int, name: str) -> None:
    """Measure and print."""
    began, used = time.perf_counter(), cpu(pid)
    time.sleep(2.0)
    alone = (cpu(pid) - used) / (time.perf_counter() - began)
    fresh: dict[str, list[float]] = {"/metrics": [], "/status.json": []}
    again, series = [], 0
    for _ in range(ROUNDS):
        time.sleep(1.05)
        for path, took in fresh.items():
            milliseconds, content = scrape(port, path)
            took.append(milliseconds)
            if path == "/metrics":
                series = sum(not line.startswith(b"#") for line in content.splitlines())
                again.append(scrape(port, path)[0])
    print(f"{name}: {series} series; the daemon uses {100 * alone:.1f} % of a core by itself")
    for path, took in (*fresh.items(), ("/metrics again", again)):
        print(f"  {path:15} median {statistics.median(took):6.2f} ms, worst {max(took):6.2f} ms")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="queuerelay-") as directory:
        measure(int(sys.argv[1]) if len(sys.argv) > 1 else HELD, directory)
