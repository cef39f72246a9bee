"""Held requests: which ones wait, since when, until when, and how they ended.

Invariants:

1. A held request is in the table from `HeldTable.add` to `HeldTable.end`, and ends exactly once;
   whoever ends it first decides, everybody later finds `Held.state` and leaves it alone.
2. Only the table writes `Held.state`, and only the steps of `STEPS` are made; any other is a bug of
   ours, and raises `IllegalStep`.
3. Nothing is pushed, or taken for not pushed, once its answer has begun; and an answer that has
   begun is ended or broken off: no error of ours comes after it.
4. After its end nothing of a request remains but its id and its end, for a bounded while, to tell a
   late reply from an unknown one.
5. The deadlines cost one insertion and one removal each, and one timer for all of them: requests of
   equal patience expire in the order in which they came, so there is a lane for each patience that
   is configured, and only its front is looked at. A lane is no longer than what is held.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from itertools import takewhile
from typing import Final, Protocol

from queuerelay.errors import Refusal
from queuerelay.http.shares import Shares
from queuerelay.wire.reply import Reply

#: How many ended requests are remembered.
REMEMBERED: Final = 16384


class HeldState(Enum):
    """Where a held request stands; the first three are alive, the others are ends."""

    #: The request is in the relay's memory only.
    GATED = "gated"
    #: The request was pushed, or is being pushed.
    QUEUED = "queued"
    #: Bytes of the answer have been sent (streamed replies).
    ANSWERING = "answering"

    ANSWERED = "answered"
    EXPIRED = "expired"
    GONE = "gone"
    REFUSED = "refused"
    #: A streamed answer was broken off in the middle.
    ABORTED = "aborted"

    # As a member is equal to itself alone; an enum's own is five times as slow.
    __hash__ = object.__hash__


_GATED, _QUEUED, _ANSWERING = HeldState.GATED, HeldState.QUEUED, HeldState.ANSWERING
#: How a request may end before its answer has begun. Replies are matched by id alone, so one that
#: was not pushed may be answered too; broken off is an answer that failed while it began.
_ENDS: Final = frozenset(HeldState) - {_GATED, _QUEUED, _ANSWERING}

#: By state, the states that may come next.
STEPS: Final[Mapping[HeldState, frozenset[HeldState]]] = {
    _GATED: _ENDS | {_QUEUED, _ANSWERING},
    # Where a connection was lost a request is pushed again, or turns out not to have been sent.
    _QUEUED: _ENDS | {_QUEUED, _GATED, _ANSWERING},
    _ANSWERING: frozenset({HeldState.ANSWERED, HeldState.GONE, HeldState.ABORTED}),
    **dict.fromkeys(_ENDS, frozenset[HeldState]()),
}


#: By state, the ends that may come next.
_ENDS_OF: Final = {state: after & _ENDS for state, after in STEPS.items()}


class IllegalStep(Exception):
    """a held request cannot go from one state to the other"""

    def __init__(self, held: "Held", state: HeldState) -> None:
        super().__init__(f"{held.id} is {held.state.value}, so it cannot be {state.value}")


class HeldClient(Protocol):
    """The far end of a held request, whatever protocol it speaks.

    One of `answer`, `refuse` and `begin` is called, at most once; `proceed` only after `begin`.
    """

    def answer(self, reply: Reply) -> None:
        """Send the worker's answer."""

    def refuse(self, refusal: Refusal) -> None:
        """Send an error of our own."""

    def begin(self, reply: Reply, parts: Sequence[bytes], *, last: bool) -> bool:
        """Begin a streamed answer: the status and header fields of `reply`, and the first `parts`
        of its body; with `last` that is all. False where the answer has no body, so that it is
        whole already.

        Raises `ReplyError` where it cannot be sent; then nothing was.
        """

    def proceed(self, parts: Sequence[bytes], *, last: bool) -> None:
        """Send more of a streamed answer, and with `last` end it.

        Raises `ReplyError` where that cannot be sent.
        """

    @property
    def backlog(self) -> int:
        """Bytes of a streamed answer that the client has not taken yet."""

    def abort(self) -> None:
        """The answer failed halfway: break it off, without another one."""


class Held:
    """One held request."""

    __slots__ = (
        "accepted_at",
        "address",
        "client",
        "deadline",
        "id",
        "idempotent",
        "lane",
        "message",
        "pushes",
        "queue",
        "state",
    )

    def __init__(
        self,
        id: str,
        queue: str,
        message: bytes,
        client: HeldClient,
        idempotent: bool,
        accepted_at: float,
        deadline: float,
    ) -> None:
        #: The request's name on the wire; unguessable.
        self.id = id
        self.queue = queue
        self.message = message
        self.client = client
        #: Whether the request may be pushed again where the outcome of a push is unknown.
        self.idempotent = idempotent
        #: Clock seconds at which the relay took the request.
        self.accepted_at = accepted_at
        #: Clock seconds after which the relay answers the request itself.
        self.deadline = deadline
        #: The state of the request; only the table writes it.
        self.state = HeldState.GATED
        #: How often the request was pushed: only after a lost connection more than once; the
        #: table's.
        self.pushes = 0
        #: The client whose share the request is of, see `queuerelay.http.shares`.
        self.address = ""
        #: The lane in which the request waits for its deadline; the table's.
        self.lane: dict[str, Held] | None = None

    @property
    def alive(self) -> bool:
        """Whether the request still waits for its end."""
        return self.state not in _ENDS


