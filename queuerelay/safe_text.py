r"""Foreign text that can be shown: what a terminal would obey, or what would look like another line
or another order of words, stands as ``\x1b``.

Three strengths: for the log a line, or several where line ends are meant; for a terminal a line of
a table, where whatever is not seen is written out as well.
"""

import re
from typing import Final

#: Controls but tab, and the invisible that moves or hides what is around it: directions (bidi),
#: separators of lines, zero widths but those that join letters, tags, halves of characters.
_UNSAFE: Final = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f"
)
_IN_LINES: Final = re.compile(f"[{_UNSAFE}]")
_IN_LINE: Final = re.compile(f"[\n{_UNSAFE}]")


def safe(text: str) -> str:
    """`text` as one line for a terminal: nothing in it that does not print, tabs neither."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def safe_line(text: str) -> str:
    """`text` as one line for a log."""
    return text if text.isprintable() else _IN_LINE.sub(_written, text)


def safe_lines(text: str) -> str:
    """`text` for a log, with its line ends."""
    return text if text.isprintable() else _IN_LINES.sub(_written, text)


def _written(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]
