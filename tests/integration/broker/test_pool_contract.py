"""What pools need of the broker on Redis: the contract that the one in memory keeps."""

import json

import pytest
import pytest_twisted

from tests.integration.broker.bench import RedisBench
from tests.unit.broker import contract_pool
from tests.unit.broker.contract import KEYS
from tests.unit.broker.contract_pool import PoolBench, PoolContract

only_rings = contract_pool.only_rings


class Bench(RedisBench, PoolBench):
    def workers(self):
        return {name.decode() for name in self.client.smembers(KEYS.workers)}

    def working(self, worker_id):
        found = self.client.get(KEYS.worker(worker_id))
        return None if found is None else json.loads(found)

    def stat(self, name, worker_id=None):
        return int(self.client.get(KEYS.stat(name, worker_id)) or 0)

    def pause_all(self, value):
        if value is None:
            self.client.delete(KEYS.pause_all)
        else:
            self.client.set(KEYS.pause_all, value)


class TestPoolContract(PoolContract):
    @pytest.fixture
    def bench(self, fresh_valkey):
        bench = Bench(fresh_valkey)
        yield bench
        bench.free()
        for broker in bench.brokers:
            pytest_twisted.blockon(broker.stop())
