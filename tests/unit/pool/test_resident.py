"""Resident workers, on a `Clock` and processes that do what the test says."""

import signal
import subprocess
import sys

import pytest
from twisted.internet.task import Clock

from queuerelay.config import PoolConfig
from queuerelay.pool.resident import Residents
from queuerelay.pool.runtime import Runtime
from queuerelay.pool.stopping import Stopping
from queuerelay.testing import MemoryBroker
from tests.unit.pool.stage import EPOCH, PROGRAM, FakeProcess, FakeProcesses

MiB = 1024 * 1024


class Posts:
    """One pool of residents."""

    def __init__(self, **options):
        self.clock = Clock()
        self.processes = FakeProcesses(self.clock)
        #: Bytes of memory by process id.
        self.memory = {}
        self.stopping = Stopping(self.clock)
        config = PoolConfig(**{"name": "r", "queues": (), "command": (PROGRAM,), **options})
        self.pool = Residents(
            config,
            Runtime(
                broker=MemoryBroker(clock=self.clock),
                processes=self.processes,
                clock=self.clock,
                wall_clock=lambda: EPOCH + self.clock.seconds(),
                holder="host:1",
                stopping=self.stopping,
            ),
            memory=lambda pid: self.memory.get(pid, 0),
        )

    @property
    def alive(self) -> list[FakeProcess]:
        return self.processes.alive

    @property
    def started(self) -> int:
        return len(self.processes.started)

    @property
    def resting(self) -> str:
        return self.pool.snapshot().resting

    @property
    def states(self) -> list[str]:
        return [slot.state for slot in self.pool.snapshot().slots]

    def start(self) -> "Posts":
        self.pool.start()
        return self

    def advance(self, seconds, step=0.25):
        self.clock.pump([0.0, 0.0])
        while seconds > 0:
            self.clock.pump([min(step, seconds), 0.0, 0.0])
            seconds -= step

    def roll(self) -> list[object]:
        """Ask for a rolling restart; filled when it is over."""
        over: list[object] = []
        self.pool.roll().addBoth(over.append)
        self.advance(0)
        return over

    def stop(self, drain=0.0) -> list[object]:
        """Stop; filled when it is over."""
        stopped: list[object] = []
        self.pool.stop(drain).addBoth(stopped.append)
        self.advance(0)
        return stopped

    def is_over(self):
        assert not self.alive
        left = self.clock.getDelayedCalls()
        assert not left, [str(call) for call in left]


@pytest.fixture
def make():
    made: list[Posts] = []

    def make(**options) -> Posts:
        made.append(Posts(**options))
        return made[-1]

    yield make
    for posts in made:
        if not posts.pool._stopping:
            for process in posts.alive:
                process.obedient = True
            stopped = posts.stop()
            posts.advance(15)
            assert stopped == [None]
        posts.is_over()


# Keeping them alive


def test_as_many_as_its_size_run(make):
    posts = make(size=3, command=(PROGRAM, "--loop"), env={"A": "b"}).start()
    assert [process.argv for process in posts.alive] == [[PROGRAM.encode(), b"--loop"]] * 3
    assert all(process.env[b"A"] == b"b" for process in posts.alive)
    assert all(process.stdin_closed for process in posts.alive)
    snapshot = posts.pool.snapshot()
    assert [slot.pid for slot in snapshot.slots] == [process.pid for process in posts.alive]
    assert [slot.number for slot in snapshot.slots] == [1, 2, 3]
    assert (snapshot.size, posts.pool.busy, snapshot.resting) == (3, 3, "")
    posts.advance(100)
    assert posts.started == 3


def test_the_pause_doubles_to_a_minute(make):
    posts = make().start()
    for pause in (1, 2, 4, 8, 16, 32, 60, 60, 60):
        posts.alive[0].exit(1)
        posts.advance(pause - 0.25)
        assert not posts.alive, pause
        posts.advance(0.25)
        assert len(posts.alive) == 1, pause


@pytest.mark.parametrize("code", [1, 137])
def test_an_early_end_is_followed_by_a_pause(make, code):
    posts = make().start()
    posts.alive[0].exit(code)
    posts.advance(0.75)
    assert not posts.alive
    assert posts.states == ["waiting"]
    posts.advance(0.25)
    assert posts.alive


