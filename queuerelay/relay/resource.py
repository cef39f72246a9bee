"""The relay as a twisted.web Resource, to be mounted anywhere in anybody's Site."""

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.logger import Logger
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from queuerelay.errors import BodyTooLarge, InternalError, Refusal
from queuerelay.relay.core import Relay
from queuerelay.relay.held import Held
from queuerelay.relay.request_id import request_id
from queuerelay.relay.response import Fields, for_refusal, for_reply, reason_phrase
from queuerelay.wire.headers import request_headers
from queuerelay.wire.reply import Reply


class RelayResource(Resource):
    """Puts every request that reaches it, whatever its method and path, on the relay's queue.

    The message has the whole request target, wherever the Resource is mounted.
    """

    isLeaf = True
    _log = Logger()

    def __init__(self, relay: Relay, *, max_body: int) -> None:
        super().__init__()
        self._relay = relay
        self._max_body = max_body

    def render(self, request: Request) -> int:
        """Hold the request; it is answered later."""
        relay = self._relay
        fields = request.requestHeaders
        id = request_id(fields.getRawHeaders(b"x-request-id"))
        exchange = _Exchange(request, id)
        headers = [
            pair for pair in request_headers(fields.getAllRawHeaders()) if pair[0] != "x-request-id"
        ]
        headers.append(("x-request-id", id.decode("ascii")))
        peer = request.getClientAddress()
        try:
            # One byte more than may be, to notice that it is too many.
            body = b"" if request.content is None else request.content.read(self._max_body + 1)
            if len(body) > self._max_body:
                raise relay.count(BodyTooLarge(f"more than {self._max_body} bytes"))
            held = relay.hold(
                exchange,
                method=request.method.decode("latin-1"),
                url=request.uri.decode("latin-1"),
                http_version=request.clientproto.decode("latin-1").removeprefix("HTTP/"),
                headers=headers,
                body=body,
                remote_addr=peer.host if isinstance(peer, IPv4Address | IPv6Address) else "",
                scheme="https" if request.isSecure() else "http",
            )
        except Refusal as refusal:
            exchange.refuse(refusal)
        except Exception:
            self._log.failure("a request could not be held")
            exchange.refuse(relay.count(InternalError()))
        else:
            self._watch(request, held)
        return NOT_DONE_YET

    def _watch(self, request: Request, held: Held) -> None:
        finished = request.notifyFinish()
        finished.addErrback(lambda _: self._relay.gone(held))
        finished.addErrback(lambda failure: self._log.failure("a client's leaving", failure))


class _Exchange:
    """A request of twisted.web as the relay's `Client`."""

    __slots__ = ("_id", "_request")

    def __init__(self, request: Request, id: bytes) -> None:
        self._request = request
        self._id = id

    def answer(self, reply: Reply) -> None:
        """Send the worker's answer."""
        fields, body = for_reply(reply, self._request.method)
        self._send(reply.status, fields, body)

    def refuse(self, refusal: Refusal) -> None:
        """Send an error of our own."""
        accept = self._request.requestHeaders.getRawHeaders(b"accept") or ()
        fields, body = for_refusal(refusal, self._request.method, accept)
        self._send(refusal.status, fields, body)

    def abort(self) -> None:
        """An answer could not be sent: what may have gone out of it must not pass for one."""
        transport: Any = self._request.transport
        transport.abortConnection()

    def _send(self, status: int, fields: Fields, body: bytes) -> None:
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
        request.write(body)
        request.finish()
