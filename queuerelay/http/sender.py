"""Answers that do not go out in one write: large ones, and streamed ones.

twisted.web writes an answer as a whole and then gives its client the idle time of a connection to
take it, 60 s and 15 s more, however well it reads (`http.HTTPChannel`, ``requestDone`` and
``timeoutConnection``). Here an answer goes to the transport in pieces, and the request is done when
the last of them has left it.

Invariants:

1. The transport holds no more than its own buffer (64 KiB) and one piece; the rest waits here,
   once, and counts as `Senders.waiting` until the transport has taken it.
2. A client that takes nothing for the stall time is cut off, and so is one that takes less than
   `LEAST_RATE` on an average of that time, unless it took all that there was at its beginning: a
   stream may be slow. One look at all senders finds them; there is no timer for each.
"""

import fcntl
import struct
import termios
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IPushProducer
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from zope.interface import implementer

#: Bytes that go to the transport at a time.
PIECE: Final = 64 * 1024
#: Bytes a second that a client has to take of an answer, as it has to send them of a body.
LEAST_RATE: Final = 1024
#: Looks at all senders within the stall time.
_LOOKS: Final = 12


class Senders:
    """All answers of one server that are being sent.

    `stall` is for how many seconds a client may take nothing.
    """

    _log = Logger()

    def __init__(self, *, stall: float) -> None:
        self._stall = stall
        self._active: set[Sender] = set()
        self._look_at = 0.0
        #: Bytes that no transport has taken yet.
        self.waiting = 0

    def __len__(self) -> int:
        return len(self._active)

    def add(self, sender: "Sender") -> None:
        """`sender` has begun to send."""
        self._active.add(sender)

    def discard(self, sender: "Sender") -> None:
        """`sender` has sent all, or its client has left."""
        self._active.discard(sender)

    def sweep(self, now: float) -> None:
        """Give up each answer whose client takes nothing any more; `now` is clock seconds."""
        if now < self._look_at:
            return
        self._look_at = now + self._stall / _LOOKS
        for sender in list(self._active):
            if sender.stalled(now, self._stall):
                try:
                    sender.give_up()
                except Exception:
                    self._log.failure("an answer could not be given up")


@implementer(IPushProducer)
class Sender:
    """One answer on its way; to be registered as the connection's producer.

    `channel` is twisted.web's for the request. `write` takes bytes for the client. `done` is called
    once, after `end`, when the transport has taken all; `taken` each time that it has taken
    something that had to wait; `give_up` where the client takes nothing any more: it is to abort
    the connection.
    """

    __slots__ = (
        "_done",
        "_ending",
        "_given",
        "_offset",
        "_paused",
        "_queue",
        "_senders",
        "_since",
        "_taken",
        "_tell_taken",
        "_transport",
        "_window",
        "_write",
        "give_up",
        "unsent",
        "waiting",
    )

    def __init__(
        self,
        senders: Senders,
        channel: Any,
        *,
        write: Callable[[bytes], object],
        done: Callable[[], object],
        taken: Callable[[], object],
        give_up: Callable[[], object],
    ) -> None:
        self._senders = senders
        self._transport = channel.transport
        self._write = write
        self._done = done
        self._tell_taken = taken
        #: Called where the client takes nothing any more.
        self.give_up = give_up
        self._queue: deque[bytes] = deque()
        #: Bytes of the first piece in the queue that the transport has taken.
        self._offset = 0
        # The transport may still have an earlier answer; HTTP/2's channels have no such attribute.
        self._paused: bool = getattr(channel, "_waitingForTransport", False)
        self._ending = False
        #: Bytes that the transport has not taken yet.
        self.waiting = 0
        #: Bytes that the transport will never take, as the sender was stopped.
        self.unsent = 0
        self._given = 0
        self._taken = 0
        self._since: float | None = None
        #: Beginning of the time over which the rate is taken, what had been taken then, and what
        #: was left.
        self._window: tuple[float, int, int] | None = None
        senders.add(self)

    def send(self, data: bytes) -> None:
        """Send `data` after what was given before."""
        self._queue.append(data)
        self._given += len(data)
        self.waiting += len(data)
        self._senders.waiting += len(data)
        self._pump()

    def go_on(self, data: bytes, *, last: bool) -> None:
        """Send `data`, if there is any; nothing comes after the `last`."""
        if data:
            self.send(data)
        if last:
            self.end()

    def end(self) -> None:
        """The answer is complete: nothing more comes."""
        self._ending = True
        self._pump()

    def stop(self) -> None:
        """Send nothing more, and forget the bytes that wait."""
        self._queue.clear()
        self.unsent += self.waiting
        self._senders.waiting -= self.waiting
        self.waiting = 0
        self._ending = False
        self._senders.discard(self)

    def stalled(self, now: float, stall: float) -> bool:
        """Whether the client has taken nothing for `stall` seconds, or too little, and there is
        something to take; to be asked from time to time.
        """
        left = self._left()
        taken = self._given - left
        if self._crawls(now, stall, taken, left):
            return True
        if left <= 0 or taken > self._taken or self._since is None:
            self._taken, self._since = taken, now
            return False
        return now - self._since >= stall

    def _crawls(self, now: float, stall: float, taken: int, left: int) -> bool:
        if left <= 0 or self._window is None:
            self._window = (now, taken, left) if left > 0 else None
            return False
        since, before, waited = self._window
        if taken - before >= waited:
            self._window = (now, taken, left)
        elif now - since >= stall:
            self._window = (now, taken, left)
            return taken - before < LEAST_RATE * stall
        return False

    # What the transport calls

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The transport's buffer is empty."""
        self._paused = False
        waited = self.waiting > 0
        self._pump()
        if waited:
            self._tell_taken()

    def stopProducing(self) -> None:
        """The connection is lost."""
        self.stop()

    def _pump(self) -> None:
        queue = self._queue
        while queue and not self._paused:
            first = queue[0]
            left = len(first) - self._offset
            if left <= PIECE:
                piece = first[self._offset :]
                queue.popleft()
                self._offset = 0
            else:
                piece = first[self._offset : self._offset + PIECE]
                self._offset += PIECE
            self.waiting -= len(piece)
            self._senders.waiting -= len(piece)
            self._write(piece)
        if self._ending and not queue and not self._paused:
            self._ending = False
            self._senders.discard(self)
            self._done()

    def _left(self) -> int:
        """Bytes that the client has not taken, as far as can be told."""
        transport = self._transport
        while isinstance(transport, ProtocolWrapper):
            transport = transport.transport
        if not (isinstance(transport, Connection) and transport.connected):
            # All that is known of its buffer is whether there is something in it.
            return self.waiting + self._paused
        buffered = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
        try:
            # The kernel's buffer may be some MiB, and signals no progress before a third is free.
            answer = fcntl.ioctl(transport.socket, termios.TIOCOUTQ, b"\0" * 4)
        except OSError:
            return self.waiting + buffered
        (unacknowledged,) = struct.unpack("i", answer)
        return int(self.waiting + buffered + unacknowledged)
