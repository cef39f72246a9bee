"""Scripts started by the launcher: what it promises beyond the contract of `test_spawner`."""

import contextlib
import errno
import marshal
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated

from queuerelay.processes import launched as launched_module
from queuerelay.processes import launcher, link, spawner
from queuerelay.processes.spawner import Spawner, supported
from tests.helpers.janitor import LoggedFailures
from tests.helpers.processes import alive, children
from tests.helpers.waiting import PATIENCE, until
from tests.integration.processes.processes import (
    Recorder,
    close_stdin,
    descriptors,
    run,
    sh,
    soon,
    zombies,
)

pytestmark = pytest.mark.skipif(not supported(), reason="no pidfd here")


@pytest_twisted.async_yield_fixture
async def ours(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Spawner]:
    monkeypatch.setattr(spawner, "CROWDED", 0)
    one = Spawner(reactor=reactor)
    assert one.native
    yield one
    await one.stop()


def launch(ours: Spawner, argv: list[str], recorder: Recorder) -> Any:
    return ours.launch(recorder, argv[0], argv, {"PATH": os.environ["PATH"]})


async def launched(ours: Spawner, argv: list[str]) -> tuple[Recorder, Any]:
    """To the end; with the reason."""
    recorder = Recorder(close_stdin)
    launch(ours, argv, recorder)
    return recorder, await soon(recorder.ended)


async def parent(ours: Spawner) -> int:
    """The parent of a script."""
    recorder, _ = await launched(ours, sh("echo $PPID"))
    return int(recorder.output())


async def test_used_only_where_many_descriptors_are_open() -> None:
    ours = Spawner(reactor=reactor)
    try:
        assert await parent(ours) == os.getpid()
        assert ours.launcher_pid is None
        held = [os.open(os.devnull, os.O_RDONLY) for _ in range(spawner.CROWDED)]
        try:
            assert await parent(ours) == ours.launcher_pid
        finally:
            for fd in held:
                os.close(fd)
        assert await parent(ours) == os.getpid()
    finally:
        await ours.stop()


async def test_nothing_is_left_of_many(ours: Spawner) -> None:
    await launched(ours, ["/bin/true"])
    theirs = ours.launcher_pid
    assert theirs is not None
    before = descriptors()
    held = len(os.listdir(f"/proc/{theirs}/fd"))
    recorders = []
    for _ in range(300):
        recorders.append(Recorder(close_stdin))
        launch(ours, sh("echo x"), recorders[-1])
        if len(recorders) % 30 == 0:
            for recorder in recorders[-30:]:
                reason = await soon(recorder.ended)
                assert reason.exitCode == 0
                assert recorder.output() == b"x\n"
    assert ours.alive == 0
    assert descriptors() == before
    await until(lambda: not zombies(theirs))
    assert len(os.listdir(f"/proc/{theirs}/fd")) == held
    assert children(theirs) == set()


async def test_number_is_kept_until_the_pipes_are_closed(ours: Spawner) -> None:
    """So what it left behind can be signalled as a group, and nobody else is."""
    recorder = Recorder(close_stdin)
    one = launch(ours, sh("echo $$; sleep 1000 & echo $!"), recorder)
    await soon(recorder.exited)
    await until(lambda: recorder.output().count(b"\n") == 2)
    leader, left = map(int, recorder.output().split())
    assert one.pid is None
    assert leader in zombies(ours.launcher_pid)
    with pytest.raises(ProcessExitedAlready):
        one.signalProcess("KILL")
    one.signalGroup("KILL")
    await soon(recorder.ended)
    await until(lambda: not alive(left) and leader not in zombies(ours.launcher_pid))
    with pytest.raises(ProcessExitedAlready):
        one.signalGroup("KILL")


async def test_signals_before_it_runs_arrive_when_it_does(ours: Spawner) -> None:
    recorder = Recorder()
    one = launch(ours, ["/bin/sleep", "1000"], recorder)
    assert one.pid is None
    one.signalGroup("TERM")
    reason = await soon(recorder.ended)
    assert reason.signal == signal.SIGTERM


