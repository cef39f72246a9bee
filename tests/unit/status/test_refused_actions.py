"""Lines of the log for actions that are refused."""

import re

import pytest
from twisted.internet.task import Clock

from queuerelay.seldom import TELL_EVERY
from queuerelay.status.refusals import RefusedActions


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def refused(clock):
    return RefusedActions(clock)


def add(refused, number, client="192.0.2.1", status=403):
    for _ in range(number):
        refused.add(client, "queues/q/pause", status, f"{status} why")


def counted(lines):
    """All refusals that the lines tell of."""
    return sum(int(re.match(r"(\d+) more", line)[1]) if " more " in line else 1 for line in lines)


def test_thousands_are_two_lines(refused, clock, log_lines):
    add(refused, 2000)
    assert log_lines() == ["action by nobody from 192.0.2.1: queues/q/pause: 403 why"]
    clock.advance(TELL_EVERY)
    assert log_lines()[1:] == [
        "1999 more actions by nobody, the last from 192.0.2.1: queues/q/pause: 403 why"
    ]
    assert not clock.getDelayedCalls()


def test_another_sender_and_another_status_have_a_line(refused, log_lines):
    add(refused, 2)
    add(refused, 2, client="192.0.2.2")
    add(refused, 2, status=429)
    assert len(log_lines()) == 3
    refused.stop()


def test_many_senders_are_bounded_and_counted(refused, clock, log_lines):
    for number in range(1000):
        add(refused, 1, client=f"192.0.2.{number}")
    assert len(log_lines()) < 20
    refused.stop()
    assert len(log_lines()) < 21
    assert counted(log_lines()) == 1000
    assert not clock.getDelayedCalls()


def test_over_a_long_time_none_is_left_out(refused, clock, log_lines):
    for _ in range(200):
        add(refused, 10)
        clock.advance(1.0)
    refused.stop()
    assert counted(log_lines()) == 2000
    assert len(log_lines()) <= 2 * (200 / TELL_EVERY + 1)
