"""Streamed replies: frames of a worker become the parts of one answer, in order, or break it off.

Invariants:

1. An answer has the frames of one worker's one try, each once and in order; else it is broken off,
   never spliced and never ended as if it were whole. Who begins anew (a frame with a status) while
   an answer is under way is another try: the message was taken over, so the first try's last frame
   will never come. Numbered frames tell even without a status, and tell what was pushed twice.
2. Once the first frame has gone out, nothing but the end or a break follows: no second status.
3. A stream is under way from its first frame to its last one, for at most `frame_timeout` seconds
   between two. While its client is behind the time stands still: the worker may be waiting for it.
4. A client is at most `max_unsent` bytes behind when more comes, and all together are within the
   relay's memory; who is further behind is cut off, and nobody else notices.
5. Frames for nobody tell their worker so, by the mark of clients that have left; and a worker that
   wants to know how much of the body its client has taken can, so that it need not run ahead.
6. What becomes of a stream is given as events, and each is to be carried out before the next is
   asked for: it may be about memory that the next one needs.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from twisted.logger import Logger

from queuerelay.errors import BadReply, Refusal, ReplyError
from queuerelay.relay.budget import ByteBudget
from queuerelay.relay.held import Held, HeldTable
from queuerelay.wire.reply import Frame, Reply

#: Bytes of a body, or seconds, between two notices to its worker of how much the client has taken,
#: which also tell that the relay is still there.
TOLD_EVERY: Final = 64 * 1024
TOLD_AFTER: Final = 30.0


class Break(Enum):
    """Why a streamed answer was broken off; the value is its counter."""

    #: No frame came for too long.
    TIMEOUT = "aborted_timeout"
    #: A frame that cannot be understood, or a body that is not of the declared length.
    BROKEN = "aborted_broken"
    #: The worker gave up, or another one began anew.
    RESTARTED = "aborted_restarted"
    #: The client is too far behind.
    BEHIND = "aborted_behind"
    #: The client takes nothing.
    STALLED = "aborted_stalled"
    #: The relay stops.
    STOPPING = "aborted_stopping"
    #: A bug of ours.
    FAILED = "aborted_failed"


@dataclass(frozen=True, slots=True)
class CannotBegin:
    """The answer to `held` cannot begin; nothing was sent, so an error can still be sent."""

    held: Held
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class BrokenOff:
    """The answer to `held` ends in the middle; its client must not take it for whole."""

    held: Held
    why: Break
    particulars: str


@dataclass(frozen=True, slots=True)
class Whole:
    """All of the answer to `held` was given to its client."""

    held: Held
    status: int
    #: Whether the worker has ended too, or goes on for nothing.
    worker_ended: bool


@dataclass(frozen=True, slots=True)
class Ignored:
    """A frame that is no part of the answer."""

    #: Name of the frame's counter.
    name: str


@dataclass(frozen=True, slots=True)
class Taken:
    """The client of a request has taken so many bytes of the body: tell the worker."""

    id: str
    size: int


Event = CannotBegin | BrokenOff | Whole | Ignored | Taken

#: The events of most frames: none.
_NOTHING: Final[tuple[Event, ...]] = ()
_DOUBLED: Final = (Ignored("frames_doubled"),)
_LATE: Final = (Ignored("frames_late"),)


class _Stream:
    """One streamed answer."""

    __slots__ = (
        *("at", "expected", "first", "held", "last", "opening", "parts", "size", "status"),
        *("told", "told_at"),
    )

    def __init__(self, held: Held, frame: Frame, now: float) -> None:
        self.held = held
        #: Numbers of the first frame and the next; None where the worker gives none.
        self.first = frame.number or 0
        self.expected = None if frame.number is None else frame.number + 1
        #: The first frame, until the answer has begun.
        self.opening: Reply | None = frame
        self.status = frame.status
        #: Parts of the body that have come in this batch.
        self.parts = [frame.body]
        self.last = False
        #: Clock seconds of the last frame.
        self.at = now
        #: Bytes of the body so far, and how many of them the worker was told to be taken.
        self.size = len(frame.body)
        self.told = 0
        self.told_at = now


class Streams:
    """The streamed answers of one relay.

    A client's memory is bounded by `max_unsent`, that of all clients by `budget`.
    """

    _log = Logger()

    def __init__(
        self, table: HeldTable, budget: ByteBudget, *, frame_timeout: float, max_unsent: int
    ) -> None:
        self._table = table
        self._budget = budget
        self._timeout = frame_timeout
        self._max_unsent = max_unsent
        #: Answers under way by id, the one whose last frame is oldest first; for others to look at.
        self.active: OrderedDict[str, _Stream] = OrderedDict()
        self._touched: dict[str, _Stream] = {}

    def __len__(self) -> int:
        return len(self.active)

    def take(self, held: Held, reply: Reply, now: float) -> Iterable[Event] | None:
        """A reply for `held`, which waits or has a streamed answer. Its bytes are for `flush`.

        None where it is no part of a stream, but the whole answer.
        """
        stream = self.active.get(held.id)
        if stream is None:
            # A number is a frame's: without those before it, the last one is no answer either.
            if not (
                isinstance(reply, Frame)
                and (reply.more or (reply.number is not None and not reply.opens))
            ):
                return None
            if not reply.opens:
                return (CannotBegin(held, BadReply("a first frame without status and headers")),)
            stream = self.active[held.id] = self._touched[held.id] = _Stream(held, reply, now)
            return _NOTHING
        number = reply.number if isinstance(reply, Frame) else None
        expected = stream.expected
        if number is not None and expected is not None and stream.first <= number < expected:
            # Pushed again because its worker did not hear of the first time.
            return _DOUBLED
        if stream.last:
            return _LATE
        if not isinstance(reply, Frame) or reply.opens or number != expected:
            why = f"status {reply.status} while it was under way"
            return (self._broken(stream, Break.RESTARTED, why),)
        stream.parts.append(reply.body)
        stream.size += len(reply.body)
        stream.last = not reply.more
        stream.at = now
        if expected is not None:
            stream.expected = expected + 1
        self.active.move_to_end(held.id)
        self._touched[held.id] = stream
        return _NOTHING

    def flush(self) -> Iterator[Event]:
        """Send the parts that have come since the last flush: for each client in one write."""
        touched, self._touched = self._touched, {}
        for stream in touched.values():
            if self.active.get(stream.held.id) is stream:
                event = self._send(stream)
                if event is not None:
                    yield event

    def taken(self, held: Held, now: float) -> Iterable[Event]:
        """The client of `held` has taken bytes that it was behind with."""
        stream = self.active.get(held.id)
        if stream is None:
            return _NOTHING
        stream.at = now
        self.active.move_to_end(held.id)
        event = self._taken(stream)
        return _NOTHING if event is None else (event,)

    def forget(self, held: Held) -> None:
        """The request has ended, however that came."""
        self.active.pop(held.id, None)

    def sweep(self, now: float) -> Iterator[Event]:
        """Break off answers whose worker has been silent for too long; `now` in clock seconds."""
        due = now - self._timeout
        while self.active:
            stream = next(iter(self.active.values()))
            if stream.at > due:
                break
            if stream.held.client.backlog:
                stream.at = now
                self.active.move_to_end(stream.held.id)
            else:
                del self.active[stream.held.id]
                yield BrokenOff(stream.held, Break.TIMEOUT, f"no frame for {self._timeout:g} s")

    def _send(self, stream: _Stream) -> Event | None:
        held, parts, last = stream.held, stream.parts, stream.last
        stream.parts = []
        client = held.client
        try:
            if stream.opening is not None:
                more = client.begin(stream.opening, parts, last=last)
                stream.opening = None
                if not held.alive:
                    # The client has left meanwhile.
                    return None
                self._table.begin(held)
                if not more:
                    return Whole(held, stream.status, last)
            else:
                behind = client.backlog
                if behind > self._max_unsent or (behind and self._budget.crowded):
                    why = f"its client is {behind} bytes behind"
                    return BrokenOff(held, Break.BEHIND, why)
                client.proceed(parts, last=last)
        except ReplyError as error:
            return self._broken(stream, Break.BROKEN, str(error))
        except Exception:
            self._log.failure("a part of an answer could not be sent")
            return BrokenOff(held, Break.FAILED, "it could not be sent")
        return Whole(held, stream.status, True) if last else self._taken(stream)

    def _broken(self, stream: _Stream, why: Break, particulars: str) -> Event:
        if stream.opening is not None:
            return CannotBegin(stream.held, BadReply(particulars))
        return BrokenOff(stream.held, why, particulars)

    def _taken(self, stream: _Stream) -> Event | None:
        taken = stream.size - stream.held.client.backlog
        if taken - stream.told < TOLD_EVERY and (
            taken <= stream.told or stream.at - stream.told_at < TOLD_AFTER
        ):
            return None
        stream.told, stream.told_at = taken, stream.at
        return Taken(stream.held.id, taken)
