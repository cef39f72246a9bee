"""The guardian: a program that waits for the daemon's death and then kills its workers.

Run by `guarded.Groups` as ``python -I -S guardian.py MARK``, one for each daemon, with

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
import sys
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple

#: The variable by which what a script has started is known for its own, and the daemon's for the
#: daemon's: a word of the daemon's, and a number.
VARIABLE: Final = b"QUEUERELAY_PROCESS"
#: Walks through all processes, for what is started while others are killed.
ROUNDS: Final = 10

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


class Process(NamedTuple):
    """A process, as its stat tells (proc_pid_stat(5))."""

    group: int
    #: Clock ticks from the system's start to its own, which tell it from others of its number.
    started: bytes


def processes() -> dict[int, Process]:
    """All processes but zombies, by process id."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            process = process_of(int(entry))
            if process is not None:
                found[int(entry)] = process
    return found


def process_of(pid: int) -> Process | None:
    """A process that runs, None where it does not."""
    fields = stat_of(pid)
    if fields is None or fields[0] in (b"Z", b"X"):
        return None
    return Process(int(fields[2]), fields[19])


def stat_of(pid: int) -> list[bytes] | None:
    """The fields of a process's stat from its state on: state, parent, group (proc_pid_stat(5));
    None where there is none.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # After the command, which is in parentheses and may contain anything.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields if len(fields) >= 20 else None


def mark_of(pid: int) -> bytes:
    """The mark in the environment of a process, with its name; b"" where it has none, or may not be
    looked at.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environment = b"\0" + file.read()
    except OSError:
        return b""
    _, name, rest = environment.partition(b"\0" + VARIABLE + b"=")
    return name[1:] + rest.partition(b"\0")[0] if name else b""


def below(pid: int) -> Iterator[tuple[int, Process]]:
    """The descendants of a process; none where the kernel does not tell (proc_tid_children(5))."""
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError), open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                for child in map(int, file.read().split()):
                    process = process_of(child)
                    if process is not None:
                        yield child, process
                    yield from below(child)


def signal_one(pid: int, started: bytes, number: int) -> None:
    """Signal a process, if it is still the one that was started then."""
    with suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            process = process_of(pid)
            if process is not None and process.started == started:
                signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)


def kill_marked(daemon: bytes) -> None:
    """Kill all that has a mark of this daemon, wherever it is, and what that starts meanwhile."""
    beginning = VARIABLE + b"=" + daemon + b"-"
    for _ in range(ROUNDS):
        marked = [
            (pid, process.started)
            for pid, process in processes().items()
            if mark_of(pid).startswith(beginning)
        ]
        for pid, started in marked:
            signal_one(pid, started, signal.SIGKILL)
        if not marked:
            return


def kill_all(numbers: Iterable[int]) -> None:
    """Kill the groups of a table, and what was being started when the daemon died."""
    starting, *groups = numbers
    for group in groups:
        if group <= 0:
            continue
        # While it lives: what has another session and another environment is nobody's after it.
        children = list(below(group))
        with suppress(OSError):
            os.killpg(group, signal.SIGKILL)
        for pid, process in children:
            signal_one(pid, process.started, signal.SIGKILL)
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
    # What has a session of its own is in none of these groups.
    kill_marked(sys.argv[1].encode())


if __name__ == "__main__":
    main()
