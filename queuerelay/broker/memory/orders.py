"""Orders to nodes and their reports, in memory."""

from collections.abc import Callable
from dataclasses import dataclass, field

from queuerelay.broker.base import MOST_ORDERS, ORDER_LIFE


@dataclass(slots=True)
class OrderStore:
    """This part of what one Redis holds."""

    #: Seconds.
    now: Callable[[], float]
    #: By key: when it vanishes, and what is on it.
    lists: dict[str, tuple[float, list[bytes]]] = field(default_factory=dict)

    def append(self, key: str, item: bytes) -> None:
        """`Broker.order` and `Broker.report`."""
        self.lists[key] = self.now() + ORDER_LIFE, [*self.items(key), item][-MOST_ORDERS:]

    def items(self, key: str) -> list[bytes]:
        """`Broker.reports`."""
        until, items = self.lists.get(key, (0.0, []))
        return list(items) if self.now() < until else []

    def take(self, key: str) -> list[bytes]:
        """`Broker.take_orders`."""
        items = self.items(key)
        self.lists.pop(key, None)
        return items