async def test_death_of_the_launcher(ours: Spawner) -> None:
    recorder = Recorder()
    script = "trap '' TERM HUP PIPE; sleep 1000 & echo $$ $!; while :; do sleep 1000; done"
    one = launch(ours, sh(script), recorder)
    await until(lambda: recorder.output().endswith(b"\n"))
    pids = [int(pid) for pid in recorder.output().split()]
    first = ours.launcher_pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    reason = await soon(recorder.ended)
    # Nobody knows how it ended.
    assert (reason.exitCode, reason.signal) == (None, None)
    await until(lambda: not any(map(alive, pids)))
    with pytest.raises(ProcessExitedAlready):
        one.signalGroup("KILL")
    assert ours.alive == 0
    # Until there is another one, we start them.
    assert await parent(ours) == os.getpid()
    ours._launchers._next_start = 0.0
    second = await parent(ours)
    assert second == ours.launcher_pid != first


async def test_death_of_the_launcher_before_it_has_told_of_an_end(ours: Spawner) -> None:
    """What the script left behind, with its pipes, is killed without the script."""
    recorder = Recorder()
    one = launch(ours, sh("sleep 1000 & echo $!; read line"), recorder)
    await until(lambda: recorder.output().endswith(b"\n"))
    left, theirs = int(recorder.output()), ours.launcher_pid
    assert theirs is not None
    os.kill(theirs, signal.SIGSTOP)
    one.closeStdin()
    await until(lambda: "lost 0" in recorder.events)
    wait_for_zombies(theirs, 1)
    os.kill(theirs, signal.SIGKILL)
    assert (await soon(recorder.ended)).exitCode is None
    await until(lambda: not alive(left))


async def test_death_of_the_launcher_after_a_script(ours: Spawner) -> None:
    """What the script left behind may be a stranger's by then."""
    recorder = Recorder(close_stdin)
    one = launch(ours, sh("sleep 1000 & echo $!"), recorder)
    reason = await soon(recorder.exited)
    assert reason.exitCode == 0
    await until(lambda: recorder.output().endswith(b"\n"))
    left = int(recorder.output())
    assert ours.launcher_pid is not None
    os.kill(ours.launcher_pid, signal.SIGKILL)
    await until(lambda: ours.launcher_pid is None)
    with pytest.raises(ProcessExitedAlready):
        one.signalGroup("KILL")
    os.kill(left, signal.SIGKILL)
    assert await soon(recorder.ended) is reason


async def test_of_what_it_had_not_answered_for_nobody_knows(ours: Spawner) -> None:
    """That counts as a crash: it may have run."""
    await launched(ours, ["/bin/true"])
    assert ours.launcher_pid is not None
    os.kill(ours.launcher_pid, signal.SIGSTOP)
    recorder = Recorder(close_stdin)
    launch(ours, ["/bin/true"], recorder)
    os.kill(ours.launcher_pid, signal.SIGKILL)
    reason = await soon(recorder.ended)
    assert isinstance(reason, ProcessTerminated)
    assert (reason.exitCode, reason.signal) == (None, None)


def wait_for_zombies(parent: int, count: int) -> None:
    """Without the reactor, which hears nothing meanwhile."""
    limit = time.monotonic() + PATIENCE
    while len(zombies(parent)) < count:
        assert time.monotonic() < limit, "they never ended"
        time.sleep(0.01)


def wait_for_news(ours: Spawner, count: int) -> None:
    """Until so many news wait to be heard, without hearing them."""
    current = ours._launchers._current
    assert current is not None
    limit = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(BlockingIOError):
            packet = current._link.recv(launcher.PACKET, socket.MSG_PEEK)
            if len(marshal.loads(packet)) >= count:
                return
        assert time.monotonic() < limit, "they never came"
        time.sleep(0.01)


async def test_what_it_had_told_is_heard_after_its_death(ours: Spawner) -> None:
    await launched(ours, ["/bin/true"])
    theirs = ours.launcher_pid
    assert theirs is not None
    recorders = [Recorder(close_stdin) for _ in range(40)]
    for recorder in recorders:
        launch(ours, sh("echo out; exit 3"), recorder)
    wait_for_zombies(theirs, len(recorders))
    os.kill(theirs, signal.SIGKILL)
    for recorder in recorders:
        reason = await soon(recorder.ended)
        assert reason.exitCode == 3
        assert recorder.output() == b"out\n"


