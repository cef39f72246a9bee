"""Who takes how much of what is limited: so that one client cannot keep it from all others.

Pure. A client is an IP address, of IPv6 its /64: a host has all of that. Nobody is refused for his
share while there is room.

Invariants:

1. Each step costs the same however many clients and items there are, and what was removed leaves
   nothing behind.
2. Only who has more than his share is asked to give, and only to one who has no more than he even
   then: so two who have as much do not take it from each other again and again.
"""

from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from itertools import islice
from typing import Final, Generic, TypeVar

_PREFIX: Final = 64
#: Items that are looked at for one that is fit to go.
_LOOKS: Final = 32

_T = TypeVar("_T")


def client_of(address: str) -> str:
    """The client that has this address: itself, of IPv6 its network; "" for a Unix socket."""
    return address if ":" not in address else _network(address)


@lru_cache(maxsize=4096)
def _network(address: str) -> str:
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(IPv6Address(int(found) >> _PREFIX << _PREFIX))


class _Client(Generic[_T]):
    __slots__ = ("items", "total")

    def __init__(self) -> None:
        #: The weight of each, oldest first, and of all.
        self.items: dict[_T, int] = {}
        self.total = 0


class Shares(Generic[_T]):
    """What each client has; `most` is the weight that one may have where there is no room."""

    def __init__(self, most: float) -> None:
        self.most = most
        self._clients: dict[str, _Client[_T]] = {}
        #: Those who have more than that; they are few, as their weights are.
        self._heavy: set[str] = set()

    def __len__(self) -> int:
        return len(self._clients)

    def add(self, client: str, item: _T, weight: int) -> None:
        """`client` has one more."""
        found = self._clients.get(client)
        if found is None:
            found = self._clients[client] = _Client()
        found.items[item] = weight
        found.total += weight
        if found.total > self.most:
            self._heavy.add(client)

    def remove(self, client: str, item: _T) -> None:
        """`client` has it no more, or had it no more before."""
        found = self._clients.get(client)
        if found is None:
            return
        found.total -= found.items.pop(item, 0)
        if found.total <= self.most:
            self._heavy.discard(client)
        if not found.items:
            del self._clients[client]

    def newest_of_heaviest(
        self, client: str, weight: int, fit: Callable[[_T], bool] = lambda _: True
    ) -> _T | None:
        """What may have to go where there is no room for `weight` more of `client`: the newest of
        who has most of all, and more than `client` would have, that is `fit` to go.
        """
        if not self._heavy:
            return None
        heaviest = max(self._heavy, key=lambda name: self._clients[name].total)
        found, own = self._clients[heaviest], self._clients.get(client)
        if heaviest == client:
            return None
        newest = next(filter(fit, islice(reversed(found.items), _LOOKS)), None)
        if newest is None:
            return None
        left = found.total - found.items[newest]
        return newest if left >= (own.total if own else 0) + weight else None

    def too_much(self, client: str) -> bool:
        """Whether `client` has more than its share, and others have something too."""
        return client in self._heavy and len(self._clients) > 1
