"""The guardian: a program that waits for the daemon's death and then kills its workers.

Run by `guarded.Groups` as ``python -I -S guardian.py``, one for each daemon, with

- descriptor 3: a pidfd of the daemon, readable when the daemon is gone, however it went;
- HUP, INT and TERM blocked: a service manager that stops us sends them to all of us, and then the
  daemon has work to finish, and workers;
- descriptor 4: a table in shared memory of 64-bit numbers. The first is the inode of a pipe of the
  process that is being started at this moment, or 0; the others are process groups, or 0.

The daemon only writes to that memory, so a worker costs no system call and wakes nobody, and there
are no messages whose order could be wrong. A group stands there from its start until just before
the kernel may give its number to someone else.

Why not prctl(PR_SET_PDEATHSIG): posix_spawn(3) offers nothing to call it, a wrapper that calls it
(``setpriv --pdeathsig``) more than doubles the cost of a short job, and it would reach only the
worker itself, not what the worker has started.
"""

import mmap
import os
import select
import signal
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from typing import Final

DAEMON: Final = 3
TABLE: Final = 4


def pipes_of(pid: int, *, written: bool) -> Iterator[int]:
    """Inodes of the pipes that a process holds, as far as we may see; with `written` only of the
    pipes that it writes to.
    """
    folder = f"/proc/{pid}/fd"
    # It may end while we look, or belong to someone else.
    with suppress(OSError):
        for fd in os.listdir(folder):
            with suppress(OSError):
                link = f"{folder}/{fd}"
                name = os.readlink(link)
                # The link's own rights say what it was opened for (proc_pid_fd(5)).
                if name.startswith("pipe:[") and (not written or os.lstat(link).st_mode & 0o200):
                    yield int(name[6:-1])


def holders(
    inodes: Container[int], *, written: bool = False, but: Container[int] = ()
) -> Iterator[tuple[int, int]]:
    """The processes that hold one of these pipes, as process id and inode, in one walk.

    Processes in `but` are not looked at.
    """
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) not in but:
            for inode in pipes_of(int(entry), written=written):
                if inode in inodes:
                    yield int(entry), inode


def kill(pid: int) -> None:
    """Kill a process, with its group where it leads one: it may have no group of its own yet, or
    be in another's. Nothing happens where the process is gone, or not ours to kill.
    """
    with suppress(OSError):
        (os.killpg if os.getpgid(pid) == pid else os.kill)(pid, signal.SIGKILL)


def kill_all(numbers: Iterable[int]) -> None:
    """Kill the groups of a table, and what was being started when the daemon died."""
    starting, *groups = numbers
    for group in groups:
        if group > 0:
            with suppress(OSError):
                os.killpg(group, signal.SIGKILL)
    if starting:
        for pid in dict(holders((starting,))):
            kill(pid)


def main() -> None:
    """Wait for the daemon's death, and kill its groups."""
    table = mmap.mmap(TABLE, 0, prot=mmap.PROT_READ)
    poll = select.poll()
    poll.register(DAEMON, select.POLLIN)
    poll.poll()
    with memoryview(table) as view, view.cast("q") as numbers:
        kill_all(numbers)


if __name__ == "__main__":
    main()
