"""What ``make run`` runs: a relay with an embedded Valkey, and workers with the sample site.

Ctrl-C ends all of it in order, so that nothing and nobody is left behind: the relay first, which
answers what it holds while the workers still work. A second Ctrl-C skips the waiting.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

EXAMPLES = Path(__file__).parent / "examples"
#: Programs of the environment that this runs in.
BIN = Path(sys.executable).parent
#: Seconds between two looks at the processes.
INTERVAL = 0.1
#: Seconds that a process gets to end after it was told to.
GRACE = 40.0


class Signals:
    """Counts the signals that ask to stop."""

    def __init__(self) -> None:
        self.count = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, *_: object) -> None:
        self.count += 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal, or until one of the processes ends. Gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="tcp:8000", help="the relay's endpoint")
    parser.add_argument("--workers", type=int, default=1, help="how many (default: 1)")
    options = parser.parse_args(arguments)
    signals = Signals()
    # Short: the path of the server's Unix socket in it has 103 bytes at most.
    with tempfile.TemporaryDirectory(prefix="queuerelay-") as directory:
        redis = f"embedded:{directory}/valkey"
        relay = _start("twistd", "-n", f"--pidfile={directory}/twistd.pid", "queuerelay",
                       "--redis", redis, "--listen", options.listen)  # fmt: skip
        workers = [
            _start(
                "queuerelay-worker", "--redis", redis, "--chdir", str(EXAMPLES), "sample_site:app"
            )
            for _ in range(options.workers)
        ]
        try:
            while not signals.count and all(one.poll() is None for one in (relay, *workers)):
                time.sleep(INTERVAL)
            status = relay.poll() or 0
        finally:
            _stop([relay], signals)
            _stop(workers, signals)
    return status


def _start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
    # In a session of its own: Ctrl-C shall reach it through us, in order.
    return subprocess.Popen([str(BIN / program), *arguments], start_new_session=True)


def _stop(processes: Sequence[subprocess.Popen[bytes]], signals: Signals) -> None:
    for process in processes:
        process.terminate()
    told, end = signals.count, time.monotonic() + GRACE
    while any(process.poll() is None for process in processes):
        if signals.count > told:
            told = signals.count
            for process in processes:
                process.terminate()
        if time.monotonic() > end:
            for process in processes:
                process.kill()
        time.sleep(INTERVAL)


if __name__ == "__main__":
    sys.exit(main())
