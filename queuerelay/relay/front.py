"""The daemon's own HTTP front: a hardened channel, and nothing between it and the relay.

A request here is parsed by its connection's channel, held and answered (`request`) without
traversal, sessions, form parsing or temporary files, and its answer goes out in one write.
"""

from collections.abc import Callable
from functools import cache

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocolNegotiationFactory, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.web import http
from zope.interface import implementer

from queuerelay.http.accesslog import AccessLog
from queuerelay.http.channel import StrictChannel
from queuerelay.http.connections import ClientLimits, Connections
from queuerelay.http.error_pages import Pages
from queuerelay.http.forwarded import Peer
from queuerelay.http.head import Head
from queuerelay.http.problems import Fields, reason_phrase
from queuerelay.http.proxied import ProxiedConnection
from queuerelay.relay.relay import Relay
from queuerelay.relay.request import FrontRequest


class FrontChannel(StrictChannel):
    """One connection of a client."""

    factory: "Front"

    #: The other end of the connection, from the first request on; None before.
    met: Peer | None = None

    def connectionMade(self) -> None:
        """A client has connected."""
        self.peer = self.transport.getPeer()
        super().connectionMade()

    def meet(self) -> Peer:
        """The other end of the connection, looked up at the first request: a PROXY line comes after
        the connection.
        """
        peer = self.peer = self.transport.getPeer()
        address = peer.host if isinstance(peer, IPv4Address | IPv6Address) else ""
        transport = self.transport
        proxied = isinstance(transport, ProxiedConnection) and transport.client_secure
        scheme = "https" if proxied or self.isSecure() else "http"
        self.met = self.factory.relay.trust.peer(address, scheme)
        return self.met

    def keeps(self, head: Head) -> bool:
        """Whether the connection stays open after the answer to `head`."""
        return head.keep_alive and not self.factory.draining

    def address(self) -> str:
        """Whose connection it is: a trusted proxy's is not one client's."""
        address = super().address()
        return "" if address and self.factory.relay.trust.judge(address)[1] else address

    def crowded(self) -> bool:
        """Whether there is no room for what connections keep."""
        return self.factory.relay.budget.room < 0

    def send_ahead(self, request: FrontRequest) -> None:
        """Send a byte of the answer to `request`."""
        request.send_ahead()

    def make_request(self, head: Head) -> FrontRequest:
        """A request with the fields of `head`."""
        request = FrontRequest(self.factory, self)
        request.requestHeaders.fields = head.fields
        return request


@cache
def _status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, reason_phrase(status))


@implementer(IProtocolNegotiationFactory)
class Front(http.HTTPFactory):
    """Accepts connections for one relay."""

    noisy = False

    def __init__(
        self,
        relay: Relay,
        *,
        limits: ClientLimits,
        clock: IReactorTime,
        wall_clock: Callable[[], float],
        access_log: AccessLog | None = None,
        server_timing: bool = True,
    ) -> None:
        super().__init__(timeout=limits.idle, reactor=clock)
        self.relay = relay
        self.connections = Connections(limits, clock=clock)
        relay.budget.reading = self.connections
        self.access_log = access_log
        #: Whether answers tell how long they took (``Server-Timing``).
        self.server_timing = server_timing
        #: The operator's pages for errors.
        self.pages: Pages = {}
        #: Whether every answer is the last one on its connection.
        self.draining = False
        self._wall_clock = wall_clock
        self._date = b""
        self._date_at = 0

    def buildProtocol(  # type: ignore[override]  # the base's is for the switch to HTTP/2
        self, addr: IAddress | None
    ) -> Protocol:
        """A channel for a new connection."""
        channel = FrontChannel()
        channel.factory = self
        return self.connections.channel_for(channel)

    def acceptableProtocols(self) -> list[bytes]:
        """The protocols offered over TLS (RFC 7301); there is no HTTP/2 here."""
        return [b"http/1.1"]

    def drain(self) -> None:
        """Close idle connections at once, and all others after their answers."""
        self.draining = True
        self.connections.close_idle()

    def closed(self) -> Deferred[None]:
        """Fires when no client is connected any more; to be asked once, after `drain`."""
        return self.connections.closed()

    def abort(self) -> None:
        """Close every connection at once."""
        self.connections.abort()

    def head(
        self, status: int, fields: Fields, id: bytes, *, close: bool, old: bool = False
    ) -> bytes:
        """Status line and header section. A worker's ``Date`` and ``Server`` stay (RFC 9110
        6.6.1); ``X-Request-Id`` is always ours.

        `close` is whether the connection ends with this answer; an `old` client, of HTTP/1.0, is
        told where it does not (RFC 9112 9.3).
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
            parts.append(b"Server: queuerelay\r\n")
        parts.append(b"X-Request-Id: %b\r\n" % id)
        if close:
            parts.append(b"Connection: close\r\n\r\n")
        else:
            parts.append(b"Connection: keep-alive\r\n\r\n" if old else b"\r\n")
        return b"".join(parts)

    def _date_line(self) -> bytes:
        now = int(self._wall_clock())
        if now != self._date_at:
            self._date_at = now
            self._date = b"Date: %b\r\n" % http.datetimeToString(now)
        return self._date
