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
"""

from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from typing import Final

from twisted.logger import Logger

from queuerelay.errors import BadReply, Refusal, ReplyError
from queuerelay.relay.held import Held, HeldTable
from queuerelay.wire.reply import Frame, Reply

#: Bytes of a body, or seconds, between two words to its worker of how much was taken: then it knows
#: that there is still a relay.
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
        #: What has come in this batch.
        self.parts = [frame.body]
        self.last = False
        #: Clock seconds of the last frame.
        self.at = now
        #: Bytes of its body so far, and how many the worker was told to be taken.
        self.size = len(frame.body)
        self.told = 0
        self.told_at = now


class Streams:
    """The streamed answers of one relay.

    `refuse` ends a held request before its answer has begun, `answered` and `cut` after; `cut` also
    aborts its client. `answered` is told whether the worker has ended too, `crowded` tells whether
    the relay has no more memory, `count` counts under a name, `tell` is given an id and how many
    bytes of the body its client has taken.
    """

    _log = Logger()

    def __init__(
        self,
        table: HeldTable,
        *,
        frame_timeout: float,
        max_unsent: int,
        refuse: Callable[[Held, Refusal], object],
        answered: Callable[[Held, bool], object],
        cut: Callable[[Held, Break, str], object],
        crowded: Callable[[], bool],
        count: Callable[[str], object],
        tell: Callable[[str, int], object],
    ) -> None:
        self._table = table
        self._timeout = frame_timeout
        self._max_unsent = max_unsent
        self._refuse = refuse
        self._answered = answered
        self._cut = cut
        self._crowded = crowded
        self._count = count
        self._tell = tell
        #: Those under way by id, the one whose last frame is oldest first; for others to look at.
        self.active: OrderedDict[str, _Stream] = OrderedDict()
        self._touched: dict[str, _Stream] = {}

    def __len__(self) -> int:
        return len(self.active)

    def take(self, held: Held, reply: Reply, now: float) -> bool:
        """A reply for `held`, which waits or has a streamed answer; what it gives is for `flush`.

        False where it is no part of a stream, but the whole answer.
        """
        stream = self.active.get(held.id)
        if stream is None:
            # A number is a frame's: without those before it, the last one is no answer either.
            if not (
                isinstance(reply, Frame)
                and (reply.more or (reply.number is not None and not reply.opens))
            ):
                return False
            if reply.opens:
                stream = self.active[held.id] = self._touched[held.id] = _Stream(held, reply, now)
            else:
                self._refuse(held, BadReply("a first frame without status and headers"))
            return True
        number = reply.number if isinstance(reply, Frame) else None
        expected = stream.expected
        if number is not None and expected is not None and stream.first <= number < expected:
            # Pushed again because its worker did not hear of the first time.
            self._count("frames_doubled")
        elif stream.last:
            self._count("frames_late")
        elif not isinstance(reply, Frame) or reply.opens or number != expected:
            self.broken(held, Break.RESTARTED, f"status {reply.status} while it was under way")
        else:
            stream.parts.append(reply.body)
            stream.size += len(reply.body)
            stream.last = not reply.more
            stream.at = now
            if expected is not None:
                stream.expected = expected + 1
            self.active.move_to_end(held.id)
            self._touched[held.id] = stream
        return True

    def flush(self) -> None:
        """Send what has come since the last time: for each client in one write."""
        if not self._touched:
            return
        touched, self._touched = self._touched, {}
        for stream in touched.values():
            if self.active.get(stream.held.id) is stream:
                self._send(stream)

    def broken(self, held: Held, why: Break, particulars: str) -> None:
        """Break the answer to `held` off; where it has not begun, an error can still be said."""
        stream = self.active[held.id]
        if stream.opening is not None:
            self._refuse(held, BadReply(particulars))
        else:
            self._cut(held, why, particulars)

    def status(self, held: Held) -> int:
        """Of the answer to `held`; 0 where it has ended."""
        stream = self.active.get(held.id)
        return 0 if stream is None else stream.status

    def taken(self, held: Held, now: float) -> None:
        """Its client has taken something that it was behind with."""
        stream = self.active.get(held.id)
        if stream is not None:
            stream.at = now
            self.active.move_to_end(held.id)
            self._tell_taken(stream)

    def forget(self, held: Held) -> None:
        """It has ended."""
        self.active.pop(held.id, None)

    def sweep(self, now: float) -> None:
        """Break off what has been silent for too long; `now` in clock seconds."""
        due = now - self._timeout
        while self.active:
            stream = next(iter(self.active.values()))
            if stream.at > due:
                break
            if stream.held.client.backlog:
                stream.at = now
                self.active.move_to_end(stream.held.id)
            else:
                self._cut(stream.held, Break.TIMEOUT, f"no frame for {self._timeout:g} s")

    def _send(self, stream: _Stream) -> None:
        held, parts, last = stream.held, stream.parts, stream.last
        stream.parts = []
        client = held.client
        try:
            if stream.opening is not None:
                more = client.begin(stream.opening, parts, last=last)
                stream.opening = None
                self._table.begin(held)
                if last or not more:
                    self._answered(held, last)
                else:
                    self._tell_taken(stream)
                return
            behind = client.backlog
            if behind > self._max_unsent or (behind and self._crowded()):
                self._cut(held, Break.BEHIND, f"its client is {behind} bytes behind")
                return
            client.proceed(parts, last=last)
        except ReplyError as error:
            self.broken(held, Break.BROKEN, str(error))
        except Exception:
            self._log.failure("a part of an answer could not be sent")
            self._cut(held, Break.FAILED, "it could not be sent")
        else:
            if last:
                self._answered(held, True)
            else:
                self._tell_taken(stream)

    def _tell_taken(self, stream: _Stream) -> None:
        taken = stream.size - stream.held.client.backlog
        if taken - stream.told >= TOLD_EVERY or (
            taken > stream.told and stream.at - stream.told_at >= TOLD_AFTER
        ):
            stream.told, stream.told_at = taken, stream.at
            self._tell(stream.held.id, taken)
