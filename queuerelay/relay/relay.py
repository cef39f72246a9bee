"""The relay itself: it takes requests, holds them, and ends each of them exactly once.

It knows nothing of HTTP: a front calls `Relay.hold` with plain values and a `HeldClient`, and
`Relay.gone` when the client has left. The parts that do the rest are made in its constructor, each
of those that came before it.

Invariants:

1. Ids are 128 random bits behind the id of this very process, so that no reply to another process,
   or to this one before it was started again, can find anybody here.
2. Requests are held here and nowhere else; whatever ends one, `Endings` does it.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from math import inf
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from queuerelay.broker.base import Broker
from queuerelay.broker.housekeeping import housekeeping
from queuerelay.broker.reaper import REAP_INTERVAL, Reaper
from queuerelay.broker.records import BEAT_INTERVAL
from queuerelay.config import RelayConfig
from queuerelay.errors import (
    BrokerError,
    ClientShare,
    Draining,
    NoReply,
    NotStarted,
    QueueFull,
    Refusal,
    TooManyHeld,
)
from queuerelay.http.forwarded import Trust
from queuerelay.http.sender import Senders
from queuerelay.http.shares import client_of
from queuerelay.loop import Loop, Watched
from queuerelay.relay.budget import ByteBudget
from queuerelay.relay.endings import Endings
from queuerelay.relay.gate import GATE_INTERVAL, GateWatch
from queuerelay.relay.held import Held, HeldClient, HeldState, HeldTable, grouped
from queuerelay.relay.notices import Notices, command_failed
from queuerelay.relay.outbox import Outbox
from queuerelay.relay.replies import Replies
from queuerelay.relay.report import RelayReport, RelaySnapshot
from queuerelay.relay.routes import Routes
from queuerelay.relay.stream import Break, Streams
from queuerelay.wire.commands import TooLarge
from queuerelay.wire.failure import KEPT, Kept
from queuerelay.wire.message import IDEMPOTENT_METHODS, encode_request
from queuerelay.wire.node import RelayNode, encode

#: Seconds between two looks at deadlines and at what waits for Redis.
SWEEP_INTERVAL: Final = 0.25
#: Seconds between two looks at the depths of the queues.
DEPTH_INTERVAL: Final = 1.0
#: Seconds by which an inbox outlives the longest deadline of its silent relay.
INBOX_MARGIN: Final = 30.0


class Relay:
    """One relay process; `start` and `stop` once each."""

    _log = Logger()

    def __init__(
        self,
        config: RelayConfig,
        broker: Broker,
        *,
        prefix: str,
        clock: IReactorTime,
        kept: Kept = KEPT,
    ) -> None:
        self._config = config
        self._broker = broker
        self._clock = clock
        #: The relay's id on the wire; a new one at each start of the process.
        self.id = os.urandom(4).hex()
        self._reply_to = f"{prefix}inbox:{self.id}"
        #: The proxies that may say who a client is.
        self.trust = Trust(config.trusted_proxies, config.proxy_fields)
        self._routes = Routes(config.routes, config.queue, config.deadline)
        queues = sorted({config.queue, *(route.queue for route in config.routes)})
        #: What a place weighs, so that places and bytes are one weight.
        self._place = max(1, config.max_held_bytes // config.max_held)
        #: What one client may weigh where there is no room.
        self._share = (
            inf if config.client_share == 1 else config.client_share * config.max_held_bytes
        )
        self._table = HeldTable()
        #: The answers that do not go out in one write.
        self.senders = Senders(stall=config.send_stall)
        #: Bytes that requests and answers may weigh; the front counts on it, too.
        self.budget = ByteBudget(self._table, self.senders, limit=config.max_held_bytes)
        self._streams = Streams(
            self._table,
            self.budget,
            frame_timeout=config.frame_timeout,
            max_unsent=config.max_unsent,
        )
        self._notices = Notices(
            broker,
            self._streams,
            frame_timeout=config.frame_timeout,
            send_stall=config.send_stall,
            clock=clock,
        )
        self._endings = Endings(
            self._table, self._streams, self._notices, queues=queues, clock=clock
        )
        # Before the gate's own: nothing is pushed for a node that is not on the list.
        broker.on_up(self._up)
        self._gate = GateWatch(broker, queues)
        self._outbox = Outbox(
            broker, self._gate, self._endings, self._notices, queues=queues, clock=clock
        )
        self._replies = Replies(
            self.id, self._endings, self._streams, self._outbox, self._notices, clock=clock
        )
        self._report = RelayReport(
            self.id,
            self._endings,
            self._streams,
            self._outbox,
            self.senders,
            born=clock.seconds(),
        )
        self._stopped = False
        longest = max([config.deadline, *(route.deadline or 0.0 for route in config.routes)])
        self._inbox_life = longest + INBOX_MARGIN
        reaper = Reaper(broker, queues, kept=kept)
        self._loops = [
            Loop("sweep", SWEEP_INTERVAL, self._sweep, clock=clock),
            Loop("beat", BEAT_INTERVAL, self._beat, clock=clock),
            Loop("depths", DEPTH_INTERVAL, self._outbox.look, clock=clock),
            Loop("gate", GATE_INTERVAL, self._gate.look, clock=clock),
            Loop("reap", REAP_INTERVAL, lambda: Deferred.fromCoroutine(reaper.reap()), clock=clock),
            *housekeeping(broker, queues, kept, clock=clock),
        ]
        legacy = config.legacy_replies
        broker.inbox.open(
            self.id,
            self._replies.read,
            legacy=(legacy, self._read_legacy) if legacy else None,
            largest=config.max_reply,
        )

    # Life

    def start(self) -> None:
        """Begin to hold and to answer; the broker is started by whoever owns it."""
        for loop in self._loops:
            loop.start()

    @property
    def draining(self) -> bool:
        """Whether no more requests are taken."""
        return self._endings.draining

    def drain(self) -> Deferred[None]:
        """Take no more requests; fires when none is held, at the latest after the drain time."""
        if not self._endings.draining:
            self._endings.draining = True
            late = self._clock.callLater(self._config.drain, self.hurry)
            self._endings.emptied().addCallback(lambda _: late.cancel() if late.active() else None)
        return self._endings.emptied()

    def hurry(self) -> None:
        """Refuse everything that is still held, and take no more requests."""
        if not self._endings.draining:
            self.drain()
        rest = self._table.all()
        queued = [held for held in rest if held.state is HeldState.QUEUED]
        for held in rest:
            if held.state is HeldState.ANSWERING:
                self._endings.cut(held, Break.STOPPING, "the relay stops")
            else:
                self._endings.refuse(held, Draining("it is stopping"))
        for queue, batch in grouped(queued).items():
            self._outbox.withdraw(queue, batch)

    def stop(self) -> Deferred[None]:
        """End every loop and leave the list of nodes; fires when nothing is left running."""
        self._stopped = True
        # Not gatherResults: what comes after it could not be cancelled.
        return Deferred.fromCoroutine(self._stop([loop.stop() for loop in self._loops]))

    async def _stop(self, loops: list[Deferred[None]]) -> None:
        for ended in loops:
            await ended
        self._endings.refusals.sweep(self._clock.seconds(), last=True)
        with suppress(BrokerError):
            await self._broker.nodes.leave(self.id)

    # What it tells about itself

    def snapshot(self) -> RelaySnapshot:
        """The snapshot of what this relay is doing now."""
        return self._report.snapshot()

    def published(self) -> RelayNode:
        """The record that this relay publishes."""
        return self._report.published(
            self._config, self.loops(), self._broker, now=self._clock.seconds()
        )

    def loops(self) -> list[Watched]:
        """What this relay does again and again, the reading of its inbox too."""
        return [*self._loops, *self._broker.loops()]

    def seconds_since(self, held: Held) -> float:
        """How long a request has been held, or was."""
        return self._endings.seconds_since(held)

    # Requests

    def hold(
        self,
        client: HeldClient,
        *,
        method: str,
        url: str,
        http_version: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        remote_addr: str,
        scheme: str,
    ) -> Held:
        """Put a request on its queue and hold `client` until it is answered.

        The fields are those of `wire.message.Request`. Raises `Refusal` where a limit is reached;
        then nothing is held.
        """
        config, table = self._config, self._table
        if self._endings.draining:
            raise self._endings.not_held(Draining())
        address = client_of(remote_addr) if ":" in remote_addr else remote_addr
        if len(table) >= config.max_held and not self._make_room(address, self._place):
            raise self._no_room(address, f"{config.max_held} requests, the limit")
        # Only a route asks for the host, and most relays have none.
        host = next((text for name, text in headers if name == "host"), "") if config.routes else ""
        queue, patience = self._routes.choose(method, url, host, headers)
        if self._outbox.length(queue) >= config.max_queue:
            particulars = f"{config.max_queue} messages on {queue}, the limit"
            raise self._endings.not_held(
                QueueFull(particulars, retry_after=self._outbox.retry_after(queue))
            )
        id = f"{self.id}-{os.urandom(16).hex()}"
        accepted_at = self._broker.time()
        message = encode_request(
            queue=queue,
            node_id=id,
            url=url,
            method=method,
            http_version=http_version,
            headers=headers,
            body=body,
            remote_addr=remote_addr,
            scheme=scheme,
            reply_to=self._reply_to,
            accepted_at=accepted_at,
            deadline=accepted_at + patience,
        )
        size = len(message)
        if size > self.budget.room and not self.make_room(remote_addr, size):
            raise self._no_room(address, f"{config.max_held_bytes} bytes, the limit")
        now = self._clock.seconds()
        held = Held(id, queue, message, client, method in IDEMPOTENT_METHODS, now, now + patience)
        table.add(held, patience)
        held.address = address
        if table.shares is not None:
            table.shares.add(address, held, self._place + size)
        try:
            self._outbox.add(held)
        except BaseException:
            # Whoever called will answer; nobody else may.
            self._endings.end(held, HeldState.REFUSED)
            raise
        return held

    def make_room(self, remote_addr: str, size: int) -> bool:
        """Have room for `size` more bytes of this client; False where there is none."""
        address = client_of(remote_addr)
        while size > self.budget.room:
            if not self._make_room(address, self._place + size):
                return False
        return True

    def _make_room(self, address: str, weight: int) -> bool:
        """End a request of who holds most, for one of `address`; False where nobody is to give."""
        # It costs a little for each request, so nobody counts while there is room.
        shares = self._table.share(self._share, self._place)
        found = shares.newest_of_heaviest(address, weight)
        if found is None:
            return False
        queued = found.state is HeldState.QUEUED
        self._endings.refuse(found, ClientShare("its newest request gives way"))
        if queued:
            self._outbox.leave(found)
        return True

    def _no_room(self, address: str, particulars: str) -> Refusal:
        much = self._table.share(self._share, self._place).too_much(address)
        return self._endings.not_held((ClientShare if much else TooManyHeld)(particulars))

    def gone(self, held: Held) -> None:
        """The client has left; its request is taken off the queue if nobody has started on it."""
        state = held.state
        if not self._endings.end(held, HeldState.GONE):
            return
        self._endings.meter[held.queue].gone()
        if state is HeldState.QUEUED:
            self._outbox.leave(held)
        elif state is HeldState.ANSWERING:
            self._notices.unwanted(held.id)

    # What a front says of its answers

    def count(self, refusal: Refusal, held: Held | None = None) -> Refusal:
        """A front has refused a request by itself, be it `held` until now; gives `refusal`."""
        endings = self._endings
        return endings.not_held(refusal) if held is None else endings.counted(refusal)

    def taken(self, held: Held) -> None:
        """The client of a streamed answer has taken bytes that it was behind with."""
        self._replies.carry_out(self._streams.taken(held, self._clock.seconds()))

    def cut_off(self, held: Held | None, client: HeldClient, why: Break, particulars: str) -> None:
        """A front cannot go on sending: break the answer off, whether all of it has come or not."""
        self._endings.cut_off(held, client, why, particulars)

    # Loops

    def _sweep(self) -> None:
        now = self._clock.seconds()
        self._endings.refusals.sweep(now)
        self._outbox.sweep(now)
        self._replies.carry_out(self._streams.sweep(now))
        self._notices.sweep()
        self.senders.sweep(now)
        if len(self._table) < self._config.max_held // 2 and self.budget.is_half_free:
            self._table.shares = None
        due = self._table.due(now)
        for held in due:
            if held.state is HeldState.GATED:
                self._endings.refuse(held, NotStarted(), HeldState.EXPIRED)
        for queue, batch in grouped(due).items():
            self._expire(queue, [held for held in batch if held.state is HeldState.QUEUED])

    def _expire(self, queue: str, batch: list[Held]) -> None:
        """Refuse expired requests: 503 where no worker had taken them off the queue, else 504."""
        if not batch:
            return

        def answered(answers: Sequence[bool]) -> None:
            for held, was_there in zip(batch, answers, strict=True):
                if held.state is HeldState.QUEUED:
                    refusal = (
                        NotStarted(retry_after=self._outbox.retry_after(queue))
                        if was_there
                        else NoReply()
                    )
                    self._endings.refuse(held, refusal, HeldState.EXPIRED)

        def failed(failure: Failure) -> None:
            command_failed(failure)
            for held in batch:
                if held.state is HeldState.QUEUED:
                    refusal = NoReply("Redis did not say")
                    self._endings.refuse(held, refusal, HeldState.EXPIRED)

        removed = self._outbox.take_off(queue, batch, newest=False)
        removed.addCallbacks(answered, failed)
        removed.addErrback(lambda failure: self._log.failure("an expiry failed", failure))

    def _beat(self) -> Deferred[None]:
        return self._broker.nodes.beat(
            self.id, encode(self.published()), inbox_life=self._inbox_life
        )

    # What the broker calls

    def _up(self) -> None:
        # A connection made after we left the list of nodes must not put us on it again.
        if not self._stopped:
            self._beat().addErrback(command_failed)

    def _read_legacy(self, batch: Sequence[bytes | TooLarge]) -> Deferred[None] | None:
        return self._replies.read_legacy(batch, self._broker)
