"""The launcher: a program that starts scripts for a daemon that holds many descriptors.

A process that is started gets a copy of the table of all descriptors, and closes them one by one:
with 10,000 connections that costs twice as much as the rest of a short job, and the daemon, which
waits until the program runs, is deaf meanwhile. This one has a handful, and may wait.

Run by `link.LauncherLink` as ``python -I -S launcher.py [session]``, with descriptor 4: a pidfd
of the daemon, readable when the daemon is gone, and descriptor 3: a SOCK_SEQPACKET socket to it,
whose packets are values as `marshal` writes them (both ends are the same Python, and the daemon's
own):

- to us ``(reaped, start)``: numbers of processes that may be reaped, and one to be started, as
  ``(number, executable, args, env)`` with its stdin, stdout and stderr beside it; None for none,
  and True for a sign of life;
- from us a list of ``(number, what, value)``: STARTED with its process id, FAILED with ``(errno,
  text)``, or EXITED with its status as wait(2) puts it. An empty one is a sign of life.

Each process leads a group of its own (with ``session`` a session). One that has ended is a zombie
until the daemon has no use for its number any more. When the daemon dies, however it dies, all
groups are killed. HUP, INT and TERM are blocked: a service manager that stops us sends them to all
of us, and then the daemon has work to finish.
"""

import errno
import gc
import marshal
import os
import resource
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import Any, Final

LINK: Final = 3
DAEMON: Final = 4
STARTED: Final = 0
FAILED: Final = 1
EXITED: Final = 2

#: Largest packet in bytes; a socket's buffer has room for several (Linux: 212,992 bytes).
PACKET: Final = 65536
#: News in one packet: each takes 30 bytes, an error some more.
NEWS: Final = 100
#: Packets read before news are told.
PACKETS: Final = 16


class Launcher:
    """Starts scripts, waits for them and tells the daemon; `run` ends when that is gone."""

    def __init__(self, link: socket.socket, *, session: bool) -> None:
        # For a script each we have a descriptor, but the scripts get what we got.
        self._theirs = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._ours = (self._theirs[1], self._theirs[1])
        self._limit(self._ours)
        self._link = link
        self._link.setblocking(False)
        self._own: dict[str, Any] = {"setsid": True} if session else {"setpgroup": 0}
        self._epoll = select.epoll()
        self._epoll.register(LINK, select.EPOLLIN)
        self._epoll.register(DAEMON, select.EPOLLIN)
        self._blocked = False
        #: Process id by number, until it is reaped, and number by pidfd, until it has ended.
        self._pids: dict[int, int] = {}
        self._running: dict[int, int] = {}
        self._news: list[tuple[int, int, Any]] = []
        self._asked = False
        self._room = socket.CMSG_SPACE(3 * 4)

    def run(self) -> None:
        """Serve until the daemon is gone, or does not understand us."""
        try:
            while True:
                ready = [fd for fd, _ in self._epoll.poll()]
                if DAEMON in ready:
                    # What it had still asked for is for nobody.
                    return
                for fd in ready:
                    if fd != LINK:
                        self._ended(fd)
                    elif not self._hear():
                        return
                self._tell()
        except ConnectionError:
            pass
        finally:
            for pid in self._pids.values():
                with suppress(OSError):
                    os.killpg(pid, signal.SIGKILL)

    def _hear(self) -> bool:
        """Do what the daemon asks for; False where the daemon is gone."""
        for _ in range(PACKETS):
            try:
                packet, extra, _, _ = self._link.recvmsg(
                    PACKET, self._room, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return True
            if not packet:
                return False
            fds = memoryview(extra[0][2]).cast("i").tolist() if extra else []
            try:
                reaped, start = marshal.loads(packet)
                for number in reaped:
                    os.waitpid(self._pids.pop(number), os.WNOHANG)
                if start is True:
                    self._asked = True
                elif start is not None:
                    self._start(start, fds)
            finally:
                for fd in fds:
                    os.close(fd)
        return True

    def _start(self, start: tuple[int, Any, Any, Any], fds: list[int]) -> None:
        number, executable, args, env = start
        try:
            if len(fds) != 3:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            self._limit(self._theirs)
            try:
                pid = os.posix_spawnp(
                    executable,
                    args,
                    env,
                    # They are above what we have ourselves, and so above these.
                    file_actions=[(os.POSIX_SPAWN_DUP2, fd, to) for to, fd in enumerate(fds)],
                    setsigmask=[],
                    **self._own,
                )
            finally:
                self._limit(self._ours)
        except (OSError, ValueError, TypeError) as error:
            self._news.append((number, FAILED, _reason(error)))
            return
        try:
            pidfd = os.pidfd_open(pid)
            self._epoll.register(pidfd, select.EPOLLIN)
        except OSError as error:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._news.append((number, FAILED, _reason(error)))
            return
        self._pids[number] = pid
        self._running[pidfd] = number
        self._news.append((number, STARTED, pid))

    def _limit(self, limits: tuple[int, int]) -> None:
        # Nearly always the same, where whoever started the daemon had raised it.
        if self._theirs != self._ours:
            with suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    def _ended(self, pidfd: int) -> None:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if result is None:  # a debugger is told first
            return
        # Not by closing alone: a process that is being started has a copy for a moment.
        self._epoll.unregister(pidfd)
        os.close(pidfd)
        self._news.append((self._running.pop(pidfd), EXITED, wait_status(result)))

    def _tell(self) -> None:
        while self._news or self._asked:
            try:
                self._link.send(marshal.dumps(self._news[:NEWS]), socket.MSG_NOSIGNAL)
            except ConnectionError:
                raise
            except OSError:
                # No room; or no memory for it, at this moment.
                break
            del self._news[:NEWS]
            self._asked = False
        if bool(self._news) != self._blocked:
            self._blocked = not self._blocked
            wanted = select.EPOLLIN | (select.EPOLLOUT if self._blocked else 0)
            self._epoll.modify(LINK, wanted)


def wait_status(result: os.waitid_result) -> int:
    """The status of an ended process as wait(2) puts it: an exit status in the second byte, or a
    signal and whether the process left a core.
    """
    if result.si_code == os.CLD_EXITED:
        return result.si_status << 8
    return result.si_status | (0x80 if result.si_code == os.CLD_DUMPED else 0)


def _reason(error: Exception) -> tuple[int, str]:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno, os.strerror(error.errno)
    return errno.EINVAL, str(error)[:200]


def main() -> None:
    """Serve the daemon at the other end of descriptor 3."""
    for fd in (LINK, DAEMON):
        os.set_inheritable(fd, False)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        # Here once, not in each process: what we ignore, as Python does SIGPIPE, they would too.
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
    # Nothing here is a cycle.
    gc.disable()
    gc.freeze()
    Launcher(socket.socket(fileno=LINK), session="session" in sys.argv[1:]).run()


if __name__ == "__main__":
    main()
