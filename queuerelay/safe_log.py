"""The one place where what goes to the daemon's log becomes text that can do nothing to whoever
reads it: ids, queues, classes, what scripts and Redis say, whoever logs it.

Invariants:

1. A field of an event is one line, so that nothing in it looks like an entry of its own.
2. Line ends are left in tracebacks and in Twisted's own texts alone; the file has a tab after them.
"""

from typing import Any, Final, cast

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import provider

from queuerelay.safe_text import safe_line, safe_lines

#: Texts of Twisted's that may have several lines.
_TEXTS: Final = ("log_text", "log_io")


def install() -> None:
    """Make every event safe from now on; to be called before a log is opened: observers see an
    event one after the other, and those before us see it as it was.
    """
    observer = cast(ILogObserver, make_safe)
    globalLogPublisher.removeObserver(observer)
    globalLogPublisher.addObserver(observer)


@provider(ILogObserver)
def make_safe(event: LogEvent) -> None:
    """Escape the fields of `event`, in place."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable() and name != "log_format":
            event[name] = safe_lines(value) if name in _TEXTS else safe_line(value)
        elif isinstance(value, Failure):
            event[name] = _SafeFailure(value)
        elif isinstance(value, BaseException):
            event[name] = _SafeError(value)
    # Whatever else has a text of its own.
    text = formatEvent(event)
    if safe_lines(text) != text:
        event["log_format"], event["log_text"] = "{log_text}", safe_lines(text)


class _SafeError:
    """An exception that is a field, with a text of one line."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __str__(self) -> str:
        return safe_line(str(self._error))

    def __repr__(self) -> str:
        return safe_line(repr(self._error))


class _SafeFailure:
    """A failure in all, but for its traceback's text."""

    def __init__(self, failure: Failure) -> None:
        self._failure = failure

    def __getattr__(self, name: str) -> Any:
        return getattr(self._failure, name)

    def __str__(self) -> str:
        return safe_line(str(self._failure))

    def getTraceback(self, *args: Any, **kwargs: Any) -> str:
        """The traceback as the log shows it."""
        return safe_lines(self._failure.getTraceback(*args, **kwargs))