async def test_what_it_had_told_is_heard_although_it_had_more_to_read(ours: Spawner) -> None:
    await launched(ours, ["/bin/true"])
    theirs = ours.launcher_pid
    assert theirs is not None
    os.kill(theirs, signal.SIGSTOP)
    told, asked = Recorder(close_stdin), Recorder(close_stdin)
    launch(ours, sh("exit 3"), told)
    os.kill(theirs, signal.SIGCONT)
    wait_for_zombies(theirs, 1)
    wait_for_news(ours, 1)
    # The end is told in the turn after the start, and it takes no more turns than one.
    await task.deferLater(reactor, 0)
    os.kill(theirs, signal.SIGSTOP)
    launch(ours, ["/bin/true"], asked)
    os.kill(theirs, signal.SIGKILL)
    assert (await soon(told.ended)).exitCode == 3
    assert (await soon(asked.ended)).exitCode is None


def a_stranger() -> int:
    return os.posix_spawn("/bin/sleep", ["sleep", "1000"], {}, setpgroup=0)


def a_copy() -> int:
    """A fork of ours that does nothing; its process id."""
    copy = os.fork()
    if not copy:
        signal.pause()
        os._exit(0)
    return copy


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


async def test_a_stranger_with_the_number_of_a_script_lives_on(ours: Spawner) -> None:
    """After the launcher's death numbers are free, and it is looked who has them."""
    recorder = Recorder(close_stdin)
    launch(ours, sh("echo $$; exec sleep 1000"), recorder)
    await until(lambda: recorder.output().endswith(b"\n"))
    script = int(recorder.output())
    current = ours._launchers._current
    assert current is not None
    stranger = a_stranger()
    try:
        (handle,) = current.scripts.values()
        # What the script prints may be here before the launcher's word that it runs.
        await until(lambda: handle.pid is not None)
        assert handle.pid == script
        handle.pid = stranger
        assert current.pid is not None
        os.kill(current.pid, signal.SIGKILL)
        await soon(recorder.exited)
        assert alive(stranger)
    finally:
        end(stranger)
        os.kill(script, signal.SIGKILL)
    await soon(recorder.ended)


