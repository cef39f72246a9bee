"""What a connection keeps of bytes that are no request yet: it counts, and has to go where there is
no room for it.

Invariant: an unfinished head and what was sent behind a request that waits count as
`Connections.kept`, from the segment that brought them on until they are used or thrown away.
"""

from queuerelay.errors import Refusal, TooManyHeld
from queuerelay.http.half_closed import HalfCloseableChannel
from queuerelay.http.head import HeadReader


class KeepingChannel(HalfCloseableChannel):
    """One connection of a client, as far as it keeps bytes unread."""

    #: Whether nothing is read from the client because it has sent enough.
    _paused = False
    #: The head that is coming in.
    _reader: HeadReader | None = None
    #: Bytes that count as `Connections.kept`, and whether bytes behind a request were thrown away.
    _kept = 0
    _dropped = False

    # What a subclass has to say

    def crowded(self) -> bool:
        """Whether there is no room for what connections keep."""
        return False

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
