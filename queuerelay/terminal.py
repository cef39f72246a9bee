"""Text for terminals: foreign text that cannot do anything to them, tables, durations."""

import unicodedata
from collections.abc import Sequence
from typing import Final

#: Between two columns.
_GAP: Final = "  "


def safe(text: str) -> str:
    r"""`text` with everything that a terminal would obey, or not show, as ``\x1b``."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def width(text: str) -> int:
    """Columns that it takes: East Asian wide characters take two, combining ones none."""
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


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table; a column whose head begins with ``>`` is set to the right."""
    right = [one.startswith(">") for one in head]
    shown = [[one.lstrip(">") for one in head], *([safe(cell) for cell in row] for row in rows)]
    widths = [max(width(row[at]) for row in shown) for at in range(len(head))]
    lines = []
    for row in shown:
        cells = []
        for cell, columns, to_right in zip(row, widths, right, strict=True):
            blank = " " * (columns - width(cell))
            cells.append(blank + cell if to_right else cell + blank)
        lines.append(_GAP.join(cells).rstrip())
    return lines


def span(seconds: float | None) -> str:
    """A duration in two units at most: ``12 ms``, ``1.2 s``, ``3 min 20 s``, ``2 d 4 h``."""
    if seconds is None:
        return "-"
    if seconds == 0:
        return "0"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, name, smaller, small in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {name} {rest} {small}" if rest else f"{whole // size} {name}"
    return f"{whole} s"
