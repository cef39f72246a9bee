"""Resident workers: long-running processes that talk to Redis themselves, kept alive.

Invariants:

1. Each post has at most one process, and is always to be filled (`post`).
2. A rolling restart replaces one process at a time, and goes on only when the new one has lived for
   `PROOF` seconds: a broken release costs one process, never all of them. So does recycling.
3. After `stop` nothing is left: no process, no timer, no wait.
"""

import os
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger

from queuerelay.config import PoolConfig
from queuerelay.loop import Loop, Watched
from queuerelay.pool.exits import EndReason
from queuerelay.pool.post import Keeper, Post, copied
from queuerelay.pool.runtime import Runtime
from queuerelay.waiters import Waiters
from queuerelay.wire.node import PoolState

#: Seconds that a new process must live before a rolling restart goes on.
PROOF: Final = 2.0
#: Seconds between two looks at the age and memory of the processes.
LOOK_INTERVAL: Final = 5.0


class Residents:
    """One pool of ``resident`` mode; `start` and `stop` once each.

    `memory` tells the bytes of resident memory of a process id, 0 where that is unknown.
    """

    _log = Logger()

    def __init__(
        self,
        config: PoolConfig,
        runtime: Runtime,
        *,
        memory: Callable[[int], int] | None = None,
    ) -> None:
        self.config = config
        self._clock = runtime.clock
        self._stop_sign = runtime.stopping
        self._keeper = Keeper(config, runtime)
        self._memory = memory or _resident_memory
        self._posts: list[Post] = []
        #: Those that are no more to be filled, while their process ends.
        self._leaving: list[Post] = []
        self._is_rolling = False
        self._rolling: Deferred[None] = succeed(None)
        #: Those who wait for the end of the rolling restart.
        self._over: Waiters[None] = Waiters()
        self._look = Loop(f"look of {config.name}", LOOK_INTERVAL, self._recycle, clock=self._clock)
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
        self._stop_sign.announce()
        return Deferred.fromCoroutine(self._stop(drain))

    async def _stop(self, drain: float) -> None:
        self._rolling.cancel()
        while self._posts:
            self._dismiss(self._posts.pop(), max(drain, self.config.grace))
        await self._look.stop()
        while self._leaving:
            # Its end is told to others too, who come after us.
            await copied(self._leaving[0].keeping)

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
            post = Post(len(self._posts) + 1)
            self._posts.append(post)
            post.keeping = Deferred.fromCoroutine(self._keeper.keep(post))
        while len(self._posts) > max(0, size):
            self._dismiss(self._posts.pop(), self.config.grace)

    def _dismiss(self, post: Post, grace: float) -> None:
        """Fill `post` no more, and end its process within `grace` seconds."""
        post.wanted = False
        self._leaving.append(post)
        self._end(post, EndReason.SHUTDOWN, grace)
        post.wake()
        post.keeping.addBoth(lambda _: self._leaving.remove(post))

    def _end(self, post: Post, why: EndReason, grace: float) -> None:
        if post.child is not None:
            post.ending = True
            post.child.end(why, grace=grace)

    # Rolling restart

    @property
    def is_rolling(self) -> bool:
        """Whether a rolling restart is under way."""
        return self._is_rolling

    def roll(self) -> Deferred[None]:
        """Replace all processes, one by one; fires when it is over, whether it went well or not.

        Asked for again while one is under way, it goes on until also those are replaced that it
        had started before.
        """
        if self._stopping or not self._posts:
            return succeed(None)
        self._keeper.release += 1
        over = self._over.wait()
        if not self._is_rolling:
            self._is_rolling = True
            self._log.info("pool {pool}: rolling restart", pool=self.config.name)
            self._rolling = Deferred.fromCoroutine(self._roll())
        return over

    async def _roll(self) -> None:
        try:
            while (post := self._next_to_replace()) is not None:
                release = self._keeper.release
                if not await self._replaced(post) and release == self._keeper.release:
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
            self._is_rolling = False
            self._over.fire(None)

    def _next_to_replace(self) -> Post | None:
        """A post whose process is of an earlier release; rather one without a process, which costs
        nothing.
        """
        old = [post for post in self._posts if post.release < self._keeper.release]
        return min(old, key=lambda post: post.child is not None and not post.ending, default=None)

    async def _replaced(self, post: Post) -> bool:
        """Whether the process of `post` was replaced by one that lives."""
        if post.child is not None:
            self._end(post, EndReason.REPLACED, self.config.grace)
            await copied(post.child.done)
        if post.child is None:
            # It waits until it is tried again, which is now.
            post.failures = 0
            post.wake()
        new = post.child
        if new is not None:
            await deferLater(self._clock, PROOF)
        return not post.wanted or (new is not None and post.child is new and new.alive)

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
    def _unsettled(post: Post, now: float) -> bool:
        return post.child is None or post.ending or now - post.since < PROOF

    def _reason_to_recycle(self, post: Post, age: float) -> str:
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

    def loops(self) -> list[Watched]:
        """What the pool does again and again."""
        return [self._look]

    def snapshot(self) -> PoolState:
        """What the pool is doing now."""
        now, tally = self._clock.seconds(), self._keeper.tally
        return PoolState(
            name=self.config.name,
            queues=self.config.queues,
            size=self.size,
            min=self.config.min,
            max=self.config.max,
            resting=self._resting(),
            slots=[post.snapshot(now) for post in (*self._posts, *self._leaving)],
            exits=list(tally.exits),
            counters=dict(tally.counters),
            rates=tally.rates(now),
            resident=True,
            busy=self.busy,
            looping=len(self._looping()),
        )

    def _looping(self) -> list[Post]:
        return [post for post in self._posts if post.failures >= 3]

    def _resting(self) -> str:
        looping = self._looping()
        if looping:
            return f"crash loop: {len(looping)} of {self.size} processes do not stay up"
        return "rolling restart" if self.is_rolling else ""


def _resident_memory(pid: int) -> int:
    """Bytes of resident memory of a process, or of a child of its own that has more: many are but
    the parents of what works. 0 where the system does not tell.
    """
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            children = [int(number) for number in file.read().split()]
    except (OSError, ValueError):
        children = []
    return max(map(_memory_of, [pid, *children]))


def _memory_of(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