async def test_a_copy_of_ours_is_no_script(ours: Spawner, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that forks has our ends of all pipes in its children."""
    monkeypatch.setattr(launched_module.Launched, "started", lambda self, pid: None)
    recorder = Recorder(close_stdin)
    launch(ours, sh("echo $$; sleep 1000"), recorder)
    await until(lambda: recorder.output().endswith(b"\n"))
    copy = a_copy()
    try:
        assert ours.launcher_pid is not None
        os.kill(ours.launcher_pid, signal.SIGKILL)
        await soon(recorder.ended)
        await until(lambda: not alive(int(recorder.output())))
        assert alive(copy)
    finally:
        end(copy)


async def test_what_it_had_started_without_telling_is_found(
    ours: Spawner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launched_module.Launched, "started", lambda self, pid: None)
    recorder = Recorder(close_stdin)
    launch(ours, sh("echo $$; sleep 1000"), recorder)
    await until(lambda: recorder.output().endswith(b"\n"))
    pid = int(recorder.output())
    assert ours.launcher_pid is not None
    os.kill(ours.launcher_pid, signal.SIGKILL)
    reason = await soon(recorder.ended)
    assert (reason.exitCode, reason.signal) == (None, None)
    await until(lambda: not alive(pid))


@pytest.mark.parametrize("asked", [True, False])
async def test_one_that_hangs_is_killed(
    ours: Spawner, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    """Whether it is asked for something, or only to tell of the end of what runs."""
    monkeypatch.setattr(link, "LOOK", 0.1)
    recorder = Recorder(close_stdin)
    launch(ours, sh("trap '' TERM; echo $$; sleep 1000"), recorder)
    await until(lambda: recorder.output().endswith(b"\n"))
    first = ours.launcher_pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    if asked:
        another = Recorder(close_stdin)
        launch(ours, ["/bin/true"], another)
        assert (await soon(another.ended)).exitCode is None
    assert (await soon(recorder.ended)).exitCode is None
    await until(lambda: not alive(int(recorder.output())) and not alive(first))


async def test_one_that_lives_is_not_given_up(
    ours: Spawner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing happens it answers all the same."""
    monkeypatch.setattr(link, "LOOK", 0.05)
    recorder = Recorder()
    launch(ours, ["/bin/cat"], recorder)
    first = ours.launcher_pid
    heard = []
    hear = link.LauncherLink._hear

    def noting(self: Any) -> bool:
        found = hear(self)
        heard.append(found)
        return found

    monkeypatch.setattr(link.LauncherLink, "_hear", noting)
    await until(lambda: sum(heard) > 15)
    recorder.transport.closeStdin()
    assert (await soon(recorder.ended)).exitCode == 0
    assert ours.launcher_pid == first


@pytest.mark.parametrize("both", [False, True])
async def test_one_is_not_given_up_because_we_were_frozen(
    ours: Spawner, monkeypatch: pytest.MonkeyPatch, both: bool
) -> None:
    """We alone, and what it said was not read; or both of us, as on a machine that sleeps."""
    monkeypatch.setattr(link, "LOOK", 0.1)
    recorder = Recorder()
    launch(ours, ["/bin/cat"], recorder)
    first = ours.launcher_pid
    current = ours._launchers._current
    assert first is not None
    assert current is not None
    await until(lambda: recorder.transport.pid is not None)
    if both:
        os.kill(first, signal.SIGSTOP)
    # It is asked for a word.
    await until(lambda: current._owes)
    wait_without_the_reactor(1.0)
    if both:
        os.kill(first, signal.SIGCONT)
    await until(lambda: not current._owes)
    recorder.transport.closeStdin()
    assert (await soon(recorder.ended)).exitCode == 0
    assert ours.launcher_pid == first


def wait_without_the_reactor(seconds: float) -> None:
    time.sleep(seconds)


async def test_one_that_is_busy_is_not_waited_for(ours: Spawner) -> None:
    """What it cannot take we start; what it took is started when it goes on."""
    await launched(ours, ["/bin/true"])
    theirs = ours.launcher_pid
    assert theirs is not None
    os.kill(theirs, signal.SIGSTOP)
    recorders: list[Recorder] = []
    taken = 0
    while True:
        recorders.append(Recorder(close_stdin))
        one = launch(ours, sh("echo $PPID", "x" * 30_000), recorders[-1])
        if one.pid is not None:
            break
        taken += 1
        assert taken < 100
    assert taken > 2
    await soon(recorders[-1].ended)
    assert int(recorders[-1].output()) == os.getpid()
    os.kill(theirs, signal.SIGCONT)
    for recorder in recorders[:-1]:
        assert (await soon(recorder.ended)).exitCode == 0
        assert int(recorder.output()) == theirs


async def test_stop_ends_what_lives(ours: Spawner) -> None:
    recorder = Recorder(close_stdin)
    launch(ours, sh("trap '' TERM; echo $$; sleep 1000"), recorder)
    await until(lambda: recorder.output().endswith(b"\n"))
    theirs = ours.launcher_pid
    assert theirs is not None
    await soon(ours.stop())
    assert not alive(theirs)
    await soon(recorder.ended)
    await until(lambda: not alive(int(recorder.output())))
    assert ours.launcher_pid is None


async def test_stop_does_not_wait_for_one_that_hangs(
    ours: Spawner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "GRACE", 0.1)
    await launched(ours, ["/bin/true"])
    assert ours.launcher_pid is not None
    os.kill(ours.launcher_pid, signal.SIGSTOP)
    await soon(ours.stop())


async def test_one_that_cannot_run(
    ours: Spawner, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """It ends before it has said a word: nothing was started, and it is tried less often."""
    broken = tmp_path / "launcher.py"
    broken.write_text("raise SystemExit('nothing here')\n")
    monkeypatch.setattr(launcher, "__file__", str(broken))
    recorder, reason = await launched(ours, ["/bin/true"])
    assert isinstance(reason, OSError)
    assert recorder.pid is None
    assert await parent(ours) == os.getpid()
    assert ours._launchers._pause() == 10.0
    monkeypatch.undo()


async def test_one_that_cannot_be_started(ours: Spawner, monkeypatch: pytest.MonkeyPatch) -> None:
    await run(ours, ["/bin/true"])
    before = descriptors()
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    monkeypatch.setattr(spawner, "CROWDED", 0)
    assert await parent(ours) == os.getpid()
    assert descriptors() == before


async def test_script_that_cannot_be_watched_is_killed(
    ours: Spawner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await launched(ours, ["/bin/true"])
    before = descriptors()
    add = ours._watch.add
    monkeypatch.setattr(
        ours._watch, "add", lambda *given: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full"))
    )
    recorder = Recorder(close_stdin)
    with pytest.raises(OSError, match="full"):
        launch(ours, ["/bin/sleep", "1000"], recorder)
    monkeypatch.setattr(ours._watch, "add", add)
    assert recorder.events == []
    assert descriptors() == before
    await until(lambda: ours.alive == 0)
    assert ours.launcher_pid is not None
    await until(lambda: not children(ours.launcher_pid))  # type: ignore[arg-type]


async def test_a_failed_start_does_not_close_what_others_use(ours: Spawner) -> None:
    """Its stdin's number goes to the next pipe, and the reactor must not think that one broken."""
    data = b"x" * 2_000_000
    await launched(ours, ["/bin/true"])
    for _ in range(5):
        count: Deferred[bytes] = Deferred()

        def another(_: object, count: Deferred[bytes] = count) -> None:
            recorder = Recorder(lambda transport: (transport.write(data), transport.closeStdin()))
            recorder.ended.addCallback(lambda _: count.callback(recorder.output()))
            # It does not read before the turn is over.
            ours.spawnProcess(recorder, "/bin/sh", ["sh", "-c", "sleep 0.1; wc -c"], {})

        failing = Recorder(lambda transport: transport.write(data))
        failing.ended.addCallback(another)
        launch(ours, ["/nonexistent/program"], failing)
        # That it failed, and that its stdin is broken, is seen in one turn.
        wait_for_news(ours, 1)
        wait_without_the_reactor(0.02)
        assert int(await soon(count)) == len(data)


async def test_what_is_no_signal_is_refused_at_once(ours: Spawner) -> None:
    recorder = Recorder(close_stdin)
    one = launch(ours, ["/bin/sleep", "1000"], recorder)
    for wrong in (999, -1, "NOPE"):
        with pytest.raises(ValueError, match="no such signal"):
            one.signalGroup(wrong)
    one.signalGroup("KILL")
    assert (await soon(recorder.ended)).signal == signal.SIGKILL


async def test_what_is_no_environment_leaves_nothing(ours: Spawner) -> None:
    await launched(ours, ["/bin/true"])
    before = descriptors()
    for args, env in ((["x"], None), (None, {}), (["x"], 5)):
        with pytest.raises(TypeError):
            ours.launch(Recorder(), "/bin/true", args, env)  # type: ignore[arg-type]
    # A kind of text that the launcher does not understand is started without it.
    recorder = Recorder(close_stdin)
    ours.launch(recorder, Path("/bin/true"), [Path("/bin/true")], {})  # type: ignore[arg-type,list-item]
    assert (await soon(recorder.ended)).exitCode == 0
    await until(lambda: ours.alive == 0)
    assert {one for one in descriptors() if "memfd" not in one and "pidfd" not in one} <= before


async def test_stop_while_it_works(ours: Spawner) -> None:
    recorders = [Recorder(close_stdin) for _ in range(20)]
    for recorder in recorders:
        launch(ours, ["/bin/sleep", "1000"], recorder)
    stopped = ours.stop()
    # No new one comes meanwhile.
    late = Recorder(close_stdin)
    launch(ours, ["/bin/true"], late)
    await soon(stopped)
    for recorder in recorders:
        await soon(recorder.ended)
    assert (await soon(late.ended)).exitCode == 0
    assert ours.launcher_pid is None


async def test_many_at_once(ours: Spawner) -> None:
    """More than its buffers hold at once, either way."""
    recorders = [Recorder(close_stdin) for _ in range(400)]
    for recorder in recorders:
        launch(ours, ["/bin/true"], recorder)
    for recorder in recorders:
        assert (await soon(recorder.ended)).exitCode == 0
    assert ours.alive == 0


async def test_news_that_the_daemon_is_too_busy_to_hear(ours: Spawner) -> None:
    """The launcher keeps them until there is room."""
    await launched(ours, ["/bin/true"])
    recorders = [Recorder(close_stdin) for _ in range(50)]
    for _ in range(40):
        for recorder in recorders:
            if recorder.ended.called or not recorder.events:
                recorder.__init__(close_stdin)  # type: ignore[misc]
                launch(ours, ["/bin/true"], recorder)
        await task.deferLater(reactor, 0)
    for recorder in recorders:
        assert (await soon(recorder.ended)).exitCode == 0


async def test_logs_when_it_is_lost(ours: Spawner, logged_failures: LoggedFailures) -> None:
    await launched(ours, ["/bin/true"])
    assert ours.launcher_pid is not None
    os.kill(ours.launcher_pid, signal.SIGKILL)
    await until(lambda: ours.launcher_pid is None)
    assert logged_failures.events == []
