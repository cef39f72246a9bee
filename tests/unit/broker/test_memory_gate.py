"""Paused queues of the broker in memory: the contract."""

import pytest
import pytest_twisted

from tests.unit.broker import contract_pool
from tests.unit.broker.contract_gate import GateContract
from tests.unit.broker.memory_bench import MemoryBench

only_rings = contract_pool.only_rings


class Bench(MemoryBench):
    def now(self):
        return self.store.now()


class TestGateContract(GateContract):
    @pytest.fixture
    def bench(self):
        from twisted.internet import reactor

        bench = Bench(reactor)
        yield bench
        for broker in bench.brokers:
            pytest_twisted.blockon(broker.stop())
