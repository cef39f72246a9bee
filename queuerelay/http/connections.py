"""The clients that are connected now: how many there may be, and when the time of each is over.

Invariants:

1. Deadlines cost a comparison each, twice a second, and one timer for all of them; a request that
   arrives in one piece sets none until its answer is out.
2. At `ClientLimits.max_connections`, and those to spare, a new client is answered 503 and has time
   to read that, as long as there are open files beyond those that everything else needs; then it
   is answered and closed at once. Where one address has most of the connections, and more than its
   share, it is one of these that goes, with 429, and the new client stays.
"""

import resource
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.logger import Logger

from queuerelay.http.half_closed import HalfClosedWatch
from queuerelay.http.head import HeadLimits
from queuerelay.http.shares import Shares

#: Seconds between two looks at the deadlines, so a deadline may be as late as that.
SWEEP: Final = 0.5
#: Open files that clients leave to everything else: Redis, listeners, logs, worker scripts.
RESERVE: Final = 128
#: Most clients that the number of open files alone allows; some systems limit no files.
MOST: Final = 65_536
#: Least and most clients above the limit that are answered 503 and have time to read it.
SURPLUS: Final = 32
MOST_SURPLUS: Final = 1024


def open_files_allow() -> int:
    """How many clients the process's open files allow."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST
    # A process with few files has fewer scripts to run, too.
    return max(1, min(MOST, soft - min(RESERVE, soft // 2)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """What a client may take. Durations are seconds."""

    #: How large request line and header section may be.
    head: HeadLimits = field(default_factory=HeadLimits)
    #: Bytes of one request's body.
    max_body: int = 16 * 1024 * 1024
    #: Time from the first byte of a request to the end of its header section.
    header_time: float = 10.0
    #: Time in which a body must get on, see `queuerelay.http.channel.LEAST_RATE`.
    body_time: float = 30.0
    #: Time between two requests of a connection.
    idle: float = 60.0
    #: Clients at a time; None for what the open files allow.
    max_connections: int | None = None
    #: Part of them that one address may have where there is no place left.
    client_share: float = 0.1
    #: Clients beyond `max_connections` that a `Site` lets ask for one of `spare_paths`, so that
    #: probes are answered when others have taken every place.
    spare: int = 0
    spare_paths: frozenset[bytes] = frozenset()
    #: Whether a client that closes its side of the connection is answered; else it has left.
    half_close: bool = True


class ClientConnection(Protocol):
    """One client as `Connections` knows it: a `queuerelay.http.channel.StrictChannel`."""

    #: When `expire` is to be called, in clock seconds; infinity for never.
    due: float
    transport: Any

    def expire(self, now: float) -> None:
        """The time for what this connection is doing is over."""

    def close_if_idle(self) -> None:
        """Close unless a request is being read or answered."""

    @property
    def replaceable(self) -> bool:
        """Whether no request waits for its answer here, and none is being answered."""

    def give_way(self) -> None:
        """Tell the client that another one gets its place, and close."""

    def loseConnection(self) -> None:
        """Close once everything that was written has been sent."""

    def abort(self) -> None:
        """Close at once, whatever has not been sent."""


class Connections:
    """All clients of one HTTP server."""

    _log = Logger()

    def __init__(self, limits: ClientLimits, *, clock: IReactorTime) -> None:
        self.limits = limits
        self.channels: set[ClientConnection] = set()
        #: The clients among them that have closed their side.
        self.half_closed = HalfClosedWatch(clock)
        self.seconds = clock.seconds
        self._clock = clock
        self._sweep_call: IDelayedCall | None = None
        self._closed: Deferred[None] | None = None
        self._most = limits.max_connections or MOST
        #: Bytes that connections keep of heads that are not complete, and behind requests that
        #: wait for their answers.
        self.kept = 0
        self._surplus = SURPLUS
        self._shares: Shares[ClientConnection] = Shares(inf)
        self._share()

    def _share(self) -> None:
        part = self.limits.client_share
        self._shares.most = inf if part == 1 else part * self._most

    def settle(self) -> int:
        """Find out how many clients there may be, now that the process has its limits."""
        allowed = open_files_allow()
        self._most = self.limits.max_connections or allowed
        self._surplus = min(max(SURPLUS, allowed - self._most), MOST_SURPLUS)
        self._share()
        return self._most

    @property
    def full(self) -> bool:
        """Whether there are more clients than there may be."""
        return len(self.channels) > self._most + self.limits.spare

    @property
    def to_spare(self) -> bool:
        """Whether the last client has one of the places to spare."""
        return len(self.channels) > self._most

    def channel_for(self, channel: TwistedProtocol) -> TwistedProtocol:
        """`channel` for a new client, or what closes its connection at once."""
        most = self._most + self.limits.spare + self._surplus
        return channel if len(self.channels) < most else _Closed()

    def make_room(self, address: str) -> bool:
        """Send one away of the address that has most, for a new client of `address`."""
        found = self._shares.newest_of_heaviest(address, 1, lambda client: client.replaceable)
        if found is None:
            return False
        found.give_way()
        return True

    def too_much(self, address: str) -> bool:
        """Whether `address` has more than its share, and others have connections too."""
        return self._shares.too_much(address)

    def count(self, client: ClientConnection, address: str) -> None:
        """The client has a place as one of `address`; "" for a proxy, which is many clients."""
        if address:
            self._shares.add(address, client, 1)

    def uncount(self, client: ClientConnection, address: str) -> None:
        """The client has its place no more."""
        if address:
            self._shares.remove(address, client)

    def add(self, client: ClientConnection) -> None:
        """A client has connected."""
        self.channels.add(client)
        if self._sweep_call is None:
            self._sweep_call = self._clock.callLater(SWEEP, self._sweep)

    def left(self, client: ClientConnection) -> None:
        """A client has left, or was sent away."""
        self.channels.discard(client)
        if len(self.half_closed):
            self.half_closed.discard(client)
        if self.channels:
            return
        if self._sweep_call is not None:
            self._sweep_call.cancel()
            self._sweep_call = None
        if self._closed is not None and not self._closed.called:
            self._closed.callback(None)

    def closed(self) -> Deferred[None]:
        """Fires when no client is connected any more; to be asked once."""
        self._closed = Deferred()
        if not self.channels:
            self._closed.callback(None)
        return self._closed

    def close_idle(self) -> None:
        """Close every connection on which no request is being read or answered."""
        for client in list(self.channels):
            client.close_if_idle()

    def close(self) -> None:
        """Close every connection once it has sent what was written."""
        for client in list(self.channels):
            client.loseConnection()

    def abort(self) -> None:
        """Close every connection at once."""
        for client in list(self.channels):
            client.abort()

    def _sweep(self) -> None:
        self._sweep_call = self._clock.callLater(SWEEP, self._sweep)
        now = self.seconds()
        for client in [client for client in self.channels if client.due <= now]:
            # Until somebody says otherwise: a failure must not come again with each sweep.
            client.due = inf
            try:
                client.expire(now)
            except Exception:
                self._log.failure("a client whose time was over could not be sent away")
                client.abort()


_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\n"
    b"connection: close\r\n\r\n"
)


class _Closed(TwistedProtocol):
    """A connection beyond all limits. A factory that gives None instead is an error under TLS."""

    transport: Any

    def connectionMade(self) -> None:
        """Answer and close at once: there is no open file to spare for waiting."""
        self.transport.write(_FULL)
        self.transport.loseConnection()
