"""The terminal: lines and tables of foreign text, durations, what it can do."""

import os
import shutil
import unicodedata
from collections.abc import Sequence
from typing import Final, TextIO

from queuerelay.durations import in_words
from queuerelay.safe_text import safe

#: Space between two columns.
_GAP: Final = "  "
#: Columns of a row's last cell that are to be seen, where it has so many.
_LAST: Final = 24


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


def show(lines: Sequence[str]) -> None:
    """Print what may have foreign words in it; all but colours and JSON goes this way."""
    for line in lines:
        print(safe(line))


def colours(out: TextIO) -> bool:
    """Whether `out` takes colours."""
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def columns_of(out: TextIO) -> int:
    """Columns of the terminal; a file or a pipe gets whole lines."""
    return shutil.get_terminal_size().columns if out.isatty() else 10_000
