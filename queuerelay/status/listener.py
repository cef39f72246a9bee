"""Where the status resource listens, when it has a listener of its own."""

from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IStreamServerEndpoint
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from queuerelay.http import listening
from queuerelay.http.listening import Listener
from queuerelay.status.resource import MAX_BODY

#: Seconds that a connection may be idle, and that it may last: nobody keeps one by sending slowly.
IDLE: Final = 60.0
LIFE: Final = 600.0
#: Connections at a time; dashboards and people are few.
CONNECTIONS: Final = 200


_TOO_LARGE: Final = (
    b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)


class _Request(Request):
    """A request whose body is bounded before it is there."""

    _room = MAX_BODY
    _cut_off = False

    def gotLength(self, length: int | None) -> None:
        """The length of the body is known, or None."""
        if length is not None and length > MAX_BODY:
            self._cut()
            length = 0
        super().gotLength(length)

    def handleContentChunk(self, data: bytes) -> None:
        """A part of the body."""
        self._room -= len(data)
        if self._room < 0:
            self._cut()
        else:
            super().handleContentChunk(data)

    def _cut(self) -> None:
        channel = self.channel
        if channel is not None and not self._cut_off:
            self._cut_off = True
            transport: Any = channel.transport
            transport.write(_TOO_LARGE)
            channel.loseConnection()


class _Channel(HTTPChannel):
    """A connection that ends some time."""

    #: Set by the site.
    site: "StatusSite"
    _life: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Somebody has connected."""
        super().connectionMade()
        self.site.channels.add(self)
        self._life = self.callLater(LIFE, self.forceAbortClient)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """They have left."""
        if self._life is not None and self._life.active():
            self._life.cancel()
        self.site.channels.discard(self)
        super().connectionLost(reason)


class StatusSite(Site):
    """A Site without log and timer, for `CONNECTIONS` connections at a time."""

    noisy = False
    # Without the switch to HTTP/2.
    protocol = _Channel  # type: ignore[assignment]

    def __init__(self, resource: Resource, *, reactor: Any) -> None:
        super().__init__(resource, requestFactory=_Request, timeout=IDLE, reactor=reactor)
        self.channels: set[_Channel] = set()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A channel; None, which closes the connection, where there are too many."""
        return super().buildProtocol(addr) if len(self.channels) < CONNECTIONS else None

    def log(self, request: object) -> None:
        """Nothing: a request a second for each dashboard is none for a log."""

    def startFactory(self) -> None:
        """Without opening a log."""

    def stopFactory(self) -> None:
        """As little."""

    def close(self) -> None:
        """End every connection."""
        for channel in list(self.channels):
            channel.loseConnection()


class StatusListener:
    """One endpoint; `open` and `close` once each. Raises `ConfigError` where `text` is none."""

    def __init__(self, text: str, resource: Resource, *, reactor: Any) -> None:
        self._listener = Listener(f"--status {text}", endpoint_from(text, reactor=reactor))
        self._site = StatusSite(resource, reactor=reactor)

    def open(self) -> None:
        """Listen; may need privileges. Raises `CannotListen`."""
        self._listener.open(
            self._site, advice=" (--status ENDPOINT for another place, --status off for none)"
        )

    def close(self) -> Deferred[Any]:
        """Listen no more, and end every connection."""
        self._site.close()
        return self._listener.close()


def endpoint_from(text: str, *, reactor: Any) -> IStreamServerEndpoint:
    """The endpoint that `text` describes; `ConfigError` where it describes none."""
    return listening.endpoint_from(
        text, option="--status", example="tcp:8080:interface=127.0.0.1", reactor=reactor
    )
