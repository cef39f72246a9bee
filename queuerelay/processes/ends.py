"""The pipes of a process that is about to be started."""

import fcntl
import os
from collections.abc import Mapping
from typing import Final

#: Twisted's default pipes: the daemon writes to stdin, and reads stdout and stderr.
STANDARD: Final[Mapping[int, int | str]] = {0: "w", 1: "r", 2: "r"}


class Ends:
    """The descriptors of one process, on both sides.

    Raises `OSError` where no descriptor is left; all that were opened are closed again.
    """

    def __init__(self, child_fds: Mapping[int, int | str]) -> None:
        #: The process's number -> our end of that pipe.
        self.ours: dict[int, int] = {}
        #: Numbers of the pipes that we write to.
        self.inputs: set[int] = set()
        #: The process's number -> the descriptor here that it gets.
        self.given: dict[int, int] = {}
        # Those of them that are ours to close.
        self._theirs: list[int] = []
        above = max(child_fds, default=-1) + 1
        try:
            for number, target in child_fds.items():
                self.given[number] = self._source(number, target)
            for number, source in self.given.items():
                if source < above:
                    # Copied out of the way: dup2 to one number must not hit the source of another,
                    # and onto itself it would leave close-on-exec set.
                    copy = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, above)
                    self.given[number] = copy
                    self._theirs.append(copy)
        except BaseException:
            self.close_theirs()
            self.close_ours()
            raise

    def _source(self, number: int, target: int | str) -> int:
        if isinstance(target, int):
            return target
        if target not in ("r", "w"):
            raise ValueError(f"childFDs: got {target!r}, expected 'r', 'w' or a descriptor")
        reads, writes = os.pipe()
        ours, theirs = (reads, writes) if target == "r" else (writes, reads)
        self.ours[number] = ours
        self._theirs.append(theirs)
        if target == "w":
            self.inputs.add(number)
        # Only ours: the process expects its own to block.
        os.set_blocking(ours, False)
        return theirs

    def inode(self) -> int:
        """The inode of one of the pipes, by which the process can be known; 0 if there is none."""
        for number in self.ours:
            return os.fstat(self.given[number]).st_ino
        return 0

    def actions(self, inherited: frozenset[int]) -> list[tuple[int, ...]]:
        """File actions of `posix_spawn`: what the process gets, and what it must not get."""
        given = self.given
        actions: list[tuple[int, ...]] = [
            (os.POSIX_SPAWN_DUP2, source, number) for number, source in given.items()
        ]
        # One that is closed already is no error (posix_spawn_file_actions_addclose(3)).
        actions += [(os.POSIX_SPAWN_CLOSE, fd) for fd in inherited if fd not in given]
        return actions

    def close_theirs(self) -> None:
        """Close the process's ends on our side."""
        for fd in self._theirs:
            os.close(fd)
        self._theirs.clear()

    def close_ours(self) -> None:
        """Close our ends, where there is no process to use them."""
        for fd in self.ours.values():
            os.close(fd)
        self.ours.clear()
