"""A relay's report on itself: to its own process, and to all others."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from queuerelay import __version__
from queuerelay.broker.base import Broker
from queuerelay.broker.records import Gate, QueueDepth
from queuerelay.config import RelayConfig
from queuerelay.http.sender import Senders
from queuerelay.loop import Watched
from queuerelay.relay.endings import Endings
from queuerelay.relay.outbox import Outbox
from queuerelay.relay.stream import Streams
from queuerelay.wire.node import GateState, LoopAge, RelayNode


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySnapshot:
    """The state of a relay at one moment."""

    #: Requests held now.
    held: int
    #: Bytes of the messages of held requests.
    held_bytes: int
    #: How many held requests have a streamed answer under way.
    streaming: int
    #: Bytes of answers that wait for slow clients.
    unsent_bytes: int
    #: Whether no more requests are taken.
    draining: bool
    #: Ends by name (`HeldState`), and replies that found nobody, since the start.
    counters: Mapping[str, int]
    #: Refusals by their reason, since the start.
    refusals: Mapping[str, int]
    #: Depth of each queue, as last seen.
    queues: Mapping[str, QueueDepth]
    #: The paused queues, as last seen.
    gates: Mapping[str, Gate]
    #: By queue, how many held requests wait in the relay because the queue is paused.
    gated: Mapping[str, int]


class RelayReport:
    """What the relay called `id`, which began at `born` in clock seconds, says about itself."""

    def __init__(
        self,
        id: str,
        endings: Endings,
        streams: Streams,
        outbox: Outbox,
        senders: Senders,
        *,
        born: float,
    ) -> None:
        self._id = id
        self._endings = endings
        self._streams = streams
        self._outbox = outbox
        self._senders = senders
        self._born = born

    def snapshot(self) -> RelaySnapshot:
        """The snapshot of what the relay is doing now."""
        endings, outbox = self._endings, self._outbox
        return RelaySnapshot(
            held=len(endings.table),
            held_bytes=endings.table.bytes,
            streaming=len(self._streams),
            unsent_bytes=self._senders.waiting,
            draining=endings.draining,
            counters=dict(endings.counters),
            refusals=dict(endings.refusals.counts),
            queues=dict(outbox.depths),
            gates=dict(outbox.gates),
            gated={queue: outbox.gated(queue) for queue in outbox.queues},
        )

    def published(
        self,
        config: RelayConfig,
        loops: Sequence[Watched],
        broker: Broker,
        *,
        now: float,
    ) -> RelayNode:
        """The record that the relay publishes; `now` is clock seconds."""
        snapshot, table = self.snapshot(), self._endings.table
        return RelayNode(
            id=self._id,
            version=__version__,
            host=os.uname().nodename,
            pid=os.getpid(),
            at=broker.time(),
            skew=broker.skew,
            uptime=now - self._born,
            held=snapshot.held,
            held_bytes=snapshot.held_bytes,
            streaming=snapshot.streaming,
            unsent_bytes=snapshot.unsent_bytes,
            oldest_age=table.oldest(now),
            max_held=config.max_held,
            max_held_bytes=config.max_held_bytes,
            draining=snapshot.draining,
            counters=snapshot.counters,
            refusals=snapshot.refusals,
            queues=self._endings.meter.queues(table.by_queue()),
            gates={
                queue: GateState(since=gate.since, by=gate.by)
                for queue, gate in snapshot.gates.items()
            },
            loops=[LoopAge(loop.name, loop.still, loop.limit) for loop in loops],
        )
