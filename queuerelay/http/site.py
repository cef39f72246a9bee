"""A twisted.web Site that is as strict with its clients as the daemon's own front.

For applications that mount the relay's Resource beside their own: nothing else changes for those,
except that a body is in memory, within limits, and forms are parsed only where that is asked for.
"""

from io import BytesIO
from typing import Any, BinaryIO, Final

from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.resource import IResource

from queuerelay.errors import Refusal, TooManyHeld
from queuerelay.http.channel import StrictChannel
from queuerelay.http.connections import ClientLimits, Connections
from queuerelay.http.head import Head
from queuerelay.http.problems import for_refusal, reason_phrase
from queuerelay.http.request_id import request_id

#: Bytes of bodies that are in memory at a time.
MAX_BODIES: Final = 256 * 1024 * 1024


class SiteRequest(server.Request):
    """A request that does not say which version of what answers it."""

    def render(self, resrc: IResource) -> None:
        """Ask a resource to answer."""
        self.setHeader(b"server", b"queuerelay")
        super().render(resrc)


class SiteChannel(StrictChannel):
    """One connection of a client of a `Site`."""

    factory: "Site"
    #: Bytes of the body of its request.
    _counted = 0

    def __init__(self, site: "Site") -> None:
        super().__init__()
        #: What twisted.web's requests look for.
        self.site = self.factory = site

    def keeps(self, head: Head) -> bool:
        """Whether the connection stays open after the answer to `head`."""
        # An answer of twisted.web's to HTTP/1.0 may well end with its connection.
        return head.keep_alive and head.version == b"HTTP/1.1"

    def make_request(self, head: Head) -> Any:
        """A request with the fields of `head`."""
        request = self.site.requestFactory(self)
        for name, (value,) in head.fields:
            request.requestHeaders.addRawHeader(name, value)
        request.parseCookies()
        if not self.persistent:
            request.responseHeaders.setRawHeaders(b"connection", [b"close"])
        return request

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
        fields = request.requestHeaders
        id = request_id(fields.getRawHeaders(b"x-request-id"))
        accept = fields.getRawHeaders(b"accept") or ()
        own, body = for_refusal(refusal, method, accept, id)
        own = [
            *own,
            (b"date", http.datetimeToString()),
            (b"server", b"queuerelay"),
            (b"x-request-id", id),
            (b"connection", b"close"),
        ]
        lines = b"".join(b"%b: %b\r\n" % field for field in own)
        status = refusal.status
        return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, reason_phrase(status), lines, body)

    def requestDone(self, request: Any) -> None:
        """The answer to the only request that waits was written."""
        self._release()
        super().requestDone(request)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client has left, or was sent away."""
        self._release()
        super().connectionLost(reason)

    def _protocolUpgradeForWebsockets(self, protocol: IProtocol) -> None:
        """It is no HTTP from here on, and nobody tells us when it ends."""
        self._release()
        self.site.connections.left(self)
        super()._protocolUpgradeForWebsockets(protocol)

    def _release(self) -> None:
        self.site.receiving -= self._counted
        self._counted = 0


class Site(server.Site):
    """A `twisted.web.server.Site` whose channels are hardened.

    `limits` are what a client may take, `max_bodies` how many bytes of bodies may be in memory at
    a time. Other arguments are those of twisted.web's Site.
    """

    requestFactory = SiteRequest

    def __init__(
        self,
        resource: IResource,
        *args: Any,
        limits: ClientLimits | None = None,
        max_bodies: int = MAX_BODIES,
        parsePOSTFormSubmission: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(resource, *args, parsePOSTFormSubmission=parsePOSTFormSubmission, **kwargs)
        self.connections = Connections(limits or ClientLimits(), clock=self.reactor)
        self.max_bodies = max_bodies
        #: Bytes of bodies whose requests are not answered yet.
        self.receiving = 0

    def startFactory(self) -> None:
        """It begins to listen."""
        super().startFactory()
        self.connections.settle()

    def buildProtocol(  # type: ignore[override]  # the base's is for the switch to HTTP/2
        self, addr: IAddress | None
    ) -> Protocol:
        """A channel for a new connection."""
        return self.connections.channel_for(SiteChannel(self))

    def acceptableProtocols(self) -> list[bytes]:
        """What is spoken over TLS (RFC 7301); there is no HTTP/2 here."""
        return [b"http/1.1"]

    def getContentFile(self, length: int | None) -> BinaryIO:
        """Where a body goes: into memory, as it is bounded."""
        return BytesIO()
