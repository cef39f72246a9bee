"""A WSGI application whose answers tell which run of it made them."""

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Seconds that a run waits to be told to go on.
BOUND = 60.0
ROWS = 50


def application(environ: dict[str, Any], start_response: Any) -> Any:
    """``/rows/NAME``: rows, the last ones after there is a file NAME.go. ``/bytes/N``: N bytes in
    blocks of 64 KiB, as fast as they are taken.
    """
    kind, _, argument = environ["PATH_INFO"].strip("/").partition("/")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return _rows(argument) if kind == "rows" else _bytes(int(argument))


def _rows(name: str) -> Iterator[bytes]:
    run = f"{os.getpid()} {uuid.uuid4().hex}"
    for number in range(ROWS):
        if number == ROWS // 2:
            end = time.monotonic() + BOUND
            while not Path(f"{name}.go").exists() and time.monotonic() < end:
                time.sleep(0.005)
        yield f"{run} {number}\n".encode()


def _bytes(size: int) -> Iterator[bytes]:
    block = bytes(range(256)) * 256
    for start in range(0, size, len(block)):
        yield block[: size - start]
