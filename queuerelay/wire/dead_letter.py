"""Reading entries of ``resque:failed``, whoever wrote them, and making messages of them again.

Ruby Resque, node-resque and php-resque write the same seven keys as we (see `failure`); only our
own entries name the message and its attempts.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple

from queuerelay.errors import MessageError
from queuerelay.wire import exact
from queuerelay.wire.failure import UNREADABLE_CLASS
from queuerelay.wire.message import REQUEST_CLASS

#: Bytes of an entry that lists have: an eighth of them from its beginning, where the payload is,
#: the rest from its end, where Ruby and we say what became of it.
SHOWN: Final = 64 * 1024
#: Keys that stand behind the payload, and how many places are tried.
_LATE_KEY: Final = re.compile(
    rb',\s*("(?:exception|error|backtrace|worker|queue|failed_at|queuerelay)"\s*:)'
)
_PLACES: Final = 16
#: Keys that stand before the arguments, each with its text; within so many bytes.
_EARLY_KEYS: Final = re.compile(
    rb'"(failed_at|worker|queue|class|exception|error)"\s*:\s*("(?:[^"\\]|\\.){0,1024}")'
)
_EARLY: Final = 2048
#: Bytes that may be the id of a message; decoding tells.
_ID: Final = re.compile(rb'"id"\s*:\s*"([^"]*)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeue:
    """The message of a dead letter as it goes back, and its queue."""

    queue: str
    message: bytes


class Excerpt(NamedTuple):
    """A large entry as it is shown: its bytes are not all there."""

    size: int
    #: The first and the last bytes, `SHOWN` of them together, as `failures.lua` gives them.
    head: bytes
    tail: bytes

    @classmethod
    def of(cls, raw: bytes) -> "Excerpt":
        """That of a whole entry."""
        return cls(len(raw), raw[: SHOWN // 8], raw[-(SHOWN - SHOWN // 8) :])

    @property
    def id(self) -> str:
        """The name of the entry."""
        return _sha1(b"%d " % self.size + self.head + self.tail)

    def decode(self) -> dict[str, Any]:
        """The keys that can be made out; of the payload the class alone."""
        found: dict[str, Any] = {}
        for place in islice(_LATE_KEY.finditer(self.tail), _PLACES):
            try:
                value = json.loads(b"{" + self.tail[place.start(1) :])
            except ValueError:
                # It stands within the payload.
                continue
            found = value
            break
        for key, text in _EARLY_KEYS.findall(self.head[:_EARLY]):
            name = key.decode()
            if name != "class":
                # Of the end only where that says nothing: this may be of the arguments.
                found.setdefault(name, _unquoted(text))
            elif "payload" not in found:
                found["payload"] = {"class": _unquoted(text)}
        return found


def _unquoted(text: bytes) -> str:
    try:
        return str(json.loads(text))
    except ValueError:
        return ""


def _sha1(raw: bytes) -> str:
    return hashlib.sha1(raw, usedforsecurity=False).hexdigest()


def entry_id(raw: bytes) -> str:
    """The name of an entry: the SHA-1 of its bytes, or of size, beginning and end of a large one,
    as 40 hex digits.

    Others' entries have no id of their own, and places in the list change.
    """
    return _sha1(raw) if len(raw) <= SHOWN else Excerpt.of(raw).id


def decode_entry(raw: bytes) -> dict[str, Any] | None:
    """The entry as it was written, None where it is not a JSON object."""
    try:
        value = exact.load(raw)
    except MessageError:
        return None
    return value if isinstance(value, dict) else None


def message_id(entry: Mapping[str, Any] | None) -> str:
    """The id of the message that failed, from our key or php-resque's in the payload; else ""."""
    for key in ("queuerelay", "payload"):
        part = (entry or {}).get(key)
        found = part.get("id") if isinstance(part, dict) else None
        if isinstance(found, str) and found:
            return found
    return ""


def names_of(raw: bytes, names: Collection[str]) -> set[str]:
    """The members of `names` that are the id of the entry or of the message in it.

    Takes as long for a thousand names as for one, where `names` is a set.
    """
    found = {name for name in (entry_id(raw),) if name in names}
    # Not every entry is decoded for this.
    for one in _ID.findall(raw):
        if b"\\" in one or one.decode("utf-8", "replace") in names:
            name = message_id(decode_entry(raw))
            if name and name in names:
                found.add(name)
            break
    return found


def was_retried(raw: bytes) -> bool:
    """Whether resque-web has put the entry's message back: it notes that and keeps the entry."""
    return b'"retried_at"' in raw and bool((decode_entry(raw) or {}).get("retried_at"))


def text_of(entry: Mapping[str, Any]) -> str:
    """The text of a message that could not be read, as far as it was kept; "" for others, and for
    what may be a client's request.
    """
    payload = entry.get("payload")
    if not isinstance(payload, dict) or payload.get("class") != UNREADABLE_CLASS:
        return ""
    args = payload.get("args")
    found = args[0] if isinstance(args, list) and args else ""
    return found if isinstance(found, str) and REQUEST_CLASS not in found else ""


def requeue(raw: bytes, mended: Mapping[str, Any] | None = None) -> Requeue | None:
    """The message of an entry as it was before any attempt, and where it goes.

    `mended` has the ``class`` or the ``args`` that are to be in the place of its own.

    None where there is nothing to run: no queue, no class and args, a request, or a message that
    could not be read in the first place. What else a payload holds is kept; the attempts are not
    part of it, and when it was pushed first is left out, because it waits anew.
    """
    entry = decode_entry(raw) or {}
    queue, payload = entry.get("queue"), entry.get("payload")
    if not (isinstance(queue, str) and queue and isinstance(payload, dict)):
        return None
    if payload.get("class") == REQUEST_CLASS:
        # Nobody waits for its answer any more, and it is not whole.
        return None
    payload = {**payload, **(mended or {})}
    cls = payload.get("class")
    if not (isinstance(cls, str) and cls and isinstance(payload.get("args"), list)):
        return None
    if cls in (UNREADABLE_CLASS, REQUEST_CLASS):
        # Requests come from clients alone.
        return None
    left = ("queue", "id", "queue_time", "queuerelay")
    message = {key: value for key, value in payload.items() if key not in left}
    message["queue"] = queue
    name = message_id(entry)
    if name:
        message["id"] = name
    try:
        return Requeue(queue=queue, message=exact.dump(message))
    except MessageError:
        return None
