"""The daemon's own HTTP front: twisted.web's parser, and nothing between it and the relay.

A request here is parsed (`channel`), held and answered (`request`) without traversal, sessions,
form parsing or temporary files, and its answer goes out in one write.
"""

from collections.abc import Callable
from functools import cache
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.web import http

from queuerelay.relay.accesslog import AccessLog
from queuerelay.relay.channel import FrontChannel
from queuerelay.relay.core import Relay
from queuerelay.relay.pages import Pages
from queuerelay.relay.response import Fields, reason_phrase

#: Seconds that a connection may be idle.
IDLE: Final = 60.0


@cache
def _status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, reason_phrase(status))


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
        server_timing: bool = True,
    ) -> None:
        super().__init__(timeout=IDLE, reactor=clock)
        self.relay = relay
        #: Largest request body, in bytes.
        self.max_body = max_body
        self.access_log = access_log
        #: Whether answers tell how long they took (``Server-Timing``).
        self.server_timing = server_timing
        #: The operator's pages for errors.
        self.pages: Pages = {}
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
