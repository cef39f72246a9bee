"""Real processes: what only our `Spawner` does."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IProcessTransport, IReactorProcess
from twisted.internet.process import reapAllProcesses
from twisted.internet.protocol import ProcessProtocol
from zope.interface.verify import verifyObject

from queuerelay.processes import spawner
from queuerelay.processes.interfaces import IGroupTransport, IProcesses
from queuerelay.processes.spawner import Spawner, supported
from tests.helpers.processes import alive, children
from tests.helpers.waiting import PATIENCE, until
from tests.integration.processes.processes import (
    LIST_FDS,
    STATE,
    Recorder,
    close_stdin,
    descriptors,
    is_reaped,
    python,
    run,
    sh,
    soon,
    start,
    steal,
    zombies,
)

pytestmark = pytest.mark.skipif(not supported(), reason="no pidfd here")

ROOT = Path(__file__).parents[3]
MIB = 1024 * 1024


# What only ours does


def test_provides(ours: Spawner) -> None:
    assert verifyObject(IReactorProcess, ours)
    assert verifyObject(IProcesses, ours)


async def test_transport_provides(ours: Spawner) -> None:
    recorder = Recorder(close_stdin)
    one = start(ours, ["/bin/true"], recorder)
    assert verifyObject(IProcessTransport, one)
    assert verifyObject(IGroupTransport, one)
    assert recorder.transport is one
    assert f"pid={one.pid}" in repr(one)
    for method in (one.getHost, one.getPeer):
        with pytest.raises(NotImplementedError):
            method()
    await soon(recorder.ended)


@pytest.mark.parametrize("terminal", [False, True])
async def test_own_group(ours: Spawner, monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    monkeypatch.setattr(spawner, "_has_terminal", lambda: terminal)
    recorder, _ = await run(ours, python(STATE), env={})
    state = json.loads(recorder.output())
    assert state["pgid"] == state["pid"] == recorder.pid
    assert state["sid"] == (recorder.pid if terminal else os.getsid(0))


TERMINAL = """
import os, pty
from queuerelay.processes.spawner import _has_terminal
os.setsid()
_, there = pty.openpty()
before = _has_terminal()
# A session's leader without a terminal gets the first that it opens.
os.open(os.ttyname(there), os.O_RDWR)
print(before, _has_terminal())
"""


def test_terminal_is_seen() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", TERMINAL],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert ran.stdout == "False True\n"


async def test_our_blocked_signals_are_not_inherited(ours: Spawner) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])
    try:
        recorder, _ = await run(ours, ["/bin/cat", "/proc/self/status"])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert b"SigBlk:\t0000000000000000" in recorder.output()


async def test_inherited_descriptors_are_closed() -> None:
    """Those that the daemon was started with."""
    kept = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(kept, True)
    one = Spawner(reactor=reactor)
    try:
        recorder, _ = await run(one, python(LIST_FDS), env={})
        os.close(kept)
        again, _ = await run(one, python(LIST_FDS), env={})
    finally:
        await one.stop()
    assert json.loads(recorder.output()) == json.loads(again.output()) == [0, 1, 2, 3]


async def test_signal_group(ours: Spawner) -> None:
    recorder = Recorder(close_stdin)
    one = start(ours, sh("sleep 1000 & echo $!; wait"), recorder)
    await until(lambda: recorder.output().endswith(b"\n"))
    grandchild = int(recorder.output())
    one.signalGroup("TERM")
    reason = await soon(recorder.ended)
    assert reason.signal == signal.SIGTERM
    await until(lambda: not alive(grandchild))
    with pytest.raises(ProcessExitedAlready):
        one.signalGroup("KILL")


async def test_signal_what_is_left_of_a_group(ours: Spawner) -> None:
    recorder = Recorder(close_stdin)
    one = start(ours, sh("sleep 1000 & echo $!; exit 0"), recorder)
    await soon(recorder.exited)
    await until(lambda: recorder.output().endswith(b"\n"))
    grandchild = int(recorder.output())
    assert alive(grandchild)
    # Not reaped yet, so that its number is nobody else's.
    assert not is_reaped(recorder.pid)
    one.signalGroup("KILL")
    await soon(recorder.ended)
    await until(lambda: not alive(grandchild))
    assert is_reaped(recorder.pid)


async def test_leaves_the_table_before_its_number_is_free(
    ours: Spawner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the guardian could kill whoever got the number next."""
    real = os.waitpid
    stood: list[bool] = []

    def waitpid(pid: int, options: int) -> tuple[int, int]:
        if pid == recorder.pid:
            stood.append(pid in ours._groups._table.tolist())
        return real(pid, options)

    recorder = Recorder()
    one = start(ours, ["/bin/cat"], recorder)
    assert one.pid in ours._groups._table.tolist()
    monkeypatch.setattr(os, "waitpid", waitpid)
    one.closeStdin()
    await soon(recorder.ended)
    assert stood == [False]
    assert not any(ours._groups._table.tolist())


