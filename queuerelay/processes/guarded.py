"""The table of living process groups, which a guardian process reads when the daemon has died."""

import errno
import mmap
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from queuerelay.processes import guardian
from queuerelay.processes.interfaces import IGroupTransport
from queuerelay.waiters import Waiters

#: Processes that can live at a time; half a megabyte of shared memory, of which only what is
#: used exists.
CAPACITY: Final = 65535
#: Seconds between two starts of a guardian that does not stay.
RETRY: Final = 5.0

_WIDTH: Final = 8


class Start(Protocol):
    """Starts a process that is in no table."""

    def __call__(
        self,
        protocol: ProcessProtocol,
        executable: str,
        args: Sequence[str],
        child_fds: Mapping[int, int | str],
    ) -> IGroupTransport:
        """Start a process, as `spawnProcess` does."""


class Groups:
    """The process groups that must not outlive us, in the table that the guardian reads.

    `mark` is the beginning of the marks of the daemon's processes.

    The guardian is started at the first use, not before: twistd forks to become a daemon after
    everything is made.
    """

    _log = Logger()

    def __init__(self, start: Start, *, clock: IReactorTime, mark: str) -> None:
        self._start = start
        self._mark = mark
        self._clock = clock
        self._memory: int | None = None
        self._table: Any = None
        # Small numbers first, so that the memory used stays small.
        self._free = list(range(CAPACITY, 0, -1))
        self._guardian: IGroupTransport | None = None
        self._stopping = False
        self._stopped: Waiters[None] = Waiters()
        self._next_start = 0.0

    @property
    def alive(self) -> int:
        """How many groups stand in the table."""
        return CAPACITY - len(self._free)

    @property
    def guardian_pid(self) -> int | None:
        """Process id of the guardian, None while there is none."""
        return self._guardian.pid if self._guardian is not None else None

    def starting(self, inode: int) -> None:
        """Note that a process is about to be started, with the inode of a pipe that it holds, or 0.

        Raises `OSError` (EAGAIN) where too many groups live.
        """
        if not self._free:
            raise OSError(errno.EAGAIN, f"more than {CAPACITY} processes")
        if self._guardian is None:
            self._guard()
        if self._table is not None:
            self._table[0] = inode

    def failed(self) -> None:
        """The process of `starting` could not be started."""
        if self._table is not None:
            self._table[0] = 0

    def started(self, group: int) -> Callable[[], None]:
        """The process of `starting` leads this group; the result is to be called just before it is
        reaped.
        """
        slot = self._free.pop()
        table = self._table
        if table is not None:
            table[slot] = group
            table[0] = 0

        def ended() -> None:
            if table is not None:
                table[slot] = 0
            self._free.append(slot)

        return ended

    def stop(self) -> Deferred[None]:
        """End the guardian; fires when it is gone. Groups that still live are no longer guarded."""
        if self._guardian is None:
            self._release()
            return succeed(None)
        if not self._stopping:
            self._stopping = True
            with suppress(ProcessExitedAlready):
                # It ignores whatever is less.
                self._guardian.signalProcess("KILL")
        return self._stopped.wait()

    def _release(self) -> None:
        # Processes that still live keep the table, until they have left it.
        self._table = None
        if self._memory is not None:
            os.close(self._memory)
            self._memory = None

    def _guard(self) -> None:
        if self._clock.seconds() < self._next_start:
            return
        self._next_start = self._clock.seconds() + RETRY
        try:
            self._guardian = self._start_guardian()
        except OSError as error:
            self._log.error(
                "no guardian: if this daemon is killed now, its workers live on: {reason}",
                reason=str(error),
            )

    def _start_guardian(self) -> IGroupTransport:
        if self._memory is None:
            size = (CAPACITY + 1) * _WIDTH
            self._memory = os.memfd_create("queuerelay-groups")
            os.ftruncate(self._memory, size)
            # Not closed by us: a process that ends later still writes to it.
            self._table = memoryview(mmap.mmap(self._memory, size)).cast("q")
        null = os.open(os.devnull, os.O_RDWR)
        daemon = os.pidfd_open(os.getpid())
        try:
            return self._start(
                _Guardian(self._gone),
                sys.executable,
                [sys.executable, "-I", "-S", guardian.__file__, self._mark],
                {
                    0: null,
                    1: null,
                    2: null,
                    guardian.DAEMON: daemon,
                    guardian.TABLE: self._memory,
                },
            )
        finally:
            os.close(null)
            os.close(daemon)

    def _gone(self, reason: str) -> None:
        self._guardian = None
        if self._stopping:
            self._stopping = False
            self._next_start = 0.0
            self._release()
            self._stopped.fire(None)
            return
        self._log.warn("the guardian of our workers ended: {reason}", reason=reason)
        if self.alive:
            self._guard()


class _Guardian(ProcessProtocol):
    """Tells of the guardian's end."""

    def __init__(self, gone: Callable[[str], object]) -> None:
        self._gone = gone

    def processEnded(self, reason: Failure) -> None:
        self._gone(reason.getErrorMessage())
