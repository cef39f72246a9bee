"""What a process inherits that the daemon has changed for itself: open files, and the umask.

The daemon may have many files open, and twistd gives a daemon the umask 0077. Programs know nothing
of either: with a soft limit of a million files some close a million descriptors at their start, or
fail at select(2), and what a script writes nobody else may read. So they get what the daemon was
started with.

Neither can be said to posix_spawn(3), and a command before the command costs an exec. Both are
copied at the moment of the fork, so they are what they were for just that moment.
"""

import os
import resource
from contextlib import AbstractContextManager, nullcontext, suppress


class Heritage(AbstractContextManager[None]):
    """The limit and the umask that the operator gave; what was not changed is left as it is.

    Used as a context around each start of a process.
    """

    def __init__(self) -> None:
        #: Soft and hard limit as it was, and as it is now; None where it was not raised.
        self._limits: tuple[tuple[int, int], tuple[int, int]] | None = None
        self._umask: int | None = None
        self._ours = 0

    def raise_open_files(self) -> None:
        """Raise the soft limit of open files to the hard one, for us alone."""
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        # macOS says "no limit" and takes it not.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
            if self._limits is None and before[0] != before[1]:
                self._limits = before, (before[1], before[1])

    def keep_umask(self, umask: int) -> None:
        """Give processes this umask, whatever ours becomes."""
        self._umask = umask

    def forget(self) -> None:
        """Give processes what we have."""
        self._limits = self._umask = None

    def for_fork(self) -> AbstractContextManager[None]:
        """The context for a start in Twisted's way: it opens a directory after the fork, which the
        lower limit may not allow. Then what is open must be closed rather than the limit be right.
        """
        if self._limits is not None:
            lowest = os.open(os.devnull, os.O_RDONLY)
            os.close(lowest)
            if lowest >= self._limits[0][0]:
                return nullcontext()
        return self

    def __enter__(self) -> None:
        if self._umask is not None:
            self._ours = os.umask(self._umask)
        if self._limits is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, self._limits[0])

    def __exit__(self, *_: object) -> None:
        if self._limits is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, self._limits[1])
        if self._umask is not None:
            os.umask(self._ours)


#: That of this process: limit and umask are the process's, too.
HERITAGE = Heritage()