async def test_close_pipes(ours: Spawner) -> None:
    recorder = Recorder(lambda one: (one.write(b"x" * MIB), one.closeStdin()))
    one = start(ours, sh("sleep 1000 <&0 & echo $!; exit 0"), recorder)
    await soon(recorder.exited)
    await until(lambda: recorder.output().endswith(b"\n"))
    one.closePipes()
    one.closePipes()
    assert "ended" not in recorder.events
    await soon(recorder.ended)
    os.kill(int(recorder.output()), signal.SIGKILL)


async def test_close_pipes_of_a_running_process(ours: Spawner) -> None:
    recorder = Recorder()
    one = start(ours, ["/bin/cat"], recorder)
    one.closePipes()
    reason = await soon(recorder.ended)
    assert reason.exitCode == 0


@pytest.mark.parametrize("how", ["closed by us", "closed by the process", "ended"])
async def test_a_closed_pipe_lets_go_of_what_is_unwritten(ours: Spawner, how: str) -> None:
    """A body may have many megabytes, and the process is known for longer."""
    body, more = os.urandom(MIB), os.urandom(MIB)
    before = sys.getrefcount(body), sys.getrefcount(more)
    recorder = Recorder()
    closes = sh("sleep 0.1; exec 0<&-; exec sleep 1000")
    argv = closes if how == "closed by the process" else ["/bin/sleep", "1000"]
    one = start(ours, argv, recorder)
    one.write(body)
    one.write(more)
    assert sys.getrefcount(body) > before[0]
    assert sys.getrefcount(more) > before[1]
    if how == "closed by us":
        one.closePipes()
    elif how == "ended":
        one.signalProcess("KILL")
    await until(lambda: "lost 0" in recorder.events)
    assert (sys.getrefcount(body), sys.getrefcount(more)) == before
    if how != "ended":
        one.signalGroup("KILL")
    await soon(recorder.ended)


@pytest.mark.parametrize("name", ["NOSUCH", "", "term", "SIGTERM"])
async def test_unknown_signal(ours: Spawner, name: str) -> None:
    recorder = Recorder()
    one = start(ours, ["/bin/sleep", "1000"], recorder)
    for send in (one.signalProcess, one.signalGroup):
        with pytest.raises(ValueError, match="no such signal"):
            send(name)
    one.signalGroup("KILL")
    await soon(recorder.ended)


async def test_wrong_child_fds(ours: Spawner) -> None:
    await run(ours, ["/bin/true"])
    before = descriptors()
    with pytest.raises(ValueError, match="expected 'r', 'w' or a descriptor"):
        start(ours, ["/bin/true"], Recorder(), childFDs={0: "w", 1: "x"})
    with pytest.raises(OSError, match="Bad file descriptor"):
        start(ours, ["/bin/true"], Recorder(), childFDs={0: "w", 1: 999_999})
    assert descriptors() == before


async def test_write_to_what_is_no_input(ours: Spawner) -> None:
    recorder = Recorder()
    one = start(ours, ["/bin/cat"], recorder)
    for number in (1, 9):
        with pytest.raises(KeyError):
            one.writeToChild(number, b"x")
    one.closeChildFD(9)
    one.closeStdin()
    await soon(recorder.ended)
    one.write(b"late")
    with pytest.raises(KeyError):
        one.writeToChild(0, b"late")


