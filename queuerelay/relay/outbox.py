"""The outbox, from the held table to the queues: requests are pushed in batches, and taken off.

Invariants:

1. Everything of one reactor turn goes out in one command for each queue, but never more than
   `RELEASE_BYTES` or one message before the last command is answered: what is being sent is held
   two times more, as a command and by the transport.
2. A request is pushed once; where a connection is lost over the push, the next one tells whether it
   was. Only where Redis itself has lost that, and only if its method is idempotent, is a request
   pushed again (RFC 9110 9.2.2); others wait for what comes.
3. How long a queue is, is what Redis said last, and what has come and gone since.
4. What cannot be pushed for `PATIENCE` seconds is refused: the client hears of it while it waits.
5. What is for a paused queue waits here until its own deadline, also while Redis is away. It goes
   out in the order in which it came, before what comes later, and never much of it at a time.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from queuerelay.broker.base import Broker
from queuerelay.broker.records import Gate, QueueDepth
from queuerelay.errors import ConnectionDropped, NotConnected, QueueUnavailable
from queuerelay.relay.endings import Endings
from queuerelay.relay.gate import GateWatch
from queuerelay.relay.held import Held, HeldState
from queuerelay.relay.notices import Notices, command_failed
from queuerelay.wire.message import restamped

#: Seconds that a request waits for Redis to come back before it is refused.
PATIENCE: Final = 2.0
#: Most messages and bytes that go out in one command after they have waited here, and the next
#: when it is answered: meanwhile Redis does nothing else. One message may be larger.
RELEASE: Final = 500
RELEASE_BYTES: Final = 1024 * 1024

Batches = dict[str, list[Held]]


class Outbox:
    """Requests on their way to `queues`; `gate` says which of these are open."""

    _log = Logger()

    def __init__(
        self,
        broker: Broker,
        gate: GateWatch,
        endings: Endings,
        notices: Notices,
        *,
        queues: Sequence[str],
        clock: IReactorTime,
    ) -> None:
        self._broker = broker
        self._gate = gate
        self._endings = endings
        self._table = endings.table
        self._notices = notices
        self._clock = clock
        self.queues = queues
        #: Depth of each queue, as last seen.
        self.depths: dict[str, QueueDepth] = {}
        self._lengths: dict[str, int] = {}
        self._pending: Batches = {}
        self._uncertain: Batches = {}
        self._scheduled = False
        #: Bytes of messages whose pushes are not answered yet.
        self.sending = 0
        #: Requests whose clients have left in this reactor turn.
        self._leaving: Batches = {}
        #: Queues whose pending requests go out step by step.
        self._releasing: set[str] = set()
        #: Whether Redis was heard, so that requests have its time in them.
        self._timed = False
        gate.on_open = self._open

    def add(self, held: Held) -> None:
        """Push `held` at the end of this reactor turn."""
        batch = self._pending.get(held.queue)
        if batch is None:
            self._pending[held.queue] = [held]
        else:
            batch.append(held)
        if not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self._flush)

    def length(self, queue: str) -> int:
        """Messages on `queue`, as far as we know."""
        pending = self._pending.get(queue)
        return self._lengths.get(queue, 0) + (len(pending) if pending else 0)

    def gated(self, queue: str) -> int:
        """Requests that wait here because `queue` is paused."""
        if queue not in self._gate.gates:
            return 0
        return sum(held.state is HeldState.GATED for held in self._pending.get(queue, ()))

    @property
    def gates(self) -> Mapping[str, Gate]:
        """The paused queues, as last seen."""
        return self._gate.gates

    def look(self) -> Deferred[None]:
        """See how deep the queues are."""
        return self._broker.queues.depths(self.queues).addCallback(self._saw_depths)

    def _saw_depths(self, depths: Sequence[QueueDepth]) -> None:
        for queue, depth in zip(self.queues, depths, strict=True):
            self.depths[queue] = depth
            self._lengths[queue] = depth.length
            self._endings.drain_rate.saw(queue, depth.length, self._clock.seconds())

    def answered(self, queue: str) -> None:
        """Note that a message was answered, so `queue` is shorter by it. Else a burst that was
        worked off at once would keep a queue full for us until the next look at it.
        """
        length = self._lengths.get(queue, 0)
        if length:
            self._lengths[queue] = length - 1
        self._endings.drain_rate.answered(queue)

    def retry_after(self, queue: str) -> int | None:
        """Seconds until `queue` is worked off; None where nobody knows."""
        return self._endings.drain_rate.seconds(self.length(queue), (queue,))

    def sweep(self, now: float) -> None:
        """Refuse requests that have waited too long for Redis, and forget those that have ended."""
        up = self._broker.is_up
        away = not (up and self._gate.current)
        reason = "Redis does not tell what is paused" if up else "Redis is not connected"
        for queue, batch in list(self._pending.items()):
            paused = queue in self._gate.gates
            if not (away or paused):
                continue
            kept = []
            for held in batch:
                if held.state is not HeldState.GATED:
                    continue
                if not paused and held.accepted_at + PATIENCE <= now:
                    self._endings.refuse(held, QueueUnavailable(reason))
                else:
                    kept.append(held)
            self._pending[queue] = kept
        for queue, batch in self._uncertain.items():
            self._uncertain[queue] = [held for held in batch if held.alive]

    def take_off(self, queue: str, batch: list[Held], *, newest: bool) -> Deferred[list[bool]]:
        """Take requests off `queue` where no worker has taken them; see `Broker.take_off`."""
        messages = [held.message for held in batch]
        # What was pushed twice may be there twice.
        again = [held.message for held in batch for _ in range(held.pushes - 1)]
        removed = self._broker.queues.take_off(queue, messages + again, newest=newest)

        def taken_off(answers: list[bool]) -> list[bool]:
            self._lengths[queue] = max(0, self._lengths.get(queue, 0) - sum(answers))
            return answers[: len(batch)]

        return removed.addCallback(taken_off)

    def leave(self, held: Held) -> None:
        """The client of `held` has left: withdraw the request at the end of this reactor turn."""
        if not self._leaving:
            self._clock.callLater(0, self._withdraw_leaving)
        self._leaving.setdefault(held.queue, []).append(held)

    def withdraw(self, queue: str, batch: list[Held]) -> None:
        """The clients of these requests have left: take off `queue` what no worker has started on,
        and tell the workers of the others.
        """
        removed = self.take_off(queue, batch, newest=True)

        def taken_off(answers: Sequence[bool]) -> Deferred[None] | None:
            self._endings.counters["work_saved"] += sum(answers)
            started = [held for held, was in zip(batch, answers, strict=True) if not was]
            return self._notices.gone(started) if started else None

        removed.addCallback(taken_off)
        removed.addErrback(command_failed)

    def _withdraw_leaving(self) -> None:
        leaving, self._leaving = self._leaving, {}
        for queue, batch in leaving.items():
            self.withdraw(queue, batch)

    def _open(self) -> None:
        """Push what has waited for a connection, or for a queue to be resumed."""
        if not self._timed:
            self._restamp()
        lets = self._gate.lets
        for queue in filter(lets, list(self._uncertain)):
            batch = self._uncertain.pop(queue)
            # Not where the answer has begun: it was pushed, then.
            self._push(queue, [held for held in batch if held.state is HeldState.QUEUED])
        for queue in filter(lets, list(self._pending)):
            if queue not in self._releasing:
                self._begin_release(queue)

    def _begin_release(self, queue: str) -> None:
        released = Deferred.fromCoroutine(self._release(queue))
        released.addErrback(lambda failure: self._log.failure("a push failed", failure))

    def _restamp(self) -> None:
        """What came before Redis was heard for the first time has our own clock's time in it; now
        that of Redis is known.
        """
        self._timed = True
        ahead = self._broker.time() - self._clock.seconds()
        for batch in self._pending.values():
            for held in batch:
                held.message = restamped(held.message, held.accepted_at + ahead)

    async def _release(self, queue: str) -> None:
        self._releasing.add(queue)
        try:
            while self._broker.is_up and self._gate.lets(queue):
                batch = self._oldest(queue)
                if not batch:
                    return
                await self._push(queue, batch)
                if batch[0].state is HeldState.GATED:
                    # It was not sent, and waits for the next connection.
                    return
        finally:
            self._releasing.discard(queue)

    def _oldest(self, queue: str) -> list[Held]:
        """Take the first requests that have waited for `queue`, as many as may go out at once."""
        batch: list[Held] = []
        size = 0
        pending = self._pending.get(queue, [])
        for number, held in enumerate(pending):
            if held.state is not HeldState.GATED:
                continue
            size += len(held.message)
            if len(batch) == RELEASE or (batch and size > RELEASE_BYTES):
                del pending[:number]
                return batch
            batch.append(held)
        self._pending.pop(queue, None)
        return batch

    def _flush(self) -> None:
        self._scheduled = False
        if not self._broker.is_up:
            return
        for queue in list(self._pending):
            if self._gate.lets(queue) and queue not in self._releasing:
                batch = self._pending[queue]
                size = sum([len(held.message) for held in batch])
                if self.sending + size > RELEASE_BYTES and len(batch) + self.sending > 1:
                    self._begin_release(queue)
                else:
                    del self._pending[queue]
                    self._push(queue, [held for held in batch if held.state is HeldState.GATED])

    def _push(self, queue: str, batch: list[Held]) -> Deferred[None]:
        """Push `batch`; fires when it is known what became of the push."""
        if not batch:
            return succeed(None)
        for held in batch:
            self._table.pushed(held)
        self._lengths[queue] = self._lengths.get(queue, 0) + len(batch)
        messages = [held.message for held in batch]
        size = sum([len(message) for message in messages])
        self.sending += size
        pushed = self._broker.queues.push(queue, messages)
        del messages
        known = pushed.addCallbacks(
            lambda length: self._pushed(queue, length, size),
            lambda failure: self._failed(queue, batch, failure, size),
        )
        return known.addErrback(lambda failure: self._log.failure("a push failed", failure))

    def _pushed(self, queue: str, length: int | None, size: int) -> None:
        self.sending -= size
        if length is not None:
            self._lengths[queue] = length

    def _failed(self, queue: str, batch: list[Held], failure: Failure, size: int) -> None:
        self.sending -= size
        alive = [held for held in batch if held.state is HeldState.QUEUED]
        if failure.check(NotConnected):
            for held in alive:
                self._table.not_sent(held)
            self._pending.setdefault(queue, [])[:0] = [held for held in alive if not held.pushes]
            self._uncertain.setdefault(queue, []).extend(held for held in alive if held.pushes)
        elif failure.check(ConnectionDropped):
            self._uncertain.setdefault(queue, []).extend(held for held in alive if held.idempotent)
        else:
            # Redis said no: nothing was pushed.
            for held in alive:
                self._endings.refuse(held, QueueUnavailable(failure.getErrorMessage()))


def by_queue(batch: Iterable[Held]) -> dict[str, list[Held]]:
    """The requests of `batch`, by their queues."""
    queues: dict[str, list[Held]] = {}
    for held in batch:
        queues.setdefault(held.queue, []).append(held)
    return queues
