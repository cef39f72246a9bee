"""The daemon's own HTTP front: twisted.web's parser, and nothing between it and the relay.

A request here is parsed, held and answered without traversal, sessions, form parsing or
temporary files, and its answer goes out in one write.

Invariants:

1. A connection answers one request at a time, in the order of arrival, each once.
2. After an early answer (a request refused before it was complete) nothing more is read from the
   connection, not even what came in the same segment: no second request, no second answer.
3. A connection that is being closed is gone after a bounded time, whether its client reads or not.
4. Bodies that are still coming in count against the relay's bytes.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHalfCloseableDescriptor, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http

from queuerelay.broker import eager
from queuerelay.errors import BadRequest, BodyTooLarge, Refusal, TooManyHeld
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
#: Longest body, in bytes, that is copied behind its header section to go out in one write.
COPIED: Final = 64 * 1024


@cache
def _status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, reason_phrase(status))


class FieldList:
    """Header fields in the order of arrival, as far as the channel asks a `Headers` for them.

    The channel has already checked what it adds, so nothing is checked or sorted here.
    """

    __slots__ = ("fields",)

    def __init__(self) -> None:
        #: ``(name, (value,))``, names as the channel writes them.
        self.fields: list[tuple[bytes, tuple[bytes]]] = []

    def addRawHeader(self, name: bytes, value: bytes) -> None:
        """Append a field."""
        self.fields.append((name, (value,)))

    def getRawHeaders(self, name: bytes, default: Any = None) -> Any:
        """All values of `name`, or `default` where there is none."""
        name = name.lower()
        return [values[0] for each, values in self.fields if each.lower() == name] or default


class FrontRequest:
    """One request, and the relay's `Client` for it.

    What the channel needs of a `twisted.web.http.Request`, which weighs three times as much.
    """

    __slots__ = (
        "__weakref__",
        "_body",
        "_front",
        "_given_id",
        "_held",
        "_id",
        "channel",
        "client",
        "clientproto",
        "method",
        "requestHeaders",
        "uri",
    )

    def __init__(self, channel: "FrontChannel", queued: object = None) -> None:
        #: None once the client has left or has its answer.
        self.channel: Any = channel
        self.client = channel.peer
        self.requestHeaders = FieldList()
        self.method = b"GET"
        self.uri = self.clientproto = b"-"
        self._front = channel.factory
        self._body: bytes | bytearray = b""
        self._held: Held | None = None
        self._id = b""
        self._given_id = False

    # What the channel calls, in this order

    def parseCookies(self) -> None:
        """Cookies are the worker's business."""

    def gotLength(self, length: int | None) -> None:
        """The header section is complete; the body has `length` bytes, None for chunked."""
        self._name()
        if length is not None and length > self._front.max_body:
            self._refuse_early(BodyTooLarge(f"more than {self._front.max_body} bytes"))

    def handleContentChunk(self, data: bytes) -> None:
        """A part of the body."""
        if self.channel.deaf:
            return
        front = self._front
        # Most bodies come in one piece; a list of many small ones would weigh a multiple of them.
        if not self._body:
            self._body = data
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data
        front.receiving += len(data)
        if len(self._body) > front.max_body:
            self._refuse_early(BodyTooLarge(f"more than {front.max_body} bytes"))
        elif front.receiving > front.relay.room:
            self._refuse_early(TooManyHeld("no room for another body"))

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The request is complete."""
        channel = self.channel
        if channel.deaf:
            return
        self.method, self.uri, self.clientproto = command, path, version
        headers = request_headers(self.requestHeaders.fields)
        if self._given_id:
            headers = [pair for pair in headers if pair[0] != "x-request-id"]
        headers.append(("x-request-id", self._id.decode("ascii")))
        body = self._take_body() if self._body else b""
        try:
            self._held = self._front.relay.hold(
                self,
                method=command.decode("latin-1"),
                url=path.decode("latin-1"),
                http_version=version[5:].decode("latin-1"),
                headers=headers,
                body=body,
                remote_addr=channel.remote_addr,
                scheme=channel.scheme,
            )
        except Refusal as refusal:
            self.refuse(refusal)
        else:
            if self._front.access_log is None:
                # All that is wanted of them from now on; ten fields weigh more than their message.
                accept = self.requestHeaders.getRawHeaders(b"accept") or ()
                self.requestHeaders = FieldList()
                for value in accept:
                    self.requestHeaders.addRawHeader(b"Accept", value)

    def connectionLost(self, reason: Failure) -> None:
        """The client has left."""
        self.channel = None
        self._take_body()
        held, self._held = self._held, None
        if held is not None:
            self._front.relay.gone(held)
            # RFC 9110 has no status for this; 499 is what logs have used since nginx.
            self._log_access(499, 0)

    def _name(self) -> None:
        given = self.requestHeaders.getRawHeaders(b"x-request-id")
        self._given_id = given is not None
        self._id = request_id(given)

    def _take_body(self) -> bytes:
        body, self._body = bytes(self._body), b""
        self._front.receiving -= len(body)
        return body

    def _refuse_early(self, refusal: Refusal) -> None:
        self._take_body()
        if refusal.status >= 500:
            self._front.relay.count(refusal)
        self.channel.answer_early(self, refusal)

    # What the relay calls

    def answer(self, reply: Reply) -> None:
        """Send the worker's answer."""
        fields, body = for_reply(reply, self.method)
        self._send(reply.status, fields, body)

    def refuse(self, refusal: Refusal) -> None:
        """Send an error of our own."""
        fields, body = self._refusal_fields(refusal)
        self._send(refusal.status, fields, body)

    def abort(self) -> None:
        """An answer could not be sent: what may have gone out of it must not pass for one."""
        if self.channel is not None:
            self.channel.abort()

    def early_answer(self, refusal: Refusal) -> bytes:
        """An error as bytes, for a request that is still being read."""
        self.method, self.uri, self.clientproto = self.channel.request_line()
        if not self._id:
            self._name()
        fields, body = self._refusal_fields(refusal)
        self._log_access(refusal.status, len(body))
        return self._front.head(refusal.status, fields, self._id, close=True) + body

    def _refusal_fields(self, refusal: Refusal) -> tuple[Fields, bytes]:
        accept = self.requestHeaders.getRawHeaders(b"accept") or ()
        return for_refusal(refusal, self.method, accept)

    def _send(self, status: int, fields: Fields, body: bytes) -> None:
        channel = self.channel
        if self._front.draining:
            channel.persistent = False
        if not channel.persistent:
            # The last answer on its connection: a client that does not read it must not keep it.
            channel.setTimeout(IDLE)
        head = self._front.head(status, fields, self._id, close=not channel.persistent)
        if len(body) <= COPIED:
            eager.write(channel.transport, head + body)
        else:
            channel.transport.writeSequence((head, body))
        self._log_access(status, len(body))
        self._held = None
        self.channel = None
        channel.requestDone(self)

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
    # Whatever the endpoint makes; twisted.web's annotations know a few methods of it only.
    transport: Any
    _networkProducer: Any
    requestFactory = FrontRequest  # type: ignore[assignment]  # annotated as the base class
    maxHeaders = 100
    totalHeadersSize = 32 * 1024
    MAX_LENGTH = 8 * 1024

    #: Whether an early answer was given; nothing is read after it.
    deaf = False

    def connectionMade(self) -> None:
        """A client has connected."""
        super().connectionMade()
        peer = self.peer = self.transport.getPeer()
        self.remote_addr = peer.host if isinstance(peer, IPv4Address | IPv6Address) else ""
        self.scheme = "https" if self.isSecure() else "http"
        self.factory.channels.add(self)

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
        #: Bytes of bodies that are not complete yet.
        self.receiving = 0
        #: Whether every answer is the last one on its connection.
        self.draining = False
        self._wall_clock = wall_clock
        self._date = b""
        self._date_at = 0
        self._closed: Deferred[None] | None = None

    def buildProtocol(  # type: ignore[override]  # the base's is for the switch to HTTP/2
        self, addr: IAddress | None
    ) -> FrontChannel:
        """A channel for a new connection."""
        channel = super().buildProtocol(addr)
        assert isinstance(channel, FrontChannel)
        return channel

    def drain(self) -> None:
        """Close what is idle, and everything else after its answer."""
        self.draining = True
        for channel in list(self.channels):
            channel.close_if_idle()

    def closed(self) -> Deferred[None]:
        """Fires when no client is connected any more; to be asked once, after `drain`."""
        self._closed = Deferred()
        if not self.channels:
            self._closed.callback(None)
        return self._closed

    def abort(self) -> None:
        """Close every connection at once."""
        for channel in list(self.channels):
            channel.abort()

    def left(self, channel: FrontChannel) -> None:
        """A connection has ended."""
        self.channels.discard(channel)
        if not self.channels and self._closed is not None and not self._closed.called:
            self._closed.callback(None)

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
