"""The bytes that one relay may hold, shared between requests and answers.

Invariants:

1. Answers that wait for slow clients never take more than half from requests: else a few clients
   that read slowly would shut everybody else out.
2. An answer that is the only one to wait always has room.
3. All that clients make a relay keep counts: unfinished heads, bodies that are coming in, what was
   sent behind a request that waits, messages, and answers that were not taken yet.
"""

from typing import Protocol

from queuerelay.http.sender import Senders
from queuerelay.relay.held import HeldTable


class Reading(Protocol):
    """The connections of a front: a `queuerelay.http.connections.Connections`."""

    #: Bytes that were read and are no part of a request that is held.
    kept: int


class ByteBudget:
    """`limit` bytes for what `table` holds, for bodies that are coming in, and for what `senders`
    have not sent yet.
    """

    def __init__(self, table: HeldTable, senders: Senders, *, limit: int) -> None:
        self._table = table
        self._senders = senders
        self._limit = limit
        #: Bytes of bodies that are coming in; the front's.
        self.receiving = 0
        #: The connections of the daemon's own front; None where there is none.
        self.reading: Reading | None = None

    @property
    def room(self) -> int:
        """Bytes that more requests may weigh."""
        # Asked for with each request.
        waiting, reading = self._senders.waiting, self.reading
        left = self._limit - self._table.bytes - self.receiving
        if waiting:
            left -= min(waiting, self._limit // 2)
        return left if reading is None else left - reading.kept

    @property
    def is_half_free(self) -> bool:
        """Whether half of it or more is left."""
        return self.room * 2 >= self._limit

    def fits(self, size: int) -> bool:
        """Whether there is room for an answer of `size` bytes that may have to wait for its
        client.
        """
        waiting = self._senders.waiting
        return not waiting or size <= min(self.room, self._limit // 2 - waiting)

    @property
    def crowded(self) -> bool:
        """Whether what clients have not taken of their streams is too much."""
        return self.room < 0 or self._senders.waiting > self._limit // 2
