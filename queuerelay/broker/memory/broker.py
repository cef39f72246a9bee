"""The broker without a Redis, for tests: the same promises, and controls to break them with.

Shipped in `queuerelay.testing`. It passes the contract suite that `redis.RedisBroker` passes.

Invariants:

1. A command takes effect when it is sent, and its Deferred fires in a later turn of the clock, as
   with Redis; with a `Clock`, ``clock.advance(0)`` runs all of it.
2. A command that was sent before the connection was lost, and not answered, fails with
   `ConnectionDropped`, whatever it did.
3. A batch of the inbox is dropped from it in the turn after its hand-over: when the connection is
   lost in between, the same items come again.
"""

import re
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from queuerelay.broker.base import (
    NODE_SILENCE,
    REPLY_LIFE,
    SNAPSHOT_LIFE,
    Bell,
    Claim,
    FailurePage,
    Gate,
    InboxHandler,
    NodeBeat,
    QueueDepth,
    Survey,
)
from queuerelay.broker.insist import insist
from queuerelay.broker.memory.gate import GateStore
from queuerelay.broker.memory.orders import OrderStore
from queuerelay.broker.memory.pool import MemoryBell, PoolStore
from queuerelay.errors import BrokerError, ConnectionDropped, NotConnected, Refused
from queuerelay.wire.keys import Keys

#: Most items of a batch of the inbox.
BATCH: Final = 256
#: Seconds after which a batch that the handler could not take comes again.
POLL: Final = 0.05
_QUEUE_TIME: Final = re.compile(rb'"queue_time": ?(\d+(?:\.\d*)?)}\Z')

_T = TypeVar("_T")


@dataclass(slots=True)
class _Lease:
    claim: Claim
    #: Clock seconds.
    expires: float


@dataclass(slots=True)
class _Reader:
    key: str
    handler: InboxHandler
    source: str | None
    #: Items of the last batch, handed over and still in the list.
    done: int = 0
    #: Whether the handler is still at the last batch.
    busy: bool = False
    #: Names the connection; what began on an earlier one is void.
    turn: int = 0
    #: The next try, where the handler could not take the last batch.
    again: IDelayedCall | None = None


@dataclass(slots=True)
class _Node:
    #: Clock seconds.
    beat: float
    snapshot: bytes


@dataclass(slots=True)
class _Lists:
    """Lists by name, with a term where they have one; an empty one does not exist."""

    clock: IReactorTime
    content: dict[str, deque[bytes]] = field(default_factory=dict)
    #: Clock seconds at which a list vanishes.
    terms: dict[str, float] = field(default_factory=dict)

    def get(self, key: str) -> deque[bytes]:
        """The list as it is now; a new one comes into being by `put`."""
        term = self.terms.get(key)
        if (term is not None and term <= self.clock.seconds()) or not self.content.get(key):
            self.delete(key)
        return self.content.get(key, deque())

    def put(self, key: str, items: Iterable[bytes], *, head: bool = False) -> int:
        """Append, or put at the head as LPUSH does; gives the length."""
        found = self.get(key)
        (found.extendleft if head else found.extend)(items)
        if found:
            self.content[key] = found
        return len(found)

    def delete(self, key: str) -> None:
        """As DEL does."""
        self.content.pop(key, None)
        self.terms.pop(key, None)

    def expire(self, key: str, seconds: float, *, unless_set: bool = False) -> None:
        """As EXPIRE does, with NX for `unless_set`."""
        if self.get(key) and not (unless_set and key in self.terms):
            self.terms[key] = self.clock.seconds() + seconds


