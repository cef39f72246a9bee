"""Text for terminals: foreign text that cannot do anything to them, tables, durations; and the
standard streams.
"""

import io
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import Final, TextIO

from queuerelay.durations import in_words
from queuerelay.safe_text import safe

#: Space between two columns.
_GAP: Final = "  "
#: Columns of a row's last cell that are to be seen, where it has so many.
_LAST: Final = 24
#: The beginning and the end of a colour, as `painted` writes them.
_COLOUR: Final = re.compile(r"(\x1b\[(?:3\d;1|0)m)")


def width(text: str) -> int:
    """Columns that `text` takes: East Asian wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def cut(text: str, columns: int) -> str:
    """`text` in so many columns, with an ellipsis where something is missing."""
    if width(text) <= columns:
        return text
    kept, taken = "", 0
    for char in text:
        taken += width(char)
        if taken > columns - 1:
            break
        kept += char
    return kept + "…"


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    columns: int = 10_000,
    spare: Sequence[str] = (),
) -> list[str]:
    """The lines of a table; a column whose head begins with ``>`` is set to the right.

    In fewer than so many columns of the terminal: where it is too wide, the first column takes a
    third of them at most, and those of `spare` are left out, in that order. What stands at the end
    of a line is cut.
    """
    shown = [[*head], *([safe(cell) for cell in row] for row in rows)]
    first = max(16, columns // 3)
    for row in shown:
        row[0] = cut(row[0], first)
    widths = _widths(shown)
    for name in spare:
        if sum(widths[:-1]) + len(_GAP) * (len(widths) - 1) + min(widths[-1], _LAST) <= columns:
            break
        at = shown[0].index(name)
        for row in shown:
            del row[at]
        del widths[at]
    right = [one.startswith(">") for one in shown[0]]
    shown[0] = [one.lstrip(">") for one in shown[0]]
    lines = []
    for row in shown:
        cells = []
        for cell, taken, to_right in zip(row, widths, right, strict=True):
            blank = " " * (taken - width(cell))
            cells.append(blank + cell if to_right else cell + blank)
        lines.append(cut(_GAP.join(cells).rstrip(), columns))
    return lines


def _widths(shown: Sequence[Sequence[str]]) -> list[int]:
    return [
        max(width(row[at]) - (row is shown[0] and row[at].startswith(">")) for row in shown)
        for at in range(len(shown[0]))
    ]


def span(seconds: float | None) -> str:
    """A duration in words, "-" where none is known."""
    return "-" if seconds is None else in_words(seconds)


def prepare() -> None:
    """Open the standard streams that were closed, and let all of them take any text."""
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # The locale may have no such character.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def colour(out: TextIO) -> bool:
    """Whether `out` shows colours."""
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def columns(out: TextIO) -> int:
    """Columns of the terminal; a file or a pipe gets whole lines."""
    return shutil.get_terminal_size().columns if out.isatty() else 10_000


def painted(word: str, code: str) -> str:
    """`word` in a colour, which `show` lets pass."""
    return f"\x1b[{code};1m{word}\x1b[0m"


def show(lines: Sequence[str]) -> None:
    """Print `lines`, whatever is in them: a terminal obeys no more of them than our own colours."""
    for line in lines:
        parts = _COLOUR.split(line)
        # Those at odd places are the colours.
        shown = [part if at % 2 else safe(part) for at, part in enumerate(parts)]
        sys.stdout.write("".join(shown) + "\n")
