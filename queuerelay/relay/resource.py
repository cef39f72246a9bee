"""The relay as a twisted.web Resource, to be mounted anywhere in anybody's Site."""

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from queuerelay.errors import BodyTooLarge
from queuerelay.http.channel import StrictChannel
from queuerelay.http.error_pages import Pages
from queuerelay.http.forwarded import Peer
from queuerelay.http.problems import Fields, reason_phrase
from queuerelay.http.sender import Sender
from queuerelay.relay.answering import AT_ONCE, Answering
from queuerelay.relay.framing import Framing
from queuerelay.relay.held import Held
from queuerelay.relay.relay import Relay
from queuerelay.wire.reply import Reply


class RelayResource(Resource):
    """Puts every request that reaches it, whatever its method and path, on the relay's queue.

    The message has the whole request target, wherever the Resource is mounted.
    """

    isLeaf = True
    _log = Logger()

    def __init__(self, relay: Relay, *, max_body: int, server_timing: bool = True) -> None:
        super().__init__()
        self.relay = relay
        self._max_body = max_body
        #: Whether answers tell how long they took (``Server-Timing``).
        self.server_timing = server_timing
        #: The operator's pages for errors.
        self.pages: Pages = {}

    def render(self, request: Request) -> int:
        """Hold the request; it is answered later."""
        exchange = _Exchange(self, request)
        content = request.content
        try:
            # One byte more than may be, to notice that it is too many.
            body = b"" if content is None else content.read(self._max_body + 1)
        except Exception:
            exchange.failed("a request could not be read")
            return NOT_DONE_YET
        if len(body) > self._max_body:
            too_large = BodyTooLarge(f"more than {self._max_body} bytes")
            exchange.refuse(self.relay.count(too_large))
            return NOT_DONE_YET
        exchange.hold(
            self._met(request),
            list(request.requestHeaders.getAllRawHeaders()),
            target=request.uri,
            http_version=request.clientproto.decode("latin-1").removeprefix("HTTP/"),
            body=body,
        )
        if exchange.held is not None:
            self._watch(request, exchange, exchange.held)
        return NOT_DONE_YET

    def _met(self, request: Request) -> Peer:
        """The other end of the connection."""
        peer = request.getClientAddress()
        return self.relay.trust.peer(
            peer.host if isinstance(peer, IPv4Address | IPv6Address) else "",
            "https" if request.isSecure() else "http",
        )

    def _watch(self, request: Request, exchange: "_Exchange", held: Held) -> None:
        def left(_: Failure) -> None:
            exchange.stop()
            self.relay.gone(held)

        finished = request.notifyFinish()
        finished.addErrback(left)
        finished.addErrback(lambda failure: self._log.failure("a client's leaving", failure))


class _Exchange(Answering):
    """A request of twisted.web."""

    __slots__ = ("_request",)

    def __init__(self, resource: RelayResource, request: Request) -> None:
        super().__init__(resource, "")
        self._request = request
        self.method = request.method
        self.requestHeaders = request.requestHeaders
        self._name()

    def _send(self, status: int, fields: Fields, body: bytes) -> None:
        self._head(status, fields)
        if len(body) <= AT_ONCE:
            self._request.write(body)
            self._request.finish()
        else:
            sender = self._sending()
            sender.send(body)
            sender.end()

    def _sending(self) -> Sender:
        request: Any = self._request
        sender = self._sender = Sender(
            self._home.relay.senders,
            request.channel,
            write=request.write,
            done=self._sent,
            give_up=self._stalled,
            taken=self._taken,
        )
        request.registerProducer(sender, True)
        return sender

    def _sent(self) -> None:
        self._sender = None
        self._request.unregisterProducer()
        self._request.finish()

    def _framed(self, reply: Reply) -> Framing:
        # Chunks are twisted.web's.
        return Framing(chunked=False, length=reply.declared_length)

    def _open(
        self, framing: Framing, status: int, fields: Fields, body: bytes, *, last: bool
    ) -> None:
        self._head(status, fields)
        sender = self._sending()
        # The header section goes out with it, even where it is empty.
        sender.send(body)
        if last:
            sender.end()

    def _drop(self, status: int) -> None:
        channel: Any = self._request.channel
        channel.loseConnection()

    def _cut(self) -> None:
        request: Any = self._request
        channel = request.channel
        framing = self._framing
        bounded = framing is not None and (request.chunked or not framing.until_close)
        if bounded and isinstance(channel, StrictChannel):
            channel.break_off()
        else:
            request.transport.abortConnection()

    def _head(self, status: int, fields: Fields) -> None:
        request = self._request
        request.setResponseCode(status, reason_phrase(status))
        # The worker says what the content is; nobody guesses for it.
        request.defaultContentType = None
        own = Headers()
        for name, value in fields:
            own.addRawHeader(name, value)
        for name, values in own.getAllRawHeaders():
            request.responseHeaders.setRawHeaders(name, values)
        request.responseHeaders.setRawHeaders(b"X-Request-Id", [self._id])
