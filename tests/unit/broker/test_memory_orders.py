"""Orders of the broker in memory: the contract, and their term."""

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from queuerelay.broker.base import ORDER_LIFE
from queuerelay.broker.memory.orders import OrderStore
from tests.unit.broker.contract_orders import OrdersContract
from tests.unit.broker.test_memory import MemoryBench


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
    store = OrderStore(clock.seconds)
    store.append("k", b"one")
    clock.advance(ORDER_LIFE - 1)
    assert store.items("k") == [b"one"]
    clock.advance(1)
    assert store.take("k") == []
