"""A process whose parent we are, without SIGCHLD."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress

from twisted.logger import Logger

from queuerelay.processes.launcher import wait_status
from queuerelay.processes.transport import SpawnedProcess
from queuerelay.processes.watch import Watch

_log = Logger()


class OwnChild:
    """A child of ours: a pidfd (pidfd_open(2)) tells of its end, and we reap it.

    `before_reap` is called when the child's process id is about to become free.
    """

    def __init__(self, pid: int, watch: Watch, before_reap: Callable[[], object]) -> None:
        self.pid: int | None = pid
        self._group = pid
        self._watch = watch
        self._before_reap = before_reap
        self._fd = -1
        self._process: SpawnedProcess | None = None

    def begin(self, process: SpawnedProcess) -> None:
        self._process = process
        self._fd = os.pidfd_open(self._group)
        self._watch.add(self._fd, self)

    def signal(self, number: int) -> None:
        if self._fd == -1:
            raise ProcessLookupError
        # By its pidfd, so never to another one.
        signal.pidfd_send_signal(self._fd, number)

    def signal_group(self, number: int) -> None:
        os.killpg(self._group, number)

    def free(self) -> None:
        self._before_reap()
        with suppress(ChildProcessError):
            os.waitpid(self._group, os.WNOHANG)

    def discard(self) -> None:
        self.lost()
        with suppress(ProcessLookupError):
            os.killpg(self._group, signal.SIGKILL)
        self._before_reap()
        with suppress(ChildProcessError):
            os.waitpid(self._group, 0)

    # What the watch says

    def ready(self) -> None:
        # WNOWAIT: it stays a zombie, see invariant 2 of `transport`.
        options = os.WEXITED | os.WNOWAIT | os.WNOHANG
        status: int | None = None
        try:
            result = os.waitid(os.P_PIDFD, self._fd, options)
        except ChildProcessError:
            # Someone else took it: a waitpid(-1) in the same process, or SIGCHLD is ignored.
            pass
        else:
            if result is None:  # a debugger is told first
                return
            status = wait_status(result)
        self.lost()
        if status is None:
            _log.error("process {pid} was reaped by someone else", pid=self._group)
        process, self._process = self._process, None
        assert process is not None
        process.exited(status)

    def lost(self) -> None:
        if self._fd != -1:
            self._watch.forget(self._fd)
            os.close(self._fd)
            self._fd = -1
