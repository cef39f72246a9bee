"""The status room of one process: the collector, the guard, and the process itself, for those who
answer questions about it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from queuerelay.broker.base import Broker
from queuerelay.loop import Watched
from queuerelay.status.collect.collector import Collector
from queuerelay.status.collect.dead_letters import DeadLetters
from queuerelay.status.collect.shortened import failures_for_anybody, for_anybody
from queuerelay.status.collect.snapshot import StatusSnapshot
from queuerelay.status.credentials import Credentials
from queuerelay.status.guard import Guard
from queuerelay.wire.node import Node


class ShownPart(Protocol):
    """A relay or the pools of this process."""

    def published(self) -> Node:
        """The record of this part, as it is now."""

    def loops(self) -> Sequence[Watched]:
        """All that it does again and again."""


class DeepCheck(Protocol):
    """Sends a request through a queue and a worker and back."""

    def check(self) -> Deferred[Any]:
        """Fires with a dataclass that has `ok`; never fails."""

    def stop(self) -> None:
        """End the check under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThisProcess:
    """The process in which the status room is, as its other parts show it."""

    #: They need no Redis to be seen.
    parts: Sequence[ShownPart] = ()
    #: Whether it takes no more work.
    draining: Callable[[], bool] = lambda: False
    #: None where there is no relay.
    probe: DeepCheck | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may do what in a status room."""

    #: File with the credentials of those who may act; None where nobody may.
    credentials: str | None = None
    #: Whether reading needs credentials as well.
    private: bool = False


class Status:
    """One status room; `start` and `stop` once each.

    `address` is where Redis is, for people, without password. `ConfigError` where the file of
    `access` is wrong.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        address: str,
        clock: IReactorTime,
        process: ThisProcess = ThisProcess(),
        access: Access = Access(),
    ) -> None:
        self.broker = broker
        self.clock = clock
        self.collector = Collector(
            broker,
            local=[part.published for part in process.parts],
            address=address,
            clock=clock,
        )
        self.probe = process.probe
        #: Decides who may act.
        self.guard = Guard(
            Credentials(access.credentials) if access.credentials else None,
            clock=clock,
            private=access.private,
        )
        self._process = process
        #: The last snapshot as anybody may see it, beside itself.
        self._public: tuple[StatusSnapshot, StatusSnapshot] | None = None

    def shown(self, *, whole: bool) -> StatusSnapshot:
        """The last snapshot; with `whole` ids for who is trusted (`Guard.trusts`)."""
        snapshot = self.snapshot
        if whole:
            return snapshot
        if self._public is None or self._public[0] is not snapshot:
            self._public = snapshot, for_anybody(snapshot)
        return self._public[1]

    def failures(self, start: int, count: int, *, whole: bool) -> Deferred[DeadLetters]:
        """A page of dead letters, likewise; see `Collector.failures`."""
        page = self.collector.failures(start, count)
        return page if whole else page.addCallback(failures_for_anybody)

    def start(self) -> None:
        """Begin to collect."""
        self.collector.start()

    def stop(self) -> Deferred[None]:
        """Collect no more; fires when nothing is left running."""
        if self.probe is not None:
            self.probe.stop()
        return self.collector.stop()

    @property
    def snapshot(self) -> StatusSnapshot:
        """The last snapshot, at once."""
        return self.collector.snapshot

    def time(self) -> float:
        """Unix seconds now, by the clock of Redis, as everything in a snapshot is."""
        return self.broker.time()

    @property
    def writable(self) -> bool:
        """Whether anybody may act here."""
        return self.guard.writable

    @property
    def draining(self) -> bool:
        """Whether this process takes no more work."""
        return self._process.draining()

    def loops(self) -> list[Watched]:
        """All loops of this process."""
        others = (loop for part in self._process.parts for loop in part.loops())
        return [self.collector.loop, *others]