def test_the_end_of_a_steady_life_is_followed_by_a_start_at_once(make):
    posts = make().start()
    for _ in range(3):
        posts.alive[0].exit(1)
        posts.advance(10)
    posts.advance(10)
    posts.alive[0].die(signal.SIGSEGV)
    assert len(posts.alive) == 1
    # And the pauses begin anew.
    posts.alive[0].exit(1)
    posts.advance(1)
    assert len(posts.alive) == 1


def test_one_that_has_done_its_share_is_started_again_at_once(make, lines):
    posts = make().start()
    for _ in range(300):
        posts.advance(0.25)
        posts.alive[0].exit(0)
        assert len(posts.alive) == 1
    assert posts.resting == ""
    assert not [line for line in lines if "ended" in line]
    # What fails after it has its pause.
    posts.alive[0].exit(1)
    posts.advance(0.75)
    assert not posts.alive


def test_one_that_ends_well_and_at_once_again_and_again_is_bounded(make):
    posts = make().start()
    for _ in range(100):
        posts.alive[0].exit(0)
        posts.advance(0.05, step=0.05)
        assert not posts.alive
        posts.advance(0.06, step=0.06)
        assert len(posts.alive) == 1
    assert posts.resting == ""
    for pause in (1, 2, 4):
        posts.alive[0].exit(0)
        posts.advance(pause - 0.25)
        assert not posts.alive
        posts.advance(0.25)
    posts.alive[0].exit(0)
    assert posts.resting.startswith("crash loop")
    # One that works is no part of it.
    posts.advance(8)
    posts.advance(1)
    posts.alive[0].exit(0)
    assert len(posts.alive) == 1
    assert posts.resting == ""


def test_one_post_does_not_wait_for_another(make):
    posts = make(size=2).start()
    first, second = posts.alive
    first.exit(1)
    posts.advance(0.5)
    second.exit(1)
    posts.advance(0.5)
    assert len(posts.alive) == 1
    posts.advance(0.5)
    assert len(posts.alive) == 2


def test_a_crash_loop_is_visible(make):
    posts = make(size=2).start()
    posts.advance(1)
    for pause in (1, 2, 4):
        assert posts.resting == ""
        posts.processes.started[-1].complain(b"no database\n")
        posts.processes.started[-1].exit(3)
        assert posts.states == ["running", "waiting"]
        if pause < 4:
            posts.advance(pause)
    assert posts.resting == "crash loop: 1 of 2 processes do not stay up"
    posts.advance(1)
    snapshot = posts.pool.snapshot()
    assert [(one.code, one.stderr) for one in snapshot.exits] == [(3, "no database\n")] * 3
    assert snapshot.counters == {"crash": 3}
    assert (snapshot.slots[1].attempt, snapshot.slots[1].pid) == (3, None)


@pytest.mark.parametrize("error", [OSError(11, "EAGAIN"), ValueError("NUL")])
def test_what_cannot_be_started_is_tried_again(make, error):
    posts = make()
    posts.processes.errors = [error] * 3
    posts.start()
    posts.advance(6.75)
    assert not posts.started
    assert posts.resting.startswith("crash loop")
    posts.advance(0.25)
    assert len(posts.alive) == 1
    assert posts.pool.snapshot().counters == {"misconfigured": 3}


def test_a_program_that_is_not_there_is_tried_again(make, tmp_path):
    program = tmp_path / "worker"
    posts = make(command=(str(program),)).start()
    posts.advance(0.5)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    posts.advance(0.5)
    assert len(posts.alive) == 1


def test_what_it_prints_is_bounded_and_its_last_line_is_kept(make):
    posts = make().start()
    posts.alive[0].print(b"x" * 10_000_000)
    posts.alive[0].complain(b"bye" * 10_000)
    posts.alive[0].exit(1)
    posts.advance(1)
    assert len(posts.pool.snapshot().exits[0].stderr) == 2048


# Rolling restart


def test_a_rolling_restart_replaces_one_at_a_time(make):
    posts = make(size=3).start()
    posts.advance(30)
    old = posts.alive
    over = posts.roll()
    assert posts.resting == "rolling restart"
    for number in range(3):
        assert [process.signals for process in old] == [["TERM"]] * (number + 1) + [[]] * (
            2 - number
        )
        assert len(posts.alive) == 3
        posts.advance(1.75)
        assert posts.started == 3 + number + 1
        assert over == []
        posts.advance(0.25)
    assert over == [None]
    assert posts.resting == ""
    assert len(posts.alive) == 3
    assert not set(posts.alive) & set(old)


