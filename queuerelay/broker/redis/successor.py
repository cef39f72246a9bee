"""Whether a server has taken over from another: a replica that was made the master has all that its
master did, but perhaps the last of it.
"""

from queuerelay.broker.redis.connection import RedisConnection
from queuerelay.wire.server import info_fields


class Successor:
    """Watches one connection for another server at its end."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        #: Places of the servers since it was settled last.
        self._places: set[str] = set()
        #: Replication id of the last server: the history that its data continues.
        self._history = ""
        #: Whether a server has been there since that was a replica of the one before it.
        self._promoted = False

    def look(self) -> None:
        """Look at the server; on each new connection, before anything is asked whose answer is to
        be judged by `settle`.
        """
        self._places.add(self._connection.place)
        # At one address too there may be another server: a proxy or a name leads there now.
        asking = self._connection.call("INFO", "replication")
        asking.addCallbacks(self._seen, lambda _: None)

    def settle(self) -> bool:
        """Whether another server has taken over since the last time."""
        here = {self._connection.place}
        succeeded = self._promoted or not self._places <= here
        self._places, self._promoted = here, False
        return succeeded

    def _seen(self, info: bytes) -> None:
        fields = info_fields(info)
        if self._history and fields.get("master_replid2") == self._history:
            self._promoted = True
        self._history = fields.get("master_replid", "")
