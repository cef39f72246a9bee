"""From the inbox to the clients: replies are decoded, matched, and carried out.

Invariants:

1. Replies are matched by id alone; the first complete one wins, and all others are counted.
2. A reply that cannot be decoded, or that meets a bug of ours, costs no other of its batch.
"""

from collections.abc import Iterable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from queuerelay.broker.base import Broker
from queuerelay.errors import BadReply, ReplyError, ReplyTooLarge, WorkerFailed, WorkerTimeout
from queuerelay.relay.endings import Endings
from queuerelay.relay.held import HeldState
from queuerelay.relay.notices import Notices
from queuerelay.relay.outbox import Outbox
from queuerelay.relay.stream import (
    Break,
    BrokenOff,
    CannotBegin,
    Event,
    Ignored,
    Streams,
    Taken,
    Whole,
)
from queuerelay.seldom import Seldom
from queuerelay.wire.commands import TooLarge
from queuerelay.wire.reply import (
    Failed,
    Frame,
    Reply,
    decode_legacy_reply,
    decode_reply,
    encode_reply,
    salvage_node_id,
)


class Replies:
    """The replies to the relay called `id`."""

    _log = Logger()

    def __init__(
        self,
        id: str,
        endings: Endings,
        streams: Streams,
        outbox: Outbox,
        notices: Notices,
        *,
        clock: IReactorTime,
    ) -> None:
        self._id = id
        self._endings = endings
        self._table = endings.table
        self._streams = streams
        self._outbox = outbox
        self._notices = notices
        self._clock = clock
        self._seldom = Seldom(clock)

    def read(self, batch: Sequence[bytes | TooLarge]) -> None:
        """Replies from the relay's own inbox."""
        now = self._clock.seconds()
        for raw in batch:
            if type(raw) is TooLarge:
                self._too_large(raw)
                continue
            assert type(raw) is bytes
            try:
                reply = decode_reply(raw)
            except ReplyError as error:
                self._undecodable(raw, error)
            except Exception:
                # A bug of ours with one reply must not cost the others of its batch.
                self._log.failure("a reply could not be decoded")
                self._undecodable(raw, ReplyError("it cannot be decoded"))
            else:
                if type(reply) is Failed:
                    self._failed(reply, now)
                else:
                    self._answer(reply, now)
        self.carry_out(self._streams.flush())

    def carry_out(self, events: Iterable[Event]) -> None:
        """Carry out the events of the streams, one by one."""
        for event in events:
            if type(event) is Taken:
                self._notices.taken(event.id, event.size)
            elif type(event) is Whole:
                held = event.held
                self._endings.whole(held, event.status)
                self._outbox.answered(held.queue)
                if not event.worker_ended:
                    self._notices.unwanted(held.id)
            elif type(event) is BrokenOff:
                self._endings.cut(event.held, event.why, event.particulars)
            elif type(event) is CannotBegin:
                self._endings.refuse(event.held, event.refusal)
            elif type(event) is Ignored:
                self._endings.counters[event.name] += 1

    def _answer(self, reply: Reply, now: float) -> None:
        held = self._table.get(reply.node_id)
        if held is None:
            if type(reply) is Frame and reply.more:
                self._frame_for_nobody(reply.node_id)
            else:
                self._endings.counters[self._dropped_as(reply.node_id)] += 1
            return
        if type(reply) is Frame or held.state is HeldState.ANSWERING:
            events = self._streams.take(held, reply, now)
            if events is not None:
                self.carry_out(events)
                return
        self._outbox.answered(held.queue)
        self._endings.answer(held, reply, now)

    def _failed(self, reply: Failed, now: float) -> None:
        """Refuse a request whose worker has failed: the error is ours, as any other."""
        held = self._table.get(reply.node_id)
        if held is None or held.state is HeldState.ANSWERING:
            self._answer(reply, now)
            return
        self._outbox.answered(held.queue)
        failed = WorkerTimeout if reply.problem == "worker-timeout" else WorkerFailed
        self._endings.refuse(held, failed())

    def _frame_for_nobody(self, id: str) -> None:
        self._endings.counters["frames_late"] += 1
        if len(id) == len(self._id) + 33 and id.startswith(self._id):
            self._notices.unwanted(id)

    def _dropped_as(self, id: str) -> str:
        """The counter for a reply that finds nobody."""
        ended = self._table.ended_as(id)
        if ended is None:
            return "replies_unknown"
        return "replies_doubled" if ended is HeldState.ANSWERED else "replies_late"

    def _undecodable(self, raw: bytes, error: ReplyError) -> None:
        self._endings.counters["replies_undecodable"] += 1
        id = salvage_node_id(raw)
        held = self._table.get(id) if id is not None else None
        if held is None:
            if self._seldom.due(str(error)):
                self._log.warn("a reply for nobody who waits: {error}", error=str(error))
        elif held.state is HeldState.ANSWERING:
            self._endings.cut(held, Break.BROKEN, str(error))
        else:
            self._endings.refuse(held, BadReply(str(error)))

    def _too_large(self, reply: TooLarge) -> None:
        """A reply that was not fetched: its worker is to hear of it by the log, its client now."""
        self._endings.counters["replies_too_large"] += 1
        held = self._table.get(reply.node_id)
        queue = "" if held is None else held.queue
        if self._seldom.due(f"too large {queue}"):
            self._log.warn(
                "a reply of {size} bytes is more than --max-reply, and was not read; "
                "it is from a worker of queue {queue}",
                size=reply.size,
                queue=queue or "- (nobody waits for it)",
            )
        if held is not None:
            why = f"{reply.size} bytes are more than --max-reply"
            if held.state is HeldState.ANSWERING:
                self._endings.cut(held, Break.BROKEN, why)
            else:
                self._outbox.answered(held.queue)
                self._endings.refuse(held, ReplyTooLarge(why))

    # The list that all relays share

    def read_legacy(
        self, batch: Sequence[bytes | TooLarge], broker: Broker
    ) -> Deferred[None] | None:
        """Replies from the list that all relays share: ours are answered, others go to their
        relay's inbox, whose name is the first part of the id.
        """
        elsewhere: dict[str, list[bytes]] = {}
        now = self._clock.seconds()
        for raw in batch:
            if type(raw) is TooLarge:
                self._too_large(raw)
                continue
            assert type(raw) is bytes
            try:
                reply = decode_legacy_reply(raw)
            except ReplyError as error:
                self._undecodable(raw, error)
                continue
            owner, _, _ = reply.node_id.partition("-")
            if owner == self._id or not _is_relay_id(owner):
                self._answer(reply, now)
            else:
                elsewhere.setdefault(owner, []).append(
                    encode_reply(node_id=reply.node_id, body=reply.body)
                )
        return Deferred.fromCoroutine(_forward(elsewhere, broker)) if elsewhere else None


async def _forward(elsewhere: dict[str, list[bytes]], broker: Broker) -> None:
    for owner, replies in elsewhere.items():
        await broker.inbox.reply(owner, replies)


def _is_relay_id(text: str) -> bool:
    return len(text) == 8 and all(char in "0123456789abcdef" for char in text)
