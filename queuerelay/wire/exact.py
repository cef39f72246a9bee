"""JSON of other people's messages, which must come out of our hands as it went in.

orjson makes a float of an integer past 64 bits, and cannot write what is nested deeper than 254
although it reads 1024. The standard library keeps every integer; it is slower, but messages are
edited only when something has failed.
"""

import json
from typing import Any

from queuerelay.errors import MessageError


def load(raw: bytes) -> Any:
    """The value of the JSON text `raw`; raises `MessageError` where it is no JSON."""
    try:
        return json.loads(raw.decode("utf-8"))
    except ValueError as error:
        raise MessageError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise MessageError("not JSON: nested too deeply") from error


def dump(value: object) -> bytes:
    """The JSON of `value` as compact UTF-8; raises `MessageError` where it cannot be written.

    Halves of characters, as in the names of files that are not UTF-8, become ``?``: other
    libraries refuse the whole text for one of them.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise MessageError(f"cannot be written as JSON: {error}") from error
    except RecursionError as error:
        raise MessageError("cannot be written as JSON: nested too deeply") from error
    return text.encode("utf-8", "replace")
