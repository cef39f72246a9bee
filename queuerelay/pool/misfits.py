"""Messages whose script could not be run, again and again, as health is told of them."""

from typing import Final

from twisted.internet.interfaces import IReactorTime

from queuerelay.durations import in_words

#: Seconds after its last try in which a message is spoken of: it is tried once a minute at least,
#: and may wait for a slot.
_SPOKEN_OF: Final = 180.0
#: How many are remembered.
MOST: Final = 1024


class Misfits:
    """Messages of one pool that could not be started more than once, the latest last."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        #: By message id: until when it is spoken of, and why it could not be started.
        self._seen: dict[str, tuple[float, str]] = {}

    def note(self, message: str, reason: str) -> None:
        """The message could not be started, not for the first time."""
        self._seen.pop(message, None)
        while len(self._seen) >= MOST:
            del self._seen[next(iter(self._seen))]
        self._seen[message] = self._clock.seconds() + _SPOKEN_OF, reason

    def forget(self, message: str) -> None:
        """Something else became of the message."""
        self._seen.pop(message, None)

    def words(self) -> str:
        """How many there are and why, "" for none."""
        now = self._clock.seconds()
        for message in [one for one, (until, _) in self._seen.items() if until <= now]:
            del self._seen[message]
        if not self._seen:
            return ""
        _, reason = self._seen[next(reversed(self._seen))]
        number = len(self._seen)
        return f"{number} message{'s' if number > 1 else ''} cannot be started: {reason}"


def given_up(number: int, seconds: float, reason: str) -> str:
    """Why a message is a dead letter that could not be started `number` times in `seconds`."""
    return f"could not be started, {number} times in {in_words(seconds)}: {reason}"
