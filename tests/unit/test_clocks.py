"""Which clock a reactor stands on."""

import asyncio
import time

import pytest
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.pollreactor import PollReactor
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock

from queuerelay.clocks import on_wall_clock, use_monotonic
from queuerelay.config import load
from queuerelay.service import RelayService
from queuerelay.testing import MemoryBroker

REACTORS = [SelectReactor, PollReactor, AsyncioSelectorReactor]


@pytest.fixture(params=REACTORS, ids=[one.__name__ for one in REACTORS])
def reactor(request):
    made = request.param(
        *([asyncio.SelectorEventLoop()] if "Asyncio" in str(request.param) else [])
    )
    yield made
    # The wakers are no readers before the reactor runs, but their sockets are open.
    for reader in [*made._internalReaders, made.waker]:
        reader.connectionLost(None)
    if isinstance(made, AsyncioSelectorReactor):
        made._asyncioEventloop.close()


def test_a_reactor_of_twisted_stands_on_the_wall_clock_until_told(reactor):
    assert on_wall_clock(reactor)
    use_monotonic(reactor)
    assert not on_wall_clock(reactor)
    assert abs(reactor.seconds() - time.monotonic()) < 1.0
    assert reactor.callLater(5.0, print).getTime() - time.monotonic() < 6.0
    for call in reactor.getDelayedCalls():
        call.cancel()


def test_what_is_to_be_called_already_moves_along_in_its_order(reactor):
    calls = [reactor.callLater(seconds, print) for seconds in (9.0, 3.0, 6.0)]
    use_monotonic(reactor)
    left = [call.getTime() - time.monotonic() for call in calls]
    assert left == [pytest.approx(seconds, abs=1.0) for seconds in (9.0, 3.0, 6.0)]
    calls[0].reset(1.0)
    assert calls[0].getTime() - time.monotonic() <= 1.0
    assert 0.0 < reactor.timeout() <= 1.0
    for call in calls:
        call.cancel()


def test_a_second_call_changes_nothing(reactor):
    use_monotonic(reactor)
    call = reactor.callLater(5.0, print)
    due = call.getTime()
    use_monotonic(reactor)
    assert call.getTime() == due
    call.cancel()


def test_the_clock_of_a_test_stays_as_it_is():
    clock = Clock()
    assert not on_wall_clock(clock)
    use_monotonic(clock)
    assert clock.seconds() == 0.0


def test_a_service_in_an_application_says_where_its_reactor_stands_on_the_wall_clock(log_lines):
    clock = Clock()
    clock.advance(time.time())
    service = RelayService(load(None, {}), reactor=clock, broker=MemoryBroker(clock=clock))
    service.startService()
    assert any("use_monotonic" in line for line in log_lines())
    service.stopService()
    clock.pump([0.1] * 50)
