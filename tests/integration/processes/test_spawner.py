"""Real processes: one contract for Twisted's `spawnProcess` and ours, and what only ours does."""

import contextlib
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IProcessTransport, IReactorProcess
from twisted.internet.process import reapAllProcesses
from twisted.internet.protocol import ProcessProtocol
from zope.interface.verify import verifyObject

from queuerelay.processes import guarded, guardian, pipes, spawner
from queuerelay.processes.interfaces import IGroupTransport
from queuerelay.processes.spawner import Spawner, supported
from tests.helpers.processes import alive, children
from tests.helpers.waiting import PATIENCE, until
from tests.integration.processes.processes import (
    Recorder,
    close_stdin,
    descriptors,
    python,
    run,
    sh,
    soon,
    start,
    zombies,
)

pytestmark = pytest.mark.skipif(not supported(), reason="no pidfd here")

ROOT = Path(__file__).parents[3]
MIB = 1024 * 1024


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


@pytest_twisted.async_yield_fixture
async def ours() -> AsyncIterator[Spawner]:
    one = Spawner(reactor=reactor)
    assert one.native
    yield one
    await one.stop()


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


@pytest_twisted.async_yield_fixture(params=["twisted", "ours", "fallback", "launched"])
async def processes(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Any]:
    """Who starts processes."""
    if request.param == "twisted":
        yield reactor
        return
    if request.param == "fallback":
        monkeypatch.setattr(spawner, "supported", lambda: False)
    one = Spawner(reactor=reactor)
    if request.param == "launched":
        monkeypatch.setattr(spawner, "CROWDED", 0)
        yield Launching(one)
    else:
        yield one
    await one.stop()


# The contract


async def test_exit_0(processes: Any) -> None:
    recorder, reason = await run(processes, sh("echo out; echo err >&2"))
    assert isinstance(reason, ProcessDone)
    assert (reason.exitCode, reason.signal, reason.status) == (0, None, 0)
    assert (recorder.output(1), recorder.output(2)) == (b"out\n", b"err\n")
    assert recorder.events[0] == "made"
    assert recorder.events[-1] == "ended"
    assert sorted(recorder.events) == ["ended", "exited", "lost 0", "lost 1", "lost 2", "made"]
    # The launcher tells it later.
    assert isinstance(recorder.pid, int) != isinstance(processes, Launching)
    assert recorder.transport.pid is None


@pytest.mark.parametrize("code", [1, 75, 126, 255])
async def test_exit_n(processes: Any, code: int) -> None:
    _, reason = await run(processes, sh(f"exit {code}"))
    assert isinstance(reason, ProcessTerminated)
    assert (reason.exitCode, reason.signal, reason.status) == (code, None, code << 8)


@pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV"])
async def test_death_by_signal(processes: Any, name: str) -> None:
    number = getattr(signal, f"SIG{name}")
    _, reason = await run(processes, sh(f"ulimit -c 0; kill -{name} $$"))
    assert isinstance(reason, ProcessTerminated)
    assert (reason.exitCode, reason.signal) == (None, number)
    assert reason.status & 0x7F == number


@pytest.mark.parametrize("name", ["TERM", "KILL", "INT", "HUP", signal.SIGUSR1])
async def test_signal_process(processes: Any, name: Any) -> None:
    recorder = Recorder()
    one = start(processes, ["/bin/sleep", "1000"], recorder)
    one.signalProcess(name)
    reason = await soon(recorder.ended)
    number = name if isinstance(name, int) else getattr(signal, f"SIG{name}")
    assert (reason.exitCode, reason.signal) == (None, number)
    with pytest.raises(ProcessExitedAlready):
        one.signalProcess(name)


async def test_signal_after_exit_is_refused(processes: Any) -> None:
    refused = []

    class Late(Recorder):
        def processExited(self, reason: Any) -> None:
            try:
                self.transport.signalProcess("KILL")
            except ProcessExitedAlready:
                refused.append(True)
            super().processExited(reason)

    recorder = Late(close_stdin)
    start(processes, ["/bin/true"], recorder)
    await soon(recorder.ended)
    assert refused == [True]


