"""The formats of the logs: the daemon's own and the access log, as text for people and as JSON.

Invariants:

1. What clients say is escaped in the access log: no control character reaches a line, no quote a
   quoted field of the text, and no blank a field that is not quoted.
2. A line of JSON is one object in ASCII, whatever was in it; its names are those of
   ``docs/operations.md``.
3. Nothing that looks like a password is in a line of the daemon's own log (`redact`).
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from time import gmtime, strftime
from typing import Any, Final, Protocol, TypeVar

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.logger import LogEvent, formatEvent, formatEventAsClassicLogText

from queuerelay.redact import redact

_T = TypeVar("_T")

#: What ``--log-format`` takes.
TEXT: Final = "text"
JSON: Final = "json"

_UNSAFE: Final = re.compile(rb'[^\x20-\x7e]|["\\]')
#: Bytes that `_UNSAFE` does not match.
_SAFE: Final = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\')
#: Longest address or queue, in characters.
_LONGEST_NAME: Final = 256
#: Longest foreign text in a line, in bytes.
_LONGEST: Final = 2048
#: What Twisted puts into an event beside the fields of whoever logs.
_NOT_FIELDS: Final = frozenset(
    {"message", "time", "system", "format", "isError", "failure", "why", "logLevel", "printed"}
)


class Fields(Protocol):
    """Header fields, twisted.web's own or the front's."""

    def getRawHeaders(self, name: bytes) -> Any:
        """All values of `name`, None where there is none."""


@dataclass(slots=True, kw_only=True)
class Entry:
    """One request that is over."""

    #: Address of the client as text, "" where it has none, or the peer of its connection.
    client: Any
    method: bytes
    target: bytes
    version: bytes
    status: int
    #: Bytes of the body that was sent.
    length: int
    headers: Fields
    #: X-Request-Id.
    id: bytes
    #: How the request ended: ``answered``, ``expired``, ``gone``, ``refused``, ``aborted`` (the
    #: values of `queuerelay.relay.held.HeldState`), or ``early``, answered before it was complete.
    end: str
    #: Name of the queue, "" for a request that came to none.
    queue: str = ""
    #: Seconds in the queue and in the worker, as the worker measured them; None where it did not.
    wait: float | None = None
    run: float | None = None
    #: Seconds from the complete request to the end of the answer, None where it was never complete
    #: or not held.
    total: float | None = None


def escape(text: bytes) -> bytes:
    """`text` without anything that could end its field or its line."""
    text = text[:_LONGEST]
    # Nearly always, and in a twentieth of the time.
    if not text.translate(None, _SAFE):
        return text
    return _UNSAFE.sub(lambda found: b"\\x%02x" % found.group()[0], text)


@lru_cache(maxsize=1024)
def _word(text: str) -> bytes:
    """`text` as one word."""
    return escape(text[:_LONGEST_NAME].encode()).replace(b" ", b"\\x20") or b"-"


def _time(seconds: float | None) -> bytes:
    return b"-" if seconds is None else b"%.3f" % seconds


def access_text(entry: Entry, now: float) -> bytes:
    """The line of a request that ended at `now`, in the combined format and a little more."""
    return (
        b'%b - - [%b] "%b %b %b" %d %d "%b" "%b" queue=%b wait=%b run=%b total=%b end=%b id=%b\n'
    ) % (
        _word(_client(entry)),
        _combined_time(int(now)),
        escape(entry.method),
        escape(entry.target),
        escape(entry.version),
        entry.status,
        entry.length,
        escape(_first(entry, b"referer", b"-")),
        escape(_first(entry, b"user-agent", b"-")),
        _word(entry.queue),
        _time(entry.wait),
        _time(entry.run),
        _time(entry.total),
        entry.end.encode("ascii"),
        escape(entry.id),
    )


def access_json(entry: Entry, now: float) -> bytes:
    """The line of a request that ended at `now`, as JSON; what is not known is null."""
    record = {
        "type": "access",
        "time": _iso(now),
        "client": _client(entry)[:_LONGEST_NAME] or None,
        "method": _foreign(entry.method),
        "target": _foreign(entry.target),
        "version": _foreign(entry.version),
        "status": entry.status,
        "length": entry.length,
        "referer": _foreign(_first(entry, b"referer", None)),
        "agent": _foreign(_first(entry, b"user-agent", None)),
        "queue": entry.queue[:_LONGEST_NAME] or None,
        "wait": _rounded(entry.wait),
        "run": _rounded(entry.run),
        "total": _rounded(entry.total),
        "end": entry.end,
        "id": _foreign(entry.id),
    }
    traceparent = _first(entry, b"traceparent", None)
    if traceparent is not None:
        record["traceparent"] = _foreign(traceparent)
    return _line(record)


def event_text(event: LogEvent) -> bytes:
    """The lines of an event of the daemon's own log, as twistd writes them; b"" for one that says
    nothing.
    """
    text = formatEventAsClassicLogText(event)
    return redact(text).encode("utf-8", "backslashreplace") if text else b""


def event_json(event: LogEvent) -> bytes:
    """The line of an event of the daemon's own log, as JSON."""
    level, failure = event.get("log_level"), event.get("log_failure")
    record: dict[str, Any] = {
        "type": "log",
        "time": _iso(event.get("log_time", 0.0)),
        "level": level.name if level is not None else "info",
        "logger": event.get("log_namespace", "-"),
        "message": redact(formatEvent(event)),
    }
    fields = {name: _shown(value) for name, value in event.items() if _is_field(name, value)}
    if fields:
        record["fields"] = fields
    if failure is not None:
        record["traceback"] = redact(failure.getTraceback())
    return _line(record)


#: By the name of the format, what makes a line of a request, and of an event.
ACCESS: Final[Mapping[str, Callable[[Entry, float], bytes]]] = {
    TEXT: access_text,
    JSON: access_json,
}
EVENT: Final[Mapping[str, Callable[[LogEvent], bytes]]] = {TEXT: event_text, JSON: event_json}


def _client(entry: Entry) -> str:
    client = entry.client
    if isinstance(client, IPv4Address | IPv6Address):
        client = client.host
    return client if isinstance(client, str) else ""


def _first(entry: Entry, name: bytes, otherwise: _T) -> bytes | _T:
    values = entry.headers.getRawHeaders(name)
    return values[0] if values else otherwise


def _foreign(text: bytes | None) -> str | None:
    return None if text is None else text[:_LONGEST].decode("utf-8", "backslashreplace")


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None or not math.isfinite(seconds) else round(seconds, 3)


@lru_cache(maxsize=2)
def _combined_time(now: int) -> bytes:
    return strftime("%d/%b/%Y:%H:%M:%S +0000", gmtime(now)).encode("ascii")


def _iso(seconds: float) -> str:
    found = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return found.replace("+00:00", "Z")


def _is_field(name: str, value: object) -> bool:
    if name.startswith("log_") or name in _NOT_FIELDS:
        return False
    return value is None or isinstance(value, str | bytes | int | float)


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        return redact(value)
    # JSON has no infinity.
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _line(record: Mapping[str, Any]) -> bytes:
    # DEL is the one control that JSON does not escape.
    return json.dumps(record).replace("\x7f", "\\u007f").encode("ascii") + b"\n"
