"""The body of an action: a form or a JSON object, read into plain values."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

import orjson

from queuerelay.errors import MessageError
from queuerelay.status.route import StatusRequest
from queuerelay.wire import exact

#: Most fields of a form.
_MOST: Final = 1000


class Wrong(Exception):
    """A field of an action is wrong; the text names it and says what was expected."""


def given(ask: StatusRequest) -> Mapping[str, Any]:
    """The fields of the body: lists of texts of a form, anything of a JSON object.

    Raises `Wrong`.
    """
    kind = ask.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not ask.body:
        return {}
    if kind == "application/x-www-form-urlencoded":
        try:
            return parse_qs(
                ask.body.decode("utf-8"),
                keep_blank_values=True,
                strict_parsing=True,
                max_num_fields=_MOST,
                errors="strict",
            )
        except ValueError as error:
            raise Wrong("the body is no form") from error
    if kind in ("application/json", ""):
        value = from_json(ask.body, "the body")
        if not isinstance(value, dict):
            raise Wrong("the body: expected a JSON object")
        return value
    raise Wrong("content-type: expected application/json or application/x-www-form-urlencoded")


def from_json(text: bytes | str, name: str) -> Any:
    """The value of a JSON text, with every digit of its whole numbers."""
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    try:
        # The strict one says what is JSON, the other keeps whole numbers past 64 bits.
        orjson.loads(raw)
        return exact.load(raw)
    except (orjson.JSONDecodeError, MessageError) as error:
        raise Wrong(f"{name}: no JSON: {error}") from error


def text(fields: Mapping[str, Any], name: str, default: str = "") -> str:
    """One text; `default` where the field is not there."""
    value = _one(fields.get(name, default))
    if not isinstance(value, str):
        raise Wrong(f"{name}: expected a text")
    return value


def flag(fields: Mapping[str, Any], name: str) -> bool:
    """A JSON boolean, or ``1`` in a form; false where the field is not there."""
    value = _one(fields.get(name, False))
    if value in (True, "1", "true", "on"):
        return True
    if value in (False, "", "0", "false"):
        return False
    raise Wrong(f"{name}: expected true or false")


def number(fields: Mapping[str, Any], name: str, lowest: int, highest: int) -> int:
    """A whole number within bounds."""
    value = _one(fields.get(name))
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if type(value) is not int or not lowest <= value <= highest:
        raise Wrong(f"{name}: expected a whole number from {lowest} to {highest}")
    return value


def texts(fields: Mapping[str, Any], name: str) -> list[str]:
    """Any number of texts, up to 1000."""
    value = fields.get(name, [])
    found = value if isinstance(value, list) else [value]
    if len(found) > _MOST or not all(isinstance(one, str) for one in found):
        raise Wrong(f"{name}: expected at most {_MOST} texts")
    return found


def _one(value: Any) -> Any:
    """The last value of a form's field."""
    return value[-1] if isinstance(value, list) and value else value
