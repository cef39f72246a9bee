"""Connections that a proxy makes for clients, with the PROXY protocol before everything else.

Twisted has a wrapper for that protocol (``twisted.protocols.haproxy``). This module is here because
Twisted's believes whoever connects, takes any text for an address, fails with a traceback at
numbers that are none, and has neither the short ``PROXY UNKNOWN`` nor a line in pieces nor whether
the client used TLS.

Invariants:

1. Only a trusted proxy is believed; others are disconnected.
2. Who begins otherwise is disconnected, and nothing of it reaches the channel.
3. The channel is there from the beginning, so that its limits and time-outs hold for the line, too.
"""

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
    ITransport,
)
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from zope.interface import implementer

from queuerelay.http.forwarded import Trust
from queuerelay.http.proxy_line import NotProxied, ProxyLine, read_proxy_line

#: Beginning of a proxied endpoint's text, as Twisted writes it.
PREFIX = "haproxy:"


def behind_proxy(text: str, factory: IProtocolFactory, *, trust: Trust) -> IProtocolFactory:
    """`factory` as the endpoint described by `text` needs it: behind the PROXY protocol or not."""
    return ProxiedFactory(factory, trust=trust) if text.startswith(PREFIX) else factory


@implementer(IHalfCloseableProtocol)
class ProxiedConnection(ProtocolWrapper):
    """One connection of a proxy."""

    factory: "ProxiedFactory"
    _log = Logger()

    #: The PROXY line; None until it was read.
    _line: ProxyLine | None = None
    _begun = b""
    _refused = False

    def makeConnection(self, transport: ITransport) -> None:
        """A proxy, or a peer that is not trusted, has connected."""
        super().makeConnection(transport)
        peer = transport.getPeer()
        host = peer.host if isinstance(peer, IPv4Address | IPv6Address) else ""
        if not self.factory.trust.judge(host)[1]:
            self._refuse("its address is not in --trusted-proxies")

    def dataReceived(self, data: bytes) -> None:
        """The proxy has sent its line, or what comes after it."""
        if self._refused:
            return
        if self._line is None:
            self._begun += data
            try:
                found = read_proxy_line(self._begun)
            except NotProxied as error:
                self._refuse(str(error))
                return
            if found is None:
                return
            self._line, end = found
            data, self._begun = self._begun[end:], b""
            if not data:
                return
        super().dataReceived(data)

    def readConnectionLost(self) -> None:
        """The proxy has closed its side, as its client has."""
        if IHalfCloseableProtocol.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.readConnectionLost()
        else:
            self.loseConnection()

    def writeConnectionLost(self) -> None:
        """Our side was closed."""
        if IHalfCloseableProtocol.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.writeConnectionLost()

    def _refuse(self, reason: str) -> None:
        self._refused = True
        self._begun = b""
        self._log.debug("a connection without PROXY protocol: {reason}", reason=reason)
        # Through __getattr__ of the base class.
        self.abortConnection()

    @property
    def client_secure(self) -> bool:
        """Whether the client came by TLS, as far as the proxy says so."""
        return self._line is not None and self._line.secure

    def getPeer(self) -> IAddress:
        """The client, once it is known; the proxy before."""
        line = self._line
        if line is None or line.address is None:
            peer: IAddress = super().getPeer()
            return peer
        family = IPv6Address if ":" in line.address else IPv4Address
        # What is no address is nobody's, and trusted by nobody.
        return family("TCP", line.address or "unknown", line.port)


class ProxiedFactory(WrappingFactory[ProxiedConnection]):
    """Accepts connections of proxies that `trust` knows."""

    noisy = False

    def __init__(self, factory: object, *, trust: Trust) -> None:
        super().__init__(factory)
        self.trust = trust

    def buildProtocol(self, addr: IAddress | None) -> ProxiedConnection:
        """A connection, with what `factory` makes for it behind the line."""
        protocol: IProtocol = self.wrappedFactory.buildProtocol(addr)
        return ProxiedConnection(self, protocol)
