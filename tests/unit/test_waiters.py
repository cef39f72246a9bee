"""Those who wait for one event: told once, cancelled, told while others are told."""

import pytest
from twisted.internet.defer import CancelledError, Deferred

from queuerelay.waiters import Waiters


@pytest.fixture
def waiters() -> Waiters[int]:
    return Waiters()


def results(*waits: Deferred[int]) -> list[int]:
    found: list[int] = []
    for wait in waits:
        wait.addCallback(found.append)
    return found


def test_all_who_wait_are_told_once(waiters):
    found = results(waiters.wait(), waiters.wait())
    assert len(waiters) == 2
    waiters.fire(7)
    waiters.fire(8)
    assert found == [7, 7]
    assert len(waiters) == 0


def test_a_failure_is_for_all(waiters):
    waits = [waiters.wait(), waiters.wait()]
    waiters.fail(ValueError("gone"))
    caught = []
    for wait in waits:
        wait.addErrback(lambda failure: caught.append(failure.check(ValueError)))
    assert caught == [ValueError, ValueError]


def test_a_cancelled_wait_is_over(waiters):
    wait = waiters.wait()
    wait.cancel()
    caught = []
    wait.addErrback(lambda failure: caught.append(failure.check(CancelledError)))
    assert caught == [CancelledError]
    assert len(waiters) == 0
    waiters.fire(1)


def test_who_waits_again_waits_for_the_next_event(waiters):
    found = []

    def again(value):
        found.append(value)
        waiters.wait().addCallback(found.append)

    waiters.wait().addCallback(again)
    waiters.fire(1)
    assert found == [1]
    waiters.fire(2)
    assert found == [1, 2]


def test_the_first_who_is_told_may_cancel_the_second(waiters):
    first, second = waiters.wait(), waiters.wait()
    first.addCallback(lambda _: second.cancel())
    second.addErrback(lambda failure: failure.trap(CancelledError))
    waiters.fire(1)
    assert len(waiters) == 0
