"""Gathers the snapshot, once a second, for everybody who asks.

Invariants:

1. Whoever asks for the snapshot gets the last one, at once: no request leads to work on Redis but
   `Collector.failures`, which is bounded in size and in how many are under way.
2. A snapshot is made each second, also while Redis is away: then with what was last known of it,
   and what this process knows of itself.
3. What is shown is bounded: `QUEUES`, and the bounds of `queuerelay.wire.node` and `broker.survey`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from queuerelay import __version__
from queuerelay.broker.base import Broker
from queuerelay.broker.records import DeadLetterPage, Gate, QueueDepth, Survey
from queuerelay.errors import BrokerError, Refused
from queuerelay.loop import Loop
from queuerelay.seldom import Seldom
from queuerelay.status.collect import dead_letters, nodes
from queuerelay.status.collect.assemble import Seen, assemble
from queuerelay.status.collect.dead_letters import DeadLetters
from queuerelay.status.collect.history import Hour, QueueRates, Recent
from queuerelay.status.collect.ledger import Ledger
from queuerelay.status.collect.nodes import NodeReading
from queuerelay.status.collect.snapshot import StatusSnapshot
from queuerelay.wire.node import Node, Unreadable, decode

#: Most inboxes whose type is looked at.
MOST_INBOXES: Final = 500
#: Seconds between two looks.
INTERVAL: Final = 1.0
#: How many queues are looked at.
QUEUES: Final = 200
#: Dead letters on a page, and the most that a page may be asked for.
PAGE: Final = 20
LONGEST_PAGE: Final = 50
#: Seconds between two looks at the dead letters while their number stays.
FAILURES_INTERVAL: Final = 10.0
#: Seconds between two looks at the types of all keys while none is wrong, and none was refused.
TYPES_INTERVAL: Final = 5.0
#: Pages of dead letters that are read at a time.
READERS: Final = 2

#: What a part of this process publishes, now.
Local = Callable[[], Node]


class Collector:
    """Collects for one process; `start` and `stop` once each.

    `local` are the nodes in this process, which need no Redis to be seen. `address` is where Redis
    is, for people, without password.
    """

    _log = Logger()

    def __init__(
        self,
        broker: Broker,
        *,
        local: Sequence[Local],
        address: str,
        clock: IReactorTime,
    ) -> None:
        self._broker = broker
        self._local = local
        self._clock = clock
        self._seldom = Seldom(clock)
        self._readers = DeferredSemaphore(READERS)
        self._heard: float | None = None
        self._failures_at = -FAILURES_INTERVAL
        self._types_at = -TYPES_INTERVAL
        #: Queues that were last seen to have messages in flight or delayed.
        self._unsettled: set[str] = set()
        self._seen = Seen(address=address, since=broker.time(), ledger=Ledger())
        self._rates, self._recent, self._hour = QueueRates(), Recent(), Hour()
        self._loop = Loop("collect", INTERVAL, self._turn, clock=clock)
        self._snapshot: StatusSnapshot | None = None

    def start(self) -> None:
        """Begin to look at Redis."""
        self._seen.since = self._broker.time()
        self._loop.start()

    def stop(self) -> Deferred[None]:
        """Look no more; fires when no look is under way."""
        return self._loop.stop()

    @property
    def loop(self) -> Loop:
        """The loop that looks at Redis once a second."""
        return self._loop

    @property
    def snapshot(self) -> StatusSnapshot:
        """The last snapshot; its `at` says when it was made."""
        if self._snapshot is None:
            # Asked before the first look.
            self._make()
        assert self._snapshot is not None
        return self._snapshot

    def failures(self, start: int, count: int) -> Deferred[DeadLetters]:
        """A page of dead letters, newest first, leaving out the first `start`: read now. Fails
        with `BrokerError`.
        """
        count = max(1, min(LONGEST_PAGE, count))
        reading: Deferred[DeadLetterPage] = self._readers.run(
            self._broker.dead_letters.page, start=start, count=count
        )
        dropped = self._seen.survey.dropped
        return reading.addCallback(dead_letters.failures, start, dropped=dropped)

    # Looking

    def _turn(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._look())

    async def _look(self) -> None:
        seen = self._seen
        try:
            survey = await self._broker.nodes.survey()
            self._read(survey)
            if self._types_at + TYPES_INTERVAL <= self._clock.seconds():
                await self._look_at_types(survey)
                # The list of queues may itself be of the wrong type.
                with suppress(Refused):
                    self._unsettled = set(await self._broker.nodes.unsettled())
            elif seen.wrong_types:
                await self._look_at_types(survey)
            try:
                depths, gates = await self._look_closely(survey)
            except Refused:
                await self._look_at_types(survey)
                if not seen.wrong_types:
                    raise
                depths, gates = await self._look_closely(survey)
        except BrokerError as error:
            # The connection logs its outage.
            refused = error if isinstance(error, Refused) else None
            seen.up, seen.fault = False, self._broker.fault or refused
        else:
            self._heard = self._clock.seconds()
            seen.up, seen.survey, seen.depths, seen.gates = True, survey, depths, gates
        self._make()

    async def _look_closely(
        self, survey: Survey
    ) -> tuple[Mapping[str, QueueDepth], Mapping[str, Gate]]:
        """Queues and gates, and the dead letters; what has the wrong type is left as it was."""
        keys, wrong = self._broker.keys, {one.key for one in self._seen.wrong_types}
        gates = self._seen.gates if keys.gate in wrong else await self._broker.gate.look()
        names = self._queue_names({*survey.queues, *gates, *self._unsettled})
        if wrong:
            parts = (keys.queue, keys.delayed, keys.inflight)
            names = [name for name in names if wrong.isdisjoint(part(name) for part in parts)]
        depths = await self._broker.queues.depths(names)
        if keys.failed not in wrong:
            await self._look_at_failures(survey)
        return dict(zip(names, depths, strict=True)), gates

    async def _look_at_types(self, survey: Survey) -> None:
        self._types_at = self._clock.seconds()
        names = self._queue_names({*survey.queues, *self._seen.gates, *self._unsettled})
        self._seen.wrong_types = await self._broker.nodes.wrong_types(
            names, [*survey.nodes][:MOST_INBOXES]
        )

    async def _look_at_failures(self, survey: Survey) -> None:
        now, seen = self._clock.seconds(), self._seen
        due = self._failures_at + FAILURES_INTERVAL <= now
        if due or survey.dead_letters != seen.failures.total:
            page = await self._broker.dead_letters.page(start=0, count=PAGE)
            seen.failures = dead_letters.failures(page, 0, dropped=survey.dropped)
            self._failures_at = now

    def _read(self, survey: Survey) -> None:
        """Read what the nodes have published."""
        readings: dict[str, NodeReading] = {}
        for id, beat in survey.nodes.items():
            if beat.snapshot is None:
                readings[id] = nodes.silent(id, beat.age)
                continue
            try:
                readings[id] = nodes.read(decode(beat.snapshot, id=id), beat_age=beat.age)
            except Unreadable as error:
                readings[id] = nodes.silent(id, beat.age)
                if self._seldom.due(id):
                    self._log.warn(
                        "the snapshot of node {node} cannot be read: {reason}",
                        node=id,
                        reason=str(error),
                    )
        self._seen.readings = readings

    def _queue_names(self, known: set[str]) -> list[str]:
        """The queues to look at: those of the nodes first, then those with messages in flight or
        delayed, then others that are `known`.
        """
        ours = {queue for one in self._everybody().values() for queue in one.queues}
        theirs = known - ours
        held = theirs & self._unsettled
        names = [*sorted(ours), *sorted(held), *sorted(theirs - held)]
        self._seen.left_out = max(0, len(names) - QUEUES)
        return names[:QUEUES]

    def _everybody(self) -> dict[str, NodeReading]:
        """The readings of all nodes, those of this process as they are now."""
        readings = dict(self._seen.readings)
        for published in self._local:
            record = published()
            readings[record.id] = nodes.read(record, beat_age=0.0, local=True)
        return readings

    # Making

    def _make(self) -> None:
        now, seen = self._clock.seconds(), self._seen
        everybody = self._everybody()
        seen.configured = {queue for one in everybody.values() for queue in one.queues}
        seen.silent = None if self._heard is None else now - self._heard
        if not seen.up and self._heard is not None:
            # Nobody can be heard of.
            everybody = {id: nodes.aged(one, now - self._heard) for id, one in everybody.items()}
        seen.ledger.update({id: one.counts for id, one in everybody.items()})
        self._snapshot = assemble(
            seen,
            everybody,
            at=self._broker.time(),
            now=now,
            rates=self._rates,
            recent=self._recent,
            hour=self._hour,
            version=__version__,
        )
