"""What a connection keeps of bytes that are no request yet: it counts, and has to go where there is
no room for it.

Invariant: an unfinished head and what was sent behind a request that waits count as
`Connections.kept`, from the segment that brought them on until they are used or thrown away.
"""

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address

from queuerelay.errors import ClientShare, Refusal, TooManyConnections, TooManyHeld
from queuerelay.http.half_closed import HalfCloseableChannel
from queuerelay.http.head import HeadReader
from queuerelay.http.shares import client_of


class KeepingChannel(HalfCloseableChannel):
    """One connection of a client, as far as it keeps bytes unread."""

    #: Whether nothing is read from the client because it has sent enough.
    _paused = False
    #: The head that is coming in.
    _reader: HeadReader | None = None
    #: Bytes that count as `Connections.kept`, and whether bytes behind a request were thrown away.
    _kept = 0
    _dropped = False

    #: Whose connection it is, as `Connections.count` has it.
    _address = ""

    # What a subclass has to say

    def address(self) -> str:
        """Whose connection it is: "" where it is nobody's alone."""
        peer = self.transport.getPeer()
        return client_of(peer.host) if isinstance(peer, IPv4Address | IPv6Address) else ""

    @property
    def replaceable(self) -> bool:
        """Whether no request waits for its answer here, and none is being answered."""
        return not (self._handlingRequest or self._waitingForTransport or self.deaf)

    def give_way(self) -> None:
        """Tell the client that another one gets its place, and close."""
        if self.requests:
            self.answer_early(self.requests[-1], ClientShare())
        else:
            self._refuse_head(ClientShare())

    def _take_place(self, connections: Any) -> bool:
        """Be one of the connections; False where there is no room, and the client was told so."""
        address = self.address()
        if connections.full and not connections.make_room(address):
            much = connections.too_much(address)
            self._refuse_head(ClientShare() if much else TooManyConnections())
            return False
        self._address = address
        connections.count(self, address)
        return True

    def _let_go(self) -> None:
        """Keep nothing, and no place: the connection ends."""
        if self._kept:
            self._count()
        self.factory.connections.uncount(self, self._address)

    def crowded(self) -> bool:
        """Whether there is no room for what connections keep."""
        return False

    def answer_early(self, request: Any, refusal: Refusal) -> None:
        """Answer a request whose body is not read any further."""
        raise NotImplementedError

    def _refuse_head(self, refusal: Refusal) -> None:
        """Answer a request whose head is not read any further."""
        raise NotImplementedError

    def _close(self) -> None:
        """The last answer was written."""
        raise NotImplementedError

    # What it does

    def _keep(self) -> None:
        """Count what is kept now, and let go of it where there is no room."""
        before = self._kept
        self._count()
        if self._kept <= before or not self.crowded():
            return
        if self._reader is not None:
            self._refuse_head(TooManyHeld("no room for another head"))
        else:
            # A client sends them again: its answer says that it is the last (RFC 9112 9.3.2).
            self._dropped = True
            self.persistent = False
            self._pending = b""
            if not self._handlingRequest:
                # It has its last answer, and does not read it.
                self._close()
            elif not self._paused:
                self._paused = True
                self._networkProducer.pauseProducing()
        self._count()

    def _count(self) -> None:
        """Count the bytes that are kept unread."""
        reader = self._reader
        kept = len(self._pending) + (0 if reader is None else reader.weight)
        self.factory.connections.kept += kept - self._kept
        self._kept = kept
