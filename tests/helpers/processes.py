"""Processes as the system has them."""

import os
from pathlib import Path


def _childless() -> bool:
    """Whether this process has no child at all: one call, and nearly every unit test is so."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def children(pid: int) -> set[int]:
    """Pids of the living children of `pid` (zombies are not among them)."""
    if pid == os.getpid() and _childless():
        return set()
    found = set()
    parent = b"%d" % pid
    # Not by Path: its glob looks at each entry itself, and raises where a process ends meanwhile;
    # and its files cost three times as much, which each test pays for each process of the machine.
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            file = os.open(f"/proc/{entry}/stat", os.O_RDONLY)
        except OSError:
            continue
        try:
            stat = os.read(file, 4096)
        except OSError:
            continue
        finally:
            os.close(file)
        # Fields after the command, which is in parentheses and may contain anything.
        state, its_parent = stat.rpartition(b")")[2].split(maxsplit=2)[:2]
        if its_parent == parent and state not in (b"Z", b"X"):
            found.add(int(entry))
    return found


def family(pid: int) -> set[int]:
    """All living processes below `pid`."""
    found = children(pid)
    return found.union(*map(family, found))


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("latin-1")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
