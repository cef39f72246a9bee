"""Command lines of pools, as the operator writes them: a program, arguments, and places for what a
message says. Never a shell.

Invariants:

1. The program is the operator's: no part of the first element comes from a message.
2. A message gives no more to argv than the scalars that the template names, each within its own
   element, and none of them can become an option of the program.
3. Nothing that a template cannot mean is guessed at: it is refused at start, with its name.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from queuerelay.errors import ConfigError, MessageError

#: Longest element of argv, in bytes: Linux refuses a longer one to `execve` (E2BIG).
ARGUMENT_BOUND: Final = 128 * 1024 - 1

#: A brace to keep, a placeholder, or a brace that is neither.
_PIECE: Final = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_-]*)\}|\{[^{}]*\}?|\}")
_SYNTAX: Final = (
    "placeholders such as '{id}', of letters, digits, '_' and '-', and '{{' or '}}' for a brace"
)


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
        """Read the `command`. Raises `ConfigError` that names `option` and the element; without
        `fields`, as for programs that run without a message, for every placeholder.
        """
        if not command or not command[0]:
            raise ConfigError.of(option, list(command), "a command: a program and its arguments")
        self._elements = [_parse(element, option) for element in command]
        #: Names of the fields in the template.
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
        #: The argv, where it is the same for all messages; None until the first.
        self._constant: tuple[bytes, ...] | None = None
        #: The program, as it stands in the command.
        self.program = "".join(str(piece) for piece in self._elements[0])

    def expand(self, argument: object) -> list[bytes]:
        """argv for the message whose ``args[0]`` is `argument`.

        Raises `MessageError` that names the field: it is missing, is no text, number or truth
        value, contains a NUL, is too long, or would be read as an option: whatever begins with
        ``-`` where nothing stands before it, a negative number too. After an element ``--`` that
        is allowed.
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
            if options and given.startswith("-") and isinstance(element[0], _Field):
                raise MessageError(f"{_names(element)}: what begins with '-' is an option")
            encoded = encode_text(given)
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


def encode_text(text: str) -> bytes:
    """`text` as an operating system has it."""
    # Our own text may have bytes of the command line that are not UTF-8 (PEP 383), a message's
    # may have halves of characters, which are not bytes of anything.
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")
