"""Orphans that become ours: where the daemon is process 1, as in a container, all do.

Somebody has to take their status when they end, or they remain for ever as zombies; a process 1 of
a system does that. Only those are taken that nobody else waits for: they have been zombies for two
looks, and the children that we and Twisted know are left alone.
"""

import os
from collections.abc import Callable, Collection
from contextlib import suppress

from twisted.internet import process

from queuerelay.processes.guardian import stat_of


class Orphans:
    """Takes the status of orphans; `known` gives the process ids that have an owner."""

    def __init__(self, known: Callable[[], Collection[int]]) -> None:
        self._known = known
        self._seen: set[int] = set()

    def look(self) -> None:
        """Take those that were there at the last look."""
        known = {*self._known(), *process.reapProcessHandlers}
        dead = _zombies(os.getpid()) - known
        for pid in dead & self._seen:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._seen = dead - self._seen


def _zombies(parent: int) -> set[int]:
    found = set()
    for entry in os.listdir("/proc"):
        fields = stat_of(int(entry)) if entry.isdigit() else None
        if fields is not None and fields[0] == b"Z" and int(fields[1]) == parent:
            found.add(int(entry))
    return found
