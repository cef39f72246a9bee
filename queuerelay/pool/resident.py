"""Resident workers: long-running processes that talk to Redis themselves, kept alive.

Invariants:

1. Each post has at most one process; a post is a slot that is always to be filled.
2. A process that ends is started again: at once where we ended it to replace it or where it lived
   for `STEADY` seconds, else after a pause that doubles up to `LONGEST_PAUSE`.
3. A rolling restart replaces one process at a time, and goes on only when the new one has lived for
   `PROOF` seconds: a broken release costs one process, never all of them. So does recycling.
4. After `stop` nothing is left: no process, no timer, no wait.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from queuerelay.backoff import back_off
from queuerelay.config import PoolConfig
from queuerelay.errors import CannotStart
from queuerelay.loop import Loop
from queuerelay.pool.child import Child
from queuerelay.pool.exits import EndReason, ProcessEnd
from queuerelay.pool.output import Lines
from queuerelay.pool.tally import Tally, exit_record
from queuerelay.pool.task import Workshop
from queuerelay.processes.interfaces import IProcesses
from queuerelay.wire.node import PoolState, SlotState
from queuerelay.wire.outcome import Outcome

#: First and longest pause before a process is started again, in seconds.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
#: Seconds after which a process counts as working: its end is then no sign of a crash loop.
STEADY: Final = 10.0
#: Seconds that a new process must live before a rolling restart goes on.
PROOF: Final = 2.0
#: Seconds between two looks at the age and memory of the processes.
LOOK_INTERVAL: Final = 5.0


class _Post:
    """A place for one process."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.child: Child | None = None
        #: Clock seconds at which its process was started, and the `Residents.release` of then.
        self.since = 0.0
        self.release = 0
        #: Whether we have told its process to end.
        self.ending = False
        #: Starts in a row that came to nothing.
        self.failures = 0
        #: Whether it is to be filled.
        self.wanted = True
        #: Pauses of it, to be cut short by cancelling.
        self.pause: Deferred[None] | None = None
        self.keeping: Deferred[None] = succeed(None)

    def wake(self) -> None:
        """Go on at once, instead of after the pause."""
        if self.pause is not None:
            self.pause.cancel()


