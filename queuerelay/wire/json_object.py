"""A JSON object as it travels: read once, and refused in the same words everywhere."""

from typing import Any

import orjson

from queuerelay.errors import QueuerelayError


def load_object(raw: bytes, *, error: type[QueuerelayError]) -> dict[str, Any]:
    """The object in `raw`; `error` where it is no JSON, or JSON of another kind."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as problem:
        raise error(f"not JSON: {problem}") from problem
    if not isinstance(value, dict):
        raise error(f"expected an object, got {type(value).__name__}")
    return value
