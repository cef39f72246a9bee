"""The log's one root for foreign text: whatever an event has in it, its line is one line.

An id with an ESC or a CR in it would forge lines on the terminal of whoever reads the log. Those
who log need not think of it, nor does it matter where the log goes: the observer stands before all
others, and every observer gets the same event.
"""

from dataclasses import dataclass

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import provider

from queuerelay.visible import visible


@dataclass(frozen=True, slots=True)
class _Traceback:
    """What an observer asks a Failure for."""

    text: str

    def getTraceback(self) -> str:
        return self.text


def install() -> None:
    """Make the log plain; before it begins to be written, and once is enough."""
    globalLogPublisher.removeObserver(make_plain)
    globalLogPublisher.addObserver(make_plain)


@provider(ILogObserver)
def make_plain(event: LogEvent) -> None:
    """Escape what `event` says, for the observers after this one."""
    text = formatEvent(event)
    plain = visible(text)
    if plain != text:
        event["log_format"], event["log_plain"] = "{log_plain}", plain
        if event.get("message"):
            # One of `twisted.python.log`, whose observers look at this alone.
            event["message"], event["format"] = (plain,), None
    failure = event.get("log_failure")
    if failure is not None:
        # Its lines are ours, what stands in them may be others'.
        text = failure.getTraceback()
        plain = "\n".join(map(visible, text.split("\n")))
        if plain != text:
            event["log_failure"] = event["failure"] = _Traceback(plain)
