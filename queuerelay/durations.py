"""Durations in words for people, on the page and in a terminal."""

from typing import Final

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
#: Seconds below which tenths are shown; from here on whole seconds.
_WHOLE: Final = 10.0


def in_words(seconds: float) -> str:
    """A duration in two units at most: ``40 ms``, ``1.2 s``, ``3 min 20 s``, ``4 d 1 h``."""
    if seconds < 0.9995:
        ms = seconds * 1000
        return "0 s" if ms < 0.05 else f"{ms:.1f} ms" if ms < 9.95 else f"{ms:.0f} ms"
    if seconds < _WHOLE - 0.05:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return _two(whole, _MINUTE, "min", 1, "s")
    if whole < _DAY:
        return _two(whole, _HOUR, "h", _MINUTE, "min")
    return _two(whole, _DAY, "d", _HOUR, "h")


def _two(seconds: int, large: int, name: str, small: int, small_name: str) -> str:
    rest = seconds % large // small
    return f"{seconds // large:,} {name}" + (f" {rest} {small_name}" if rest else "")
