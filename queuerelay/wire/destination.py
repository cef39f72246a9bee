"""Where a reply may go: whoever may enqueue a message may not have us write to any key.

Invariants:

1. The reply to a request goes to the inbox that its own ``node_id`` names, and nowhere else.
2. The reply to a job goes to a list under `Keys.results`, and nowhere else.
3. No list under `Keys.results` is a key of ours or of Resque's; `overlap` tells, and the
   configuration refuses what it finds.

What a message says otherwise is not followed: the message is a dead letter, and nobody is told.
"""

from typing import Final

from queuerelay.errors import MessageError
from queuerelay.wire.json_object import load_object
from queuerelay.wire.keys import Keys
from queuerelay.wire.message import REQUEST_CLASS, Message

#: Longest name of a list that a job may give, in characters.
LONGEST_NAME: Final = 512
#: How much of a wrong name an error shows, in characters.
_SHOWN: Final = 100


def destination(message: Message, keys: Keys) -> str | None:
    """The list that takes the reply to `message`, None where nobody waits for one.

    Raises `MessageError` where the message names a list that is not for it.
    """
    reply_to = message.reply_to
    if message.request is not None:
        inbox = _inbox(message.request.node_id, keys)
        if reply_to != inbox:
            raise MessageError(f"reply_to: {_shown(reply_to)} is not {_shown(inbox)}")
        return inbox
    if reply_to is None:
        return None
    if not reply_to.startswith(keys.results) or reply_to == keys.results:
        raise MessageError(f"reply_to: {_shown(reply_to)} is not under {keys.results!r}")
    if len(reply_to) > LONGEST_NAME:
        raise MessageError(f"reply_to: {_shown(reply_to)} has more than {LONGEST_NAME} characters")
    return reply_to


def salvage(raw: bytes, keys: Keys) -> tuple[str, str] | None:
    """``node_id`` of a request that is otherwise wrong, and the inbox where its client waits; None
    where the message does not say both, or names a list that is not for it.
    """
    try:
        value = load_object(raw, error=MessageError)
    except MessageError:
        return None
    args = value.get("args")
    first = args[0] if isinstance(args, list) and args else None
    if value.get("class") != REQUEST_CLASS or not isinstance(first, dict):
        return None
    node_id = first.get("node_id")
    if not isinstance(node_id, str) or not node_id:
        return None
    inbox = _inbox(node_id, keys)
    return (node_id, inbox) if first.get("reply_to") == inbox else None


def overlap(results: str, keys: Keys) -> str | None:
    """The key, or the beginning of keys, of ours or of Resque's with which lists under `results`
    could be confused; None where there is none.
    """
    for taken in (keys.resque, *keys.beginnings()):
        if taken.startswith(results) or results.startswith(taken):
            return taken
    return None


def _inbox(node_id: str, keys: Keys) -> str:
    return keys.inbox(node_id.partition("-")[0])


def _shown(name: str | None) -> str:
    shown = repr(name)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