async def test_pidfd_refused(ours: Spawner, monkeypatch: pytest.MonkeyPatch) -> None:
    await run(ours, ["/bin/true"])
    before, running, others = descriptors(), ours.alive, children(os.getpid())

    def refuse(pid: int, flags: int = 0) -> int:
        raise OSError(errno.ENFILE, "full")

    recorder = Recorder()
    with monkeypatch.context() as patched:
        patched.setattr(os, "pidfd_open", refuse)
        with pytest.raises(OSError, match="full"):
            start(ours, ["/bin/sleep", "1000"], recorder)
    assert descriptors() == before
    assert children(os.getpid()) == others
    assert ours.alive == running
    assert recorder.events == []


async def test_reaped_by_someone_else(ours: Spawner, logged_failures: Any) -> None:
    recorder = Recorder(close_stdin)
    one = start(ours, ["/bin/true"], recorder)
    steal(one.pid)
    reason = await soon(recorder.ended)
    assert isinstance(reason, ProcessTerminated)
    assert (reason.exitCode, reason.signal, reason.status) == (None, None, None)
    with pytest.raises(ProcessExitedAlready):
        one.signalGroup("KILL")
    assert ours.alive == 0


async def test_beside_twisteds_own(ours: Spawner) -> None:
    """Each waits for its own processes only, in one reactor."""
    recorders = []
    for number in range(40):
        recorder = Recorder(close_stdin)
        recorders.append((number, recorder))
        start(ours if number % 2 else reactor, sh(f"exit {number}"), recorder)
        reapAllProcesses()
    for number, recorder in recorders:
        assert (await soon(recorder.ended)).exitCode == number


async def test_fallback_for_what_spawn_cannot_do(ours: Spawner, tmp_path: Path) -> None:
    recorder, _ = await run(ours, ["/bin/pwd"], path=str(tmp_path))
    assert recorder.output() == f"{tmp_path}\n".encode()
    recorder, _ = await run(ours, sh("test -t 0 && echo tty"), lambda one: None, usePTY=True)
    assert recorder.output() == b"tty\r\n"
    if os.getuid() == 0:
        recorder, _ = await run(ours, ["/usr/bin/id", "-u"], uid=65534)
        assert recorder.output() == b"65534\n"


async def test_fallback_has_the_same_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawner, "supported", lambda: False)
    one = Spawner(reactor=reactor)
    assert not one.native
    recorder = Recorder()
    process = start(one, sh("sleep 1000 <&0 & echo $!; wait"), recorder)
    assert verifyObject(IGroupTransport, process)
    assert recorder.transport is process
    await until(lambda: recorder.output().endswith(b"\n"))
    process.write(b"x" * MIB)
    process.signalGroup("KILL")
    await soon(recorder.exited)
    process.closePipes()
    await soon(recorder.ended)
    os.kill(int(recorder.output()), signal.SIGKILL)
    assert one.guardian_pid is None
    await one.stop()


async def test_many_jobs_leak_nothing(ours: Spawner) -> None:
    """Ten thousand under QUEUERELAY_CI, else five hundred."""
    await run(ours, ["/bin/true"])
    count = 10_000 if os.environ.get("QUEUERELAY_CI") == "1" else 500
    before = descriptors()
    others, dead = children(os.getpid()), zombies()
    done: Deferred[None] = Deferred()
    left = started = 0

    class Short(ProcessProtocol):
        def connectionMade(self) -> None:
            self.transport.write(b"body")
            self.transport.closeStdin()

        def processEnded(self, reason: Any) -> None:
            nonlocal left
            left -= 1
            if started < count:
                begin()
            elif not left:
                done.callback(None)

    def begin() -> None:
        nonlocal left, started
        left += 1
        started += 1
        ours.spawnProcess(Short(), "/bin/true", ["true"])

    for _ in range(8):
        begin()
    await done
    assert descriptors() == before
    assert children(os.getpid()) == others
    assert zombies() == dead
    assert ours.alive == 0
