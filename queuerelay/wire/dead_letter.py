"""Reading entries of ``resque:failed``, whoever wrote them, and making messages of them again.

Ruby Resque, node-resque and php-resque write the same seven keys as we (see `failure`); only our
own entries name the message and its attempts.
"""

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from queuerelay.errors import MessageError
from queuerelay.wire import exact
from queuerelay.wire.failure import UNREADABLE_CLASS
from queuerelay.wire.message import REQUEST_CLASS

#: Bytes that may be the id of a message; decoding tells.
_ID: Final = re.compile(rb'"id"\s*:\s*"([^"]*)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeue:
    """The message of a dead letter as it goes back, and its queue."""

    queue: str
    message: bytes


def entry_id(raw: bytes) -> str:
    """The name of an entry: the SHA-1 of its bytes, as 40 hex digits.

    Others' entries have no id of their own, and places in the list change.
    """
    return hashlib.sha1(raw, usedforsecurity=False).hexdigest()


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

    None where there is nothing to run: no queue, no class and args, or a message that could not be
    read in the first place. What else a payload holds is kept; the attempts are not part of it, and
    when it was pushed first is left out, because it waits anew.
    """
    entry = decode_entry(raw) or {}
    queue, payload = entry.get("queue"), entry.get("payload")
    if not (isinstance(queue, str) and queue and isinstance(payload, dict)):
        return None
    payload = {**payload, **(mended or {})}
    cls = payload.get("class")
    if not (isinstance(cls, str) and cls and isinstance(payload.get("args"), list)):
        return None
    if cls == UNREADABLE_CLASS or (mended and cls == REQUEST_CLASS):
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