class Residents:
    """One pool of ``resident`` mode; `start` and `stop` once each.

    `memory` tells the bytes of resident memory of a process id, 0 where that is unknown.
    """

    _log = Logger()

    def __init__(
        self,
        config: PoolConfig,
        *,
        processes: IProcesses,
        clock: IReactorTime,
        wall_clock: Callable[[], float],
        memory: Callable[[int], int] | None = None,
    ) -> None:
        self.config = config
        self._processes = processes
        self._clock = clock
        self._wall_clock = wall_clock
        self._workshop = Workshop(config, inherited=dict(os.environb))
        self._memory = memory or _resident_memory
        self._posts: list[_Post] = []
        #: Those that are no more to be filled, while their process ends.
        self._leaving: list[_Post] = []
        self._tally = Tally()
        #: Counts rolling restarts: a process that was started under an earlier one is to be
        #: replaced.
        self._release = 0
        self._rolling: Deferred[None] = succeed(None)
        #: Fire when the rolling restart is over; none where there is none.
        self._over: list[Deferred[None]] = []
        self._look = Loop(f"look of {config.name}", LOOK_INTERVAL, self._recycle, clock=clock)
        self._stopping = False

    # Life

    def start(self) -> None:
        """Start the processes."""
        self.set_size(self.config.size)
        self._look.start()

    def stop(self, drain: float = 0.0) -> Deferred[None]:
        """End all processes: TERM, grace, KILL; fires when they are gone. `drain` is how long one
        may take to finish its work where that is more than the grace.
        """
        self._stopping = True
        return Deferred.fromCoroutine(self._stop(drain))

    async def _stop(self, drain: float) -> None:
        self._rolling.cancel()
        while self._posts:
            self._dismiss(self._posts.pop(), max(drain, self.config.grace))
        await self._look.stop()
        while self._leaving:
            # It tells also those that come after us of its end.
            gone: Deferred[None] = Deferred()
            self._leaving[0].keeping.addBoth(_tell, gone)
            await gone

    def hurry(self) -> None:
        """Kill what has not ended yet, where the pool is stopping."""
        if self._stopping:
            for post in self._leaving:
                if post.child is not None:
                    post.child.kill(EndReason.SHUTDOWN)

    # Size

    @property
    def size(self) -> int:
        """How many processes there are to be."""
        return len(self._posts)

    @property
    def busy(self) -> int:
        """How many processes run."""
        return sum(post.child is not None for post in self._posts)

    def set_size(self, size: int) -> None:
        """Change how many processes there are to be, at least 0; those too many are ended."""
        if self._stopping:
            return
        while len(self._posts) < size:
            post = _Post(len(self._posts) + 1)
            self._posts.append(post)
            post.keeping = Deferred.fromCoroutine(self._keep(post))
        while len(self._posts) > max(0, size):
            self._dismiss(self._posts.pop(), self.config.grace)

    def _dismiss(self, post: _Post, grace: float) -> None:
        """It is not to be filled any more, and its process is to end within `grace` seconds."""
        post.wanted = False
        self._leaving.append(post)
        self._end(post, EndReason.SHUTDOWN, grace)
        post.wake()
        post.keeping.addBoth(lambda _: self._leaving.remove(post))

    def _end(self, post: _Post, why: EndReason, grace: float) -> None:
        if post.child is not None:
            post.ending = True
            post.child.end(why, grace=grace)

    # Rolling restart

    @property
    def is_rolling(self) -> bool:
        """Whether a rolling restart is under way."""
        return bool(self._over)

    def roll(self) -> Deferred[None]:
        """Replace all processes, one by one; fires when it is over, whether it went well or not.

        Asked for again while one is under way, it goes on until also those are replaced that it
        had started before.
        """
        if self._stopping or not self._posts:
            return succeed(None)
        self._release += 1
        over: Deferred[None] = Deferred()
        self._over.append(over)
        if len(self._over) == 1:
            self._log.info("pool {pool}: rolling restart", pool=self.config.name)
            self._rolling = Deferred.fromCoroutine(self._roll())
        return over

    async def _roll(self) -> None:
        try:
            while (post := self._next_to_replace()) is not None:
                release = self._release
                if not await self._replaced(post) and release == self._release:
                    self._log.error(
                        "pool {pool}: the rolling restart is given up: a new process did not live "
                        "{proof:g} s",
                        pool=self.config.name,
                        proof=PROOF,
                    )
                    return
            self._log.info("pool {pool}: all processes are replaced", pool=self.config.name)
        except CancelledError:
            # We stop.
            pass
        except Exception:
            self._log.failure("pool {pool}: the rolling restart failed", pool=self.config.name)
        finally:
            over, self._over = self._over, []
            for one in over:
                one.callback(None)

    def _next_to_replace(self) -> _Post | None:
        """Those first that do not work at the moment: they cost nothing."""
        old = [post for post in self._posts if post.release < self._release]
        return min(old, key=lambda post: post.child is not None and not post.ending, default=None)

    async def _replaced(self, post: _Post) -> bool:
        """Whether the process of `post` was replaced by one that lives."""
        if post.child is not None:
            self._end(post, EndReason.REPLACED, self.config.grace)
            await _fired(post.child.done)
        if post.child is None:
            # It waits until it is tried again, which is now.
            post.failures = 0
            post.wake()
        new = post.child
        if new is not None:
            await deferLater(self._clock, PROOF)
        return not post.wanted or (new is not None and post.child is new and new.alive)

    # One post

    async def _keep(self, post: _Post) -> None:
        while self._wants(post):
            try:
                exit = await self._serve(post)
            except Exception:
                self._log.failure("pool {pool} failed to keep a process", pool=self.config.name)
                exit = ProcessEnd(not_started="an error of ours")
            if not self._wants(post):
                return
            planned = exit.ended_by_us is not None
            post.failures = 0 if planned or exit.run >= STEADY else post.failures + 1
            if post.failures:
                seconds = back_off(post.failures, first=FIRST_PAUSE, longest=LONGEST_PAUSE)
                self._log.error(
                    "pool {pool}: process {number} ended ({exit}) after {run:.1f} s; again in "
                    "{seconds:.0f} s",
                    pool=self.config.name,
                    number=post.number,
                    exit=str(exit),
                    run=exit.run,
                    seconds=seconds,
                )
                post.pause = deferLater(self._clock, seconds)
                with suppress(CancelledError):
                    await post.pause
                post.pause = None

    def _wants(self, post: _Post) -> bool:
        return post.wanted and not self._stopping

    async def _serve(self, post: _Post) -> ProcessEnd:
        """Start a process for `post`, and wait for its end."""
        output, errors = Lines(), Lines()
        child = Child(
            stdin=b"",
            clock=self._clock,
            on_output=lambda chunk: self._say(post, output.feed(chunk, self._clock.seconds())),
            on_errors=lambda chunk: self._say(post, errors.feed(chunk, self._clock.seconds())),
            grace=self.config.grace,
        )
        post.release = self._release
        try:
            argv, environment = self._workshop.resident_argv(), self._workshop.base
            child.start(self._processes.spawnProcess, argv, environment)
        except (CannotStart, OSError, ValueError) as error:
            exit = ProcessEnd(not_started=str(error))
        else:
            post.child, post.since = child, self._clock.seconds()
            self._log.info(
                "pool {pool}: process {number} is {pid}",
                pool=self.config.name,
                number=post.number,
                pid=child.pid,
            )
            exit = await _fired(child.done)
            post.child, post.ending = None, False
            for lines in (output, errors):
                self._say(post, lines.finish())
                if lines.skipped:
                    self._say(post, [f"{lines.skipped} more lines were not logged"])
        outcome = Outcome.SUCCESS if exit.code == 0 else Outcome.CRASH
        if exit.not_started is not None:
            outcome = Outcome.MISCONFIGURED
        elif exit.ended_by_us is not None:
            outcome = Outcome.INTERRUPTED
        self._tally.add(
            exit_record(
                exit,
                at=self._wall_clock(),
                message="",
                queue=",".join(self.config.queues),
                outcome=outcome,
                stderr=errors.tail(),
            ),
            self._clock.seconds(),
        )
        return exit

    def _say(self, post: _Post, lines: Iterable[str]) -> None:
        for line in lines:
            self._log.info(
                "{pool} {number}: {line}", pool=self.config.name, number=post.number, line=line
            )

    # Recycling

    def _recycle(self) -> None:
        """Replace one process that is too old or too large; one at a time."""
        now = self._clock.seconds()
        # While it rolls there is always one.
        if any(self._unsettled(post, now) for post in self._posts):
            return
        for post in sorted(self._posts, key=lambda post: post.since):
            why = self._reason_to_recycle(post, now - post.since)
            if why:
                self._log.info(
                    "pool {pool}: process {number} is replaced: {why}",
                    pool=self.config.name,
                    number=post.number,
                    why=why,
                )
                self._end(post, EndReason.REPLACED, self.config.grace)
                return

    @staticmethod
    def _unsettled(post: _Post, now: float) -> bool:
        return post.child is None or post.ending or now - post.since < PROOF

    def _reason_to_recycle(self, post: _Post, age: float) -> str:
        config, child = self.config, post.child
        if config.recycle_after is not None and age > config.recycle_after:
            return f"{age:.0f} s old"
        # Of one that has ended the number may be somebody else's by now.
        if config.recycle_memory is not None and child is not None and child.pid is not None:
            size = self._memory(child.pid)
            if size > config.recycle_memory:
                return f"{size} bytes of memory"
        return ""

    # Looking

    def loops(self) -> list[Loop]:
        """What it does again and again."""
        return [self._look]

    def snapshot(self) -> PoolState:
        """What it is doing now."""
        now = self._clock.seconds()
        return PoolState(
            name=self.config.name,
            queues=self.config.queues,
            size=self.size,
            min=self.config.min,
            max=self.config.max,
            resting=self._resting(),
            slots=[self._slot(post, now) for post in (*self._posts, *self._leaving)],
            exits=list(self._tally.exits),
            counters=dict(self._tally.counters),
            rates=self._tally.rates(now),
            resident=True,
            busy=self.busy,
            looping=len(self._looping()),
        )

    def _looping(self) -> list[_Post]:
        return [post for post in self._posts if post.failures >= 3]

    def _resting(self) -> str:
        looping = self._looping()
        if looping:
            return f"crash loop: {len(looping)} of {self.size} processes do not stay up"
        return "rolling restart" if self.is_rolling else ""

    def _slot(self, post: _Post, now: float) -> SlotState:
        if post.child is None:
            return SlotState(number=post.number, state="waiting", attempt=post.failures or None)
        return SlotState(
            number=post.number,
            state="running" if post.child.alive and not post.ending else "ending",
            pid=post.child.pid,
            age=now - post.since,
        )


def _fired(done: Deferred[ProcessEnd]) -> Deferred[ProcessEnd]:
    """Fires as `done` does, for one waiter of several."""
    copied: Deferred[ProcessEnd] = Deferred()

    def copy(exit: ProcessEnd) -> ProcessEnd:
        if not copied.called:
            copied.callback(exit)
        return exit

    done.addCallback(copy)
    return copied


def _tell(result: object, other: Deferred[None]) -> object:
    other.callback(None)
    return result


def _resident_memory(pid: int) -> int:
    """Bytes of resident memory of a process; 0 where the system does not tell."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
