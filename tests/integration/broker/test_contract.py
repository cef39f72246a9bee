"""The broker on Redis keeps the contract that the one in memory keeps."""

import pytest
import pytest_twisted

from tests.integration.broker.bench import RedisBench
from tests.unit.broker.contract import BrokerContract


class TestContract(BrokerContract):
    @pytest.fixture
    def bench(self, fresh_valkey):
        bench = RedisBench(fresh_valkey)
        yield bench
        bench.free()
        for broker in bench.brokers:
            pytest_twisted.blockon(broker.stop())
