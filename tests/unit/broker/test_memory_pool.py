"""What pools need of the broker in memory: the contract, and its own controls."""

import json

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from queuerelay.broker.reaper import Reaper
from queuerelay.broker.records import BELL_WAIT
from queuerelay.testing import MemoryBroker
from queuerelay.wire.message import decode_message
from tests.unit.broker import contract_pool
from tests.unit.broker.contract import ONE, claim_one
from tests.unit.broker.contract_pool import PoolBench, PoolContract
from tests.unit.broker.memory_bench import MemoryBench, result

only_rings = contract_pool.only_rings


class Bench(MemoryBench, PoolBench):
    def workers(self):
        return {*self.store.workers}

    def working(self, worker_id):
        found = self.store.working.get(worker_id)
        return None if found is None else json.loads(found)

    def stat(self, name, worker_id=None):
        return self.store.stats.get((name, worker_id), 0)

    def pause_all(self, value):
        self.store.all_paused = value == "true"


class TestPoolContract(PoolContract):
    @pytest.fixture
    def bench(self):
        from twisted.internet import reactor

        bench = Bench(reactor)
        yield bench
        for broker in bench.brokers:
            pytest_twisted.blockon(broker.stop())


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def broker(clock):
    broker = MemoryBroker(clock=clock, wall_clock=lambda: 1790000000.5)
    broker.start()
    clock.advance(0)
    return broker


def test_delays_are_by_the_clock(broker, clock):
    broker.queues.push("q", [ONE])
    claim = claim_one(broker, ["q"], holder="h", lease=10.0)
    clock.advance(0)
    broker.delayed.delay(result(claim), b"again", seconds=7.0)
    clock.advance(6.9)
    promoted = broker.delayed.promote(["q"])
    clock.advance(0.05)
    assert result(promoted) == 0
    clock.advance(0.1)
    promoted = broker.delayed.promote(["q"])
    clock.advance(0)
    assert result(promoted) == 1
    assert broker.messages("q") == [b"again"]


def test_a_bell_by_the_clock(broker, clock):
    bell = broker.bell(["q"])
    waiting = bell.wait()
    clock.advance(BELL_WAIT - 0.1)
    assert not waiting.called
    clock.advance(0.1)
    assert waiting.called
    waiting = bell.wait()
    broker.queues.push("q", [ONE])
    assert not waiting.called
    clock.advance(0)
    assert waiting.called
    broker.stop()
    assert clock.getDelayedCalls() == []


def test_a_bell_hears_nothing_without_a_connection(broker, clock):
    bell = broker.bell(["q"])
    broker.disconnect()
    waiting = bell.wait()
    broker.store.push("q", [ONE])
    clock.advance(0.1)
    assert not waiting.called
    broker.reconnect()
    clock.advance(0)
    assert waiting.called


def test_a_bell_hears_nothing_where_everything_is_refused(broker, clock):
    broker.refuse("NOPERM no")
    waiting = broker.bell(["q"]).wait()
    broker.store.push("q", [ONE])
    clock.advance(0.1)
    assert not waiting.called
    clock.advance(BELL_WAIT)
    assert waiting.called


def test_when_a_worker_began(broker, clock):
    broker.registry.register("queuerelay.h:1:q", ["q"])
    broker.registry.working_on("queuerelay.h:1:q", "q", ONE)
    clock.advance(0)
    assert broker.store.workers == {"queuerelay.h:1:q": 1790000000.5}
    working = json.loads(broker.store.working["queuerelay.h:1:q"])
    assert working["run_at"] == "2026-09-21T14:13:20Z"


@pytest.mark.parametrize("tries", [1, 2, 4])
def test_a_reaper_tries_as_often_as_it_is_told(broker, clock, tries):
    from twisted.internet.defer import Deferred

    reaper = Reaper(broker, ["q"], tries=tries)
    broker.queues.push("q", [ONE])
    for attempt in range(1, tries + 1):
        claim = claim_one(broker, ["q"], holder="h:1", lease=1.0)
        clock.advance(1.5)
        assert len(decode_message(result(claim).message).attempts) == attempt - 1
        reaped = Deferred.fromCoroutine(reaper.reap())
        clock.advance(0)
        assert result(reaped) == 1
    assert broker.messages("q") == []
    (entry,) = broker.store.dead_letters
    assert len(json.loads(entry)["queuerelay"]["attempts"]) == tries
