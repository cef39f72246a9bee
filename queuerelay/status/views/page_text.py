"""What the page says in words: durations, sizes, moments, and others' texts made fit to be shown.

Invariants:

1. All that returns `Markup` is HTML that was made of numbers alone; other text is escaped by the
   template engine, which does so by default.
2. A figure that is not known is a dash, never a nought.
"""

import re
from datetime import UTC, datetime
from typing import Final

from markupsafe import Markup

from queuerelay.durations import in_words
from queuerelay.status.collect.history import Percentiles

#: The dash for a figure that is not known.
NOTHING: Final = "\N{EN DASH}"

#: Between a figure and its unit, where lines may break elsewhere.
_SPACE: Final = "\N{NO-BREAK SPACE}"
_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
#: Last second of the year 9999.
_LAST: Final = 253402300799

#: Controls (all but tab and line feed), halves of characters, and what turns the direction of text
#: around: with these a name could be read as another one, or a document not be parsed at all.
_UNFIT: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
    "\ufffe\uffff\ud800-\udfff]"
)
#: ``CONTROL PICTURES``: a picture for each of the first 32 controls.
_PICTURES: Final = 0x2400


def fit(text: str) -> str:
    """`text` with pictures in the place of characters that are no text."""
    return _UNFIT.sub(_picture, text)


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(_PICTURES + code)
    return "\N{SYMBOL FOR DELETE}" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"


def span(seconds: float | None) -> Markup:
    """A duration that machines can read too."""
    if seconds is None:
        return Markup(NOTHING)
    return Markup(f'<time datetime="PT{seconds:.3f}S">{in_words(seconds)}</time>')


def several(found: Percentiles) -> Markup:
    """Median, 95th and 99th percentile: ``1.2 / 3 / 40 ms``."""
    known = [one for one in (found.p50, found.p95, found.p99) if one is not None]
    if len(known) < 3:
        return Markup(NOTHING)
    values = " ".join(f"{one:.4g}" for one in known)
    slowest = max(known)
    if slowest < 0.9995:
        text = " / ".join(_short(one * 1000) for one in known) + f"{_SPACE}ms"
    elif slowest < _MINUTE:
        text = " / ".join(_short(one) for one in known) + f"{_SPACE}s"
    else:
        text = " / ".join(in_words(one) for one in known)
    return Markup(f'<data value="{values}">{text}</data>')


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 9.95 else f"{number:.1f}".removesuffix(".0")


def count(number: float | None) -> str:
    """A whole number: ``12,345``."""
    return NOTHING if number is None else f"{number:,.0f}"


def rate(per_minute: float) -> str:
    """A rate per minute: ``0.3``, ``1,234``."""
    return f"{per_minute:.1f}" if 0 < per_minute < 9.95 else f"{per_minute:,.0f}"


def size(number: float | None) -> str:
    """Bytes: ``1.4 MiB``."""
    if number is None:
        return NOTHING
    unit = 0
    while number >= 1000 and unit < len(_UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:.{0 if unit == 0 or number >= 9.95 else 1}f} {_UNITS[unit]}"


def _utc(at: float) -> datetime | None:
    return datetime.fromtimestamp(at, UTC) if 0 < at <= _LAST else None


def moment(at: float, now: float) -> Markup:
    """Unix second `at` in UTC, with the day where it is another one than that of `now`."""
    when, today = _utc(at), _utc(now)
    if when is None:
        return Markup(NOTHING)
    form = "%H:%M:%S" if today and when.date() == today.date() else "%-d %b %Y %H:%M"
    return Markup(f'<time datetime="{when:%Y-%m-%dT%H:%M:%SZ}">{when.strftime(form)}</time>')


def ago(at: float, now: float) -> str:
    """The time from `at` to `now`, roughly: ``3 min ago``."""
    if not 0 < at <= _LAST:
        return ""
    seconds = max(0.0, now - at)
    if seconds < _MINUTE:
        return f"{seconds:.0f} s ago"
    for unit, name in ((_DAY, "d"), (_HOUR, "h")):
        if seconds >= unit:
            return f"{seconds // unit:,.0f} {name} ago"
    return f"{seconds // _MINUTE:.0f} min ago"


def percent(part: float, whole: float | None) -> int:
    """A share in percent, 0 to 100, rounded down: only what is full is 100."""
    return min(100, int(100 * part / whole)) if whole else 0
