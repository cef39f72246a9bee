"""Real processes: one contract for Twisted's `spawnProcess`, ours, and its ways."""

import contextlib
import errno
import json
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated

from queuerelay.processes import pipes, spawner
from queuerelay.processes.heritage import HERITAGE, Heritage
from queuerelay.processes.spawner import Spawner, supported
from tests.helpers.processes import alive
from tests.helpers.waiting import until
from tests.integration.processes.processes import (
    LIST_FDS,
    Launching,
    Recorder,
    close_stdin,
    descriptors,
    python,
    run,
    sh,
    soon,
    start,
    wait_without_the_reactor,
)

pytestmark = pytest.mark.skipif(not supported(), reason="no pidfd here")

ROOT = Path(__file__).parents[3]
MIB = 1024 * 1024


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


def unmarked(environment: bytes) -> set[bytes]:
    """The variables but the mark by which a process's own are known."""
    found = {one for one in environment.split(b"\0") if one}
    return {one for one in found if not one.startswith(b"QUEUERELAY_PROCESS=")}


@pytest.mark.parametrize(
    "env", [{}, {"A": "1", "EMPTY": ""}, {b"B": b"\xff\xfe=x", b"C.d-e": b"line\nline"}]
)
async def test_environment_exactly(processes: Any, env: dict[Any, Any]) -> None:
    recorder, _ = await run(processes, ["/bin/cat", "/proc/self/environ"], env=env)
    wanted = {os.fsencode(name) + b"=" + os.fsencode(value) for name, value in env.items()}
    assert unmarked(recorder.output()) == wanted


async def test_environment_none_is_ours(processes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUERELAY_TEST", "seen")
    recorder, _ = await run(processes, sh('printf %s "$QUEUERELAY_TEST"'), env=None)
    assert recorder.output() == b"seen"


async def test_environment_default_is_empty(processes: Any) -> None:
    recorder = Recorder(close_stdin)
    processes.spawnProcess(recorder, "/bin/cat", ["cat", "/proc/self/environ"])
    await soon(recorder.ended)
    assert unmarked(recorder.output()) == set()


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


# What the daemon has changed for itself


@pytest.fixture
def heritage() -> Iterator[Heritage]:
    """What processes inherit; at the end limit and umask are as they were."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    umask = os.umask(0o022)
    yield HERITAGE
    HERITAGE.forget()
    os.umask(umask)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_limit_and_umask_of_the_daemons_start(processes: Any, heritage: Heritage) -> None:
    if processes is reactor:
        # Nobody but the spawner knows of it.
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (700, hard))
    heritage.raise_open_files()
    heritage.keep_umask(0o027)
    os.umask(0o077)
    for _ in range(2):
        recorder, _ = await run(processes, sh("ulimit -S -n; ulimit -H -n; umask"))
        shown = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
        assert recorder.output().decode().split() == ["700", shown, "0027"]
    # It is ours again after a start, and after one that fails.
    with contextlib.suppress(OSError):
        await run(processes, ["/no/such/program"])
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    assert os.umask(0o022) == 0o077


async def test_what_was_not_changed_is_inherited(processes: Any, heritage: Heritage) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (650, hard))
    os.umask(0o031)
    recorder, _ = await run(processes, sh("ulimit -S -n; umask"))
    assert recorder.output().decode().split() == ["650", "0031"]


async def test_more_open_files_than_the_limit_of_processes(
    monkeypatch: pytest.MonkeyPatch, heritage: Heritage
) -> None:
    """Nothing of ours is left open in a script, in Twisted's way of starting either."""
    monkeypatch.setattr(spawner, "supported", lambda: False)
    one = Spawner(reactor=reactor)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
    heritage.raise_open_files()
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(500)]
    try:
        for fd in held:
            os.set_inheritable(fd, True)
        recorder, _ = await run(one, python(LIST_FDS))
    finally:
        for fd in held:
            os.close(fd)
    assert recorder.output() == b"[0, 1, 2, 3]\n"
    await one.stop()
