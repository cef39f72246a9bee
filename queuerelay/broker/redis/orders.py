"""Orders to nodes and their reports, on Redis: short lists that vanish by themselves."""

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from queuerelay.broker.records import MOST_ORDERS, ORDER_LIFE
from queuerelay.broker.redis.connection import RedisConnection
from queuerelay.broker.redis.protocol import Answer, checked
from queuerelay.wire.keys import Keys


class RedisOrders:
    """See `queuerelay.broker.base.OrdersPart`."""

    def __init__(self, commands: RedisConnection, keys: Keys) -> None:
        self._commands = commands
        self._keys = keys

    def give(self, node_id: str, order: bytes) -> Deferred[None]:
        """Leave `order` for a node."""
        return self._append(self._keys.orders(node_id), order)

    def take(self, node_id: str) -> Deferred[list[bytes]]:
        """Take what was ordered of this node."""
        taken: Deferred[list[bytes] | None] = self._commands.call(
            "LPOP", self._keys.orders(node_id), MOST_ORDERS
        )
        return taken.addCallback(lambda orders: orders or [])

    def report(self, order_id: str, report: bytes) -> Deferred[None]:
        """Say what became of an order."""
        return self._append(self._keys.reports(order_id), report)

    def reports(self, order_id: str) -> Deferred[list[bytes]]:
        """What nodes have said of an order."""
        return self._commands.call("LRANGE", self._keys.reports(order_id), 0, -1)

    def _append(self, key: str, item: bytes) -> Deferred[None]:
        done = self._commands.pipeline(
            ("RPUSH", key, item), ("LTRIM", key, -MOST_ORDERS, -1), ("EXPIRE", key, ORDER_LIFE)
        )
        return done.addCallback(_all_checked)


def _all_checked(answers: Sequence[Answer]) -> None:
    for answer in answers:
        checked(answer)
