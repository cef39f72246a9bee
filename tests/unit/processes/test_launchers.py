"""When another launcher comes after one that died."""

from itertools import pairwise
from typing import Any

import pytest
from twisted.internet.task import Clock

from queuerelay.processes import launchers
from queuerelay.processes.launchers import Launchers


class Dying:
    """A link whose launcher dies when it is first asked for a script."""

    has_answered = False
    #: When each was started.
    started: list[float]

    def __init__(self, *args: Any, clock: Clock, on_lost: Any, **others: Any) -> None:
        self._on_lost = on_lost
        self.started.append(clock.seconds())

    def ask(self, *args: Any) -> None:
        self._on_lost(self)


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> type[Dying]:
    monkeypatch.setattr(Dying, "started", [], raising=False)
    monkeypatch.setattr(Dying, "has_answered", False)
    monkeypatch.setattr(launchers, "LauncherLink", Dying)
    return Dying


def pauses(dying: type[Dying], clock: Clock, several: Launchers, count: int) -> list[float]:
    """Seconds between the next starts, where a script is asked for each second."""
    dying.started.clear()
    while len(dying.started) <= count:
        several.launch(*[None] * 5)  # type: ignore[arg-type]
        clock.advance(1.0)
    return [later - earlier for earlier, later in pairwise(dying.started)]


def test_one_that_never_said_a_word_is_followed_later_each_time(dying):
    clock = Clock()
    several = Launchers(None, clock, None, session=lambda: False)
    assert pauses(dying, clock, several, 6) == [10.0, 20.0, 40.0, 60.0, 60.0, 60.0]


def test_one_that_had_answered_is_followed_soon(dying, monkeypatch):
    clock = Clock()
    several = Launchers(None, clock, None, session=lambda: False)
    pauses(dying, clock, several, 3)
    monkeypatch.setattr(dying, "has_answered", True)
    clock.advance(100.0)
    # The first was started while nobody knew that it would answer.
    assert pauses(dying, clock, several, 3) == [60.0, 5.0, 5.0]
