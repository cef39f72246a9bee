"""What each relay and each process with pools does for all: queues of nobody, dead letters."""

from collections.abc import Collection

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from queuerelay.broker.base import Broker
from queuerelay.broker.bounds import BOUNDS_INTERVAL, DeadLetterBounds
from queuerelay.broker.unsettled import UNSETTLED_INTERVAL, UnsettledQueues
from queuerelay.loop import Loop
from queuerelay.wire.failure import Kept


def housekeeping(
    broker: Broker, own: Collection[str], kept: Kept, *, clock: IReactorTime
) -> list[Loop]:
    """The loops of it, for a process that is configured for the queues `own`."""
    unsettled = UnsettledQueues(broker, own, kept=kept)

    def look() -> Deferred[None]:
        return Deferred.fromCoroutine(unsettled.look())

    return [
        Loop("unsettled", UNSETTLED_INTERVAL, look, clock=clock),
        Loop("dead letters", BOUNDS_INTERVAL, DeadLetterBounds(broker, kept).keep, clock=clock),
    ]
