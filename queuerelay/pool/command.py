"""Command lines of scripts: templates, programs, environments. Never a shell.

Invariants:

1. The program is the operator's: no part of the first element comes from a message.
2. A message gives no more to argv than the scalars that the template names, each within its own
   element, and none of them can become an option of the program.
3. Nothing that a template cannot mean is guessed at: it is refused at start, with its name.
"""

import os
import re
import shlex
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from queuerelay.errors import CannotStart, ConfigError, MessageError

#: Longest element of argv, in bytes: Linux refuses a longer one to `execve` (E2BIG).
ARGUMENT_BOUND: Final = 128 * 1024 - 1

#: A brace to keep, a placeholder, or a brace that is neither.
_PIECE: Final = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_-]*)\}|\{[^{}]*\}?|\}")
_SYNTAX: Final = (
    "placeholders such as '{id}', of letters, digits, '_' and '-', and '{{' or '}}' for a brace"
)

#: Variables that every script gets, where the daemon has them; ``LC_*`` too.
INHERITED: Final = ("PATH", "HOME", "LANG", "TZ")
#: PATH where the daemon has none.
DEFAULT_PATH: Final = "/usr/local/bin:/usr/bin:/bin"

#: Longest first line of a script in which an interpreter is looked for (Linux: BINPRM_BUF_SIZE).
_SHEBANG_BOUND: Final = 256


# --- Templates -----------------------------------------------------------------------------------


def split_command(text: str, *, option: str) -> tuple[str, ...]:
    """The elements of a command line as a shell would split it, without doing anything else that a
    shell does. Raises `ConfigError` that names `option`.
    """
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        # Its text: "No closing quotation", "No escaped character".
        raise ConfigError.of(option, text, f"a command line: {str(error).lower()}") from error


@dataclass(frozen=True, slots=True)
class _Field:
    """The place of a field in an element."""

    name: str


#: An element: texts, and fields between them.
_Element = tuple[str | _Field, ...]


class Template:
    """The argv of a pool's scripts, with ``{field}`` for scalars of the message."""

    def __init__(self, command: Sequence[str], *, option: str, fields: bool = True) -> None:
        """Raises `ConfigError` that names `option` and the element; without `fields`, as for
        programs that run without a message, for every placeholder.
        """
        if not command or not command[0]:
            raise ConfigError.of(option, list(command), "a command: a program and its arguments")
        self._elements = [_parse(element, option) for element in command]
        #: Names of the fields in it.
        self.fields: frozenset[str] = frozenset(
            piece.name
            for element in self._elements
            for piece in element
            if isinstance(piece, _Field)
        )
        for number, element in enumerate(self._elements):
            for piece in element:
                if isinstance(piece, _Field) and (number == 0 or not fields):
                    where = "in the program's own name" if fields else "without a message"
                    raise ConfigError.of(option, command[number], f"no placeholder {where}")
        #: argv, where it is the same for all messages; known after the first.
        self._constant: tuple[bytes, ...] | None = None
        #: The program, as it stands in the command.
        self.program = "".join(str(piece) for piece in self._elements[0])

    def expand(self, argument: object) -> list[bytes]:
        """argv for the message whose ``args[0]`` is `argument`.

        Raises `MessageError` that names the field: it is missing, is no text, number or truth
        value, contains a NUL, is too long, or would be read as an option (a text that begins with
        ``-`` where nothing stands before it; after an element ``--`` that is allowed).
        """
        if self._constant is not None:
            return list(self._constant)
        argv = []
        options = True
        for element in self._elements:
            given = "".join(
                piece if isinstance(piece, str) else self._value(piece.name, argument)
                for piece in element
            )
            if options and given.startswith("-") and _could_be_option(element, argument):
                raise MessageError(f"{_names(element)}: a text that begins with '-' is an option")
            encoded = _encode(given)
            if len(encoded) > ARGUMENT_BOUND:
                raise MessageError(
                    f"{_names(element)}: {len(encoded)} bytes are too many for an argument; "
                    "the script has them on stdin"
                )
            options = options and element != ("--",)
            argv.append(encoded)
        if not self.fields:
            self._constant = tuple(argv)
        return argv

    @staticmethod
    def _value(name: str, argument: object) -> str:
        if not isinstance(argument, dict):
            raise MessageError(f"{{{name}}}: args[0] is not an object")
        if name not in argument:
            raise MessageError(f"{{{name}}}: args[0] has no such key")
        value = argument[name]
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, str):
            if "\0" in value:
                raise MessageError(f"{{{name}}}: a NUL cannot be passed to a script")
            return value
        if isinstance(value, int | float):
            try:
                return repr(value)
            except ValueError as error:  # Python writes no integer of thousands of digits
                raise MessageError(f"{{{name}}}: a number that is much too large") from error
        kind = "null" if value is None else type(value).__name__
        raise MessageError(
            f"{{{name}}}: expected a text, a number, true or false in args[0], got {kind}"
        )


