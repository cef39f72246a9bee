"""The guardian: a program that waits for the daemon's death and then kills its workers.

Run by `groups.Groups` as ``python -I -S guardian.py``, one for each daemon, with

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
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

DAEMON: Final = 3
TABLE: Final = 4


def holders(inode: int) -> Iterator[int]:
    """Process ids of those that hold the pipe of this inode, as far as we may see."""
    name = f"pipe:[{inode}]"
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            # It may end while we look, or belong to someone else.
            with suppress(OSError):
                folder = f"/proc/{entry}/fd"
                for fd in os.listdir(folder):
                    with suppress(OSError):
                        if os.readlink(f"{folder}/{fd}") == name:
                            yield int(entry)
                            break


def kill_all(numbers: Iterable[int]) -> None:
    """Kill the groups of a table, and what was being started when the daemon died."""
    starting, *groups = numbers
    for group in groups:
        if group > 0:
            with suppress(OSError):
                os.killpg(group, signal.SIGKILL)
    if starting:
        for pid in holders(starting):
            with suppress(OSError):
                # One that has no group of its own yet is still in the daemon's.
                (os.killpg if os.getpgid(pid) == pid else os.kill)(pid, signal.SIGKILL)


def main() -> None:
    """Wait, and kill."""
    table = mmap.mmap(TABLE, 0, prot=mmap.PROT_READ)
    poll = select.poll()
    poll.register(DAEMON, select.POLLIN)
    poll.poll()
    with memoryview(table) as view, view.cast("q") as numbers:
        kill_all(numbers)


if __name__ == "__main__":
    main()
