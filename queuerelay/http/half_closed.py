"""Clients that have closed their side of the connection and wait for an answer (``nc -N``, socat,
some proxies), and how it is seen that one of them has left after all.

TCP does not tell a client that will read on from one that has closed its socket: both have sent a
FIN and nothing else. What tells is the reset with which a closed socket answers the next byte.

Invariants:

1. Every such client is sent a first byte of its answer at once, where the answer's beginning is
   known, and further ones after `FIRST_PAUSE` and twice as long each time: so who has left is found
   within a round trip, and who leaves later soon enough.
2. A reset is seen when it comes, although nothing is read from the connection any more, and nothing
   is written: the descriptors are watched for errors alone, by an epoll within the reactor's.
"""

import select
import socket
from contextlib import suppress
from math import inf
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from zope.interface import implementer

#: How every answer begins, be its status line ours or twisted.web's: what may be sent ahead of it.
OPENING: Final = b"HTTP/1."
#: Seconds between the first byte that is sent ahead and the second.
FIRST_PAUSE: Final = 1.0
#: Longest time between two such bytes.
LONGEST_PAUSE: Final = 32.0
#: For a client whose host has vanished: seconds without a segment until the kernel asks for one,
#: seconds between two askings, and how many go unanswered.
KEEPALIVE: Final = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))


class HalfClosed(Protocol):
    """A connection whose client has closed its side."""

    transport: Any

    def abort(self) -> None:
        """Close at once, whatever has not been sent."""


def _keep_alive(connection: socket.socket) -> None:
    """Have the kernel ask whether the client's host is still there."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE:
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


@implementer(IReadDescriptor)
class HalfClosedWatch:
    """Aborts each half-closed connection that its client has reset, or closed where that shows."""

    _log = Logger()

    def __init__(self, reactor: object) -> None:
        """`reactor` may be a mere clock; then nothing is watched."""
        self._reactor: Any = reactor
        self._able = IReactorFDSet.providedBy(reactor) and hasattr(select, "epoll")
        self._epoll: select.epoll | None = None
        self._watched: dict[int, HalfClosed] = {}
        self._numbers: dict[HalfClosed, int] = {}

    def __len__(self) -> int:
        return len(self._watched)

    def add(self, connection: HalfClosed) -> None:
        """Watch `connection` until `discard`."""
        if not self._able or connection in self._numbers:
            return
        handle: socket.socket = connection.transport.getHandle()
        _keep_alive(handle)
        fd = handle.fileno()
        if self._epoll is None:
            self._epoll = select.epoll()
            self._reactor.addReader(self)
        # Errors and hang-ups are told in any case.
        self._epoll.register(fd, 0)
        self._watched[fd] = connection
        self._numbers[connection] = fd

    def discard(self, connection: HalfClosed) -> None:
        """Watch `connection` no longer; it may be closed by now, and then the kernel has forgotten
        it.
        """
        fd = self._numbers.pop(connection, None)
        epoll = self._epoll
        if fd is None or epoll is None:
            return
        if self._watched.get(fd) is connection:
            del self._watched[fd]
            with suppress(OSError):
                epoll.unregister(fd)
        if not self._numbers:
            self._reactor.removeReader(self)
            self._epoll = None
            epoll.close()

    # What the reactor calls

    def logPrefix(self) -> str:
        """The name of this descriptor in the reactor's own log."""
        return "half-closed"

    def fileno(self) -> int:
        """The epoll's descriptor."""
        return -1 if self._epoll is None else self._epoll.fileno()

    def doRead(self) -> None:
        """Clients have left."""
        assert self._epoll is not None
        gone = [self._watched.get(fd) for fd, _ in self._epoll.poll(0)]
        for connection in gone:
            if connection is not None:
                self.discard(connection)
                connection.abort()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops."""
        self._watched.clear()
        self._numbers.clear()
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None


@implementer(IHalfCloseableProtocol)
class HalfCloseableChannel(http.HTTPChannel):
    """One connection of a client, as far as its client may close its side before ours."""

    # Whatever the endpoint makes; twisted.web's annotations know a few methods of it only.
    factory: Any
    transport: Any
    _networkProducer: Any
    persistent: bool

    #: Whether the client is heard no more: after an early answer, and after the last one.
    deaf = False
    #: When `expire` is to be called; infinity for never.
    due = inf
    #: Bytes of the next answer that were sent ahead of it.
    ahead = 0

    #: Bytes that were read and not looked at yet.
    _pending = b""
    #: Whether `_advance` is at work, further down the stack.
    _busy = False
    #: Whether the client has closed its side, and seconds until the next byte is sent to it.
    _half_closed = False
    _pause = FIRST_PAUSE

    # What a subclass has to say

    def _advance(self) -> None:
        """Look at the bytes that were read; where they end without a request, `_cut_short`."""
        raise NotImplementedError

    def _stop_looking(self) -> None:
        """Hear the client no more."""
        raise NotImplementedError

    def send_ahead(self, request: Any) -> None:
        """Send a byte of the answer to `request`; the transport has sent all that was written."""
        if not request.startedWriting:
            self.send_opening()

    # What the transport calls

    def readConnectionLost(self) -> None:
        """The client has closed its side: it sends no more, and may wait for its answer."""
        connections = self.factory.connections
        if self.deaf:
            self.transport.loseConnection()
        elif not connections.limits.half_close:
            self._stop_looking()
            self.due = connections.seconds() + connections.limits.idle
            self.loseConnection()
        elif not self._half_closed:
            self._half_closed = True
            if self._handlingRequest:
                self._await_answer()
            elif not (self._waitingForTransport or self._busy):
                self._advance()

    def writeConnectionLost(self) -> None:
        """Our side was closed, by `_linger`."""

    def _await_answer(self) -> None:
        """A client that has closed its side waits: find out whether it does."""
        if not self._pending:
            # The last of its requests.
            self.persistent = False
        connections = self.factory.connections
        connections.half_closed.add(self)
        self._pause = FIRST_PAUSE
        self._look_for_client(connections.seconds())

    def _look_for_client(self, now: float) -> None:
        if not self._waitingForTransport:
            self.send_ahead(self.requests[0])
        self.due = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def send_opening(self) -> None:
        """Send one byte more of how the next answer begins, as long as that is known."""
        if self.ahead < len(OPENING):
            self.ahead += 1
            self.transport.write(OPENING[self.ahead - 1 : self.ahead])

    def writeHeaders(self, version: bytes, *answer: Any) -> None:
        """An answer of twisted.web's begins."""
        ahead, self.ahead = self.ahead, 0
        super().writeHeaders(version[ahead:], *answer)
