"""One connection of a client: twisted.web's parser, and what it leaves open closed.

Invariants:

1. A connection answers one request at a time, in the order of arrival, each once.
2. After an early answer (a request refused before it was complete) nothing more is read from the
   connection, not even what came in the same segment: no second request, no second answer.
3. A connection that is being closed is gone after a bounded time, whether its client reads or not.
"""

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http

from queuerelay.errors import BadRequest, Refusal
from queuerelay.relay.request import FrontRequest
from queuerelay.wire.forwarded import Peer
from queuerelay.wire.headers import connection_options

if TYPE_CHECKING:
    from queuerelay.relay.front import Front

#: Seconds for which a client is still read from after an early answer, so that the answer arrives.
LINGER: Final = 2.0


class FrontChannel(http.HTTPChannel):
    """One connection of a client."""

    factory: "Front"
    # Whatever the endpoint makes; twisted.web's annotations know a few methods of it only.
    transport: Any
    _networkProducer: Any
    requestFactory = FrontRequest  # type: ignore[assignment]  # annotated as the base class
    maxHeaders = 100
    totalHeadersSize = 32 * 1024
    MAX_LENGTH = 8 * 1024

    #: Whether an early answer was given; nothing is read after it.
    deaf = False

    #: Who is at the other end, from the first request on.
    met: Peer | None = None

    def connectionMade(self) -> None:
        """A client has connected."""
        super().connectionMade()
        self.peer = self.transport.getPeer()
        self.factory.channels.add(self)

    def meet(self) -> Peer:
        """See who is at the other end; not earlier, because a PROXY line comes after the
        connection.
        """
        peer = self.peer = self.transport.getPeer()
        address = peer.host if isinstance(peer, IPv4Address | IPv6Address) else ""
        scheme = "https" if self.isSecure() else "http"
        self.met = self.factory.relay.trust.peer(address, scheme)
        return self.met

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client has left, or was sent away."""
        super().connectionLost(reason)
        self.factory.left(self)

    def checkPersistence(self, request: http.Request, version: bytes) -> bool:
        """Whether the connection stays open after the answer (RFC 9112 9.3)."""
        if version != b"HTTP/1.1" or self.factory.draining:
            return False
        options = request.requestHeaders.getRawHeaders(b"connection")
        return not options or "close" not in connection_options(options)

    def request_line(self) -> tuple[bytes, bytes, bytes]:
        """Method, target and version of the request that is being read, as far as known."""
        if not hasattr(self, "_command"):
            return b"-", b"-", b"-"
        return self._command, self._path, self._version

    def answer_early(self, request: FrontRequest, refusal: Refusal) -> None:
        """Answer a request that is still being sent, and close once the client has heard of it.

        Closing at once would reset the connection, and the client might lose the answer.
        """
        self.deaf = True
        # On the instance, so that it also ends the loop that goes through what has been read; and
        # costs nothing until then.
        self.lineReceived = _ignore  # type: ignore[method-assign]  # see above
        self.rawDataReceived = _ignore  # type: ignore[method-assign]  # see above
        self.transport.write(request.early_answer(refusal))
        self.setTimeout(None)
        self._abort_after(LINGER)
        self._networkProducer.unregisterProducer()
        transport = self.transport
        if IHalfCloseableDescriptor.providedBy(transport):
            transport.loseWriteConnection()  # type: ignore[attr-defined]  # not in the interface
        else:
            transport.loseConnection()

    def timeoutConnection(self) -> None:
        """The connection was idle, or its client does not read: close it."""
        self._abort_after(self.abortTimeout)
        # Without a next request it is being closed already, since the last answer.
        if self.persistent or self.requests:
            self.loseConnection()

    def lineLengthExceeded(self, line: bytes) -> None:
        """A request line or header field is too long."""
        self._respondToBadRequestAndDisconnect()

    def abort(self) -> None:
        """Close at once, whatever has not been sent."""
        self.transport.abortConnection()

    def _abort_after(self, seconds: float) -> None:
        if self._abortingCall is None:
            self._abortingCall = self.callLater(seconds, self._abort_late)

    def _abort_late(self) -> None:
        self._abortingCall = None
        self.abort()

    def _send100Continue(self) -> None:
        # twisted.web would send it after an early answer.
        if not self.deaf:
            super()._send100Continue()

    def close_if_idle(self) -> None:
        """Close unless a request is being read or answered."""
        if not self.requests:
            self.loseConnection()

    def _respondToBadRequestAndDisconnect(self) -> None:
        """twisted.web found the request malformed; its own answer has no header fields."""
        if not self.deaf:
            request = self.requests[-1] if self.requests else FrontRequest(self)
            self.answer_early(request, BadRequest())


def _ignore(data: bytes) -> None:
    """Bytes that nobody reads any more."""
