"""Answers of JSON, for views and actions."""

from typing import Final

import orjson

from queuerelay.status.route import StatusResponse

JSON: Final = "application/json"


def json_answer(value: object, status: int = 200) -> StatusResponse:
    """An answer of JSON."""
    return StatusResponse(status=status, body=dump(value), content_type=JSON)


def dump(value: object) -> bytes:
    """The JSON of a value; collections of any kind are lists."""
    return orjson.dumps(value, default=list, option=orjson.OPT_NON_STR_KEYS)
