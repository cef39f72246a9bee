"""Child processes of a benchmark: pinned to a core, measured, and ended with it."""

import ctypes
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

#: Seconds in which a child must be ready, or end.
PATIENCE = 20.0
_TICK = os.sysconf("SC_CLK_TCK")
_LIBC = ctypes.CDLL(None)


def free_port() -> int:
    """A loopback port that nobody listens on, below those that clients get."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def wait_for(what: str, ready: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Return when `ready` gives something true; errors of a server that is not there yet are no
    answer.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if ready():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise TimeoutError(f"{what}: not within {seconds:g} s")


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a process, in KiB."""

    #: Resident, what `ps` shows.
    rss: int
    #: Of these, private to the process.
    uss: int


@dataclass(frozen=True, slots=True)
class Child:
    """One process of the benchmark."""

    name: str
    process: subprocess.Popen[bytes]
    #: The file that takes its output.
    log: Path

    def said(self) -> str:
        """Its output so far."""
        return self.log.read_text("utf-8", "replace")

    def cpu(self) -> float:
        """Seconds of CPU used so far by all its threads, in user and in kernel mode."""
        text = Path(f"/proc/{self.process.pid}/stat").read_text("ascii")
        # proc(5): utime and stime are the 14th and 15th field; the 2nd may contain blanks.
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def memory(self) -> Memory:
        """What it occupies now."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text("ascii")
        sizes = {line.split(":")[0]: line.split() for line in text.splitlines()[1:]}
        private = int(sizes["Private_Clean"][1]) + int(sizes["Private_Dirty"][1])
        return Memory(int(sizes["Rss"][1]), private)

    def stop(self) -> None:
        """End it, by its own process id."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


class Children:
    """Starts children with their output in files under `directory`; `stack` ends them."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self._stack = stack
        self._directory = directory
        self.all: list[Child] = []

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        core: int,
        stdin: int = subprocess.DEVNULL,
    ) -> Child:
        """Start `command` on `core`."""

        def prepare() -> None:
            os.sched_setaffinity(0, {core})
            # prctl(2), PR_SET_PDEATHSIG: not even `kill -9` of the benchmark leaves a child.
            _LIBC.prctl(1, signal.SIGKILL)

        path = self._directory / f"{name}.log"
        with path.open("ab") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=self._directory,
                stdin=stdin,
                stdout=log,
                stderr=log,
                preexec_fn=prepare,  # noqa: PLW1509  # there are no threads here
            )
        child = Child(name, process, path)
        self._stack.callback(child.stop)
        self.all.append(child)
        return child

    def last_words(self) -> str:
        """The end of what each has said, to understand a failure."""
        return "\n".join(f"--- {child.name}:\n{child.said()[-1500:]}" for child in self.all)
