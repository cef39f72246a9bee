"""Bounds on repeated log lines: the same thing is told at once, and then not for a while
(`Seldom`), or as a number (`Gathered`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from twisted.internet.interfaces import IReactorTime

#: Seconds between two lines in the log about the same thing.
TELL_EVERY: Final = 30.0
#: Most different things that are told in `TELL_EVERY` seconds.
_MOST: Final = 16

_T = TypeVar("_T")


class Seldom:
    """Whether something is to be told now: each text at most every `TELL_EVERY` seconds."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._told: dict[str, float] = {}

    def due(self, text: str) -> bool:
        """Whether `text` is to be told now: at the first time, and each `TELL_EVERY` seconds."""
        now = self._clock.seconds()
        self._told = {one: at for one, at in self._told.items() if now - at < TELL_EVERY}
        if text in self._told or len(self._told) >= _MOST:
            return False
        self._told[text] = now
        return True


@dataclass(slots=True)
class _Kind(Generic[_T]):
    since: float
    more: int = 0
    last: _T | None = None


class More(NamedTuple, Generic[_T]):
    """What was only counted of a kind."""

    kind: str
    number: int
    #: Seconds in which that was.
    seconds: float
    #: The last one, as `Gathered.is_first` got it.
    last: _T


class Gathered(Generic[_T]):
    """Of each kind the first is to be told at once, and those of the next seconds together."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind[_T]] = {}

    def __bool__(self) -> bool:
        """Whether anything is counted at the moment."""
        return bool(self._kinds)

    def is_first(self, kind: str, now: float, what: _T) -> bool:
        """Whether `what` is to be told now; else it is counted. There are few kinds."""
        found = self._kinds.get(kind)
        if found is None:
            self._kinds[kind] = _Kind(now)
            return True
        found.more += 1
        found.last = what
        return False

    def due(self, now: float, quiet: float) -> Iterator[More[_T]]:
        """Each kind that has been counted for `quiet` seconds, where there were more. Those go on
        being counted; of the others the next one is a first one again.
        """
        for kind, found in list(self._kinds.items()):
            if now - found.since < quiet:
                continue
            del self._kinds[kind]
            if found.last is not None:
                self._kinds[kind] = _Kind(now)
                yield More(kind, found.more, now - found.since, found.last)