def test_the_next_waits_for_the_end_of_one_that_takes_its_time(make):
    posts = make(size=2, grace=10.0).start()
    old = posts.alive
    old[0].obedient = False
    posts.roll()
    posts.advance(9)
    assert posts.states == ["ending", "running"]
    assert posts.started == 2
    assert old[1].signals == []
    posts.advance(1)
    assert old[0].signals == ["TERM", "KILL"]
    assert posts.started == 3
    posts.advance(2)
    assert old[1].signals == ["TERM"]
    posts.advance(2)


def test_it_is_given_up_when_the_new_one_dies_and_the_old_ones_stay(make):
    posts = make(size=3).start()
    posts.advance(30)
    old = posts.alive
    over = posts.roll()
    posts.advance(1.5)
    posts.processes.started[3].exit(1)
    posts.advance(0.5)
    assert over == [None]
    posts.advance(30)
    assert [process.gone for process in old] == [True, False, False]
    assert not old[1].signals
    # Put right, and asked for again.
    over = posts.roll()
    posts.advance(10)
    assert over == [None]
    assert all(process.gone for process in old)
    assert len(posts.alive) == 3


def test_it_is_given_up_when_the_new_one_dies_and_comes_again_within_the_proof(make):
    posts = make(size=2).start()
    old = posts.alive
    over = posts.roll()
    posts.processes.started[2].exit(1)
    posts.advance(2)
    # Its successor lives, for a second now.
    assert len(posts.alive) == 2
    assert over == [None]
    assert not old[1].gone


def test_it_is_given_up_at_once_when_the_new_one_cannot_be_started(make):
    posts = make(size=2).start()
    old = posts.alive
    posts.processes.errors = [OSError(2, "ENOENT")] * 2
    assert posts.roll() == [None]
    assert not old[1].gone
    assert not posts.pool.is_rolling
    posts.advance(10)
    assert len(posts.alive) == 2


def test_asked_for_while_rolling_it_also_replaces_what_was_replaced(make):
    posts = make(size=3).start()
    first = posts.roll()
    posts.advance(2.5)
    assert posts.started == 5
    # The third release comes while the second is rolled out: two run it, or the one before.
    second = posts.roll()
    third = posts.roll()
    posts.advance(20)
    assert first == second == third == [None]
    # One more each for the first two, and the last only once.
    assert posts.started == 3 + 3 + 2
    assert len(posts.alive) == 3


def test_a_release_that_mends_a_broken_one_goes_on(make):
    posts = make(size=2).start()
    old = posts.alive
    over = posts.roll()
    posts.processes.started[2].exit(1)
    mended = posts.roll()
    posts.advance(20)
    assert over == mended == [None]
    assert all(process.gone for process in old)
    assert len(posts.alive) == 2


def test_one_that_waits_in_its_pause_is_tried_at_once(make):
    posts = make(size=2).start()
    for pause in (1, 2, 4, 8, 16):
        posts.processes.started[-1].exit(1)
        posts.advance(pause if pause < 16 else 0)
    assert posts.states == ["running", "waiting"]
    over = posts.roll()
    posts.advance(2)
    assert posts.states == ["running", "running"]
    posts.advance(2)
    assert over == [None]
    assert len(posts.alive) == 2


def test_one_that_is_being_recycled_is_waited_for_before_another_is_ended(make):
    posts = make(size=3, recycle_memory=MiB, grace=30.0).start()
    first, second, third = posts.alive
    third.obedient = False
    posts.memory[third.pid] = 2 * MiB
    posts.advance(6)
    assert third.signals == ["TERM"]
    over = posts.roll()
    posts.advance(10)
    assert first.signals == second.signals == []
    third.exit(0)
    posts.advance(1.75)
    assert first.signals == second.signals == []
    posts.advance(10)
    assert over == [None]
    assert (posts.started, len(posts.alive)) == (6, 3)


def test_without_processes_there_is_nothing_to_roll(make):
    posts = make()
    assert posts.roll() == [None]
    posts.start()
    posts.pool.set_size(0)
    posts.advance(0)
    assert posts.roll() == [None]
    assert not posts.pool.is_rolling
    posts.pool.set_size(1)
    assert posts.roll() == []
    posts.advance(2)
    assert not posts.pool.is_rolling


# Recycling


