"""The bench of the broker in memory."""

from queuerelay.testing import MemoryBroker, MemoryStore
from tests.unit.broker.contract import Bench


class MemoryBench(Bench):
    def __init__(self, clock):
        self.clock = clock
        self.store = MemoryStore(clock=clock)
        self.brokers = []

    def new(self):
        broker = MemoryBroker(clock=self.clock, store=self.store)
        self.brokers.append(broker)
        return broker

    def items(self, key):
        return self.store.items(key)

    def put(self, key, *items):
        self.store.append(key, items)

    def taken(self, id):
        count, until = self.store.taken.get(id, (None, 0.0))
        return count if until > self.clock.seconds() else None

    def term(self, key):
        term = self.store.lists.terms.get(key)
        return None if term is None else term - self.clock.seconds()

    def age(self, node_id, seconds):
        self.store.nodes[node_id].beat -= seconds

    def queues(self):
        return self.store.queues

    def inflight(self, queue):
        return [claim.message for claim in self.store.inflight(queue)]

    def lose(self):
        for broker in self.brokers:
            broker.disconnect()
            broker.reconnect()

    def fill(self):
        for broker in self.brokers:
            broker.refuse("OOM command not allowed when used memory > 'maxmemory'.")

    def free(self):
        for broker in self.brokers:
            broker.refuse(None)


def result(deferred):
    """The value that `deferred` has; fails where it has none."""
    got = []
    deferred.addBoth(got.append)
    assert got, "no result yet"
    return got[0]
