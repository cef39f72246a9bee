"""The relay itself: takes requests, holds them, and ends each of them exactly once.

It knows nothing of twisted.web: a front calls `Relay.hold` with plain values and an object with
`answer` and `refuse`, and `Relay.gone` when the client has left.

Invariants:

1. Ids are 128 random bits behind the id of this very process, so that no reply to another process,
   or to this one before it was started again, can find anybody here.
2. Replies are matched by id alone; the first complete one wins.
3. A refusal is either raised by `hold`, and then nothing is held, or given to the client's
   `refuse`; never both.
4. Once an answer has begun (`State.ANSWERING`), it ends or is broken off; nothing is refused.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from queuerelay import __version__
from queuerelay.broker.base import Broker
from queuerelay.broker.reaper import REAP_INTERVAL, Reaper
from queuerelay.broker.records import BEAT_INTERVAL, Gate, QueueDepth
from queuerelay.config import RelayConfig
from queuerelay.errors import (
    BadReply,
    BrokerError,
    Draining,
    NoReply,
    NotStarted,
    QueueFull,
    Refusal,
    ReplyError,
    TooManyHeld,
    WorkerFailed,
    WorkerTimeout,
)
from queuerelay.http.forwarded import Trust
from queuerelay.http.sender import Senders
from queuerelay.loop import Loop, Watched
from queuerelay.relay.drain_rate import DrainRate
from queuerelay.relay.gate import GATE_INTERVAL, GateWatch
from queuerelay.relay.held import Client, Held, HeldTable, State
from queuerelay.relay.meter import Meter
from queuerelay.relay.outbox import Outbox
from queuerelay.relay.refusals import RefusalLog
from queuerelay.relay.routes import Routes
from queuerelay.relay.stream import Break, Streams
from queuerelay.seldom import Seldom
from queuerelay.wire.message import IDEMPOTENT_METHODS, encode_request
from queuerelay.wire.reply import (
    Failed,
    Frame,
    Reply,
    decode_legacy_reply,
    decode_reply,
    encode_reply,
    salvage_node_id,
)

#: Seconds between two looks at deadlines and at what waits for Redis.
SWEEP_INTERVAL: Final = 0.25
#: Seconds between two looks at the depths of the queues.
DEPTH_INTERVAL: Final = 1.0
#: Seconds by which an inbox outlives the longest deadline of its silent relay.
INBOX_MARGIN: Final = 30.0
#: Seconds by which it is known longer than its deadline lasts that a request's client has left.
GONE_MARGIN: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a relay is doing, at one moment."""

    #: Requests held now.
    held: int
    #: Bytes of their messages.
    held_bytes: int
    #: How many of them have a streamed answer under way.
    streaming: int
    #: Bytes of answers that wait for slow clients.
    unsent_bytes: int
    #: Whether no more requests are taken.
    draining: bool
    #: Ends by name (`State`), and replies that found nobody, since the start.
    counters: Mapping[str, int]
    #: Refusals by their reason, since the start.
    refusals: Mapping[str, int]
    #: Depth of each queue, as last seen.
    queues: Mapping[str, QueueDepth]
    #: The paused queues, as last seen.
    gates: Mapping[str, Gate]
    #: By queue, how many of those held wait here because it is paused.
    gated: Mapping[str, int]


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
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._broker = broker
        self._clock = clock
        self._wall_clock = wall_clock
        #: Names this process on the wire; another one each time it starts.
        self.id = os.urandom(4).hex()
        self._reply_to = f"{prefix}inbox:{self.id}"
        #: Who may say who a client is.
        self.trust = Trust(config.trusted_proxies, config.proxy_fields)
        self._routes = Routes(config.routes, config.queue, config.deadline)
        self._queues = sorted({config.queue, *(route.queue for route in config.routes)})
        self._depths: dict[str, QueueDepth] = {}
        self._table = HeldTable()
        #: Bytes of bodies that are coming in; the front's.
        self.receiving = 0
        # Before the gate's own: nothing is pushed for a node that is not on the list.
        broker.on_up(self._up)
        self._gate = GateWatch(broker, self._queues)
        self._outbox = Outbox(broker, self._gate, clock=clock, refuse=self._refuse)
        #: Answers that do not go out in one write.
        self.senders = Senders(stall=config.send_stall)
        self._streams = Streams(
            self._table,
            frame_timeout=config.frame_timeout,
            max_unsent=config.max_unsent,
            refuse=self._refuse,
            answered=self._streamed,
            cut=self._cut,
            crowded=self._crowded,
            count=self._count,
            tell=self._tell_taken,
        )
        self._leaving: dict[str, list[Held]] = {}
        #: What workers of streamed answers are to know after this reactor turn: by id, how many
        #: bytes were taken, and who streams for nobody.
        self._taken: dict[str, int] = {}
        self._unwanted: dict[str, None] = {}
        self._counters: Counter[str] = Counter()
        self._meter = Meter(self._queues)
        self._born = clock.seconds()
        self._refusals = RefusalLog(clock)
        self._drain_rate = DrainRate()
        self._seldom = Seldom(clock)
        self._drained: Deferred[None] | None = None
        self._stopped = False
        longest = max([config.deadline, *(route.deadline or 0.0 for route in config.routes)])
        self._inbox_life = longest + INBOX_MARGIN
        reaper = Reaper(broker, self._queues, wall_clock=wall_clock)
        self._loops = [
            Loop("sweep", SWEEP_INTERVAL, self._sweep, clock=clock),
            Loop("beat", BEAT_INTERVAL, self._beat, clock=clock),
            Loop("depths", DEPTH_INTERVAL, self._look_at_depths, clock=clock),
            Loop("gate", GATE_INTERVAL, self._gate.look, clock=clock),
            Loop("reap", REAP_INTERVAL, lambda: Deferred.fromCoroutine(reaper.reap()), clock=clock),
        ]
        legacy = config.legacy_replies
        broker.inbox.open(
            self.id, self._replies, legacy=(legacy, self._legacy_replies) if legacy else None
        )

    # Life

    def start(self) -> None:
        """Begin to hold and to answer; the broker is started by whoever owns it."""
        for loop in self._loops:
            loop.start()

    @property
    def draining(self) -> bool:
        """Whether no more requests are taken."""
        return self._drained is not None

    def drain(self) -> Deferred[None]:
        """Take no more requests; fires when none is held, at the latest after the drain time."""
        if self._drained is None:
            self._drained = Deferred()
            late = self._clock.callLater(self._config.drain, self.hurry)
            self._drained.addBoth(lambda _: late.cancel() if late.active() else None)
            if not len(self._table):
                self._drained.callback(None)
        done: Deferred[None] = Deferred()
        self._drained.chainDeferred(done)
        return done

    def hurry(self) -> None:
        """Refuse everything that is still held, and take no more requests."""
        if self._drained is None:
            self.drain()
        rest = self._table.all()
        queued = [held for held in rest if held.state is State.QUEUED]
        for held in rest:
            if held.state is State.ANSWERING:
                self._cut(held, Break.STOPPING, "the relay stops")
            else:
                self._refuse(held, Draining("it is stopping"))
        for queue, batch in _by_queue(queued).items():
            self._take_off_gone(queue, batch)

    def stop(self) -> Deferred[None]:
        """End every loop and leave the list of nodes; fires when nothing is left running."""
        self._stopped = True
        # Not gatherResults: what comes after it could not be cancelled.
        return Deferred.fromCoroutine(self._stop([loop.stop() for loop in self._loops]))

    async def _stop(self, loops: list[Deferred[None]]) -> None:
        for ended in loops:
            await ended
        self._refusals.sweep(self._clock.seconds(), last=True)
        with suppress(BrokerError):
            await self._broker.nodes.leave(self.id)

    @property
    def room(self) -> int:
        """Bytes that more requests may weigh. Answers never take more than half of all from them:
        else a few clients that read slowly would shut everybody else out.
        """
        answers = min(self.senders.waiting, self._config.max_held_bytes // 2)
        return self._config.max_held_bytes - self._table.bytes - self.receiving - answers

    def fits(self, size: int) -> bool:
        """Whether there is room for an answer of `size` bytes that may have to wait for its client;
        the only one that waits always has it.
        """
        waiting = self.senders.waiting
        return not waiting or size <= min(self.room, self._config.max_held_bytes // 2 - waiting)

    def _crowded(self) -> bool:
        """Whether what clients have not taken of their streams is too much."""
        return self.room < 0 or self.senders.waiting > self._config.max_held_bytes // 2

    def seconds_since(self, held: Held) -> float:
        """How long it has been held, or was."""
        return self._clock.seconds() - held.accepted_at

    def count(self, refusal: Refusal, held: Held | None = None) -> Refusal:
        """A front has refused a request by itself, be it `held` until now; gives `refusal`."""
        return self._not_held(refusal) if held is None else self._counted(refusal)

    def snapshot(self) -> Snapshot:
        """What this relay is doing now."""
        return Snapshot(
            held=len(self._table),
            held_bytes=self._table.bytes,
            streaming=len(self._streams),
            unsent_bytes=self.senders.waiting,
            draining=self.draining,
            counters=dict(self._counters),
            refusals=dict(self._refusals.counts),
            queues=dict(self._depths),
            gates=dict(self._gate.gates),
            gated={queue: self._outbox.gated(queue) for queue in self._queues},
        )

    # Requests

    def hold(
        self,
        client: Client,
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
        if self._drained is not None:
            raise self._not_held(Draining())
        if len(table) >= config.max_held:
            raise self._not_held(TooManyHeld(f"{config.max_held} requests, the limit"))
        # Only a route asks for the host, and most relays have none.
        host = next((text for name, text in headers if name == "host"), "") if config.routes else ""
        queue, patience = self._routes.choose(method, url, host, headers)
        if self._outbox.length(queue) >= config.max_queue:
            particulars = f"{config.max_queue} messages on {queue}, the limit"
            raise self._not_held(QueueFull(particulars, retry_after=self._retry_after(queue)))
        id = f"{self.id}-{os.urandom(16).hex()}"
        accepted_at = self._wall_clock()
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
        if len(message) > self.room:
            raise self._not_held(TooManyHeld(f"{config.max_held_bytes} bytes, the limit"))
        now = self._clock.seconds()
        held = Held(id, queue, message, client, method in IDEMPOTENT_METHODS, now, now + patience)
        table.add(held, patience)
        try:
            self._outbox.add(held)
        except BaseException:
            # Whoever called will answer; nobody else may.
            self._end(held, State.REFUSED)
            raise
        return held

    def gone(self, held: Held) -> None:
        """The client has left; its request is taken off the queue if nobody has started on it."""
        state = held.state
        if not self._end(held, State.GONE):
            return
        self._meter[held.queue].gone()
        if state is State.QUEUED:
            if not self._leaving:
                self._clock.callLater(0, self._take_off_leaving)
            self._leaving.setdefault(held.queue, []).append(held)
        elif state is State.ANSWERING:
            self._unwant(held.id)

    # Ends

    def _end(self, held: Held, state: State) -> bool:
        if not self._table.end(held, state):
            return False
        self._counters[state.value] += 1
        if self._streams.active:
            self._streams.forget(held)
        if self._drained is not None and not len(self._table) and not self._drained.called:
            # After this turn: the last answer is to be written before anybody goes on.
            self._clock.callLater(0, self._all_ended)
        return True

    def _all_ended(self) -> None:
        if self._drained is not None and not self._drained.called:
            self._drained.callback(None)

    def _refuse(self, held: Held, refusal: Refusal, state: State = State.REFUSED) -> None:
        if held.state is State.ANSWERING:
            self._cut(held, Break.FAILED, str(refusal))
        elif self._end(held, state):
            self._meter[held.queue].ended(refusal.status, self.seconds_since(held))
            try:
                held.client.refuse(self._counted(refusal))
            except Exception:
                self._log.failure("an error could not be sent to its client")
                self._abort(held)

    def _abort(self, held: Held) -> None:
        """Its client must not wait for what will never come."""
        try:
            held.client.abort()
        except Exception:
            self._log.failure("a client's connection could not be closed")

    def _count(self, name: str) -> None:
        self._counters[name] += 1

    def _not_held(self, refusal: Refusal) -> Refusal:
        """`refusal` is for a request that was never held."""
        self._meter.refused(refusal.status)
        return self._counted(refusal)

    def _counted(self, refusal: Refusal) -> Refusal:
        if type(refusal) is TooManyHeld:
            # Wherever they wait: it is not about one queue.
            estimate = self._drain_rate.seconds(len(self._table))
            refusal.retry_after = estimate or refusal.retry_after
        self._refusals.add(refusal)
        return refusal

    def _retry_after(self, queue: str) -> int | None:
        """Seconds until `queue` is worked off; None where nobody knows."""
        return self._drain_rate.seconds(self._outbox.length(queue), (queue,))

    # Streamed answers

    def _streamed(self, held: Held, ended: bool) -> None:
        """It is whole; the worker has `ended`, or goes on for nothing."""
        status = self._streams.status(held)
        if self._end(held, State.ANSWERED):
            self._meter[held.queue].ended(status, self.seconds_since(held))
        self._outbox.left(held.queue)
        self._drain_rate.answered(held.queue)
        if not ended:
            self._unwant(held.id)

    def _cut(self, held: Held, why: Break, particulars: str) -> None:
        """Break a streamed answer off: its client must not take it for whole."""
        if self._end(held, State.ABORTED):
            self._meter[held.queue].aborted()
            self._broke_off(why, particulars)
            self._unwant(held.id)
            self._abort(held)

    def _broke_off(self, why: Break, particulars: str) -> None:
        self._counters[why.value] += 1
        if self._seldom.due(why.value):
            self._log.warn(
                "an answer was broken off ({reason}): {particulars}",
                reason=why.name.lower(),
                particulars=particulars,
            )

    def taken(self, held: Held) -> None:
        """The client of a streamed answer has taken something that it was behind with."""
        self._streams.taken(held, self._clock.seconds())

    def cut_off(self, held: Held | None, client: Client, why: Break, particulars: str) -> None:
        """A front cannot go on sending: break the answer off, whether all of it has come or not."""
        if held is not None and held.alive:
            self._cut(held, why, particulars)
        else:
            self._broke_off(why, particulars)
            client.abort()

    def _frame_for_nobody(self, id: str) -> None:
        self._counters["frames_late"] += 1
        if len(id) == len(self.id) + 33 and id.startswith(self.id):
            self._unwant(id)

    def _unwant(self, id: str) -> None:
        """Its worker streams for nobody: let it know."""
        if not (self._unwanted or self._taken):
            self._clock.callLater(0, self._tell_workers)
        self._unwanted[id] = None

    def _tell_taken(self, id: str, taken: int) -> None:
        if not (self._unwanted or self._taken):
            self._clock.callLater(0, self._tell_workers)
        self._taken[id] = taken

    def _tell_workers(self) -> None:
        unwanted, self._unwanted = self._unwanted, {}
        taken, self._taken = self._taken, {}
        # A worker that says nothing for longer is told again when it does.
        life = self._config.frame_timeout + GONE_MARGIN

        def lost(failure: Failure) -> None:
            # A worker that waits for its client would wait for nothing: `_sweep` says it again.
            self._broker_failed(failure)
            self._unwanted = {**unwanted, **self._unwanted}
            under_way = self._streams.active
            self._taken = {id: taken[id] for id in taken if id in under_way} | self._taken

        said = []
        if unwanted:
            said.append(self._broker.clients.mark_gone([*unwanted], life=life))
        if taken:
            life += self._config.send_stall
            said.append(self._broker.clients.tell_taken(taken, life=life))
        for one in said:
            one.addErrback(lost)

    def _take_off_leaving(self) -> None:
        leaving, self._leaving = self._leaving, {}
        for queue, batch in leaving.items():
            self._take_off_gone(queue, batch)

    def _take_off_gone(self, queue: str, batch: list[Held]) -> None:
        removed = self._outbox.take_off(queue, batch, newest=True)

        def taken_off(answers: Sequence[bool]) -> Deferred[None] | None:
            self._counters["work_saved"] += sum(answers)
            started = [held for held, was in zip(batch, answers, strict=True) if not was]
            if not started:
                return None
            # Somebody works on these for nobody. At its deadline any pool ends a script by itself.
            longest = max(held.deadline for held in started)
            life = max(0.0, longest - self._clock.seconds()) + GONE_MARGIN
            return self._broker.clients.mark_gone([held.id for held in started], life=life)

        removed.addCallback(taken_off)
        removed.addErrback(self._broker_failed)

    def _broker_failed(self, failure: Failure) -> None:
        if not failure.check(BrokerError):
            self._log.failure("a command of the relay failed", failure)

    # Loops

    def _up(self) -> None:
        # A connection made after we left the list of nodes must not put us on it again.
        if not self._stopped:
            self._beat().addErrback(self._broker_failed)

    def _sweep(self) -> None:
        now = self._clock.seconds()
        self._refusals.sweep(now)
        self._outbox.sweep(now)
        self._streams.sweep(now)
        if (self._unwanted or self._taken) and self._broker.is_up:
            self._tell_workers()
        self.senders.sweep(now)
        due = self._table.due(now)
        for held in due:
            if held.state is State.GATED:
                self._refuse(held, NotStarted(), State.EXPIRED)
        for queue, batch in _by_queue(due).items():
            self._expire(queue, [held for held in batch if held.state is State.QUEUED])

    def _expire(self, queue: str, batch: list[Held]) -> None:
        """Taken off the queue, nobody had started (503); else somebody has it (504)."""
        if not batch:
            return

        def answered(answers: Sequence[bool]) -> None:
            for held, was_there in zip(batch, answers, strict=True):
                if held.state is State.QUEUED:
                    refusal = (
                        NotStarted(retry_after=self._retry_after(queue)) if was_there else NoReply()
                    )
                    self._refuse(held, refusal, State.EXPIRED)

        def failed(failure: Failure) -> None:
            self._broker_failed(failure)
            for held in batch:
                if held.state is State.QUEUED:
                    self._refuse(held, NoReply("Redis did not say"), State.EXPIRED)

        removed = self._outbox.take_off(queue, batch, newest=False)
        removed.addCallbacks(answered, failed)
        removed.addErrback(lambda failure: self._log.failure("an expiry failed", failure))

    def loops(self) -> list[Watched]:
        """What it does again and again, the reading of its inbox too."""
        return [*self._loops, *self._broker.loops()]

    def published(self) -> dict[str, Any]:
        """What it tells others about itself; `queuerelay.status.collect.nodes` reads it."""
        snapshot, now = self.snapshot(), self._clock.seconds()
        return {
            "role": "relay",
            "id": self.id,
            "version": __version__,
            "host": os.uname().nodename,
            "pid": os.getpid(),
            "at": self._wall_clock(),
            "uptime": now - self._born,
            "held": snapshot.held,
            "held_bytes": snapshot.held_bytes,
            "streaming": snapshot.streaming,
            "unsent_bytes": snapshot.unsent_bytes,
            "oldest_age": self._table.oldest(now),
            "max_held": self._config.max_held,
            "max_held_bytes": self._config.max_held_bytes,
            "draining": snapshot.draining,
            "counters": snapshot.counters,
            "refusals": snapshot.refusals,
            "queues": self._meter.published(self._table.by_queue()),
            "gates": {queue: asdict(gate) for queue, gate in snapshot.gates.items()},
            "loops": [(loop.name, loop.still, loop.limit) for loop in self.loops()],
        }

    def _beat(self) -> Deferred[None]:
        snapshot = orjson.dumps(self.published())
        return self._broker.nodes.beat(self.id, snapshot, inbox_life=self._inbox_life)

    def _look_at_depths(self) -> Deferred[None]:
        def seen(depths: Sequence[QueueDepth]) -> None:
            for queue, depth in zip(self._queues, depths, strict=True):
                self._depths[queue] = depth
                self._outbox.saw_length(queue, depth.length)
                self._drain_rate.saw(queue, depth.length, self._clock.seconds())

        return self._broker.queues.depths(self._queues).addCallback(seen)

    # Replies

    def _replies(self, batch: Sequence[bytes]) -> None:
        now = self._clock.seconds()
        for raw in batch:
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
        self._streams.flush()

    def _failed(self, reply: Failed, now: float) -> None:
        """There is no worker's answer: then the error is ours, as any other."""
        held = self._table.get(reply.node_id)
        if held is None or held.state is State.ANSWERING:
            self._answer(reply, now)
            return
        self._outbox.left(held.queue)
        self._drain_rate.answered(held.queue)
        failed = WorkerTimeout if reply.problem == "worker-timeout" else WorkerFailed
        self._refuse(held, failed())

    def _answer(self, reply: Reply, now: float) -> None:
        held = self._table.get(reply.node_id)
        if held is None:
            if type(reply) is Frame and reply.more:
                self._frame_for_nobody(reply.node_id)
            else:
                self._counters[self._dropped_as(reply.node_id)] += 1
        elif (type(reply) is Frame or held.state is State.ANSWERING) and self._streams.take(
            held, reply, now
        ):
            pass
        elif self._end(held, State.ANSWERED):
            self._outbox.left(held.queue)
            self._drain_rate.answered(held.queue)
            self._meter[held.queue].answered(reply, now - held.accepted_at)
            try:
                held.client.answer(reply)
            except Exception:
                self._log.failure("a reply could not be sent to its client")
                self._abort(held)

    def _dropped_as(self, id: str) -> str:
        """The counter for a reply that finds nobody."""
        ended = self._table.ended_as(id)
        if ended is None:
            return "replies_unknown"
        return "replies_doubled" if ended is State.ANSWERED else "replies_late"

    def _undecodable(self, raw: bytes, error: ReplyError) -> None:
        self._counters["replies_undecodable"] += 1
        id = salvage_node_id(raw)
        held = self._table.get(id) if id is not None else None
        if held is None:
            self._log_undecodable(error)
        elif held.state is State.ANSWERING:
            self._cut(held, Break.BROKEN, str(error))
        else:
            self._refuse(held, BadReply(str(error)))

    def _log_undecodable(self, error: ReplyError) -> None:
        if self._seldom.due(str(error)):
            self._log.warn("a reply for nobody who waits: {error}", error=str(error))

    def _legacy_replies(self, batch: Sequence[bytes]) -> Deferred[None] | None:
        """Replies on the list that all relays share: ours are answered, others go to their relay's
        inbox, whose name is the first part of the id.
        """
        elsewhere: dict[str, list[bytes]] = {}
        now = self._clock.seconds()
        for raw in batch:
            try:
                reply = decode_legacy_reply(raw)
            except ReplyError as error:
                self._undecodable(raw, error)
                continue
            owner, _, _ = reply.node_id.partition("-")
            if owner == self.id or not _is_relay_id(owner):
                self._answer(reply, now)
            else:
                elsewhere.setdefault(owner, []).append(
                    encode_reply(node_id=reply.node_id, body=reply.body)
                )
        return Deferred.fromCoroutine(self._forward(elsewhere)) if elsewhere else None

    async def _forward(self, elsewhere: dict[str, list[bytes]]) -> None:
        for owner, replies in elsewhere.items():
            await self._broker.inbox.reply(owner, replies)


def _is_relay_id(text: str) -> bool:
    return len(text) == 8 and all(char in "0123456789abcdef" for char in text)


def _by_queue(batch: Iterable[Held]) -> dict[str, list[Held]]:
    queues: dict[str, list[Held]] = {}
    for held in batch:
        queues.setdefault(held.queue, []).append(held)
    return queues
