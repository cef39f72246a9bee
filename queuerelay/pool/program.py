"""The programs that scripts are, found before one of them is started."""

import os
import stat
from contextlib import suppress
from typing import Final

from queuerelay.errors import CannotStart

#: Longest first line of a script in which an interpreter is looked for (Linux: BINPRM_BUF_SIZE).
_SHEBANG_BOUND: Final = 256


def find_program(program: str, *, path: str, cwd: str | None = None) -> str:
    """The absolute path of `program`, checked: it is there, a file, and may be executed.

    Without a ``/`` it is looked for in `path` (as in PATH); a relative one is relative to `cwd`,
    the directory that the script will run in, None for ours. Looked up before a child is started,
    because a child cannot say why it could not be.

    Raises `CannotStart` with the reason, in one line.
    """
    directory = os.path.abspath(cwd or ".")
    if not os.path.isdir(directory):
        why = "does not exist"
        if os.path.islink(directory):
            why = f"is a link to {os.path.realpath(directory)}, which does not exist"
        elif os.path.lexists(directory):
            why = "is not a directory"
        raise CannotStart(f"the directory {directory} {why}; make it, or change the pool's cwd")
    if not os.access(directory, os.X_OK):
        raise CannotStart(f"the directory {directory} may not be entered")
    if "/" in program:
        found = os.path.normpath(os.path.join(directory, program))
        _check(found)
        return found
    reason = f"{program} is not in the PATH {path}"
    for entry in path.split(":"):
        # An empty entry would mean the current directory: nobody wants a program from there.
        candidate = os.path.join(directory, entry, program)
        if not entry or not os.path.lexists(candidate):
            continue
        try:
            _check(candidate)
        except CannotStart as error:
            # As a shell does: a later entry may have one that can be executed.
            reason = str(error.args[0])
        else:
            return candidate
    raise CannotStart(reason)


def own_directory() -> str:
    """The directory that we run in, by the name by which it was entered where that leads to it: a
    ``current`` that is a link is another directory after a release.
    """
    named = os.environ.get("PWD", "")
    with suppress(OSError):
        if os.path.isabs(named) and os.path.samefile(named, "."):
            return named
    try:
        return os.getcwd()
    except OSError:
        # Gone since before we looked.
        return named or "/"


class Directory:
    """The directory that scripts of a pool run in, `cwd` as it is configured; also after our own
    was removed under us.
    """

    def __init__(self, cwd: str | None) -> None:
        self._cwd = cwd
        self._own = own_directory()

    def now(self) -> str | None:
        """The directory, None for ours. Raises `CannotStart` where that is gone."""
        if self._cwd is not None and os.path.isabs(self._cwd):
            return self._cwd
        try:
            # The kernel knows that it was removed, though we are still in it.
            os.getcwd()
        except OSError as error:
            if not os.path.isdir(self._own):
                raise CannotStart(
                    f"the daemon's own directory {self._own} was removed; make it again, or start "
                    "the daemon in another one, or give the pool an absolute cwd"
                ) from error
            # There is one of this name again: a new release, say.
            return os.path.join(self._own, self._cwd or "")
        return self._cwd


def _check(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise CannotStart(f"{path}: {why}") from error
    if not stat.S_ISREG(mode):
        raise CannotStart(f"{path} is {'a directory' if stat.S_ISDIR(mode) else 'no file'}")
    if not os.access(path, os.X_OK):
        raise CannotStart(f"{path} is not executable; chmod +x may help")
    interpreter = _interpreter(path)
    if interpreter is not None and not os.path.exists(interpreter):
        # execve says "No such file" of the script itself.
        shown = interpreter if interpreter.isprintable() else ascii(interpreter)
        raise CannotStart(f"{path}: its interpreter {shown} does not exist")


def _interpreter(path: str) -> str | None:
    """The program in the first line of a script, None where there is none or it cannot be read."""
    try:
        with open(path, "rb") as file:
            start = file.read(_SHEBANG_BOUND)
    except OSError:
        return None
    if not start.startswith(b"#!"):
        return None
    # A carriage return is part of the name, for the kernel as well.
    words = start[2:].split(b"\n", 1)[0].strip(b" \t").replace(b"\t", b" ").split(b" ", 1)
    return os.fsdecode(words[0]) if words[0] else None
