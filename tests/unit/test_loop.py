"""A loop goes on, whatever happens in a turn."""

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from queuerelay.errors import ConnectionDropped, NotConnected, Refused
from queuerelay.loop import Loop


@pytest.fixture
def clock():
    return Clock()


def looping(clock, turn):
    loop = Loop("test", 5.0, turn, clock=clock)
    loop.start()
    return loop


def test_turns(clock):
    turns = []
    loop = looping(clock, lambda: turns.append(clock.seconds()))
    for _ in range(12):
        clock.advance(1)
    assert turns == [0, 5, 10]
    assert loop.still == 2
    stopped = loop.stop()
    assert stopped.called
    assert clock.getDelayedCalls() == []


def test_the_interval_begins_when_a_turn_has_ended(clock):
    gates = []

    def turn():
        gates.append(Deferred())
        return gates[-1]

    loop = looping(clock, turn)
    clock.advance(60)
    assert len(gates) == 1
    assert loop.still == 60
    gates[0].callback(None)
    assert loop.still == 0
    clock.advance(4)
    assert len(gates) == 1
    clock.advance(1)
    assert len(gates) == 2
    loop.stop()


def test_a_coroutine_is_a_turn_as_well(clock):
    turns = []

    async def turn():
        turns.append(1)

    loop = looping(clock, turn)
    clock.advance(5)
    assert turns == [1, 1]
    loop.stop()


@pytest.mark.parametrize("later", [False, True])
def test_it_survives_every_exception(clock, later, logged_failures, said):
    errors = [
        NotConnected("x"),
        ConnectionDropped("x"),
        Refused("NOPERM no"),
        CancelledError(),
        ValueError("bug"),
    ]
    turns = []

    def turn():
        turns.append(clock.seconds())
        if not errors:
            return None
        failed = Deferred()
        error = errors.pop(0)
        if not later:
            raise error
        clock.callLater(1, failed.errback, error)
        return failed

    loop = looping(clock, turn)
    for _ in range(60):
        clock.advance(1)
    assert len(turns) > 6
    assert loop.still < 5
    assert [level for level, _ in said] == ["warn", "critical"]
    assert "NOPERM no" in said[0][1]
    assert len(logged_failures.flush(ValueError)) == 1
    loop.stop()


def test_what_is_refused_each_time_is_told_now_and_then(clock, said):
    def turn():
        raise Refused("NOPERM no")

    loop = looping(clock, turn)
    for _ in range(59):
        clock.advance(1)
    assert len(said) == 2
    assert loop.still == 4
    loop.stop()


def test_stop_cancels_the_turn_and_waits_for_it(clock):
    cancelled, ended = [], Deferred()

    async def turn():
        try:
            await Deferred()
        except CancelledError:
            cancelled.append(1)
            await ended
            raise

    loop = looping(clock, turn)
    stopped = loop.stop()
    assert cancelled == [1]
    assert not stopped.called
    ended.callback(None)
    assert stopped.called
    assert clock.getDelayedCalls() == []


def test_a_turn_that_will_not_be_cancelled_ends_the_loop_all_the_same(clock):
    loop = looping(clock, lambda: Deferred(lambda it: it.callback(None)))
    assert loop.stop().called
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("later", [False, True])
def test_a_turn_may_stop_its_own_loop(clock, later):
    stopped = []

    async def turn():
        if later:
            go = Deferred()
            clock.callLater(1, go.callback, None)
            await go
        stopped.append(loop.stop())
        if not later:
            await Deferred()

    loop = Loop("test", 5.0, turn, clock=clock)
    loop.start()
    clock.advance(1)
    clock.advance(60)
    assert stopped[0].called
    assert clock.getDelayedCalls() == []


def test_stop_without_start_and_twice(clock):
    loop = Loop("test", 5.0, lambda: None, clock=clock)
    assert loop.stop().called
    loop.start()
    assert loop.stop().called
    assert loop.stop().called
    assert clock.getDelayedCalls() == []


def test_it_can_be_started_again(clock):
    turns = []
    loop = looping(clock, lambda: turns.append(1))
    loop.stop()
    loop.start()
    clock.advance(5)
    assert turns == [1, 1, 1]
    loop.stop()
