"""Looks after messages in flight and delayed on all queues, those that nobody is configured for any
more among them: a queue that was renamed, a pool that is gone.

What they hold comes back to its queue, where people see that nobody works on it.
"""

from collections.abc import Collection
from typing import Final

from queuerelay.broker.base import Broker
from queuerelay.broker.reaper import Reaper
from queuerelay.wire.failure import KEPT, Kept

#: Seconds between two looks.
UNSETTLED_INTERVAL: Final = 5.0
#: Seconds for which an expired lease is left to those who are configured for its queue: they may
#: allow more tries than we would.
OVERDUE: Final = 30.0


class UnsettledQueues:
    """For a process whose own reapers see to the queues `own`; any number of them may run.

    `look` is to be called each `UNSETTLED_INTERVAL` seconds.
    """

    def __init__(self, broker: Broker, own: Collection[str], *, kept: Kept = KEPT) -> None:
        self._broker = broker
        self._own = own
        self._reaper = Reaper(broker, (), overdue=OVERDUE, kept=kept)

    async def look(self) -> None:
        """Look once at every queue that has messages in flight or delayed."""
        queues = await self._broker.nodes.unsettled()
        try:
            if queues:
                await self._broker.delayed.promote(queues)
        finally:
            # Also where there are none: it counts the looks since the last connection.
            await self._reaper.reap([queue for queue in queues if queue not in self._own])
