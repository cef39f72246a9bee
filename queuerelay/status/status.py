"""The status room of one process: what it knows, for whoever answers questions about it."""

import time
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from queuerelay.broker.base import Broker
from queuerelay.loop import Watched
from queuerelay.relay.probe import Deep, Holder
from queuerelay.status.collect.collector import Collector, Local
from queuerelay.status.collect.snapshot import Snapshot
from queuerelay.status.credentials import Credentials
from queuerelay.status.guard import Guard

#: What a part of this process does again and again.
Loops = Callable[[], Sequence[Watched]]


class Status:
    """`start` and `stop` once each.

    `local` and `loops` are the other parts of this process, `draining` tells whether they stop, and
    `holder` is the relay among them, if there is one. `credentials` is a file with those of who
    may act; raises `ConfigError` where it is wrong. Without one nobody may.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        address: str,
        clock: IReactorTime,
        local: Sequence[Local] = (),
        loops: Sequence[Loops] = (),
        draining: Callable[[], bool] = lambda: False,
        holder: Holder | None = None,
        credentials: str | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.broker = broker
        self.clock = clock
        self.wall_clock = wall_clock
        self.collector = Collector(
            broker, local=local, address=address, clock=clock, wall_clock=wall_clock
        )
        #: Sends requests that do nothing; None where there is no relay in this process.
        self.deep = None if holder is None else Deep(holder, clock=clock)
        #: Decides who may act.
        self.guard = Guard(Credentials(credentials) if credentials else None, clock=clock)
        self._loops = loops
        self._draining = draining

    def start(self) -> None:
        """Begin to collect."""
        self.collector.start()

    def stop(self) -> Deferred[None]:
        """Fires when nothing is left running."""
        if self.deep is not None:
            self.deep.stop()
        return self.collector.stop()

    @property
    def snapshot(self) -> Snapshot:
        """The last one; never waits for anything."""
        return self.collector.snapshot

    @property
    def writable(self) -> bool:
        """Whether anybody may act here."""
        return self.guard.writable

    @property
    def draining(self) -> bool:
        """Whether this process takes no more work."""
        return self._draining()

    def loops(self) -> list[Watched]:
        """All loops of this process."""
        return [self.collector.loop, *(loop for loops in self._loops for loop in loops())]
