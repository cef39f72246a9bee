"""How held requests end: each once, told to its client, and counted.

Invariants:

1. A refusal is either raised by `Relay.hold`, and then nothing is held, or given to the client's
   `refuse`; never both.
2. Once an answer has begun (`HeldState.ANSWERING`), it ends or is broken off; nothing is refused.
3. A client whose answer or error could not be sent is aborted: it must not wait for what will never
   come.
"""

from collections import Counter
from collections.abc import Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from queuerelay.errors import Refusal, TooManyHeld
from queuerelay.relay.drain_rate import DrainRate
from queuerelay.relay.held import Held, HeldClient, HeldState, HeldTable
from queuerelay.relay.meter import Meter
from queuerelay.relay.notices import Notices
from queuerelay.relay.refusals import RefusalLog
from queuerelay.relay.stream import Break, Streams
from queuerelay.seldom import Seldom
from queuerelay.waiters import Waiters
from queuerelay.wire.reply import Reply


class Endings:
    """Ends what `table` holds, and counts what was refused before it was held."""

    _log = Logger()

    def __init__(
        self,
        table: HeldTable,
        streams: Streams,
        notices: Notices,
        *,
        queues: Sequence[str],
        clock: IReactorTime,
    ) -> None:
        self.table = table
        self._streams = streams
        self._notices = notices
        self._clock = clock
        #: Ends by name (`HeldState`), breaks, and replies that found nobody, since the start.
        self.counters: Counter[str] = Counter()
        self.meter = Meter(queues)
        self.refusals = RefusalLog(clock)
        self.drain_rate = DrainRate()
        #: Whether no more requests are taken.
        self.draining = False
        self._seldom = Seldom(clock)
        self._emptied: Waiters[None] = Waiters()

    def emptied(self) -> Deferred[None]:
        """Fires when nothing is held any more; to be asked while `draining`."""
        if len(self.table) or len(self._emptied):
            return self._emptied.wait()
        return succeed(None)

    def end(self, held: Held, state: HeldState) -> bool:
        """The request ends as `state`, and its client is told by the caller; False where it had
        ended already.
        """
        if not self.table.end(held, state):
            return False
        self.counters[state.value] += 1
        if self._streams.active:
            self._streams.forget(held)
        if self.draining and not len(self.table):
            # After this turn: the last answer is to be written before anybody goes on.
            self._clock.callLater(0, self._emptied.fire, None)
        return True

    def answer(self, held: Held, reply: Reply, now: float) -> None:
        """A worker's whole answer has come; `now` in clock seconds."""
        if self.end(held, HeldState.ANSWERED):
            self.meter[held.queue].answered(reply, now - held.accepted_at)
            try:
                held.client.answer(reply)
            except Exception:
                self._log.failure("a reply could not be sent to its client")
                self._abort(held.client)

    def whole(self, held: Held, status: int) -> None:
        """The whole of a streamed answer of this status was sent."""
        if self.end(held, HeldState.ANSWERED):
            self.meter[held.queue].ended(status, self.seconds_since(held))

    def refuse(self, held: Held, refusal: Refusal, state: HeldState = HeldState.REFUSED) -> None:
        """The client gets an error of ours, or the break of an answer that has begun."""
        if held.state is HeldState.ANSWERING:
            self.cut(held, Break.FAILED, str(refusal))
        elif self.end(held, state):
            self.meter[held.queue].ended(refusal.status, self.seconds_since(held))
            try:
                held.client.refuse(self.counted(refusal))
            except Exception:
                self._log.failure("an error could not be sent to its client")
                self._abort(held.client)

    def cut(self, held: Held, why: Break, particulars: str) -> None:
        """Break a streamed answer off: its client must not take it for whole."""
        if self.end(held, HeldState.ABORTED):
            self.meter[held.queue].aborted()
            self._broke_off(why, particulars)
            self._notices.unwanted(held.id)
            self._abort(held.client)

    def cut_off(self, held: Held | None, client: HeldClient, why: Break, particulars: str) -> None:
        """A front cannot go on sending: break the answer off, whether all of it has come or not."""
        if held is not None and held.alive:
            self.cut(held, why, particulars)
        else:
            self._broke_off(why, particulars)
            client.abort()

    def not_held(self, refusal: Refusal) -> Refusal:
        """Count the `refusal` of a request that was never held; gives `refusal`."""
        self.meter.refused(refusal.status)
        return self.counted(refusal)

    def counted(self, refusal: Refusal) -> Refusal:
        """Count the `refusal` that a client gets; gives `refusal`, with when to come back."""
        if type(refusal) is TooManyHeld:
            # Wherever they wait: it is not about one queue.
            estimate = self.drain_rate.seconds(len(self.table))
            refusal.retry_after = estimate or refusal.retry_after
        self.refusals.add(refusal)
        return refusal

    def seconds_since(self, held: Held) -> float:
        """How long a request has been held, or was."""
        return self._clock.seconds() - held.accepted_at

    def _broke_off(self, why: Break, particulars: str) -> None:
        self.counters[why.value] += 1
        if self._seldom.due(why.value):
            self._log.warn(
                "an answer was broken off ({reason}): {particulars}",
                reason=why.name.lower(),
                particulars=particulars,
            )

    def _abort(self, client: HeldClient) -> None:
        try:
            client.abort()
        except Exception:
            self._log.failure("a client's connection could not be closed")
