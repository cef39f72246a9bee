"""What tests of starting processes share."""

import contextlib
import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol

from queuerelay.processes.spawner import Spawner
from tests.helpers.waiting import PATIENCE

#: Programs in Python that print their open descriptors, and as JSON their session and group.
LIST_FDS = "import os; print(sorted(int(x) for x in os.listdir('/proc/self/fd')))"
STATE = """
import json, os
print(json.dumps({"sid": os.getsid(0), "pgid": os.getpgid(0), "pid": os.getpid()}))
"""


class Recorder(ProcessProtocol):
    """Remembers what it is told, and fires `ended` and `exited`."""

    def __init__(self, begin: Callable[[Any], object] = lambda transport: None) -> None:
        self.begin = begin
        self.data: dict[int, list[bytes]] = {}
        self.events: list[str] = []
        self.exited: Deferred[Any] = Deferred()
        self.ended: Deferred[Any] = Deferred()

    def connectionMade(self) -> None:
        self.events.append("made")
        self.pid = self.transport.pid
        self.begin(self.transport)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.data.setdefault(childFD, []).append(data)

    def childConnectionLost(self, childFD: int) -> None:
        self.events.append(f"lost {childFD}")

    def processExited(self, reason: Any) -> None:
        self.events.append("exited")
        self.exited.callback(reason.value)

    def processEnded(self, reason: Any) -> None:
        self.events.append("ended")
        self.ended.callback(reason.value)

    def output(self, number: int = 1) -> bytes:
        return b"".join(self.data.get(number, []))


def close_stdin(transport: Any) -> None:
    transport.closeStdin()


async def soon(deferred: Deferred[Any]) -> Any:
    """What it fires with, in time."""
    return await deferred.addTimeout(PATIENCE, reactor)


def descriptors() -> set[str]:
    """Open ones of ours, each with what it is."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
    return found


def zombies(parent: int | None = None) -> set[int]:
    """Children, of ours or of another, that have ended and wait to be reaped."""
    found = set()
    # Not by Path.glob: it raises where a process ends while it looks.
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{entry}/stat").read_text("latin-1")
            state, number = stat.rpartition(")")[2].split()[:2]
            if state == "Z" and int(number) == (parent or os.getpid()):
                found.add(int(entry))
    return found


def python(code: str, *args: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", textwrap.dedent(code), *args]


def sh(code: str, *args: str) -> list[str]:
    return ["/bin/sh", "-c", code, "sh", *args]


def start(processes: Any, argv: list[Any], protocol: Recorder, **options: Any) -> Any:
    options.setdefault("env", {"PATH": os.environ["PATH"]})
    return processes.spawnProcess(protocol, argv[0], argv, **options)


async def run(processes: Any, argv: list[Any], begin: Any = close_stdin, **options: Any) -> Any:
    """Run to the end; returns the recorder and the reason."""
    recorder = Recorder(begin)
    start(processes, argv, recorder, **options)
    return recorder, await soon(recorder.ended)


def wait_without_the_reactor(pid: int | None) -> None:
    """Wait until a process has ended, and leave it to be reaped."""
    if pid is not None:  # Twisted may have reaped it within spawnProcess
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def steal(pid: int) -> None:
    """Reap a process behind the spawner's back."""
    os.waitpid(pid, 0)


def is_reaped(pid: int) -> bool:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return True
    return False


class Launching:
    """`launch` of a spawner in the place of `spawnProcess`, where that has what it takes."""

    def __init__(self, one: Spawner) -> None:
        self.spawner = one

    def spawnProcess(
        self, protocol: Any, executable: Any, args: Any = (), env: Any = (), **others: Any
    ) -> Any:
        if others or env is None:
            return self.spawner.spawnProcess(protocol, executable, args, env, **others)
        return self.spawner.launch(protocol, executable, args, dict(env))
