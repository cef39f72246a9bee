"""For tests of what is built on queuerelay: a broker in memory, with controls.

    clock = Clock()
    broker = MemoryBroker(clock=clock)
    broker.start()
    clock.advance(0)            # connected; every answer comes with the next advance
    broker.queues.push("requests", [b"..."])
    broker.disconnect()         # the push fails: whether it took effect is unknown

Brokers that share a `MemoryStore` are like processes that share a Redis.
"""

from queuerelay.broker.memory.broker import MemoryBroker
from queuerelay.broker.memory.store import MemoryStore

__all__ = ["MemoryBroker", "MemoryStore"]