def unspawnable(tmp_path: Path) -> dict[str, tuple[Any, type[Exception], int | None]]:
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\n")
    shebangless = tmp_path / "shebangless"
    shebangless.write_bytes(b"\x00\x01 nothing that runs")
    shebangless.chmod(0o755)
    return {
        "missing": (["/nonexistent/program"], FileNotFoundError, errno.ENOENT),
        "not on PATH": (["no-such-program-anywhere"], FileNotFoundError, errno.ENOENT),
        "not executable": ([str(plain)], PermissionError, errno.EACCES),
        "directory": (["/"], PermissionError, errno.EACCES),
        "not a program": ([str(shebangless)], OSError, errno.ENOEXEC),
        "too long": (["/bin/true", "x" * (64 * MIB)], OSError, errno.E2BIG),
        "NUL": (["/bin/true", "a\0b"], ValueError, None),
    }


@pytest.mark.parametrize(
    "case",
    ["missing", "not on PATH", "not executable", "directory", "not a program", "too long", "NUL"],
)
async def test_cannot_be_started(processes: Any, tmp_path: Path, case: str) -> None:
    argv, kind, number = unspawnable(tmp_path)[case]
    # The guardian, where there is one, comes with the first.
    await run(processes, ["/bin/true"])
    if isinstance(processes, Launching):
        await run(processes.spawner, ["/bin/true"])
    before = descriptors()
    recorder = Recorder()
    # What is too large for the launcher is started without it.
    if isinstance(processes, Launching) and case != "too long":
        start(processes, argv, recorder)
        error = await soon(recorder.ended)
        assert isinstance(error, OSError)
        assert recorder.events[0] == "made"
        assert recorder.events[-1] == "ended"
        assert sorted(recorder.events)[1:-1] == ["exited", "lost 0", "lost 1", "lost 2"]
    else:
        with pytest.raises(kind) as caught:
            start(processes, argv, recorder)
        error = caught.value
        assert recorder.events == []
    if number is not None:
        assert error.errno == number
    assert str(error)
    assert descriptors() == before
    _, reason = await run(processes, ["/bin/true"])
    assert reason.exitCode == 0


async def test_no_descriptors_left(processes: Any) -> None:
    await run(processes, ["/bin/true"])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(one.split()[0]) for one in descriptors())
    # No gaps, so that the limit alone says how many there are.
    filling = [os.open(os.devnull, os.O_RDONLY)]
    while filling[-1] <= highest:
        filling.append(os.open(os.devnull, os.O_RDONLY))
    before = descriptors()
    failures = []
    # One more at a time: it runs out at each pipe, and at the pidfd.
    for room in range(1, 12):
        recorder = Recorder(close_stdin)
        resource.setrlimit(resource.RLIMIT_NOFILE, (filling[-1] + room, hard))
        try:
            start(processes, ["/bin/true"], recorder)
        except OSError as error:
            failures.append(error.errno)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if recorder.events:
            await soon(recorder.ended)
        assert descriptors() == before
    assert len(failures) > 3
    assert set(failures) == {errno.EMFILE}
    for fd in filling:
        os.close(fd)


async def test_arguments_exactly(processes: Any) -> None:
    args = [
        b"",
        b" ",
        b"a b",
        b"\xff\xfe\x80",
        "ü".encode(),
        b"'\"\\$(x)`",
        b"*",
        b"\n",
        b"--",
        b"",
    ]
    argv = [
        *(one.encode() for one in python("import sys,os; print([*map(os.fsencode, sys.argv[1:])])"))
    ]
    recorder, _ = await run(processes, [*argv, *args], env={})
    assert recorder.output() == repr(args).encode() + b"\n"


@pytest.mark.parametrize(
    "env", [{}, {"A": "1", "EMPTY": ""}, {b"B": b"\xff\xfe=x", b"C.d-e": b"line\nline"}]
)
async def test_environment_exactly(processes: Any, env: dict[Any, Any]) -> None:
    recorder, _ = await run(processes, ["/bin/cat", "/proc/self/environ"], env=env)
    wanted = {os.fsencode(name) + b"=" + os.fsencode(value) for name, value in env.items()}
    assert {one for one in recorder.output().split(b"\0") if one} == wanted


