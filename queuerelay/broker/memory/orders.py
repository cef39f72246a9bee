"""Orders to nodes and their reports, in memory."""

from twisted.internet.defer import Deferred

from queuerelay.broker.memory.connection import MemoryConnection
from queuerelay.broker.memory.store import MemoryStore
from queuerelay.broker.records import MOST_ORDERS, ORDER_LIFE


class MemoryOrders:
    """See `queuerelay.broker.base.OrdersPart`."""

    def __init__(self, connection: MemoryConnection, store: MemoryStore) -> None:
        self._connection = connection
        self._store = store

    def give(self, node_id: str, order: bytes) -> Deferred[None]:
        """Leave `order` for a node."""
        return self._append(self._store.keys.orders(node_id), order)

    def take(self, node_id: str) -> Deferred[list[bytes]]:
        """Take what was ordered of this node."""
        key = self._store.keys.orders(node_id)

        def effect() -> list[bytes]:
            items = self._items(key)
            self._store.orders.pop(key, None)
            return items

        return self._connection.ask(effect)

    def report(self, order_id: str, report: bytes) -> Deferred[None]:
        """Say what became of an order."""
        return self._append(self._store.keys.reports(order_id), report)

    def reports(self, order_id: str) -> Deferred[list[bytes]]:
        """What nodes have said of an order."""
        return self._connection.ask(lambda: self._items(self._store.keys.reports(order_id)))

    def _append(self, key: str, item: bytes) -> Deferred[None]:
        def effect() -> None:
            items = [*self._items(key), item][-MOST_ORDERS:]
            self._store.orders[key] = self._store.seconds() + ORDER_LIFE, items

        return self._connection.ask(effect)

    def _items(self, key: str) -> list[bytes]:
        until, items = self._store.orders.get(key, (0.0, []))
        return [*items] if self._store.seconds() < until else []
