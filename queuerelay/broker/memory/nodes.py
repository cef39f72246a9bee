"""The list of nodes, and a look at everybody, in memory."""

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from queuerelay.broker.memory.connection import MemoryConnection
from queuerelay.broker.memory.inbox import MemoryInbox
from queuerelay.broker.memory.store import ListedNode, MemoryStore
from queuerelay.broker.records import NODE_SILENCE, SNAPSHOT_LIFE, NodeBeat, Survey, WrongType


class MemoryNodes:
    """See `queuerelay.broker.base.NodesPart`; `inbox` knows whether there is a legacy list."""

    def __init__(
        self, connection: MemoryConnection, store: MemoryStore, inbox: MemoryInbox
    ) -> None:
        self._connection = connection
        self._store = store
        self._inbox = inbox

    def beat(self, node_id: str, snapshot: bytes, *, inbox_life: float) -> Deferred[None]:
        """Say that the node lives, publish its snapshot, and bury nodes that are silent."""

        def effect() -> None:
            store, nodes = self._store, self._store.nodes
            now = store.seconds()
            nodes[node_id] = ListedNode(now, snapshot)
            store.lists.expire(store.keys.inbox(node_id), inbox_life)
            for name in [*nodes]:
                if nodes[name].beat <= now - NODE_SILENCE:
                    del nodes[name]
            prefix, taken = store.keys.inbox(""), store.keys.legacy_inbox("")
            for key in [*store.lists.content]:
                if key.startswith(prefix) and key.removeprefix(prefix) not in nodes:
                    store.lists.expire(key, inbox_life, unless_set=True)
                elif key.startswith(taken) and key.removeprefix(taken) not in nodes:
                    self._give_back(key)

        return self._connection.ask(effect)

    def leave(self, node_id: str) -> Deferred[None]:
        """Take the node off the list, and delete its inbox."""

        def effect() -> None:
            store = self._store
            store.nodes.pop(node_id, None)
            store.lists.delete(store.keys.inbox(node_id))
            self._give_back(store.keys.legacy_inbox(node_id))

        return self._connection.ask(effect)

    def survey(self) -> Deferred[Survey]:
        """What Redis knows of everybody."""
        return self._connection.ask(self._survey)

    def unsettled(self) -> Deferred[list[str]]:
        """The queues that have messages in flight or delayed."""

        def effect() -> list[str]:
            store = self._store
            held = {queue for queue, leases in store.leases.items() if leases}
            return sorted(held | {queue for queue, waiting in store.delayed.items() if waiting})

        return self._connection.ask(effect)

    def wrong_types(
        self, queues: Sequence[str], relays: Sequence[str] = ()
    ) -> Deferred[list[WrongType]]:
        """What a test has put there."""
        return self._connection.ask(lambda: list(self._store.wrong_types))

    def _survey(self) -> Survey:
        store, now = self._store, self._store.seconds()
        prefix = store.keys.queue("")
        queues = [key.removeprefix(prefix) for key in store.lists.content if key.startswith(prefix)]
        return Survey(
            version="memory",
            nodes={
                name: NodeBeat(
                    age=now - node.beat,
                    snapshot=node.snapshot if node.beat > now - SNAPSHOT_LIFE else None,
                )
                for name, node in store.nodes.items()
            },
            queues=sorted(queues),
            workers=sorted(store.workers),
            workers_total=len(store.workers),
            working=len(store.working),
            processed=store.stats.get(("processed", None), 0),
            failed=store.stats.get(("failed", None), 0),
            dead_letters=len(store.dead_letters),
            dropped=store.dropped,
            paused=store.all_paused,
        )

    def _give_back(self, key: str) -> None:
        """Old replies that a relay took and did not sort, where there is a list for them."""
        legacy = self._inbox.legacy
        if legacy is not None:
            items = self._store.items(key)
            self._store.lists.delete(key)
            self._store.put_at_head(legacy, reversed(items))
