"""Files that we write: made with a mode of our own choosing, whatever the umask."""

import errno
import os
from io import FileIO
from typing import Final

#: The owner writes, the group reads: those who read logs are often in it.
MODE: Final = 0o640
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC


def open_to_append(path: str | os.PathLike[str]) -> FileIO:
    """The file at `path`, to be appended to, unbuffered; one that is not there is made, of mode
    `MODE`. Raises `OSError`.
    """
    try:
        fd = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, MODE)
    except FileExistsError:
        # It has the mode that its owner gave it. A link may lead to one that is yet to be made.
        return FileIO(os.open(path, _FLAGS | os.O_CREAT, MODE), "ab")
    os.fchmod(fd, MODE)
    return FileIO(fd, "ab")


def check_appendable(path: str | os.PathLike[str]) -> None:
    """Raise `OSError` where `open_to_append` would, as far as that shows without making a file."""
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if os.path.exists(path):
        place, wanted = os.fspath(path), os.W_OK
    else:
        # Where a link leads to a file that is yet to be made, it is made there.
        place, wanted = os.path.dirname(os.path.realpath(path)), os.W_OK | os.X_OK
        os.stat(place)
    if not os.access(place, wanted, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
    if wanted != os.W_OK and not os.path.isdir(place):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(path))
