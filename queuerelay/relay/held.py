"""Held requests: who waits, since when, until when, and how it ended.

Invariants:

1. A held request is in the table from `HeldTable.add` to `HeldTable.end`, and ends exactly once;
   whoever ends it first decides, everybody later finds `Held.state` and leaves it alone.
2. After its end nothing of it remains but its id and its end, for a bounded while, to tell a late
   reply from an unknown one.
3. The deadlines cost one set insertion and one removal each, and one timer for all of them.
"""

from collections import deque
from enum import Enum
from typing import Final, Protocol

from queuerelay.errors import Refusal
from queuerelay.wire.reply import Reply

#: Width of a slot of the deadline wheel, in seconds: by how much an expiry may come late.
SLOT: Final = 0.25
#: How many ended requests are remembered.
REMEMBERED: Final = 16384


class State(Enum):
    """Where a held request stands; the first three are alive, the last four are ends."""

    #: In memory only.
    GATED = "gated"
    #: Pushed, or being pushed.
    QUEUED = "queued"
    #: Bytes of the answer have been sent (streamed replies).
    ANSWERING = "answering"

    ANSWERED = "answered"
    EXPIRED = "expired"
    GONE = "gone"
    REFUSED = "refused"


class Client(Protocol):
    """The far end of a held request, whatever protocol it speaks. Called at most once."""

    def answer(self, reply: Reply) -> None:
        """Send the worker's answer."""

    def refuse(self, refusal: Refusal) -> None:
        """Send an error of our own."""


class Held:
    """One held request."""

    __slots__ = (
        "accepted_at",
        "client",
        "deadline",
        "id",
        "idempotent",
        "message",
        "pushes",
        "queue",
        "slot",
        "state",
    )

    def __init__(
        self,
        id: str,
        queue: str,
        message: bytes,
        client: Client,
        idempotent: bool,
        accepted_at: float,
        deadline: float,
    ) -> None:
        #: Names it on the wire; unguessable.
        self.id = id
        self.queue = queue
        self.message = message
        self.client = client
        #: Whether it may be pushed again where the outcome of a push is unknown.
        self.idempotent = idempotent
        #: Clock seconds.
        self.accepted_at = accepted_at
        #: Clock seconds after which it is answered by us.
        self.deadline = deadline
        self.state = State.GATED
        #: How often it was pushed; more than once only after a lost connection.
        self.pushes = 0
        #: Its slot on the wheel.
        self.slot = 0

    @property
    def alive(self) -> bool:
        """Whether it still waits for its end."""
        return self.state in _ALIVE


_ALIVE: Final = frozenset({State.GATED, State.QUEUED, State.ANSWERING})


class HeldTable:
    """All held requests of one relay."""

    def __init__(self) -> None:
        self._by_id: dict[str, Held] = {}
        self._wheel: dict[int, set[Held]] = {}
        self._next_slot: int | None = None
        self._ended: dict[str, State] = {}
        self._ended_order: deque[str] = deque()
        #: Bytes of all messages held.
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, held: Held) -> None:
        """Begin to hold it."""
        self._by_id[held.id] = held
        self.bytes += len(held.message)
        # One slot later, so that none expires early.
        slot = held.slot = int(held.deadline / SLOT) + 1
        bucket = self._wheel.get(slot)
        if bucket is None:
            self._wheel[slot] = {held}
            if self._next_slot is None or slot < self._next_slot:
                self._next_slot = slot
        else:
            bucket.add(held)

    def get(self, id: str) -> Held | None:
        """The held request of that id."""
        return self._by_id.get(id)

    def end(self, held: Held, state: State) -> bool:
        """It ends as `state`; False where it had ended already."""
        if self._by_id.pop(held.id, None) is None:
            return False
        held.state = state
        self.bytes -= len(held.message)
        bucket = self._wheel.get(held.slot)
        if bucket is not None:
            bucket.discard(held)
        if len(self._ended_order) >= REMEMBERED:
            del self._ended[self._ended_order.popleft()]
        self._ended[held.id] = state
        self._ended_order.append(held.id)
        return True

    def ended_as(self, id: str) -> State | None:
        """How it ended, where that is remembered."""
        return self._ended.get(id)

    def due(self, now: float) -> list[Held]:
        """Those whose deadline has passed, the oldest first. Each is given once; it stays in the
        table until it is ended.
        """
        if self._next_slot is None:
            return []
        last = int(now / SLOT)
        due: list[Held] = []
        if self._next_slot <= last:
            for slot in sorted(slot for slot in self._wheel if slot <= last):
                due.extend(self._wheel.pop(slot))
            self._next_slot = min(self._wheel, default=None)
            due.sort(key=lambda held: held.deadline)
        return due

    def all(self) -> list[Held]:
        """Everything held now."""
        return list(self._by_id.values())
