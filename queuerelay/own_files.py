"""Files that we write: made with a mode of our own choosing, whatever the umask."""

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
