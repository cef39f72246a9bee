"""What a relay knows of paused queues.

Invariants:

1. On a new connection nothing goes out before the gate has been read on it: the other side may be
   another Redis, and somebody may have paused a queue while we were away.
2. What was read last stays in force until something else is read, however long Redis is away.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from queuerelay.broker.base import Broker
from queuerelay.broker.records import Gate
from queuerelay.errors import BrokerError

#: Seconds between two looks; a pause is to be obeyed within one second.
GATE_INTERVAL: Final = 0.5


class GateWatch:
    """Watches which of `queues` are paused; `look` is to be called each `GATE_INTERVAL` seconds.

    A watch is made before the outbox asks to be told of new connections.
    """

    _log = Logger()

    def __init__(self, broker: Broker, queues: Sequence[str]) -> None:
        self._broker = broker
        self._queues = queues
        #: Called when more messages may go out than before.
        self.on_open: Callable[[], object] = lambda: None
        #: The paused queues, as was read last.
        self.gates: Mapping[str, Gate] = {}
        #: Whether `gates` was read on the present connection.
        self.current = False
        broker.on_up(self._up)

    def lets(self, queue: str) -> bool:
        """Whether messages may go to `queue` now."""
        return self.current and queue not in self.gates

    def look(self) -> Deferred[None]:
        """Read the gate; fails with a `BrokerError` where Redis does not tell."""
        return self._broker.gate.look(self._queues).addCallback(self._seen)

    def _seen(self, gates: Mapping[str, Gate]) -> None:
        before, self.gates = self.gates, gates
        for queue in gates.keys() - before.keys():
            self._log.info(
                "queue {queue} is paused by {by}: its requests wait here",
                queue=queue,
                by=gates[queue].by or "somebody",
            )
        resumed = before.keys() - gates.keys()
        for queue in resumed:
            self._log.info("queue {queue} is resumed", queue=queue)
        if resumed or not self.current:
            self.current = True
            self.on_open()

    def _up(self) -> None:
        self.current = False
        self.look().addErrback(self._unseen)

    def _unseen(self, failure: Failure) -> None:
        # The next look finds out, and tells where it does not.
        if not failure.check(BrokerError):
            self._log.failure("the gate could not be read", failure)