async def test_environment_none_is_ours(processes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUERELAY_TEST", "seen")
    recorder, _ = await run(processes, sh('printf %s "$QUEUERELAY_TEST"'), env=None)
    assert recorder.output() == b"seen"


async def test_environment_default_is_empty(processes: Any) -> None:
    recorder = Recorder(close_stdin)
    processes.spawnProcess(recorder, "/bin/cat", ["cat", "/proc/self/environ"])
    await soon(recorder.ended)
    assert recorder.output() == b""


async def test_big_body_there_and_back(processes: Any) -> None:
    body = os.urandom(MIB) * 16

    def begin(transport: Any) -> None:
        transport.write(body)
        transport.closeStdin()

    recorder, reason = await run(processes, ["/bin/cat"], begin)
    assert reason.exitCode == 0
    assert recorder.output() == body


async def test_many_small_writes_in_order(processes: Any) -> None:
    pieces = [f"{number:07}\n".encode() for number in range(40_000)]

    def begin(transport: Any) -> None:
        for piece in pieces[:-10]:
            transport.write(piece)
        transport.writeSequence(pieces[-10:])
        transport.closeStdin()

    recorder, _ = await run(processes, ["/bin/cat"], begin)
    assert recorder.output() == b"".join(pieces)


async def test_writes_after_the_start(processes: Any) -> None:
    recorder = Recorder()
    one = start(processes, ["/bin/cat"], recorder)
    for number in range(3):
        one.write(b"%d" % number)
        await until(lambda: len(recorder.output()) == number + 1)  # noqa: B023
    one.writeToChild(0, b"!")
    one.closeChildFD(0)
    await soon(recorder.ended)
    assert recorder.output() == b"012!"


async def test_child_that_closes_stdin_early(processes: Any) -> None:
    body = b"x" * 4 * MIB
    recorder, reason = await run(
        processes, sh("exec 0<&-; sleep 0.2; echo done; exit 3"), lambda one: one.write(body)
    )
    assert reason.exitCode == 3
    assert recorder.output() == b"done\n"
    assert recorder.events.index("lost 0") < recorder.events.index("exited")


async def test_closed_stdin_is_seen_without_a_write(processes: Any) -> None:
    recorder = Recorder()
    one = start(processes, sh("exec 0<&-; exec sleep 1000"), recorder)
    await until(lambda: "lost 0" in recorder.events)
    one.write(b"into the void")
    one.closeStdin()
    one.signalProcess("KILL")
    await soon(recorder.ended)


async def test_child_that_never_reads(processes: Any) -> None:
    def begin(transport: Any) -> None:
        transport.write(b"x" * 16 * MIB)
        transport.closeStdin()

    _, reason = await run(processes, sh("echo hello; exit 4"), begin)
    assert reason.exitCode == 4


async def test_write_between_exit_and_its_notice(processes: Any) -> None:
    recorder = Recorder()
    one = start(processes, ["/bin/true"], recorder)
    wait_without_the_reactor(one.pid)
    one.write(b"x" * 100_000)
    reason = await soon(recorder.ended)
    assert reason.exitCode == 0


async def test_much_output(processes: Any) -> None:
    recorder, _ = await run(processes, sh("head -c 10485760 /dev/zero; echo end"))
    assert len(recorder.output()) == 10 * MIB + 4
    assert recorder.output().endswith(b"\0end\n")
    assert max(map(len, recorder.data[1])) <= pipes.READ_SIZE


async def test_output_of_a_process_that_has_ended(processes: Any) -> None:
    recorder = Recorder(close_stdin)
    one = start(processes, sh("echo still there"), recorder)
    wait_without_the_reactor(one.pid)
    await soon(recorder.ended)
    assert recorder.output() == b"still there\n"


async def test_grandchild_that_holds_stdout(processes: Any) -> None:
    recorder = Recorder(close_stdin)
    one = start(processes, sh("sleep 1000 & echo $!; exit 7"), recorder)
    reason = await soon(recorder.exited)
    assert reason.exitCode == 7
    await until(lambda: recorder.output().endswith(b"\n"))
    await task.deferLater(reactor, 0.05)
    assert "ended" not in recorder.events
    grandchild = int(recorder.output())
    one.loseConnection()
    reason = await soon(recorder.ended)
    assert reason.exitCode == 7
    assert alive(grandchild)
    os.kill(grandchild, signal.SIGKILL)


async def test_output_closed_by_us(processes: Any) -> None:
    recorder = Recorder()
    one = start(processes, ["/bin/cat", "/dev/zero"], recorder)
    one.closeStdout()
    reason = await soon(recorder.exited)
    assert reason.signal == signal.SIGPIPE
    one.loseConnection()
    await soon(recorder.ended)


async def test_paused_output(processes: Any) -> None:
    recorder = Recorder(lambda one: (one.closeStdin(), one.pauseProducing()))
    one = start(processes, sh("head -c 10485760 /dev/zero"), recorder)
    await task.deferLater(reactor, 0.1)
    assert recorder.output() == b""
    assert "exited" not in recorder.events
    one.resumeProducing()
    await soon(recorder.ended)
    assert len(recorder.output()) == 10 * MIB


async def test_producer_for_stdin(processes: Any) -> None:
    class Producer:
        paused, left = False, 64

        def produce(self) -> None:
            while not self.paused and self.left:
                self.left -= 1
                one.write(b"x" * 65536)
            if not self.left:
                one.unregisterProducer()
                one.closeStdin()

        def pauseProducing(self) -> None:
            self.paused = True
            paused.append(self.left)

        def resumeProducing(self) -> None:
            self.paused = False
            self.produce()

        def stopProducing(self) -> None:
            raise AssertionError("nobody stops it")

    paused: list[int] = []
    recorder = Recorder()
    one = start(processes, ["/bin/cat"], recorder)
    producer = Producer()
    one.registerProducer(producer, True)
    producer.produce()
    await soon(recorder.ended)
    assert len(recorder.output()) == 64 * 65536
    # It was told to wait when little was unwritten, again and again.
    assert len(paused) > 10


async def test_producer_is_stopped_with_the_process(processes: Any) -> None:
    stopped = []

    class Producer:
        def pauseProducing(self) -> None: ...
        def resumeProducing(self) -> None: ...
        def stopProducing(self) -> None:
            stopped.append(True)

    recorder = Recorder()
    one = start(processes, ["/bin/sleep", "1000"], recorder)
    one.registerProducer(Producer(), True)
    one.write(b"x" * MIB)
    one.signalProcess("KILL")
    await soon(recorder.ended)
    assert stopped == [True]
    one.registerProducer(Producer(), True)
    assert stopped == [True, True]


async def test_given_descriptors(processes: Any, tmp_path: Path) -> None:
    out = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    recorder, _ = await run(
        processes,
        sh("echo one; echo two >&2; echo three >&4; cat <&3"),
        lambda one: (one.writeToChild(3, b"four\n"), one.closeChildFD(3)),
        childFDs={1: out, 2: "r", 3: "w", 4: "r"},
    )
    assert os.pread(out, 100, 0) == b"one\nfour\n"
    os.close(out)
    assert recorder.output(2) == b"two\n"
    assert recorder.output(4) == b"three\n"


async def test_one_descriptor_given_twice(processes: Any, tmp_path: Path) -> None:
    out = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    null = os.open(os.devnull, os.O_RDONLY)
    await run(
        processes,
        sh("echo one; echo two >&2"),
        lambda one: None,
        childFDs={0: null, 1: out, 2: out},
    )
    assert os.pread(out, 100, 0) == b"one\ntwo\n"
    os.close(out)
    os.close(null)


async def test_descriptors_crosswise(processes: Any, tmp_path: Path) -> None:
    """What one number gets is another one's source, or itself."""
    files = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in "abc"]
    first, second, same = files
    await run(
        processes,
        python(
            "import os; [os.write(int(n), os.fsencode(n)) for n in os.sys.argv[1:]]",
            *map(str, files),
        ),
        lambda one: None,
        childFDs={first: second, second: first, same: same},
    )
    assert os.pread(first, 100, 0) == b"%d" % second
    assert os.pread(second, 100, 0) == b"%d" % first
    assert os.pread(same, 100, 0) == b"%d" % same
    for fd in files:
        os.close(fd)


