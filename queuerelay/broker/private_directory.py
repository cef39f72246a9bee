"""A directory that nobody else of this machine can enter: for the embedded server and its socket.

Invariants:

1. It is ours and has mode 0700 before anything is put into it. What others may have prepared is
   refused, never mended: another owner, a link in its place, in it links or what belongs to others.
2. A wider mode is narrowed where the directory is empty or was an embedded server's before, else
   refused: nobody's home is closed because of a slip in an option.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

#: Bits of a mode that let others in.
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class NotPrivate(Exception):
    """A directory that is not to be used; its text says what was expected instead."""


def make_private(path: Path, *, mark: str) -> None:
    """Make the directory at this absolute path, or check and mend the one that is there.

    A file named `mark` tells that it has been an embedded server's. Raises `NotPrivate`.
    """
    us = os.geteuid()
    for above in path.parents:
        if above.is_symlink() and above.lstat().st_uid not in (0, us):
            raise NotPrivate(f"a directory of our own: {above} is somebody else's link")
        if above.exists() and _may_be_replaced(above.stat().st_mode):
            raise NotPrivate(f"a directory that nobody can replace, and anybody may in {above}")
    if path.is_symlink():
        raise NotPrivate("a directory of our own, not a link")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = os.open(path, _FLAGS)
        try:
            _check(directory, us, mark)
        finally:
            os.close(directory)
    except OSError as error:
        raise NotPrivate(f"a writable directory ({error})") from error


def _may_be_replaced(mode: int) -> bool:
    """Whether anybody may rename what is in a directory of this mode, whoever owns that."""
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX


def _check(directory: int, us: int, mark: str) -> None:
    found = os.fstat(directory)
    if found.st_uid != us:
        raise NotPrivate(f"a directory of our own: this one is user {found.st_uid}'s, we are {us}")
    if found.st_mode & _OTHERS:
        names = os.listdir(directory)
        if names and mark not in names:
            raise NotPrivate("a directory for this alone, or one of mode 0700")
        os.fchmod(directory, 0o700)
        if os.fstat(directory).st_mode & _OTHERS:
            raise NotPrivate("a directory that can have mode 0700")
    # Only now: nobody can put more into it any more.
    for name, entry in _entries(directory):
        if stat.S_ISLNK(entry.st_mode) or (entry.st_nlink > 1 and not stat.S_ISDIR(entry.st_mode)):
            raise NotPrivate(f"a directory without links in it, as {name!r}")
        # A volume of its own has root's lost+found.
        if entry.st_uid not in (0, us):
            raise NotPrivate(f"a directory with nothing of others in it, as {name!r}")
    if not os.access(".", os.W_OK | os.X_OK, dir_fd=directory, effective_ids=True):
        raise NotPrivate("a writable directory")


def _entries(directory: int) -> Iterator[tuple[str, os.stat_result]]:
    for _, folders, files, place in os.fwalk(".", dir_fd=directory):
        for name in (*folders, *files):
            # A server that runs there already may be replacing its files.
            with suppress(FileNotFoundError):
                yield name, os.stat(name, dir_fd=place, follow_symlinks=False)
