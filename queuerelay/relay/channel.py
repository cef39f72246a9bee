"""One connection of a client of the daemon's own front."""

from typing import TYPE_CHECKING

from twisted.internet.address import IPv4Address, IPv6Address

from queuerelay.http.channel import StrictChannel
from queuerelay.http.forwarded import Peer
from queuerelay.http.head import Head
from queuerelay.http.proxied import ProxiedConnection
from queuerelay.relay.request import FrontRequest

if TYPE_CHECKING:
    from queuerelay.relay.front import Front


class FrontChannel(StrictChannel):
    """One connection of a client."""

    factory: "Front"

    #: Who is at the other end, from the first request on.
    met: Peer | None = None

    def connectionMade(self) -> None:
        """A client has connected."""
        self.peer = self.transport.getPeer()
        super().connectionMade()

    def meet(self) -> Peer:
        """See who is at the other end; not earlier, because a PROXY line comes after the
        connection.
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

    def make_request(self, head: Head) -> FrontRequest:
        """A request with the fields of `head`."""
        request = FrontRequest(self)
        request.requestHeaders.fields = head.fields
        return request