LIST_FDS = "import os; print(sorted(int(x) for x in os.listdir('/proc/self/fd')))"


@pytest.mark.parametrize("count", [0, 300])
async def test_no_other_descriptors(processes: Any, count: int) -> None:
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]
    try:
        recorder, _ = await run(processes, python(LIST_FDS), env={})
    finally:
        for fd in held:
            os.close(fd)
    # The listing itself is the fourth.
    assert json.loads(recorder.output()) == [0, 1, 2, 3]


async def test_missing_standard_descriptors(processes: Any) -> None:
    """Without 0 and 2 in childFDs, ours are not inherited."""
    recorder, _ = await run(processes, python(LIST_FDS), lambda one: None, childFDs={1: "r"})
    # The listing itself is 0.
    assert json.loads(recorder.output()) == [0, 1]


STATE = """
import json, os
print(json.dumps({"sid": os.getsid(0), "pgid": os.getpgid(0), "pid": os.getpid()}))
"""


async def test_signals_are_default(processes: Any) -> None:
    # Not from Python: it ignores SIGPIPE and SIGXFSZ itself.
    recorder, _ = await run(processes, ["/bin/cat", "/proc/self/status"])
    status = dict(line.split(b":\t") for line in recorder.output().splitlines() if b":\t" in line)
    # Less 32 and 33, which are the C library's own and which nobody can set.
    assert int(status[b"SigIgn"], 16) & ~(0b11 << 31) == 0
    assert int(status[b"SigCgt"], 16) == 0
    assert int(status[b"SigBlk"], 16) == 0