def test_what_is_too_old_is_replaced_one_at_a_time(make):
    posts = make(size=3, recycle_after=60.0).start()
    old = posts.alive
    most_missing = 0
    for _ in range(400):
        posts.advance(0.25)
        replaced = [p for p in old if p.signals]
        most_missing = max(most_missing, 3 - len(posts.alive))
        if replaced and len(posts.alive) < 3:
            break
    posts.advance(20)
    assert all(process.signals == ["TERM"] for process in old)
    assert posts.started == 6
    assert most_missing <= 1


def test_what_is_too_large_is_replaced_one_at_a_time(make):
    posts = make(size=3, recycle_memory=100 * MiB, grace=20.0).start()
    posts.advance(5.5)
    assert posts.started == 3
    first, second, third = posts.alive
    first.obedient = second.obedient = False
    posts.memory = {second.pid: 100 * MiB + 1, third.pid: 100 * MiB}
    posts.advance(5)
    assert (first.signals, second.signals, third.signals) == ([], ["TERM"], [])
    # It grows while the other has not ended yet.
    posts.memory[first.pid] = 200 * MiB
    posts.advance(15)
    assert first.signals == []
    posts.advance(5)
    assert second.gone
    posts.advance(10)
    assert first.signals == ["TERM"]
    assert third.signals == []
    first.exit(0)
    posts.advance(30)
    assert third.signals == []
    assert posts.started == 5


def test_nothing_is_recycled_while_another_is_not_there(make):
    posts = make(size=2, recycle_after=30.0).start()
    survivor = posts.alive[1]
    while posts.clock.seconds() < 60:
        for process in posts.alive:
            if process is not survivor:
                process.exit(1)
        posts.advance(0.25)
    assert survivor.signals == []
    posts.advance(90)
    assert survivor.gone


def test_nothing_is_recycled_while_it_rolls(make):
    posts = make(size=2, recycle_after=1.0, grace=30.0).start()
    old = posts.alive
    old[0].obedient = False
    posts.roll()
    posts.advance(20)
    assert old[0].signals == ["TERM"]
    assert old[1].signals == []
    old[0].exit(0)
    posts.advance(10)


def test_a_number_that_is_nobodys_any_more_is_not_looked_at(make):
    posts = make(recycle_memory=MiB).start()
    posts.advance(4.5)
    process = posts.alive[0]
    pid = process.pid
    posts.memory[pid] = 2 * MiB
    process.exit(0, pipes=False)
    posts.advance(1)
    assert process.signals == []
    process.close()
    posts.advance(1)


def test_memory_is_read_from_the_system():
    import os

    from queuerelay.pool.resident import _resident_memory

    assert _resident_memory(os.getpid()) > MiB
    assert _resident_memory(2**31 - 1) == 0


