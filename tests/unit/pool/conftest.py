"""Stages for the tests of pools, and what is logged on them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from tests.unit.pool.stage import Stage


@pytest.fixture
def make() -> Iterator[Callable[..., Stage]]:
    """Makes stages, and looks at the end whether they leave anything."""
    stages: list[Stage] = []

    def make(**options: Any) -> Stage:
        stage = Stage(**options)
        stages.append(stage)
        stage.turns()
        return stage

    yield make
    for stage in stages:
        stage.end()


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged."""
    found: list[str] = []

    def observe(event: LogEvent) -> None:
        if str(event.get("log_namespace", "")).startswith("queuerelay"):
            found.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)
