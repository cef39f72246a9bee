"""Orders of the broker in memory: the contract, and their term."""

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from queuerelay.broker.memory.broker import MemoryBroker
from queuerelay.broker.records import ORDER_LIFE
from tests.unit.broker.contract_orders import OrdersContract
from tests.unit.broker.memory_bench import MemoryBench


class TestOrdersContract(OrdersContract):
    @pytest.fixture
    def bench(self):
        from twisted.internet import reactor

        bench = MemoryBench(reactor)
        yield bench
        for broker in bench.brokers:
            pytest_twisted.blockon(broker.stop())


def test_they_vanish():
    clock = Clock()
    broker = MemoryBroker(clock=clock)
    broker.start()
    clock.advance(0)
    broker.orders.report("1", b"one")
    clock.advance(ORDER_LIFE - 1)
    found = [broker.orders.reports("1")]
    clock.advance(1)
    found.append(broker.orders.reports("1"))
    clock.advance(0)
    assert [one.result for one in found] == [[b"one"], []]
