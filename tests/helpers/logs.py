"""What queuerelay has logged in a test, as fixtures."""

from collections.abc import Callable, Iterator

import pytest
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher


@pytest.fixture
def said():
    """What queuerelay logs at info and above, as ``(level name, text)``."""
    lines = []

    def observe(event):
        if event.get("log_namespace", "").startswith("queuerelay"):
            level = event["log_level"]
            if level >= LogLevel.info:
                lines.append((level.name, formatEvent(event)))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


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
