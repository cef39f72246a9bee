"""Fixtures of all unit tests."""

import pytest
from twisted.logger import LogLevel, formatEvent, globalLogPublisher


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