def test_of_a_parent_and_its_child_the_larger_counts():
    from queuerelay.pool.resident import _resident_memory

    script = "import sys; kept = bytearray(b'x' * 2**26); print(flush=True); sys.stdin.read()"
    parent = f"'{sys.executable}' -c \"{script}\"; :"
    with subprocess.Popen(
        ["/bin/sh", "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        assert _resident_memory(process.pid) > 2**26
        process.stdin.close()


# Size


def test_the_size_can_be_changed(make):
    posts = make(size=1).start()
    posts.pool.set_size(3)
    assert len(posts.alive) == 3
    first = posts.alive[0]
    posts.pool.set_size(1)
    posts.advance(0)
    assert posts.alive == [first]
    posts.pool.set_size(-1)
    posts.advance(0)
    assert (posts.alive, posts.pool.size) == ([], 0)
    posts.advance(100)
    posts.pool.set_size(2)
    assert len(posts.alive) == 2


def test_what_is_too_many_may_take_its_time_and_is_still_seen(make):
    posts = make(size=2, grace=5.0).start()
    second = posts.alive[1]
    second.obedient = False
    posts.pool.set_size(1)
    posts.advance(4)
    assert posts.states == ["running", "ending"]
    assert posts.pool.snapshot().size == 1
    posts.advance(1)
    assert posts.states == ["running"]
    assert second.signals == ["TERM", "KILL"]
    assert posts.started == 2


def test_smaller_while_rolling(make):
    posts = make(size=3, grace=5.0).start()
    posts.processes.started[2].obedient = False
    over = posts.roll()
    posts.advance(4)
    # The last one is being replaced, and is not wanted any more.
    posts.pool.set_size(2)
    posts.advance(10)
    assert over == [None]
    assert len(posts.alive) == 2
    assert posts.started == 5


# Stop


def test_a_stop_ends_all_and_waits_for_them(make):
    posts = make(size=3, grace=10.0).start()
    posts.alive[1].obedient = False
    stopped = posts.stop()
    posts.advance(9.5)
    assert stopped == []
    assert len(posts.alive) == 1
    posts.advance(0.5)
    assert stopped == [None]
    posts.is_over()
    assert posts.started == 3


@pytest.mark.parametrize(("grace", "drain", "patience"), [(2.0, 30.0, 30.0), (30.0, 2.0, 30.0)])
def test_it_has_drain_or_grace_to_finish_its_work(make, grace, drain, patience):
    posts = make(grace=grace).start()
    process = posts.alive[0]
    process.obedient = False
    stopped = posts.stop(drain)
    posts.advance(patience - 0.5)
    assert process.signals == ["TERM"]
    posts.advance(0.5)
    assert process.signals == ["TERM", "KILL"]
    assert stopped == [None]


def test_hurry_kills_what_has_not_ended(make):
    posts = make(size=2, grace=600.0).start()
    posts.alive[0].obedient = posts.alive[1].obedient = False
    stopped = posts.stop(600.0)
    posts.advance(5)
    posts.pool.hurry()
    posts.advance(0)
    assert stopped == [None]
    posts.is_over()


def test_hurry_before_the_stop_ends_nothing(make):
    posts = make(size=3).start()
    last = posts.alive[2]
    last.obedient = False
    posts.pool.set_size(2)
    posts.pool.hurry()
    posts.advance(1)
    assert (len(posts.alive), posts.started) == (3, 3)
    assert last.signals == ["TERM"]


def test_a_stop_before_the_start_is_over_at_once(make):
    posts = make()
    assert posts.stop() == [None]
    posts.is_over()
    posts.pool.set_size(2)
    assert posts.roll() == [None]
    assert not posts.started


def _in_its_pause(posts):
    posts.alive[0].exit(1)


def _rolling_and_the_old_one_ends(posts):
    posts.alive[0].obedient = False
    posts.roll()
    posts.advance(1)


def _rolling_and_the_new_one_is_proved(posts):
    posts.roll()
    posts.advance(1)


def _its_pipes_are_held(posts):
    posts.alive[0].exit(1, pipes=False)


def _smaller_and_not_yet_gone(posts):
    posts.alive[1].obedient = False
    posts.pool.set_size(1)
    posts.advance(1)


def _recycled(posts):
    posts.alive[0].obedient = False
    posts.memory[posts.alive[0].pid] = 2 * MiB
    posts.advance(6)


PHASES = [
    _in_its_pause,
    _rolling_and_the_old_one_ends,
    _rolling_and_the_new_one_is_proved,
    _its_pipes_are_held,
    _smaller_and_not_yet_gone,
    _recycled,
]


@pytest.mark.parametrize("hurried", [False, True])
@pytest.mark.parametrize("phase", PHASES, ids=[phase.__name__[1:] for phase in PHASES])
def test_a_stop_in_any_phase_leaves_nothing(make, phase, hurried):
    posts = make(size=2, grace=20.0, recycle_memory=MiB).start()
    phase(posts)
    started = posts.started
    rolling = posts.roll() if posts.pool.is_rolling else [None]
    stopped = posts.stop()
    if hurried:
        posts.pool.hurry()
    for _ in range(12 if hurried else 100):
        if not stopped:
            posts.advance(0.25)
    assert stopped == [None]
    assert rolling == [None]
    # At once.
    posts.is_over()
    assert posts.started == started


# The stop of the whole daemon


@pytest.mark.parametrize("before", [0.9, 0.0, -0.5])
def test_an_end_around_the_stop_is_no_crash(make, lines, before):
    posts = make(size=2).start()
    posts.advance(5)
    if before < 0:
        # The relay of the same daemon still drains.
        posts.stopping.announce()
        posts.advance(-before)
    for process in posts.alive:
        process.exit(143)
    posts.advance(max(0.0, before))
    stopped = posts.stop()
    if before < 0:
        # Held requests may still need them, so they were started again.
        assert posts.started == 4
        posts.advance(1)
    assert stopped == [None]
    assert {one.outcome for one in posts.pool.snapshot().exits} == {"interrupted"}
    assert not [line for line in lines if "ended" in line]


def test_what_ends_again_and_again_during_the_stop_is_not_started_without_end(make):
    posts = make().start()
    posts.advance(1)
    posts.stopping.announce()
    for _ in range(3):
        if posts.alive:
            posts.alive[0].exit(1)
        posts.advance(0.25)
    assert posts.started == 2