class HeldTable:
    """All held requests of one relay."""

    def __init__(self) -> None:
        #: Who holds how much, what is being answered apart; None while nobody wants to know.
        self.shares: Shares[Held] | None = None
        self._by_id: dict[str, Held] = {}
        self._lanes: dict[float, dict[str, Held]] = {}
        self._ended: dict[str, HeldState] = {}
        self._ended_order: deque[str] = deque()
        #: Bytes of all messages held.
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, held: Held, patience: float) -> None:
        """Begin to hold a new request, which came last and whose deadline is `patience` seconds
        from now.
        """
        if held.state is not _GATED or held.id in self._by_id:
            raise IllegalStep(held, _GATED)
        self._by_id[held.id] = held
        self.bytes += len(held.message)
        lane = self._lanes.get(patience)
        if lane is None:
            lane = self._lanes[patience] = {}
        lane[held.id] = held
        held.lane = lane

    def share(self, most: float, place: int) -> Shares[Held]:
        """Who holds how much, from now on: `most` is the share of one, `place` what each request
        weighs beside its message.
        """
        if self.shares is None:
            self.shares = Shares(most)
            for held in self._by_id.values():
                if held.state is not _ANSWERING:
                    self.shares.add(held.address, held, place + len(held.message))
        return self.shares

    def pushed(self, held: Held) -> None:
        """The message of `held` is on its way to the queue."""
        if _QUEUED not in STEPS[held.state]:
            raise IllegalStep(held, _QUEUED)
        held.state = _QUEUED
        held.pushes += 1

    def not_sent(self, held: Held) -> None:
        """The last push of `held` was not sent, so it has not happened; where it was the only one,
        the request is in memory alone again.
        """
        state = _QUEUED if held.pushes > 1 else _GATED
        if state not in STEPS[held.state]:
            raise IllegalStep(held, state)
        held.state = state
        held.pushes -= 1

    def begin(self, held: Held) -> None:
        """The answer to `held` is being streamed: there is no deadline any more, and no message is
        needed.
        """
        if _ANSWERING not in STEPS[held.state]:
            raise IllegalStep(held, _ANSWERING)
        held.state = _ANSWERING
        self.bytes -= len(held.message)
        held.message = b""
        if self.shares is not None:
            self.shares.remove(held.address, held)
        if held.lane is not None:
            del held.lane[held.id]
            held.lane = None

    def get(self, id: str) -> Held | None:
        """The held request with the id `id`; None where there is none."""
        return self._by_id.get(id)

    def end(self, held: Held, state: HeldState) -> bool:
        """The request ends as `state`; False where it had ended already."""
        if self._by_id.get(held.id) is not held:
            return False
        if state not in _ENDS_OF[held.state]:
            raise IllegalStep(held, state)
        held.state = state
        del self._by_id[held.id]
        self.bytes -= len(held.message)
        if self.shares is not None:
            self.shares.remove(held.address, held)
        if held.lane is not None:
            del held.lane[held.id]
            held.lane = None
        if len(self._ended_order) >= REMEMBERED:
            del self._ended[self._ended_order.popleft()]
        self._ended[held.id] = state
        self._ended_order.append(held.id)
        return True

    def oldest(self, now: float) -> float:
        """Seconds that the oldest request has waited for its answer, 0 where none waits."""
        since = [next(iter(lane.values())).accepted_at for lane in self._lanes.values() if lane]
        return now - min(since, default=now)

    def by_queue(self) -> dict[str, tuple[int, int]]:
        """How many requests are held for each queue, and how many of them are in memory only."""
        found: dict[str, tuple[int, int]] = {}
        for held in self._by_id.values():
            count, gated = found.get(held.queue, (0, 0))
            found[held.queue] = count + 1, gated + (held.state is HeldState.GATED)
        return found

    def ended_as(self, id: str) -> HeldState | None:
        """How the request of that id ended, where that is remembered."""
        return self._ended.get(id)

    def due(self, now: float) -> list[Held]:
        """The requests whose deadline has passed, the oldest first. Each is given once, and
        stays in the table until it is ended.
        """
        due: list[Held] = []
        for lane in self._lanes.values():
            passed = list(takewhile(lambda held: held.deadline <= now, lane.values()))
            for held in passed:
                del lane[held.id]
                held.lane = None
            due += passed
        due.sort(key=lambda held: held.deadline)
        return due

    def all(self) -> list[Held]:
        """All requests held now."""
        return list(self._by_id.values())


def grouped(batch: Iterable[Held]) -> dict[str, list[Held]]:
    """These requests by their queues."""
    queues: dict[str, list[Held]] = {}
    for held in batch:
        queues.setdefault(held.queue, []).append(held)
    return queues
