"""A process whose parent is the launcher."""

import errno
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from queuerelay.processes import guardian
from queuerelay.processes.transport import SpawnedProcess


class Parent(Protocol):
    """The launcher of a script, as the script needs it."""

    #: Whether the launcher has ever said anything.
    has_answered: bool

    def free(self, number: int, *, started: bool) -> None:
        """The script of this number may be reaped; nothing is to be heard of it any more."""


class Launched:
    """The `Handle` of a script whose parent is the launcher."""

    def __init__(self, parent: Parent, number: int, executable: bytes | str) -> None:
        self._parent = parent
        self._number = number
        self.executable = executable
        self._process: SpawnedProcess | None = None
        self.pid: int | None = None
        #: Whether the end of the process has been told.
        self.over = False
        #: Once the launcher is gone: ids of the processes that hold one of the script's pipes.
        self.found: set[int] = set()
        #: Whether the launcher is no longer the parent, so that the process id may be anybody's.
        self._adrift = False
        #: Signals to the process or to its group, to be sent as soon as the process id is known.
        self._waiting: list[tuple[Callable[[int, int], None], int]] = []

    def inodes(self) -> set[int]:
        """Inodes of the pipes that the script writes to."""
        return self._process.inodes() if self._process is not None else set()

    # What its launcher says

    def started(self, pid: int) -> None:
        """The script runs."""
        self.pid = pid
        waiting, self._waiting = self._waiting, []
        for send, number in waiting:
            with suppress(OSError):
                send(pid, number)

    def forget_signals(self) -> None:
        """The launcher is dead: the process id that is told next may be anybody's."""
        self._waiting.clear()

    def failed(self, error: OSError) -> None:
        """The script could not be started."""
        self.over = True
        process, self._process = self._process, None
        if process is not None:
            process.not_started(error)
        else:
            self.free()

    def exited(self, status: int | None) -> None:
        """The script is gone, with this status of wait(2); None where nobody knows how."""
        self.over = True
        process, self._process = self._process, None
        if process is not None:
            process.exited(status)
        else:
            self.free()

    def orphaned(self) -> None:
        """The launcher is gone."""
        self._adrift = True
        if self.over:
            return
        if self.pid is not None and not self.inodes():
            # It has closed them itself: that it leads a group must do.
            with suppress(OSError):
                if os.getpgid(self.pid) == self.pid:
                    self.found.add(self.pid)
        for pid in self.found:
            guardian.kill(pid)
        if self.found or self._parent.has_answered:
            self.exited(None)
        else:
            self.failed(OSError(errno.ESRCH, "its launcher does not start", self.executable))

    # Handle

    def begin(self, process: SpawnedProcess) -> None:
        """Tell `process` of the script's end."""
        self._process = process

    def signal(self, number: int) -> None:
        """Send a signal to the script alone, as soon as that runs."""
        self._send(os.kill, number)

    def signal_group(self, number: int) -> None:
        """Send a signal to the script's group, as soon as that is there."""
        self._send(os.killpg, number)

    def _send(self, send: Callable[[int, int], None], number: int) -> None:
        if self._adrift:
            raise ProcessLookupError
        if self.pid is None:
            self._waiting.append((send, number))
        else:
            send(self.pid, number)

    def free(self) -> None:
        """The process id may go to somebody else."""
        self._parent.free(self._number, started=self.pid is not None)

    def discard(self) -> None:
        """Kill the script, and `free` when it is gone: nobody is to be told of it."""
        self._process = None
        with suppress(ProcessLookupError):
            self.signal_group(signal.SIGKILL)
