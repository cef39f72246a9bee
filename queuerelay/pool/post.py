"""One resident process in its place: started, and started again after its end.

Invariants:

1. A post has at most one process.
2. A process that ends is started again: at once where we ended it to replace it, where it lived
   for `STEADY` seconds, or where it said with exit status 0 that it was done, as workers do that
   take so many jobs each; else after a pause that doubles up to `LONGEST_PAUSE`.
3. Also with status 0 it is started at most once in `BRIEF` seconds; and after `BRIEF_LIVES` in a
   row that were shorter than that, an end is one like any other.
"""

import os
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger

from queuerelay.backoff import back_off
from queuerelay.config import PoolConfig
from queuerelay.errors import CannotStart
from queuerelay.pool.child import Child
from queuerelay.pool.environment import resident_environment
from queuerelay.pool.exits import ProcessEnd
from queuerelay.pool.logged import Logged
from queuerelay.pool.runtime import Runtime
from queuerelay.pool.tally import Tally, exit_record
from queuerelay.pool.task import Workshop
from queuerelay.wire.node import SlotState
from queuerelay.wire.outcome import Outcome

_T = TypeVar("_T")

#: First and longest pause before a process is started again, in seconds.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
#: Seconds after which a process counts as working: its end is then no sign of a crash loop.
STEADY: Final = 10.0
#: A life of less than so many seconds is no work, and how many of them may have been.
BRIEF: Final = 0.1
BRIEF_LIVES: Final = 100


