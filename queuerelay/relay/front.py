"""The daemon's own HTTP front: twisted.web's parser, and nothing between it and the relay.

A request here is parsed, held and answered without traversal, sessions, form parsing or
temporary files, and its answer goes out in one write.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IHalfCloseableDescriptor, IReactorTime
from twisted.python.failure import Failure
from twisted.web import http

from queuerelay.errors import BadRequest, BodyTooLarge, Refusal
from queuerelay.relay.accesslog import AccessLog, Entry
from queuerelay.relay.core import Relay
from queuerelay.relay.held import Held
from queuerelay.relay.request_id import request_id
from queuerelay.relay.response import Fields, for_refusal, for_reply, reason_phrase
from queuerelay.wire.headers import connection_options, request_headers
from queuerelay.wire.reply import Reply

#: Seconds that a connection may be idle.
IDLE: Final = 60.0
#: Seconds for which a client is still read from after an early answer, so that the answer arrives.
LINGER: Final = 2.0


@cache
def _status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, reason_phrase(status))


class FrontRequest(http.Request):
    """One request, and the relay's `Client` for it."""

    def __init__(self, channel: "FrontChannel", *args: Any, **kwargs: Any) -> None:
        super().__init__(channel, *args, **kwargs)
        self._front = channel.factory
        self._body: list[bytes] = []
        self._size = 0
        self._held: Held | None = None
        self._id = b""

    # What the channel calls, in this order

    def parseCookies(self) -> None:
        """Cookies are the worker's business."""

    def gotLength(self, length: int | None) -> None:
        """The header section is complete; the body has `length` bytes, None for chunked."""
        self._id = request_id(self.requestHeaders.getRawHeaders(b"x-request-id"))
        self._size = length or 0
        if self._size > self._front.max_body:
            self._refuse_early()

    def handleContentChunk(self, data: bytes) -> None:
        """A part of the body."""
        self._body.append(data)
        if self.channel.length is None:
            self._size += len(data)
            if self._size > self._front.max_body:
                self._refuse_early()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The request is complete."""
        self.method, self.uri, self.clientproto = command, path, version
        fields = self.requestHeaders
        headers = request_headers(fields.getAllRawHeaders())
        if fields.hasHeader(b"x-request-id"):
            headers = [pair for pair in headers if pair[0] != "x-request-id"]
        headers.append(("x-request-id", self._id.decode("ascii")))
        body, self._body = b"".join(self._body), []
        peer = self.client
        try:
            self._held = self._front.relay.hold(
                self,
                method=command.decode("latin-1"),
                url=path.decode("latin-1"),
                http_version=version[5:].decode("latin-1"),
                headers=headers,
                body=body,
                remote_addr=peer.host if isinstance(peer, IPv4Address | IPv6Address) else "",
                scheme="https" if self.isSecure() else "http",
            )
        except Refusal as refusal:
            self.refuse(refusal)

    def connectionLost(self, reason: Failure) -> None:
        """The client has left."""
        super().connectionLost(reason)
        if self._held is not None:
            self._front.relay.gone(self._held)
            # RFC 9110 has no status for this; 499 is what logs have used since nginx.
            self._log_access(499, 0)

    def _refuse_early(self) -> None:
        self.method, self.uri, self.clientproto = self.channel.request_line()
        self._body = []
        self.channel.answer_early(self, BodyTooLarge(f"more than {self._front.max_body} bytes"))

    # What the relay calls

    def answer(self, reply: Reply) -> None:
        """Send the worker's answer."""
        fields, body = for_reply(reply, self.method)
        self._send(reply.status, fields, body)

    def refuse(self, refusal: Refusal) -> None:
        """Send an error of our own."""
        fields, body = self.refusal_fields(refusal)
        self._send(refusal.status, fields, body)

    def refusal_fields(self, refusal: Refusal) -> tuple[Fields, bytes]:
        """Header fields and body for an error, as this client accepts them."""
        accept = self.requestHeaders.getRawHeaders(b"accept") or ()
        return for_refusal(refusal, self.method, accept)

    def _send(self, status: int, fields: Fields, body: bytes) -> None:
        channel = self.channel
        if self._front.draining:
            channel.persistent = False
        channel.transport.writeSequence(
            (self._front.head(status, fields, self._id, close=not channel.persistent), body)
        )
        self._log_access(status, len(body))
        self.startedWriting = self.finished = 1
        self._held = None
        self._cleanup()

    def _log_access(self, status: int, length: int) -> None:
        if self._front.access_log is not None:
            self._front.access_log.add(
                Entry(
                    client=self.client,
                    method=self.method,
                    target=self.uri,
                    version=self.clientproto,
                    status=status,
                    length=length,
                    headers=self.requestHeaders,
                    id=self._id,
                )
            )


