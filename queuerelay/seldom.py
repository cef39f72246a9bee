"""A bound on repeated log lines: the same thing is told at once, and then not for a while."""

from typing import Final

from twisted.internet.interfaces import IReactorTime

#: Seconds between two lines in the log about the same thing.
TELL_EVERY: Final = 30.0
#: Most different things that are told in `TELL_EVERY` seconds.
_MOST: Final = 16


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
