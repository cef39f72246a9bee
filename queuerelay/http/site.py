"""A twisted.web Site that is as strict with its clients as the daemon's own front.

It is the status listener's Site, and for applications that mount the relay's Resource beside their
own: for those nothing else changes, except that a body is in memory, within limits, and forms are
parsed only where that is asked for.
"""

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any, BinaryIO, Final, NamedTuple

from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.resource import IResource

from queuerelay.errors import Refusal, TooManyConnections, TooManyHeld
from queuerelay.http.channel import StrictChannel
from queuerelay.http.connections import ClientLimits, Connections
from queuerelay.http.head import Head
from queuerelay.http.problems import Fields, for_refusal, reason_phrase
from queuerelay.http.request_id import request_id

#: Bytes of bodies that are in memory at a time.
MAX_BODIES: Final = 256 * 1024 * 1024


class EarlyAnswer(NamedTuple):
    """An answer that needs no body of the request."""

    status: int
    fields: Fields
    body: bytes


#: Judges the head of a request by itself, with the client's address: gives the answer where it can
#: be given without the body, None where the body is to be read.
Judge = Callable[[Head, IAddress], EarlyAnswer | None]


class SiteRequest(server.Request):
    """A request whose answer has ``queuerelay`` as its ``Server``, without a version."""

    def render(self, resrc: IResource) -> None:
        """Ask a resource to answer."""
        self.setHeader(b"server", b"queuerelay")
        super().render(resrc)


class SiteChannel(StrictChannel):
    """One connection of a client of a `Site`."""

    factory: "Site"
    #: Bytes of the current request's body that count as `Site.receiving`.
    _counted = 0
    #: Whether the connection has one of the places that are kept for `ClientLimits.spare_paths`.
    _spare = False

    def __init__(self, site: "Site") -> None:
        super().__init__()
        #: The Site, by the two names under which twisted.web's requests look for it.
        self.site = self.factory = site

    def connectionMade(self) -> None:
        """A client has connected."""
        super().connectionMade()
        connections = self.site.connections
        if connections.to_spare and not self.deaf:
            self._spare = True
            # Whoever has no request there is soon gone, and then the next one has the place.
            self.due = connections.seconds() + connections.limits.header_time

    def keeps(self, head: Head) -> bool:
        """Whether the connection stays open after the answer to `head`."""
        # An answer of twisted.web's to HTTP/1.0 may well end with its connection.
        return head.keep_alive and head.version == b"HTTP/1.1" and not self._spare

    def make_request(self, head: Head) -> Any:
        """A request with the fields of `head`."""
        request = self.site.requestFactory(self)
        for name, (value,) in head.fields:
            request.requestHeaders.addRawHeader(name, value)
        request.parseCookies()
        if not self.persistent:
            request.responseHeaders.setRawHeaders(b"connection", [b"close"])
        return request

    def begin_request(self, request: Any, head: Head) -> None:
        """Ask the judge of the site about a request with a body before any of that is read."""
        has_body = head.length != 0
        if self._spare:
            path, _, _ = head.target.partition(b"?")
            if has_body or path not in self.site.connections.limits.spare_paths:
                self.answer_early(request, TooManyConnections())
                return
        judge = self.site.judge
        early = judge(head, self.getPeer()) if has_body and judge is not None else None
        if early is None:
            super().begin_request(request, head)
        else:
            self.close_with(_encode(early, request_id(_values(request, b"x-request-id"))))

    def take_body(self, request: Any, part: bytes) -> None:
        """A part of the body has come."""
        site = self.site
        self._counted += len(part)
        site.receiving += len(part)
        if site.receiving > site.max_bodies:
            self.answer_early(request, TooManyHeld("no room for another body"))
        else:
            request.handleContentChunk(part)

    def early_answer(self, request: Any, refusal: Refusal) -> bytes:
        """An error as bytes, for a request that is still being read."""
        method, _, _ = self.request_line()
        id = request_id(_values(request, b"x-request-id"))
        fields, body = for_refusal(refusal, method, _values(request, b"accept"), id)
        return _encode(EarlyAnswer(refusal.status, fields, body), id)

    def requestDone(self, request: Any) -> None:
        """The answer to the only request that waits was written."""
        self._release()
        super().requestDone(request)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client has left, or was sent away."""
        self._release()
        super().connectionLost(reason)

    def _protocolUpgradeForWebsockets(self, protocol: IProtocol) -> None:
        """The connection is a WebSocket from here on, and nobody tells us when it ends."""
        self._release()
        self.deaf = True
        self.site.connections.left(self)
        super()._protocolUpgradeForWebsockets(protocol)

    def _release(self) -> None:
        self.site.receiving -= self._counted
        self._counted = 0


def _values(request: server.Request, name: bytes) -> Sequence[bytes]:
    return request.requestHeaders.getRawHeaders(name) or ()


def _encode(answer: EarlyAnswer, id: bytes) -> bytes:
    """The whole answer as bytes, the last one of its connection."""
    status, fields, body = answer
    own = [
        *fields,
        (b"Date", http.datetimeToString()),
        (b"Server", b"queuerelay"),
        (b"X-Request-Id", id),
        (b"Connection", b"close"),
    ]
    lines = b"".join(b"%b: %b\r\n" % field for field in own)
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, reason_phrase(status), lines, body)


class Site(server.Site):
    """A `twisted.web.server.Site` whose channels are strict.

    `limits` are what a client may take, `max_bodies` how many bytes of bodies may be in memory at
    a time. `judge` is asked about each request with a body before that is read. With `logged` false
    there is no log of requests and no timer for it. Other arguments are those of twisted.web's
    Site.
    """

    requestFactory = SiteRequest

    def __init__(
        self,
        resource: IResource,
        *args: Any,
        limits: ClientLimits | None = None,
        max_bodies: int = MAX_BODIES,
        judge: Judge | None = None,
        logged: bool = True,
        parsePOSTFormSubmission: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(resource, *args, parsePOSTFormSubmission=parsePOSTFormSubmission, **kwargs)
        self.connections = Connections(limits or ClientLimits(), clock=self.reactor)
        self.max_bodies = max_bodies
        self.judge = judge
        self._logged = logged
        #: Bytes of bodies whose requests are not answered yet.
        self.receiving = 0

    def startFactory(self) -> None:
        """The site begins to listen."""
        if self._logged:
            super().startFactory()
        self.connections.settle()

    def stopFactory(self) -> None:
        """The site listens no more."""
        if self._logged:
            super().stopFactory()

    def _updateLogDateTime(self) -> None:
        super()._updateLogDateTime()
        # The base takes the seconds of the reactor, which may stand on the monotonic clock.
        self._logDateTime = http.datetimeToLogString()

    def log(self, request: http.Request) -> None:
        """A request was answered."""
        if self._logged:
            super().log(request)

    def buildProtocol(  # type: ignore[override]  # the base's is for the switch to HTTP/2
        self, addr: IAddress | None
    ) -> Protocol:
        """A channel for a new connection."""
        return self.connections.channel_for(SiteChannel(self))

    def acceptableProtocols(self) -> list[bytes]:
        """The protocols over TLS (RFC 7301); there is no HTTP/2 here."""
        return [b"http/1.1"]

    def getContentFile(self, length: int | None) -> BinaryIO:
        """A file for a body: in memory, as the body is bounded."""
        return BytesIO()