class Post:
    """A slot for one process, which is always to be filled while it is `wanted`."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.child: Child | None = None
        #: Clock seconds at which its process was started, and the `Keeper.release` of then.
        self.since = 0.0
        self.release = 0
        #: Whether we have told its process to end.
        self.ending = False
        #: Starts in a row that came to nothing.
        self.failures = 0
        #: Brief lives in a row that ended with status 0.
        self.brief = 0
        #: Whether it is to be filled; once it is not, it never is again.
        self.wanted = True
        #: Pauses of it, to be cut short by cancelling.
        self.pause: Deferred[Any] | None = None
        self.keeping: Deferred[None] = succeed(None)

    def wake(self) -> None:
        """Fill the post at once, instead of after the pause."""
        if self.pause is not None:
            self.pause.cancel()

    def snapshot(self, now: float) -> SlotState:
        """What the post is doing at `now` clock seconds."""
        if self.child is None:
            return SlotState(number=self.number, state="waiting", attempt=self.failures or None)
        return SlotState(
            number=self.number,
            state="running" if self.child.alive and not self.ending else "ending",
            pid=self.child.pid,
            age=now - self.since,
        )


class Keeper:
    """Keeps the posts of one pool filled, and counts the exits of their processes."""

    _log = Logger()

    def __init__(self, config: PoolConfig, runtime: Runtime) -> None:
        self._config = config
        self._processes = runtime.processes
        self._clock = runtime.clock
        self._wall_clock = runtime.wall_clock
        self._workshop = Workshop(config, inherited=dict(os.environb))
        self._environment = resident_environment(self._workshop.base, runtime.address)
        self._stopping = runtime.stopping
        self._doubts = runtime.stopping.doubts(config.size)
        self.tally = Tally()
        #: Counts rolling restarts: a process that was started under an earlier one is to be
        #: replaced.
        self.release = 0

    async def keep(self, post: Post) -> None:
        """Keep a process running in `post` until it is no more wanted and its process is gone."""
        while self._wants(post):
            try:
                exit, said = await self._serve(post)
            except Exception:
                self._log.failure("pool {pool} failed to keep a process", pool=self._config.name)
                exit, said = ProcessEnd(not_started="an error of ours"), ("", "")
            outcome = _outcome(exit)
            # Where word of our stop comes yet, it was no crash.
            self._doubts.most = max(self._doubts.most, post.number)
            word = self._doubts.wait() if outcome is Outcome.CRASH else succeed(False)
            word.addCallback(self._count, exit, outcome, said)
            if not self._wants(post):
                return
            if _failed(post, exit):
                post.failures += 1
                await self._rest(post, exit, word)
            else:
                post.failures = 0
                if post.brief:
                    await self._pause(post, BRIEF - exit.run)

    async def _rest(self, post: Post, exit: ProcessEnd, word: Deferred[bool]) -> None:
        """The pause before the next start, unless the process ended because of our `stopping`."""
        seconds = back_off(post.failures, first=FIRST_PAUSE, longest=LONGEST_PAUSE)
        until = self._clock.seconds() + seconds
        try:
            waited = post.pause = copied(word)
            # What was started since our stop began, and ends, is no victim of it.
            if await waited and post.since < (self._stopping.since or 0.0):
                post.failures = 0
                return
            self._log.error(
                "pool {pool}: process {number} ended ({exit}) after {run:.1f} s; again in "
                "{seconds:.0f} s",
                pool=self._config.name,
                number=post.number,
                exit=str(exit),
                run=exit.run,
                seconds=seconds,
            )
        except CancelledError:
            # We are woken.
            return
        finally:
            post.pause = None
        await self._pause(post, until - self._clock.seconds())

    async def _pause(self, post: Post, seconds: float) -> None:
        if seconds <= 0:
            return
        post.pause = deferLater(self._clock, seconds)
        with suppress(CancelledError):
            await post.pause
        post.pause = None

    @staticmethod
    def _wants(post: Post) -> bool:
        # It may be over after each wait, which a type checker does not see.
        return post.wanted

    async def _serve(self, post: Post) -> tuple[ProcessEnd, tuple[str, str]]:
        """Start a process for `post`, and wait for its end; gives the ends of its stderr and its
        stdout too.
        """
        output, errors = (Logged(self._clock, partial(self._say, post)) for _ in range(2))
        child = Child(
            stdin=b"",
            clock=self._clock,
            on_output=output.heard,
            on_errors=errors.heard,
            grace=self._config.grace,
        )
        post.release = self.release
        try:
            argv = self._workshop.resident_argv()
            child.start(self._processes.spawnProcess, argv, self._environment)
        except (CannotStart, OSError, ValueError) as error:
            exit = ProcessEnd(not_started=str(error))
        else:
            post.child, post.since = child, self._clock.seconds()
            self._log.info(
                "pool {pool}: process {number} is {pid}",
                pool=self._config.name,
                number=post.number,
                pid=child.pid,
            )
            exit = await copied(child.done)
            post.child, post.ending = None, False
            output.end()
            errors.end()
        return exit, (errors.lines.tail(), output.lines.tail())

    def _count(
        self, stops: bool, exit: ProcessEnd, outcome: Outcome, said: tuple[str, str]
    ) -> bool:
        """Count the end, which was the stop's doing where it `stops`."""
        stderr, stdout = said
        self.tally.add(
            exit_record(
                exit,
                at=self._wall_clock(),
                message="",
                queue=",".join(self._config.queues),
                outcome=Outcome.INTERRUPTED if stops else outcome,
                stderr=stderr,
                stdout="" if exit.code == 0 else stdout,
            ),
            self._clock.seconds(),
        )
        return stops

    def _say(self, post: Post, line: str) -> None:
        self._log.info(
            "{pool} {number}: {line}", pool=self._config.name, number=post.number, line=line
        )


def _failed(post: Post, exit: ProcessEnd) -> bool:
    """Whether a process came to nothing; counts its brief lives."""
    if exit.ended_by_us is not None or exit.run >= STEADY:
        post.brief = 0
        return False
    if exit.code != 0:
        return True
    post.brief = post.brief + 1 if exit.run < BRIEF else 0
    return post.brief > BRIEF_LIVES


def _outcome(exit: ProcessEnd) -> Outcome:
    if exit.not_started is not None:
        return Outcome.MISCONFIGURED
    if exit.ended_by_us is not None:
        return Outcome.INTERRUPTED
    return Outcome.SUCCESS if exit.code == 0 else Outcome.CRASH


def copied(done: Deferred[_T]) -> Deferred[_T]:
    """Fires as `done` does, for one waiter of several."""
    copy: Deferred[_T] = Deferred()

    def fire(result: _T) -> _T:
        if not copy.called:
            copy.callback(result)
        return result

    done.addBoth(fire)
    return copy