class FrontChannel(http.HTTPChannel):
    """One connection of a client."""

    factory: "Front"
    requestFactory = FrontRequest
    maxHeaders = 100
    totalHeadersSize = 32 * 1024
    MAX_LENGTH = 8 * 1024

    def connectionMade(self) -> None:
        """A client has connected."""
        self._deaf = False
        super().connectionMade()
        self.factory.channels.add(self)

    def connectionLost(self, reason: Failure) -> None:
        """The client has left, or was sent away."""
        self.factory.channels.discard(self)
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the client; after an early answer nobody reads them any more."""
        if not self._deaf:
            super().dataReceived(data)

    def checkPersistence(self, request: http.Request, version: bytes) -> bool:
        """Whether the connection stays open after the answer (RFC 9112 9.3)."""
        if version != b"HTTP/1.1" or self.factory.draining:
            return False
        options = request.requestHeaders.getRawHeaders(b"connection")
        return not options or "close" not in connection_options(options)

    def request_line(self) -> tuple[bytes, bytes, bytes]:
        """Method, target and version of the request that is being read."""
        return self._command, self._path, self._version

    def answer_early(self, request: FrontRequest, refusal: Refusal) -> None:
        """Answer a request that is still being sent, and close once the client has heard of it.

        Closing at once would reset the connection, and the client might lose the answer.
        """
        self._deaf = True
        fields, body = request.refusal_fields(refusal)
        id = request_id(request.requestHeaders.getRawHeaders(b"x-request-id"))
        self.transport.write(self.factory.head(refusal.status, fields, id, close=True) + body)
        self.setTimeout(None)
        self._networkProducer.unregisterProducer()
        if IHalfCloseableDescriptor.providedBy(self.transport):
            self.transport.loseWriteConnection()
            self._abortingCall = self.callLater(LINGER, self.forceAbortClient)
        else:
            self.transport.loseConnection()

    def close_if_idle(self) -> None:
        """Close unless a request is being read or answered."""
        if not self.requests:
            self.loseConnection()

    def _respondToBadRequestAndDisconnect(self) -> None:
        """twisted.web found the request malformed; its own answer has no header fields."""
        if not self._deaf:
            request = self.requests[-1] if self.requests else FrontRequest(self)
            request.method = b"GET"
            self.answer_early(request, BadRequest())


class Front(http.HTTPFactory):
    """Accepts connections for one relay."""

    protocol = FrontChannel  # type: ignore[assignment]  # without the switch to HTTP/2
    noisy = False

    def __init__(
        self,
        relay: Relay,
        *,
        max_body: int,
        clock: IReactorTime,
        wall_clock: Callable[[], float],
        access_log: AccessLog | None = None,
    ) -> None:
        super().__init__(timeout=IDLE, reactor=clock)
        self.relay = relay
        #: Largest request body, in bytes.
        self.max_body = max_body
        self.access_log = access_log
        self.channels: set[FrontChannel] = set()
        #: Whether every answer is the last one on its connection.
        self.draining = False
        self._wall_clock = wall_clock
        self._date = b""
        self._date_at = 0

    def buildProtocol(self, addr: IAddress | None) -> FrontChannel:
        """A channel for a new connection."""
        channel = super().buildProtocol(addr)
        assert isinstance(channel, FrontChannel)
        return channel

    def drain(self) -> None:
        """Close what is idle, and everything else after its answer."""
        self.draining = True
        for channel in list(self.channels):
            channel.close_if_idle()

    def head(self, status: int, fields: Fields, id: bytes, *, close: bool) -> bytes:
        """Status line and header section. A worker's ``Date`` and ``Server`` stay (RFC 9110
        6.6.1); ``X-Request-Id`` is always ours.
        """
        parts = [_status_line(status)]
        dated = served = False
        for name, value in fields:
            lowered = name.lower()
            if lowered == b"date":
                dated = True
            elif lowered == b"server":
                served = True
            elif lowered == b"x-request-id":
                continue
            parts.append(b"%b: %b\r\n" % (name, value))
        if not dated:
            parts.append(self._date_line())
        if not served:
            parts.append(b"server: queuerelay\r\n")
        parts.append(b"x-request-id: %b\r\n" % id)
        parts.append(b"connection: close\r\n\r\n" if close else b"\r\n")
        return b"".join(parts)

    def _date_line(self) -> bytes:
        now = int(self._wall_clock())
        if now != self._date_at:
            self._date_at = now
            self._date = b"date: %b\r\n" % http.datetimeToString(now)
        return self._date