class MemoryStore:
    """What one Redis holds. Several brokers may share it, as processes share a Redis."""

    def __init__(
        self,
        *,
        clock: IReactorTime,
        wall_clock: Callable[[], float] | None = None,
        keys: Keys | None = None,
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock or clock.seconds
        self.keys = keys or Keys()
        #: Called with a list's name whenever it got something.
        self.watchers: list[Callable[[str], object]] = []
        #: The queues that have been registered for ``QUEUE=*`` workers.
        self.queues: set[str] = set()
        self._lists = _Lists(clock)
        self._leases: dict[str, dict[str, _Lease]] = {}
        self._nodes: dict[str, _Node] = {}
        #: What only pools and operators use.
        self.pool = PoolStore(self, clock)
        #: The paused queues.
        self.orders = OrderStore(self._clock.seconds)
        self.gate = GateStore(self._wall_clock, lambda queue: self._tell(self.keys.queue(queue)))

    # To look at

    def items(self, key: str) -> list[bytes]:
        """The items of the Redis list of that name."""
        return [*self._lists.get(key)]

    def messages(self, queue: str) -> list[bytes]:
        """The messages that wait, oldest first."""
        return self.items(self.keys.queue(queue))

    @property
    def failures(self) -> list[bytes]:
        """The dead letters, oldest first."""
        return self.items(self.keys.failed)

    def inflight(self, queue: str) -> list[Claim]:
        """The messages that somebody has claimed."""
        return [lease.claim for lease in self._leases.get(queue, {}).values()]

    def now(self) -> float:
        """Unix seconds."""
        return self._wall_clock()

    # What the commands and scripts do

    def append(self, key: str, items: Sequence[bytes]) -> int:
        """RPUSH."""
        if not items:
            raise Refused("ERR wrong number of arguments for 'rpush' command")
        length = self._lists.put(key, items)
        self._tell(key)
        return length

    def remove(self, key: str, item: bytes) -> bool:
        """LREM of the first such item; False where there is none."""
        found = self._lists.get(key)
        if item not in found:
            return False
        found.remove(item)
        return True

    def _tell(self, key: str) -> None:
        for watcher in [*self.watchers]:
            watcher(key)

    def push(self, queue: str, messages: Sequence[bytes]) -> int:
        """`Broker.push`."""
        length = self.append(self.keys.queue(queue), messages)
        self.queues.add(queue)
        return length

    def take_off(self, queue: str, messages: Sequence[bytes], *, newest: bool) -> list[bool]:
        """`Broker.take_off`."""
        waiting = self._lists.get(self.keys.queue(queue))
        removed = []
        for message in messages:
            found = message in waiting
            if found and newest:
                waiting.reverse()
                waiting.remove(message)
                waiting.reverse()
            elif found:
                waiting.remove(message)
            removed.append(found)
        return removed

    def depth(self, queue: str) -> QueueDepth:
        """`Broker.depths`, for one."""
        waiting = self._lists.get(self.keys.queue(queue))
        found = _QUEUE_TIME.search(waiting[0][-64:]) if waiting else None
        return QueueDepth(
            length=len(waiting),
            oldest_at=float(found[1]) if found else None,
            delayed=len(self.pool.delayed.get(queue, ())),
            inflight=len(self._leases.get(queue, ())),
        )

    def read(self, key: str, *, done: int, source: str | None, most: int) -> list[bytes]:
        """Drop `done` items, move what `source` has, and show the first `most`."""
        own = self._lists.get(key)
        for _ in range(min(done, len(own))):
            own.popleft()
        if source is not None:
            shared = self._lists.get(source)
            self._lists.put(key, [shared.popleft() for _ in range(min(most, len(shared)))])
        return self.items(key)[:most]

    def beat(self, node_id: str, snapshot: bytes, *, inbox_life: float, legacy: str | None) -> None:
        """`Broker.beat`."""
        now = self._clock.seconds()
        self._nodes[node_id] = _Node(now, snapshot)
        self._lists.expire(self.keys.inbox(node_id), inbox_life)
        for name in [*self._nodes]:
            if self._nodes[name].beat <= now - NODE_SILENCE:
                del self._nodes[name]
        prefix, taken = self.keys.inbox(""), self.keys.legacy_inbox("")
        for key in [*self._lists.content]:
            if key.startswith(prefix) and key.removeprefix(prefix) not in self._nodes:
                self._lists.expire(key, inbox_life, unless_set=True)
            elif key.startswith(taken) and key.removeprefix(taken) not in self._nodes and legacy:
                self._give_back(key, legacy)

    def nodes(self) -> dict[str, bytes | None]:
        """`Broker.nodes`."""
        old = self._clock.seconds() - SNAPSHOT_LIFE
        return {
            name: node.snapshot if node.beat > old else None for name, node in self._nodes.items()
        }

    def survey(self) -> Survey:
        """`Broker.survey`."""
        now, snapshots, pool = self._clock.seconds(), self.nodes(), self.pool
        prefix = self.keys.queue("")
        lists = [key for key in self._lists.content if key.startswith(prefix)]
        return Survey(
            version="memory",
            nodes={
                name: NodeBeat(age=now - node.beat, snapshot=snapshots[name])
                for name, node in self._nodes.items()
            },
            queues=sorted(key.removeprefix(prefix) for key in lists),
            workers=sorted(pool.workers),
            workers_total=len(pool.workers),
            working=len(pool.working),
            processed=pool.stats.get(("processed", None), 0),
            failed=pool.stats.get(("failed", None), 0),
            failures=len(self.items(self.keys.failed)),
            paused=pool.paused,
        )

    def leave(self, node_id: str, legacy: str | None) -> None:
        """`Broker.leave`."""
        self._nodes.pop(node_id, None)
        self._lists.delete(self.keys.inbox(node_id))
        if legacy is not None:
            self._give_back(self.keys.legacy_inbox(node_id), legacy)

    def _give_back(self, key: str, legacy: str) -> None:
        items = self.items(key)
        self._lists.delete(key)
        self._lists.put(legacy, reversed(items), head=True)
        self._tell(legacy)

    def claim(self, queues: Sequence[str], *, holder: str, lease: float) -> Claim | None:
        """`Broker.claim`."""
        for queue in queues:
            waiting = self._lists.get(self.keys.queue(queue))
            if waiting and queue not in self.gate.paused:
                claim = Claim(
                    queue=queue,
                    token=secrets.token_hex(16),
                    message=waiting.popleft(),
                    since=self._wall_clock(),
                    holder=holder,
                )
                self._lease(claim, lease)
                return claim
        return None

    def offers(self, key: str) -> bool:
        """Whether a claim would find something in the queue's list `key`."""
        return key not in map(self.keys.queue, self.gate.paused) and bool(self._lists.get(key))

    def renew(self, queue: str, tokens: Sequence[str], *, lease: float) -> list[bool]:
        """`Broker.renew`."""
        held = self._leases.get(queue, {})
        for token in tokens:
            if token in held:
                held[token].expires = self._clock.seconds() + lease
        return [token in held for token in tokens]

    def reap(self, queue: str, *, lease: float, most: int) -> list[Claim]:
        """`Broker.reap`."""
        now = self._clock.seconds()
        held = self._leases.get(queue, {})
        expired = sorted(
            (one for one in held.values() if one.expires <= now), key=lambda one: one.expires
        )
        reaped = []
        for old in expired[:most]:
            del held[old.claim.token]
            claim = replace(old.claim, token=secrets.token_hex(16))
            self._lease(claim, lease)
            reaped.append(claim)
        return reaped

    def end(self, claim: Claim) -> bool:
        """Give up the lease; False where it was no longer held."""
        return self._leases.get(claim.queue, {}).pop(claim.token, None) is not None

    def put_back(self, queue: str, message: bytes) -> None:
        """At the head."""
        key = self.keys.queue(queue)
        self._lists.put(key, [message], head=True)
        self._tell(key)

    def send_reply(self, reply_to: str, reply: bytes) -> None:
        """As ACK and FAIL do it."""
        self.append(reply_to, [reply])
        if reply_to.startswith(self.keys.inbox("")):
            self._lists.expire(reply_to, REPLY_LIFE, unless_set=True)

    def _lease(self, claim: Claim, lease: float) -> None:
        held = self._leases.setdefault(claim.queue, {})
        held[claim.token] = _Lease(claim, self._clock.seconds() + lease)


class MemoryBroker:
    """See `queuerelay.broker.base.Broker`; the methods below `Controls` are a test's.

    `clock` gives the turns, and the seconds of leases and terms; `wall_clock` Unix seconds. With
    `store`, it is one of several brokers on the same "Redis".
    """

    _log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        wall_clock: Callable[[], float] | None = None,
        store: MemoryStore | None = None,
    ) -> None:
        self._clock = clock
        self.store = store or MemoryStore(clock=clock, wall_clock=wall_clock)
        self._started = self._stopped = self._up = False
        self._reachable = True
        self._losing = False
        self._push_dropped: bool | None = None
        self._refusal: str | None = None
        self._turn: IDelayedCall | None = None
        self._answers: deque[tuple[Deferred[Any], Any]] = deque()
        self._waiters: list[Deferred[None]] = []
        self._on_up: list[Callable[[], object]] = []
        self._readers: list[_Reader] = []
        self._legacy: str | None = None
        self._bells: list[MemoryBell] = []

    # Controls

    def disconnect(self) -> None:
        """Lose the connection now, and do not find another until `reconnect`."""
        self._reachable = False
        self._lose("disconnected by the test")

    def reconnect(self) -> None:
        """Find the way again, in the next turn."""
        self._reachable = True
        self._wake()

    def drop_next_push(self, *, applied: bool) -> None:
        """Lose the connection over the next push, before its answer; it is made anew at once.

        `applied` says whether the push took effect, which the one who pushed cannot know.
        """
        self._push_dropped = applied

    def refuse(self, reason: str | None) -> None:
        """Let commands fail with `Refused` from now on; None ends it.

        As with Redis, an ``OOM …`` refuses what adds data and is not part of ending a claim; any
        other reason refuses everything.
        """
        self._refusal = reason

    def messages(self, queue: str) -> list[bytes]:
        """The messages that wait, oldest first."""
        return self.store.messages(queue)

    @property
    def dead_letters(self) -> list[bytes]:
        """The entries of ``resque:failed``, oldest first."""
        return self.store.failures

    def inflight(self, queue: str) -> list[Claim]:
        """The messages that somebody has claimed."""
        return self.store.inflight(queue)

    # Life

    @property
    def is_up(self) -> bool:
        """Whether commands can be sent now."""
        return self._up

    def start(self) -> None:
        """Connect, in the next turn."""
        self._started = True
        self.store.watchers.append(self._grown)
        self._wake()

    def stop(self) -> Deferred[None]:
        """Fires when nothing is left running."""
        self._stopped = True
        self._lose("stopping")
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.errback(NotConnected("stopping"))
        for bell in self._bells:
            bell.stop()
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if self._grown in self.store.watchers:
            self.store.watchers.remove(self._grown)
        return succeed(None)

    def when_up(self) -> Deferred[None]:
        """Fires when commands can be sent; may be cancelled."""
        if self._up:
            return succeed(None)
        if self._stopped:
            return fail(NotConnected("stopping"))
        waiter: Deferred[None] = Deferred(self._waiters.remove)
        self._waiters.append(waiter)
        return waiter

    def on_up(self, callback: Callable[[], object]) -> None:
        """Call `callback` each time that a connection has been made."""
        self._on_up.append(callback)

    def _connect(self) -> None:
        self._up = True
        for callback in self._on_up:
            try:
                callback()
            except Exception:
                self._log.failure("a callback for a new connection failed")
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)

    def _lose(self, reason: str) -> None:
        self._up = self._losing = False
        for reader in self._readers:
            reader.done, reader.busy = 0, False
            reader.turn += 1
            if reader.again is not None and reader.again.active():
                reader.again.cancel()
        answers, self._answers = self._answers, deque()
        for done, _ in answers:
            done.errback(ConnectionDropped(reason))

    # Turns

    def _wake(self) -> None:
        if self._turn is None and self._started and not self._stopped:
            self._turn = self._clock.callLater(0, self._take_turn)

    def _grown(self, key: str) -> None:
        read = any(key in (reader.key, reader.source) for reader in self._readers)
        if read or any(key in bell.lists for bell in self._bells):
            self._wake()

    def _take_turn(self) -> None:
        self._turn = None
        if self._losing:
            self._lose("lost by the test")
        elif not self._up and self._reachable:
            self._connect()
        # Those that these answers lead to get theirs in the next turn.
        for _ in range(len(self._answers)):
            if self._answers:
                done, answer = self._answers.popleft()
                (done.errback if isinstance(answer, Failure) else done.callback)(answer)
        for reader in self._readers:
            self._read(reader)
        # As on Redis, at maxmemory a bell still rings.
        if self._up and (self._refusal is None or self._refusal.startswith("OOM")):
            for bell in [*self._bells]:
                bell.look()
        if self._answers or (not self._up and self._reachable):
            self._wake()

    def _read(self, reader: _Reader) -> None:
        if not self._up or reader.busy:
            return
        done, reader.done = reader.done, 0
        items = self.store.read(reader.key, done=done, source=reader.source, most=BATCH)
        if not items:
            return
        reader.busy = True
        turn = reader.turn
        handled = maybeDeferred(reader.handler, items)
        handled.addCallback(lambda _: self._handled(reader, turn, len(items)))
        handled.addErrback(self._unhandled, reader, turn, len(items))

    def _handled(self, reader: _Reader, turn: int, done: int) -> None:
        if reader.turn == turn:
            reader.done, reader.busy = done, False
            self._wake()

    def _unhandled(self, failure: Failure, reader: _Reader, turn: int, done: int) -> None:
        if not failure.check(BrokerError):
            self._log.failure("a batch of replies was not handled; it is dropped", failure)
            self._handled(reader, turn, done)
        elif reader.turn == turn:
            # It could not pass them on yet: the same again, a little later.
            reader.again = self._clock.callLater(POLL, self._handled, reader, turn, 0)

    def _ask(self, effect: Callable[[], _T], *, adds: bool = False) -> Deferred[_T]:
        """Let `effect` happen, if there is a connection, and answer in the next turn."""
        if not self._up:
            return fail(NotConnected("memory"))
        done: Deferred[_T] = Deferred()
        answer: _T | Failure
        try:
            if self._refusal is not None and (adds or not self._refusal.startswith("OOM")):
                raise Refused(self._refusal)
            answer = effect()
        except Refused:
            answer = Failure()
        self._answers.append((done, answer))
        self._wake()
        return done

    # Queues

    def push(self, queue: str, messages: Sequence[bytes]) -> Deferred[int]:
        """Append `messages` in order; fires with the length of the queue."""
        if self._push_dropped is not None and self._up:
            applied, self._push_dropped = self._push_dropped, None
            self._losing = True
            if not applied:
                return self._ask(lambda: 0)
        return self._ask(lambda: self.store.push(queue, messages), adds=True)

    def take_off(
        self, queue: str, messages: Sequence[bytes], *, newest: bool = False
    ) -> Deferred[list[bool]]:
        """Remove each message once where nobody has taken it; fires with whether it was there."""
        return self._ask(lambda: self.store.take_off(queue, messages, newest=newest))

    def depths(self, queues: Sequence[str]) -> Deferred[list[QueueDepth]]:
        """The depth of each of `queues`."""
        return self._ask(lambda: [self.store.depth(queue) for queue in queues])

    # Nodes and their inboxes

    def open_inbox(
        self, node_id: str, handler: InboxHandler, *, legacy: tuple[str, InboxHandler] | None = None
    ) -> None:
        """Read replies for `node_id` from now on; before `start`, once."""
        keys = self.store.keys
        self._readers.append(_Reader(keys.inbox(node_id), handler, None))
        if legacy is not None:
            self._legacy, handler = legacy
            self._readers.append(_Reader(keys.legacy_inbox(node_id), handler, self._legacy))

    def reply(self, node_id: str, replies: Sequence[bytes]) -> Deferred[int]:
        """Append `replies` to a node's inbox; fires with its length."""
        return self._ask(
            lambda: self.store.append(self.store.keys.inbox(node_id), replies), adds=True
        )

    def beat(self, node_id: str, snapshot: bytes, *, inbox_life: float) -> Deferred[None]:
        """Say that the node lives, publish its snapshot, and bury nodes that are silent."""
        return self._ask(
            lambda: self.store.beat(node_id, snapshot, inbox_life=inbox_life, legacy=self._legacy)
        )

    def nodes(self) -> Deferred[dict[str, bytes | None]]:
        """The snapshots of all listed nodes, None where one is silent."""
        return self._ask(self.store.nodes)

    def survey(self) -> Deferred[Survey]:
        """What Redis knows of everybody, the depths of queues and the dead letters apart."""
        return self._ask(self.store.survey)

    def leave(self, node_id: str) -> Deferred[None]:
        """Take the node off the list, and delete its inbox."""
        return self._ask(lambda: self.store.leave(node_id, self._legacy))

    # Leases

    def claim(self, queues: Sequence[str], *, holder: str, lease: float) -> Deferred[Claim | None]:
        """Take the first message of the first of `queues` that has one, for `lease` seconds."""
        return self._ask(lambda: self.store.claim(queues, holder=holder, lease=lease))

    def together(self) -> AbstractContextManager[None]:
        """Nothing: there is nothing between us and the queues."""
        return nullcontext()

    def claim_many(
        self, queues: Sequence[str], *, holder: str, lease: float, most: int
    ) -> Deferred[list[Claim]]:
        """Take the first `most` messages, in the order of `queues`, in one step; as `claim`."""

        def effect() -> list[Claim]:
            claims: list[Claim] = []
            while len(claims) < most:
                claim = self.store.claim(queues, holder=holder, lease=lease)
                if claim is None:
                    break
                claims.append(claim)
            return claims

        return self._ask(effect)

    def renew(self, queue: str, tokens: Sequence[str], *, lease: float) -> Deferred[list[bool]]:
        """Prolong leases to `lease` seconds from now; False for those no longer held."""
        return self._ask(lambda: self.store.renew(queue, tokens, lease=lease))

    def ack(
        self, claim: Claim, *, reply_to: str | None = None, reply: bytes = b""
    ) -> Deferred[bool]:
        """End the claim, and send the reply in the same step. Repeated until it is answered."""

        def effect() -> bool:
            held = self.store.end(claim)
            if held and reply_to is not None:
                self.store.send_reply(reply_to, reply)
            return held

        return self._insist(effect)

    def retry(self, claim: Claim, message: bytes) -> Deferred[bool]:
        """End the claim, and put `message` at the head of its queue. Repeated until answered."""

        def effect() -> bool:
            held = self.store.end(claim)
            if held:
                self.store.put_back(claim.queue, message)
            return held

        return self._insist(effect)

    def fail(
        self, claim: Claim, entry: bytes, *, reply_to: str | None = None, reply: bytes | None = None
    ) -> Deferred[bool]:
        """End the claim, and append `entry` to the failures. Repeated until answered."""

        def effect() -> bool:
            held = self.store.end(claim)
            if held:
                self.store.append(self.store.keys.failed, [entry])
                if reply_to is not None and reply is not None:
                    self.store.send_reply(reply_to, reply)
            return held

        return self._insist(effect)

    def reap(self, queue: str, *, lease: float, most: int = 100) -> Deferred[list[Claim]]:
        """Take over messages whose lease has expired, for `lease` seconds."""
        return self._ask(lambda: self.store.reap(queue, lease=lease, most=most))

    # Orders

    def order(self, node_id: str, order: bytes) -> Deferred[None]:
        """Leave `order` for a node, which takes it within a second."""
        return self._ask(lambda: self.store.orders.append(self.store.keys.orders(node_id), order))

    def take_orders(self, node_id: str) -> Deferred[list[bytes]]:
        """Take what was ordered of this node, the oldest first."""
        return self._ask(lambda: self.store.orders.take(self.store.keys.orders(node_id)))

    def report(self, order_id: str, report: bytes) -> Deferred[None]:
        """Say what became of an order."""
        return self._ask(
            lambda: self.store.orders.append(self.store.keys.reports(order_id), report)
        )

    def reports(self, order_id: str) -> Deferred[list[bytes]]:
        """What nodes have said of an order."""
        return self._ask(lambda: self.store.orders.items(self.store.keys.reports(order_id)))

    # The gate

    def pause(self, queue: str, *, by: str) -> Deferred[bool]:
        """Let nobody claim from `queue` any more, and relays push no more to it."""
        return self._ask(lambda: self.store.gate.pause(queue, by))

    def resume(self, queue: str) -> Deferred[bool]:
        """Undo `pause`; fires with False where the queue was not paused."""
        return self._ask(lambda: self.store.gate.resume(queue))

    def gates(self, queues: Sequence[str] | None = None) -> Deferred[dict[str, Gate]]:
        """Those of `queues` that are paused; without `queues`, of all that there are."""
        return self._ask(lambda: self.store.gate.gates(queues))

    # What pools need

    def bell(self, queues: Sequence[str]) -> Bell:
        """A bell for `queues`."""
        bell = MemoryBell(
            map(self.store.keys.queue, queues),
            filled=self.store.offers,
            wake=self._wake,
            clock=self._clock,
        )
        self._bells.append(bell)
        if self._stopped:
            bell.stop()
        return bell

    def delay(self, claim: Claim, message: bytes, *, seconds: float) -> Deferred[bool]:
        """End the claim, and keep `message` for its queue until `seconds` from now."""
        return self._insist(lambda: self.store.pool.delay(claim, message, seconds))

    def promote(self, queues: Sequence[str], *, most: int = 100) -> Deferred[int]:
        """Put messages whose time has come at the head of their queues."""
        return self._ask(lambda: self.store.pool.promote(queues, most))

    def failures(
        self, *, start: int = 0, count: int = 50, newest: bool = True
    ) -> Deferred[FailurePage]:
        """`count` dead letters from the `start`-th on, newest or oldest first."""
        return self._ask(lambda: self.store.pool.failures(start=start, count=count, newest=newest))

    def retry_failure(self, which: str | bytes) -> Deferred[bool]:
        """Put the message of a dead letter back at the tail of its queue, as if never tried."""
        return self.retry_failures([which]).addCallback(bool)

    def drop_failure(self, which: str | bytes) -> Deferred[bool]:
        """Take a dead letter out for good."""
        return self.drop_failures([which]).addCallback(bool)

    def retry_failures(self, which: Sequence[str | bytes] | None = None) -> Deferred[int]:
        """Retry all of `which`, or all that there are now; fires with how many it was."""
        return self._ask(lambda: self.store.pool.end_failures(which, retry=True))

    def drop_failures(self, which: Sequence[str | bytes] | None = None) -> Deferred[int]:
        """Drop all of `which`, or all that there are now; fires with how many it was."""
        return self._ask(lambda: self.store.pool.end_failures(which, retry=False))

    def mark_gone(self, ids: Sequence[str], *, life: float) -> Deferred[None]:
        """Remember for `life` seconds that nobody waits for the requests `ids` any more."""
        return self._ask(lambda: self.store.pool.mark_gone(ids, life), adds=True)

    def tell_taken(self, taken: Mapping[str, int], *, life: float) -> Deferred[None]:
        """Remember for `life` seconds how many bytes of streamed replies their clients took."""
        return self._ask(lambda: self.store.pool.tell_taken(taken, life), adds=True)

    def which_gone(self, ids: Sequence[str]) -> Deferred[set[str]]:
        """Those of `ids` for which nobody waits any more."""
        return self._ask(lambda: self.store.pool.which_gone(ids))

    def register_worker(self, worker_id: str, queues: Sequence[str]) -> Deferred[None]:
        """List a worker and its queues. Never fails."""
        now = self.store.now()
        return self._say(lambda: self.store.pool.register(worker_id, queues, now))

    def unregister_worker(self, worker_id: str) -> Deferred[None]:
        """Take the worker off the list, with all that is known of it. Never fails."""
        return self._say(lambda: self.store.pool.unregister(worker_id))

    def working_on(self, worker_id: str, queue: str, message: bytes | None) -> Deferred[None]:
        """Say what the worker runs from now on, None for nothing. Never fails."""
        now = self.store.now()
        return self._say(lambda: self.store.pool.work(worker_id, queue, message, now))

    def count(
        self, worker_id: str | None = None, *, processed: int = 0, failed: int = 0
    ) -> Deferred[None]:
        """Add to Resque's counters, and to the worker's own where it is given. Never fails."""
        return self._say(lambda: self.store.pool.count(worker_id, processed, failed))

    def all_paused(self) -> Deferred[bool]:
        """Whether somebody has paused all workers; a test sets ``store.pool.paused``."""
        return self._ask(lambda: self.store.pool.paused)

    def _say(self, effect: Callable[[], None]) -> Deferred[None]:
        """What nobody waits for, and no failure of which is anybody's business."""

        def swallow(failure: Failure) -> None:
            failure.trap(BrokerError)

        return self._ask(effect, adds=True).addErrback(swallow)

    def _insist(self, effect: Callable[[], bool]) -> Deferred[bool]:
        return insist(lambda: self._ask(effect), self.when_up)
