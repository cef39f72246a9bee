"""The bench for brokers on a real server."""

from typing import Any

from queuerelay.broker.redis.broker import RedisBroker
from queuerelay.wire import url
from tests.helpers.redis import ValkeyServer
from tests.unit.broker.contract import KEYS, Bench


class RedisBench(Bench):
    """Brokers on one server, and a blocking client for the back door."""

    def __init__(self, server: ValkeyServer, address: str | None = None) -> None:
        self.server = server
        self.address = address or server.url
        self.brokers = []

    @property
    def client(self) -> Any:
        return self.server.client()

    def new(self) -> RedisBroker:
        from twisted.internet import reactor

        broker = RedisBroker(url.parse(self.address), reactor=reactor)
        self.brokers.append(broker)
        return broker

    def items(self, key: str) -> list[bytes]:
        return self.client.lrange(key, 0, -1)

    def put(self, key: str, *items: bytes) -> None:
        self.client.rpush(key, *items)

    def taken(self, id: str) -> int | None:
        found = self.client.get(f"queuerelay:taken:{id}")
        return None if found is None else int(found)

    def term(self, key: str) -> float | None:
        term = self.client.ttl(key)
        return None if term < 0 else term

    def age(self, node_id: str, seconds: float) -> None:
        self.client.zincrby(KEYS.nodes, -seconds * 1000, node_id)
        left = self.client.pttl(KEYS.node(node_id)) - int(seconds * 1000)
        if left > 0:
            self.client.pexpire(KEYS.node(node_id), left)
        else:
            self.client.delete(KEYS.node(node_id))

    def queues(self) -> set[str]:
        return {name.decode() for name in self.client.smembers(KEYS.queues)}

    def inflight(self, queue: str) -> list[bytes]:
        return self.client.hvals(KEYS.inflight(queue))

    def lose(self) -> None:
        self.client.client_kill_filter(_type="normal", skipme=True)

    def fill(self) -> None:
        self.client.config_set("maxmemory", 1)

    def free(self) -> None:
        self.client.config_set("maxmemory", 0)