def _names(element: _Element) -> str:
    return ", ".join(f"{{{piece.name}}}" for piece in element if isinstance(piece, _Field))


def _could_be_option(element: _Element, argument: object) -> bool:
    """Whether the ``-`` that `element` begins with came from the message and is not the sign of a
    number.
    """
    first = element[0]
    if isinstance(first, str):
        return False
    assert isinstance(argument, dict)  # expanding it has said so
    return len(element) > 1 or isinstance(argument[first.name], str)


def _parse(element: str, option: str) -> _Element:
    if "\0" in element:
        raise ConfigError.of(option, element, "no NUL")
    pieces: list[str | _Field] = []
    at = 0
    for found in _PIECE.finditer(element):
        pieces.append(element[at : found.start()])
        at = found.end()
        if found[1]:
            pieces.append(_Field(found[1]))
        elif found[0] in ("{{", "}}"):
            pieces.append(found[0][0])
        else:
            shown = f"{found[0]} in {element}" if found[0] != element else element
            raise ConfigError.of(option, shown, _SYNTAX)
    pieces.append(element[at:])
    return tuple(piece for piece in pieces if piece != "")


def _encode(text: str) -> bytes:
    # Our own text may have bytes of the command line that are not UTF-8 (PEP 383), a message's
    # may have halves of characters, which are not bytes of anything.
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


# --- Programs ------------------------------------------------------------------------------------


def find_program(program: str, *, path: str, cwd: str | None = None) -> str:
    """The absolute path of `program`, checked: it is there, a file, and may be executed.

    Without a ``/`` it is looked for in `path` (as in PATH); a relative one is relative to `cwd`,
    the directory that the script will run in, None for ours. Looked up before a child is started,
    because a child cannot say why it could not be.

    Raises `CannotStart` with the reason, in one line.
    """
    directory = os.path.abspath(cwd or ".")
    if not os.path.isdir(directory):
        why = "is not a directory" if os.path.lexists(directory) else "does not exist"
        raise CannotStart(f"the directory {directory} {why}")
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


# --- Environments --------------------------------------------------------------------------------


def base_environment(
    inherited: Mapping[bytes, bytes], *, env: Mapping[str, str], pass_env: Sequence[str]
) -> dict[bytes, bytes]:
    """What every script of a pool gets: of the daemon's own variables `INHERITED`, ``LC_*`` and
    those that `pass_env` names, and `env` over them. No password of the daemon's is among them
    unless asked for.
    """
    wanted = {os.fsencode(name) for name in (*INHERITED, *pass_env)}
    environment = {
        name: value
        for name, value in inherited.items()
        if name in wanted or name.startswith(b"LC_")
    }
    environment.setdefault(b"PATH", DEFAULT_PATH.encode())
    environment.update((os.fsencode(name), os.fsencode(value)) for name, value in env.items())
    return environment


def message_environment(
    *, message_id: str, queue: str, attempt: int, deadline: float | None
) -> dict[bytes, bytes]:
    """What a script gets about its message: ``QUEUERELAY_ID``, ``QUEUERELAY_QUEUE``,
    ``QUEUERELAY_ATTEMPT`` (from 1), ``QUEUERELAY_DEADLINE`` (Unix seconds, left out for None).

    An id is other people's text: what no environment can carry is taken out of it.
    """
    environment = {
        b"QUEUERELAY_ID": _encode(message_id.replace("\0", "")[:1024]),
        b"QUEUERELAY_QUEUE": _encode(queue),
        b"QUEUERELAY_ATTEMPT": b"%d" % attempt,
    }
    if deadline is not None and deadline != float("inf"):
        environment[b"QUEUERELAY_DEADLINE"] = b"%.3f" % deadline
    return environment
