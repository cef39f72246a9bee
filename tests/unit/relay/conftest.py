"""The fixtures of `stage` for every test in this folder, and what was logged."""

from collections.abc import Callable, Iterator

import pytest
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from tests.unit.relay.stage import make_stage, stage

__all__ = ["log_lines", "make_stage", "stage"]


@pytest.fixture
def log_lines() -> Iterator[Callable[[], list[str]]]:
    """Gives what queuerelay has logged in this test, as text."""
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    yield lambda: [
        formatEvent(event)
        for event in events
        if str(event.get("log_namespace", "")).startswith("queuerelay")
    ]
    globalLogPublisher.removeObserver(events.append)
