"""Notices to workers about the clients whose requests they have.

A worker learns by the mark of its request that nobody awaits the answer any more, and, where it
streams, how many bytes of the body its client has taken (docs/protocol.md).

Invariants:

1. What is to be told in one reactor turn goes out in one command of each kind.
2. What could not be told about a stream is told again: a worker that waits for its client would
   wait for nothing.
"""

from collections.abc import Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from queuerelay.broker.base import Broker
from queuerelay.errors import BrokerError
from queuerelay.relay.held import Held
from queuerelay.relay.stream import Streams

#: Seconds past a request's deadline for which the mark stays that its client has left.
GONE_MARGIN: Final = 5.0

_log = Logger()


class Notices:
    """The notices of one relay to workers.

    Seconds: a worker that says nothing for longer than `frame_timeout` has ended its stream, and a
    client that takes nothing for longer than `send_stall` is cut off.
    """

    def __init__(
        self,
        broker: Broker,
        streams: Streams,
        *,
        frame_timeout: float,
        send_stall: float,
        clock: IReactorTime,
    ) -> None:
        self._broker = broker
        self._streams = streams
        # A worker that says nothing for longer is told again when it does.
        self._life = frame_timeout + GONE_MARGIN
        self._send_stall = send_stall
        self._clock = clock
        #: By id of the request, bytes that its client has taken; and requests that nobody awaits.
        self._taken: dict[str, int] = {}
        self._unwanted: dict[str, None] = {}

    def unwanted(self, id: str) -> None:
        """Tell the worker of this request that it streams for nobody."""
        self._schedule()
        self._unwanted[id] = None

    def taken(self, id: str, size: int) -> None:
        """The client of this request has taken `size` bytes of the body."""
        self._schedule()
        self._taken[id] = size

    def gone(self, batch: Sequence[Held]) -> Deferred[None]:
        """The clients of these requests have left, and workers have begun on them. Such a mark
        lasts until their deadlines: then any pool ends a script by itself.
        """
        longest = max(held.deadline for held in batch)
        life = max(0.0, longest - self._clock.seconds()) + GONE_MARGIN
        return self._broker.clients.mark_gone([held.id for held in batch], life=life)

    def sweep(self) -> None:
        """Send again the notices that could not be sent."""
        if (self._unwanted or self._taken) and self._broker.is_up:
            self._tell()

    def _schedule(self) -> None:
        if not (self._unwanted or self._taken):
            self._clock.callLater(0, self._tell)

    def _tell(self) -> None:
        unwanted, self._unwanted = self._unwanted, {}
        taken, self._taken = self._taken, {}

        def lost(failure: Failure) -> None:
            # `sweep` says it again.
            command_failed(failure)
            self._unwanted = {**unwanted, **self._unwanted}
            under_way = self._streams.active
            self._taken = {id: taken[id] for id in taken if id in under_way} | self._taken

        told = []
        if unwanted:
            told.append(self._broker.clients.mark_gone([*unwanted], life=self._life))
        if taken:
            life = self._life + self._send_stall
            told.append(self._broker.clients.tell_taken(taken, life=life))
        for one in told:
            one.addErrback(lost)


def command_failed(failure: Failure) -> None:
    """The last errback of a Deferred of the broker's: what Redis or its connection does is the
    broker's to tell, anything else is a bug of ours and is logged.
    """
    if not failure.check(BrokerError):
        _log.failure("a command of the relay failed", failure)
