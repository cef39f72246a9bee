"""Orders to a node, and its reports: what an operator asks of the pools of one process.

The vocabulary is fixed. No order says what is run: commands come from the configuration alone.
"""

from dataclasses import asdict, dataclass
from typing import Final

import orjson

from queuerelay.errors import MessageError
from queuerelay.wire.json_object import load_object

#: Actions of an order: four for a pool, and ``stop`` for a message.
ACTIONS: Final = ("size", "drain", "resume", "restart", "stop")
#: Most slots that an order may ask for; a mistyped number must not fork a host to death.
MOST_SLOTS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What an operator asks of one node."""

    #: Id of the order in the reports; 32 hex digits.
    id: str
    #: One of `ACTIONS`.
    action: str
    #: Name of the pool; "" for ``stop``.
    pool: str = ""
    #: Slots, for ``size``: 0 to `MOST_SLOTS`.
    size: int = 0
    #: Id of the message whose script is to end, for ``stop``.
    message: str = ""
    #: Whether the script gets no grace.
    kill: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The report of a node on an order."""

    node: str
    #: Whether the order was carried out.
    done: bool
    #: One line for people.
    text: str


def encode_order(order: Order) -> bytes:
    """The order as it goes to the node."""
    return orjson.dumps(asdict(order))


def decode_order(raw: bytes) -> Order:
    """The order in `raw`; `MessageError` where it is none."""
    value = load_object(raw, error=MessageError)
    id, action = value.get("id"), value.get("action")
    if not isinstance(id, str) or not (len(id) == 32 and id.isascii() and id.isalnum()):
        raise MessageError("an order: id: expected 32 hex digits")
    if action not in ACTIONS:
        raise MessageError(f"an order: action: expected one of {', '.join(ACTIONS)}")
    size = value.get("size", 0)
    if type(size) is not int or not 0 <= size <= MOST_SLOTS:
        raise MessageError(f"an order: size: expected a whole number from 0 to {MOST_SLOTS}")
    pool, message = value.get("pool", ""), value.get("message", "")
    if not isinstance(pool, str) or not isinstance(message, str):
        raise MessageError("an order: pool and message: expected texts")
    return Order(
        id=id,
        action=action,
        pool=pool,
        size=size,
        message=message,
        kill=value.get("kill") is True,
    )


def encode_report(report: Report) -> bytes:
    """The report as it goes back."""
    return orjson.dumps(asdict(report))


def decode_report(raw: bytes) -> Report:
    """The report in `raw`; `MessageError` where it is none."""
    value = load_object(raw, error=MessageError)
    node, text = value.get("node"), value.get("text")
    if not isinstance(node, str) or not isinstance(text, str):
        raise MessageError("a report: node and text: expected texts")
    return Report(node=node, done=value.get("done") is True, text=text[:200])
