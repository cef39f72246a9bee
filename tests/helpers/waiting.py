"""Waiting for what must come true; no test measures how long it takes."""

import time
from collections.abc import Callable
from typing import TypeVar

#: Seconds in which anything that should happen must have happened.
PATIENCE = 30.0

T = TypeVar("T")


def eventually(what: Callable[[], T], why: Callable[[], str] = str, seconds: float = PATIENCE) -> T:
    """What `what()` gives once it is true; fails after `seconds` and says `why()`.

    The test's own reactor stands still meanwhile: for what happens in other processes.
    """
    end = time.monotonic() + seconds
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < end, f"not within {seconds} s: {what} {why()}"
        time.sleep(0.005)


async def until(what: Callable[[], T], seconds: float = PATIENCE) -> T:
    """What `what()` gives once it is true; fails after `seconds`. The reactor goes on meanwhile."""
    from twisted.internet import reactor, task

    end = time.monotonic() + seconds
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        await task.deferLater(reactor, 0.005)