async def test_protocol_that_raises(processes: Any, logged_failures: Any) -> None:
    class Broken(Recorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            raise KeyError("made")

        def childConnectionLost(self, childFD: int) -> None:
            super().childConnectionLost(childFD)
            raise KeyError("lost")

        def processExited(self, reason: Any) -> None:
            super().processExited(reason)
            raise KeyError("exited")

        def processEnded(self, reason: Any) -> None:
            super().processEnded(reason)
            raise KeyError("ended")

    recorder = Broken(close_stdin)
    start(processes, sh("exit 5"), recorder)
    reason = await soon(recorder.ended)
    assert reason.exitCode == 5
    await task.deferLater(reactor, 0)
    # Made, three lost, exited, ended.
    assert len(logged_failures.flush(KeyError)) == 6


async def test_protocol_that_raises_on_data(processes: Any, logged_failures: Any) -> None:
    class Broken(Recorder):
        def childDataReceived(self, childFD: int, data: bytes) -> None:
            raise KeyError("data")

    recorder = Broken(close_stdin)
    start(processes, sh("echo x; sleep 0.1; exit 5"), recorder)
    reason = await soon(recorder.ended)
    assert reason.exitCode == 5
    assert logged_failures.flush(KeyError)


async def test_next_is_started_when_one_ends(processes: Any) -> None:
    """As a slot does, with pipes closed early: a new pipe never gets an old one's events."""
    left = 60
    done: Deferred[None] = Deferred()
    outputs: list[bytes] = []

    class Chained(Recorder):
        def childDataReceived(self, childFD: int, data: bytes) -> None:
            super().childDataReceived(childFD, data)
            self.transport.closeStdin()
            self.transport.closeStderr()

        def processEnded(self, reason: Any) -> None:
            nonlocal left
            outputs.append(self.output())
            left -= 1
            if left > 3:
                begin()
            elif left == 0:
                done.callback(None)

    def begin() -> None:
        start(processes, sh("echo hello; cat >/dev/null; echo world"), Chained())

    for _ in range(4):
        begin()
    await soon(done)
    assert set(outputs) == {b"hello\nworld\n"}


# What only ours does


def test_provides(ours: Spawner) -> None:
    assert verifyObject(IReactorProcess, ours)


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


# The death of the daemon

DAEMON = """
import os, signal, sys
from twisted.internet import reactor
from twisted.internet.protocol import ProcessProtocol
from queuerelay.processes import spawner as module
from queuerelay.processes.spawner import Spawner

class Job(ProcessProtocol):
    def outReceived(self, data):
        os.write(1, data)

spawner = Spawner(reactor=reactor)

def begin():
    if sys.argv[1] in ("launching", "frozen"):
        module.CROWDED = 0
        if sys.argv[1] == "frozen":
            spawner.launch(Job(), "/bin/true", ["true"], {})
            os.kill(spawner.launcher_pid, signal.SIGSTOP)
        for _ in range(int(sys.argv[3])):
            spawner.launch(Job(), "/bin/sh", ["sh", "-c", sys.argv[2]], os.environ)
        os.write(1, b"guardian %d\\n" % spawner.launcher_pid)
        return
    if sys.argv[1] == "while starting":
        # Between the start and the first thing that is done with its number.
        spawner._groups.started = lambda pid: os.kill(os.getpid(), signal.SIGKILL)
    script = sys.argv[2]
    for _ in range(int(sys.argv[3])):
        spawner.spawnProcess(Job(), "/bin/sh", ["sh", "-c", script], env=os.environ)
    os.write(1, b"guardian %d\\n" % spawner.guardian_pid)

reactor.callWhenRunning(begin)
reactor.run()
"""


@contextlib.contextmanager
def daemon(*args: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", DAEMON, *args],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def read_pids(process: subprocess.Popen[str], count: int) -> list[int]:
    """Numbers that it prints, the guardian's last."""
    assert process.stdout is not None
    found: list[int] = []
    watched = 0
    while len(found) < count or not watched:
        name, number = process.stdout.readline().split()
        if name == "guardian":
            watched = int(number)
        else:
            found.append(int(number))
    return [*found, watched]


def all_die(pids: list[int]) -> None:
    end = time.monotonic() + PATIENCE
    while any(map(alive, pids)):
        assert time.monotonic() < end, [pid for pid in pids if alive(pid)]
        time.sleep(0.01)


# It neither ends with its stdin nor by a signal that can be ignored.
STUBBORN = "trap '' TERM HUP INT PIPE; sleep 1000 </dev/null >/dev/null 2>&1 & echo worker $$; "
STUBBORN += "echo its $!; while :; do sleep 1000; done"


@pytest.mark.parametrize("way", ["", "launching"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_death_of_the_daemon_ends_its_workers(how: signal.Signals, way: str) -> None:
    with daemon(way, STUBBORN, "5") as process:
        pids = read_pids(process, 10)
        assert all(map(alive, pids))
        os.kill(process.pid, how)
        process.wait()
        all_die(pids)


def test_death_of_the_daemon_while_it_starts_one(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    script = f"echo $$ >{mark}; trap '' PIPE HUP; while :; do sleep 1000; done"
    with daemon("while starting", script, "1") as process:
        assert process.wait(PATIENCE) == -signal.SIGKILL
        # It may be killed before it has written anything, and then that is well, too.
        time.sleep(1.0)
        if mark.exists() and mark.read_text().strip():
            all_die([int(mark.read_text())])
    # The janitor looks for any other that lives on.


def test_what_a_dead_daemon_had_asked_for_is_not_started(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    # Few enough for its buffer.
    with daemon("frozen", f"touch {mark}", "5") as process:
        (theirs,) = read_pids(process, 0)
        process.kill()
        process.wait()
        os.kill(theirs, signal.SIGCONT)
        all_die([theirs])
    assert not mark.exists()


@pytest.mark.parametrize("way", ["", "launching"])
def test_guardian_outlives_what_ends_others(way: str) -> None:
    with daemon(way, STUBBORN, "1") as process:
        *pids, watched = read_pids(process, 2)
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(watched, name)
        time.sleep(0.1)
        assert alive(watched)
        process.kill()
        process.wait()
        all_die([*pids, watched])


async def test_guardian_is_replaced(ours: Spawner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded, "RETRY", 0.0)
    recorder = Recorder()
    one = start(ours, ["/bin/sleep", "1000"], recorder)
    first = ours.guardian_pid
    assert first is not None
    ours._groups._next_start = 0.0
    os.kill(first, signal.SIGKILL)
    await until(lambda: ours.guardian_pid not in (None, first))
    # With nobody to guard it is not replaced before the next start.
    one.signalProcess("KILL")
    await soon(recorder.ended)
    second = ours.guardian_pid
    assert second is not None
    os.kill(second, signal.SIGKILL)
    await until(lambda: ours.guardian_pid is None)
    await run(ours, ["/bin/true"])
    assert ours.guardian_pid not in (None, first, second)


async def test_guardian_that_cannot_be_started(
    ours: Spawner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    _, reason = await run(ours, ["/bin/true"])
    assert reason.exitCode == 0
    assert ours.guardian_pid is None
    monkeypatch.undo()
    await run(ours, ["/bin/true"])
    assert ours.guardian_pid is None, "it is tried again only after a while"
    ours._groups._next_start = 0.0
    await run(ours, ["/bin/true"])
    assert ours.guardian_pid is not None


async def test_spawner_can_be_stopped_and_used_again() -> None:
    one = Spawner(reactor=reactor)
    await one.stop()
    before = descriptors()
    for _ in range(3):
        await run(one, ["/bin/true"])
        watched = one.guardian_pid
        assert watched is not None
        both = [one.stop(), one.stop()]
        for stopped in both:
            await stopped
        assert not alive(watched)
    assert descriptors() == before


async def test_too_many(ours: Spawner) -> None:
    free, ours._groups._free = ours._groups._free, []
    try:
        with pytest.raises(OSError, match="more than") as caught:
            start(ours, ["/bin/true"], Recorder())
    finally:
        ours._groups._free = free
    assert caught.value.errno == errno.EAGAIN


def test_holders_of_a_pipe() -> None:
    reads, writes = os.pipe()
    try:
        child = subprocess.Popen(["/bin/sleep", "1000"], stdin=reads)
        found = {pid for pid, _ in guardian.holders((os.fstat(reads).st_ino,))}
        assert found == {os.getpid(), child.pid}
        child.kill()
        child.wait()
    finally:
        os.close(reads)
        os.close(writes)
