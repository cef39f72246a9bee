"""What one Redis holds, in memory; several brokers may share it, as processes share a Redis.

The parts of a broker do to it what the commands and scripts do to Redis. What more than one part
does, or a test for another process, is a method here.
"""

import secrets
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from twisted.internet.interfaces import IReactorTime

from queuerelay.broker.records import Gate, WrongType
from queuerelay.errors import Refused
from queuerelay.wire.claim import Claim
from queuerelay.wire.commands import MOST_RESULTS, REPLY_LIFE
from queuerelay.wire.keys import Keys


@dataclass(slots=True)
class HeldLease:
    """A message in flight."""

    claim: Claim
    #: Clock seconds.
    expires: float


@dataclass(slots=True)
class ListedNode:
    """A node on the list."""

    #: Clock seconds.
    beat: float
    snapshot: bytes


@dataclass(slots=True)
class DelayedMessage:
    """A message that waits for its time."""

    #: Clock seconds.
    due: float
    message: bytes


@dataclass(slots=True)
class Lists:
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
        """Delete keys, as DEL does."""
        self.content.pop(key, None)
        self.terms.pop(key, None)

    def expire(self, key: str, seconds: float, *, unless_set: bool = False) -> None:
        """Give a key a term, as EXPIRE does, with NX for `unless_set`."""
        if self.get(key) and not (unless_set and key in self.terms):
            self.terms[key] = self.clock.seconds() + seconds


class MemoryStore:
    """What one Redis holds."""

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
        self.lists = Lists(clock)
        #: The queues that have been registered for ``QUEUE=*`` workers.
        self.queues: set[str] = set()
        #: By queue and token.
        self.leases: dict[str, dict[str, HeldLease]] = {}
        #: By queue, those due first foremost.
        self.delayed: dict[str, list[DelayedMessage]] = {}
        #: The paused queues.
        self.paused: dict[str, Gate] = {}
        self.nodes: dict[str, ListedNode] = {}
        #: Orders and reports by key: when they vanish (clock seconds), and what is there.
        self.orders: dict[str, tuple[float, list[bytes]]] = {}
        #: Clock seconds until which a client is known to have left, by message id.
        self.gone: dict[str, float] = {}
        #: Bytes that the clients of streamed replies took, and when that is forgotten, by message
        #: id.
        self.taken: dict[str, tuple[int, float]] = {}
        #: The registered workers, and since when (Unix seconds).
        self.workers: dict[str, float] = {}
        #: What a worker is on, as ``resque:worker:<id>`` says it.
        self.working: dict[str, bytes] = {}
        #: Resque's counters by name and worker, None for all workers.
        self.stats: dict[tuple[str, str | None], int] = {}
        #: ``resque:pause-all-workers``.
        self.all_paused = False
        #: Dead letters that were dropped for being too many or too old.
        self.dropped = 0
        #: What `wrong_types` is to say.
        self.wrong_types: list[WrongType] = []

    # To look at

    def items(self, key: str) -> list[bytes]:
        """The items of the Redis list of that name."""
        return [*self.lists.get(key)]

    def messages(self, queue: str) -> list[bytes]:
        """The messages that wait, oldest first."""
        return self.items(self.keys.queue(queue))

    @property
    def dead_letters(self) -> list[bytes]:
        """The entries of ``resque:failed``, oldest first."""
        return self.items(self.keys.failed)

    def inflight(self, queue: str) -> list[Claim]:
        """The messages that somebody has claimed."""
        return [lease.claim for lease in self.leases.get(queue, {}).values()]

    def offers(self, key: str) -> bool:
        """Whether a claim would find something in the queue's list `key`."""
        return key not in map(self.keys.queue, self.paused) and bool(self.lists.get(key))

    def seconds(self) -> float:
        """Clock seconds."""
        return self._clock.seconds()

    def now(self) -> float:
        """Unix seconds."""
        return self._wall_clock()

    # Lists

    def append(self, key: str, items: Sequence[bytes]) -> int:
        """Append to a list, as RPUSH does."""
        if not items:
            raise Refused("ERR wrong number of arguments for 'rpush' command")
        length = self.lists.put(key, items)
        self._tell(key)
        return length

    def put_at_head(self, key: str, items: Iterable[bytes]) -> None:
        """LPUSH: the last of `items` is foremost."""
        self.lists.put(key, items, head=True)
        self._tell(key)

    def remove(self, key: str, item: bytes) -> bool:
        """LREM of the first such item; False where there is none."""
        found = self.lists.get(key)
        if item not in found:
            return False
        found.remove(item)
        return True

    def push(self, queue: str, messages: Sequence[bytes]) -> int:
        """Append to a queue."""
        length = self.append(self.keys.queue(queue), messages)
        self.queues.add(queue)
        return length

    def _tell(self, key: str) -> None:
        for watcher in [*self.watchers]:
            watcher(key)

    # Leases

    def claim(self, queues: Sequence[str], *, holder: str, lease: float) -> Claim | None:
        """Take the first message of the first queue that has one and is not paused."""
        for queue in queues:
            waiting = self.lists.get(self.keys.queue(queue))
            if waiting and queue not in self.paused:
                claim = Claim(
                    queue=queue,
                    token=secrets.token_hex(16),
                    message=waiting.popleft(),
                    since=self._wall_clock(),
                    holder=holder,
                )
                self.lease(claim, lease)
                return claim
        return None

    def lease(self, claim: Claim, seconds: float) -> None:
        """Let the claim be held from now on."""
        held = self.leases.setdefault(claim.queue, {})
        held[claim.token] = HeldLease(claim, self.seconds() + seconds)

    def end(self, claim: Claim) -> bool:
        """Give up the lease; False where it was no longer held."""
        return self.leases.get(claim.queue, {}).pop(claim.token, None) is not None

    def send_reply(self, reply_to: str, reply: bytes) -> None:
        """Push a reply, as the scripts that end a lease do."""
        self.append(reply_to, [reply])
        if reply_to.startswith(self.keys.results):
            kept = self.lists.get(reply_to)
            while len(kept) > MOST_RESULTS:
                kept.popleft()
            self.lists.expire(reply_to, REPLY_LIFE)
        else:
            self.lists.expire(reply_to, REPLY_LIFE, unless_set=True)

    # The gate

    def pause(self, queue: str, by: str) -> bool:
        """Pause a queue; False where it is paused already."""
        if queue in self.paused:
            return False
        self.paused[queue] = Gate(since=self.now(), by=by)
        return True

    def resume(self, queue: str) -> bool:
        """Resume a queue; False where it is not paused."""
        if self.paused.pop(queue, None) is None:
            return False
        self._tell(self.keys.queue(queue))
        return True

    # Clients

    def mark_gone(self, ids: Sequence[str], life: float) -> None:
        """Remember for `life` seconds that these clients have left."""
        self.gone.update(dict.fromkeys(ids, self.seconds() + life))

    def which_gone(self, ids: Sequence[str]) -> set[str]:
        """Those of the requests whose clients have left."""
        now = self.seconds()
        return {one for one in ids if self.gone.get(one, now) > now}
