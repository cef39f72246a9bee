"""Orders to nodes and their reports, on Redis: short lists that vanish by themselves."""

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred

from queuerelay.broker.base import MOST_ORDERS, ORDER_LIFE
from queuerelay.broker.redis.connection import RedisConnection
from queuerelay.errors import BrokerError
from queuerelay.wire.keys import Keys


class Orders:
    """See `Broker.order` and what follows it."""

    def __init__(self, commands: RedisConnection, keys: Keys) -> None:
        self._commands = commands
        self._keys = keys

    def order(self, node_id: str, order: bytes) -> Deferred[None]:
        """See `Broker.order`."""
        return self._append(self._keys.orders(node_id), order)

    def take(self, node_id: str) -> Deferred[list[bytes]]:
        """See `Broker.take_orders`."""
        taken: Deferred[list[bytes] | None] = self._commands.call(
            "LPOP", self._keys.orders(node_id), MOST_ORDERS
        )
        return taken.addCallback(lambda orders: orders or [])

    def report(self, order_id: str, report: bytes) -> Deferred[None]:
        """See `Broker.report`."""
        return self._append(self._keys.reports(order_id), report)

    def reports(self, order_id: str) -> Deferred[list[bytes]]:
        """See `Broker.reports`."""
        return self._commands.call("LRANGE", self._keys.reports(order_id), 0, -1)

    def _append(self, key: str, item: bytes) -> Deferred[None]:
        done = self._commands.pipeline(
            ("RPUSH", key, item), ("LTRIM", key, -MOST_ORDERS, -1), ("EXPIRE", key, ORDER_LIFE)
        )
        return done.addCallback(_checked)


def _checked(answers: Sequence[Any]) -> None:
    for answer in answers:
        if isinstance(answer, BrokerError):
            raise answer
