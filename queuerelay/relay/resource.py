"""The relay as a twisted.web Resource, to be mounted anywhere in anybody's Site."""

from collections.abc import Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from queuerelay.errors import BodyTooLarge, InternalError, Refusal, TooManyHeld
from queuerelay.http.error_pages import Pages
from queuerelay.http.problems import Fields, for_refusal, reason_phrase
from queuerelay.http.request_id import request_id
from queuerelay.http.sender import PIECE, Sender
from queuerelay.relay.framing import Framing, has_body, without_body
from queuerelay.relay.held import Held
from queuerelay.relay.relay import Relay
from queuerelay.relay.response import for_reply
from queuerelay.relay.stream import Break
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
        relay = self.relay
        fields = request.requestHeaders
        id = request_id(fields.getRawHeaders(b"x-request-id"))
        exchange = _Exchange(self, request, id)
        peer = request.getClientAddress()
        met = relay.trust.peer(
            peer.host if isinstance(peer, IPv4Address | IPv6Address) else "",
            "https" if request.isSecure() else "http",
        )
        url = request.uri.decode("latin-1")
        http_version = request.clientproto.decode("latin-1").removeprefix("HTTP/")
        headers, remote_addr, scheme = met.forward(
            list(fields.getAllRawHeaders()), url, http_version
        )
        headers = [pair for pair in headers if pair[0] != "x-request-id"]
        headers.append(("x-request-id", id.decode("ascii")))
        try:
            # One byte more than may be, to notice that it is too many.
            body = b"" if request.content is None else request.content.read(self._max_body + 1)
            if len(body) > self._max_body:
                raise relay.count(BodyTooLarge(f"more than {self._max_body} bytes"))
            held = relay.hold(
                exchange,
                method=request.method.decode("latin-1"),
                url=url,
                http_version=http_version,
                headers=headers,
                body=body,
                remote_addr=remote_addr,
                scheme=scheme,
            )
        except Refusal as refusal:
            exchange.refuse(refusal)
        except Exception:
            exchange.refuse(self.failed("a request could not be held"))
        else:
            exchange.held = held
            self._watch(request, exchange, held)
        return NOT_DONE_YET

    def failed(self, what: str, held: Held | None = None) -> Refusal:
        """The error for a bug of ours."""
        self._log.failure("{what}", what=what)
        return self.relay.count(InternalError(what), held)

    def _watch(self, request: Request, exchange: "_Exchange", held: Held) -> None:
        def left(_: Failure) -> None:
            exchange.stop()
            self.relay.gone(held)

        finished = request.notifyFinish()
        finished.addErrback(left)
        finished.addErrback(lambda failure: self._log.failure("a client's leaving", failure))


class _Exchange:
    """A request of twisted.web as the relay's `Client`."""

    __slots__ = ("_framing", "_id", "_request", "_resource", "_sender", "held")

    def __init__(self, resource: RelayResource, request: Request, id: bytes) -> None:
        self._resource = resource
        self._request = request
        self._id = id
        self.held: Held | None = None
        self._sender: Sender | None = None
        self._framing: Framing | None = None

    def answer(self, reply: Reply) -> None:
        """Send the worker's answer."""
        resource = self._resource
        try:
            fields, body = for_reply(reply, self._request.method, timed=resource.server_timing)
        except Exception:
            self.refuse(resource.failed("an answer could not be made", self.held))
            return
        if len(body) > PIECE and not resource.relay.fits(len(body)):
            why = TooManyHeld("no room for a large answer")
            self.refuse(resource.relay.count(why, self.held))
        else:
            self._send(reply.status, fields, body)

    def refuse(self, refusal: Refusal) -> None:
        """Send an error of our own."""
        accept = self._request.requestHeaders.getRawHeaders(b"accept") or ()
        pages = self._resource.pages
        fields, body = for_refusal(refusal, self._request.method, accept, self._id, pages)
        self._send(refusal.status, fields, body)

    def begin(self, reply: Reply, parts: Sequence[bytes], *, last: bool) -> bool:
        """Begin a streamed answer; chunks are twisted.web's."""
        resource, request = self._resource, self._request
        try:
            fields, _ = for_reply(without_body(reply), b"HEAD", timed=resource.server_timing)
        except Exception:
            self.refuse(resource.failed("an answer could not be made"))
            return False
        if not has_body(reply.status, request.method):
            self._send(reply.status, fields, b"")
            return False
        self._framing = Framing(reply.status, chunked=False, length=reply.declared_length)
        body = self._framing.encode(parts, last=last)
        self._head(reply.status, fields)
        sender = self._sending()
        # The header section goes out with it, even where it is empty.
        sender.send(body)
        if last:
            sender.end()
        return True

    def proceed(self, parts: Sequence[bytes], *, last: bool) -> None:
        """Send more of a streamed answer."""
        sender, framing = self._sender, self._framing
        if sender is None or framing is None:
            return
        sender.go_on(framing.encode(parts, last=last), last=last)

    @property
    def backlog(self) -> int:
        """Bytes of a streamed answer that the client has not taken yet."""
        return 0 if self._sender is None else self._sender.waiting

    def stop(self) -> None:
        """Send nothing more."""
        if self._sender is not None:
            self._sender.stop()

    def abort(self) -> None:
        """An answer could not be sent: what may have gone out of it must not pass for one."""
        self.stop()
        transport: Any = self._request.transport
        transport.abortConnection()

    def _send(self, status: int, fields: Fields, body: bytes) -> None:
        self._head(status, fields)
        if len(body) <= PIECE:
            self._request.write(body)
            self._request.finish()
        else:
            sender = self._sending()
            sender.send(body)
            sender.end()

    def _sending(self) -> Sender:
        request: Any = self._request
        sender = self._sender = Sender(
            self._resource.relay.senders,
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

    def _taken(self) -> None:
        if self.held is not None:
            self._resource.relay.taken(self.held)

    def _stalled(self) -> None:
        self._resource.relay.cut_off(self.held, self, Break.STALLED, "its client takes nothing")

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
