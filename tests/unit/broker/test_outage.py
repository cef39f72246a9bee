"""Back-off, and what is told of an outage."""

import pytest
from twisted.internet.task import Clock

from queuerelay.broker.redis import connection
from queuerelay.broker.redis.connection import pause
from queuerelay.broker.redis.outage import OutageLog
from queuerelay.seldom import TELL_EVERY, Seldom


@pytest.mark.parametrize(("chance", "part"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_the_pause_doubles_up_to_a_bound_with_half_of_it_jitter(monkeypatch, chance, part):
    monkeypatch.setattr(connection.random, "random", lambda: chance)
    pauses = [pause(attempt) / part for attempt in range(1, 9)]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
    assert pause(10**9) == pytest.approx(5.0 * part)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(clock):
    return OutageLog("redis://h:6379/0", clock)


def down(reason):
    return ("warn", f"no connection to Redis at redis://h:6379/0: {reason}; trying again")


def test_an_outage_is_told_at_once_then_now_and_then_and_when_over(log, clock, said):
    log.down("commands", "refused")
    log.down("inbox", "refused")
    assert said == [down("refused")]
    for _ in range(29):
        clock.advance(1)
        log.down("commands", "refused")
    assert len(said) == 1
    clock.advance(1)
    log.down("commands", "refused")
    log.down("inbox", "refused")
    assert said[1:] == [down("refused")]
    log.up("inbox", "Redis 7.4.0")
    assert len(said) == 2
    clock.advance(5.5)
    log.up("commands", "Redis 7.4.0")
    assert said[2:] == [("info", "connected to Redis 7.4.0 at redis://h:6379/0 again after 35.5 s")]


def test_the_first_connection_says_nothing(log, said):
    log.up("commands", "Redis 7.4.0")
    assert said == []


def test_another_reason_is_told_at_once(log, said):
    log.down("commands", "refused")
    log.down("commands", "wrong password")
    assert said == [down("refused"), down("wrong password")]


def test_ever_new_reasons_do_not_fill_the_log(log, clock, said):
    for number in range(1000):
        log.down("commands", f"reason {number}")
    assert len(said) == 16
    clock.advance(TELL_EVERY)
    log.down("commands", "another")
    assert len(said) == 17


def test_a_connection_that_comes_and_goes_does_not_fill_the_log(log, clock, said):
    for _ in range(100):
        log.down("commands", "lost")
        clock.advance(0.01)
        log.up("commands", "Redis 7.4.0")
        clock.advance(0.09)
    assert len(said) == 2


def test_a_later_outage_is_told_at_once(log, clock, said):
    log.down("commands", "lost")
    log.up("commands", "Redis 7.4.0")
    clock.advance(TELL_EVERY)
    log.down("commands", "lost")
    assert len(said) == 3


def test_seldom_forgets(clock):
    seldom = Seldom(clock)
    assert seldom.due("a")
    assert not seldom.due("a")
    assert seldom.due("b")
    clock.advance(TELL_EVERY)
    assert seldom.due("a")
