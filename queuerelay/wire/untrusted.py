"""JSON that anybody may have written, read as what it has to be: what is missing, or is none of it,
reads as nothing, and no text, list or table is longer than its bound.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

#: Characters of a text, where the reader does not say another bound.
TEXT: Final = 256
#: Most entries of any list or table.
MOST: Final = 2000
#: A number from here on was not counted by anybody.
_LAST: Final = 2**53


def bounded(text: str, longest: int = TEXT) -> str:
    r"""The beginning of a text, without halves of characters (``\ud800``), which are no text."""
    text = text[:longest]
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < _LAST


class Table:
    """A JSON object; `TypeError` where it is none."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        if not isinstance(value, dict):
            raise TypeError("expected an object")
        self._value = value

    def get(self, key: str) -> Any:
        """The value as it came, None where there is none."""
        return self._value.get(key)

    def text(self, key: str, longest: int = TEXT) -> str:
        """A text, "" where there is none."""
        return self.maybe_text(key, longest) or ""

    def maybe_text(self, key: str, longest: int = TEXT) -> str | None:
        """A text."""
        value = self._value.get(key)
        return bounded(value, longest) if isinstance(value, str) else None

    def whole(self, key: str) -> int:
        """A whole number, 0 where there is none."""
        return self.maybe_whole(key) or 0

    def maybe_whole(self, key: str) -> int | None:
        """A whole number."""
        value = self._value.get(key)
        return value if type(value) is int and -_LAST < value < _LAST else None

    def number(self, key: str) -> float:
        """A number that is not below 0, 0 where there is none."""
        return self.maybe_number(key) or 0.0

    def maybe_number(self, key: str) -> float | None:
        """A number that is not below 0."""
        value: Any = self._value.get(key)
        return float(value) if _is_number(value) else None

    def maybe_signed(self, key: str) -> float | None:
        """A number, be it below 0."""
        value: Any = self._value.get(key)
        negative = type(value) in (int, float) and value < 0
        found = -value if negative else value
        return (-float(found) if negative else float(found)) if _is_number(found) else None

    def flag(self, key: str) -> bool:
        """Whether the value is true."""
        return self._value.get(key) is True

    def several(self, key: str) -> list[Any]:
        """The entries of a list, as they came."""
        value = self._value.get(key)
        return value[:MOST] if isinstance(value, list) else []

    def tables(self, key: str) -> list["Table"]:
        """The objects of a list."""
        return [Table(one) for one in self.several(key)]

    def texts(self, key: str) -> tuple[str, ...]:
        """The texts of a list."""
        return tuple(bounded(one) for one in self.several(key) if isinstance(one, str))

    def table(self, key: str) -> "Table":
        """An object, an empty one where there is none."""
        value = self._value.get(key)
        return Table(value if isinstance(value, dict) else {})

    def items(self, key: str) -> Iterable[tuple[str, Any]]:
        """The entries of an object, as they came but for their names."""
        value = self._value.get(key)
        entries = list(value.items())[:MOST] if isinstance(value, dict) else []
        return [(bounded(name), one) for name, one in entries]

    def each(self, key: str) -> Iterable[tuple[str, "Table"]]:
        """The objects of an object."""
        return [(name, Table(one)) for name, one in self.items(key)]

    def counts(self, key: str) -> Mapping[str, int]:
        """The whole numbers of an object that are not below 0."""
        return {name: one for name, one in self.items(key) if type(one) is int and 0 <= one < _LAST}

    def numbers(self, key: str) -> Mapping[str, float]:
        """The numbers of an object that are not below 0."""
        return {name: float(one) for name, one in self.items(key) if _is_number(one)}
