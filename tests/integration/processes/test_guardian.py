"""Real processes that die with their daemon, however that dies."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet import reactor

from queuerelay.processes import guarded, guardian
from queuerelay.processes.spawner import Spawner, supported
from tests.helpers.processes import alive
from tests.helpers.waiting import PATIENCE, until
from tests.integration.processes.processes import (
    Recorder,
    descriptors,
    run,
    soon,
    start,
)

pytestmark = pytest.mark.skipif(not supported(), reason="no pidfd here")

ROOT = Path(__file__).parents[3]
MIB = 1024 * 1024


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
