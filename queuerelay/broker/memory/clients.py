"""What relays tell workers of clients, in memory."""

from collections.abc import Mapping, Sequence

from twisted.internet.defer import Deferred

from queuerelay.broker.memory.connection import MemoryConnection
from queuerelay.broker.memory.store import MemoryStore


class MemoryClients:
    """See `queuerelay.broker.base.ClientsPart`."""

    def __init__(self, connection: MemoryConnection, store: MemoryStore) -> None:
        self._connection = connection
        self._store = store

    def mark_gone(self, ids: Sequence[str], *, life: float) -> Deferred[None]:
        """Remember that nobody waits for the requests `ids` any more."""
        return self._connection.ask(lambda: self._store.mark_gone(ids, life), adds=True)

    def which_gone(self, ids: Sequence[str]) -> Deferred[set[str]]:
        """Those of the requests `ids` whose clients have left."""
        return self._connection.ask(lambda: self._store.which_gone(ids))

    def tell_taken(self, taken: Mapping[str, int], *, life: float) -> Deferred[None]:
        """Remember how many bytes of streamed replies their clients took."""

        def effect() -> None:
            until = self._store.seconds() + life
            self._store.taken.update({id: (count, until) for id, count in taken.items()})

        return self._connection.ask(effect, adds=True)
