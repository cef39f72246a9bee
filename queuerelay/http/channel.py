"""One connection of a client: a channel of twisted.web's that refuses what HTTP/1.1 leaves open.

twisted.web's own parser is not used: heads are `queuerelay.http.head`'s, chunked bodies
`queuerelay.http.chunked`'s. What stays is its interface to requests and to the transport.

Invariants:

1. A connection answers one request at a time, in the order of arrival, each once. While one is
   answered no other is looked at, and what arrives is kept up to `EAGER` bytes; then nothing is
   read until the answer is out.
2. After an early answer (a request refused before it was complete) nothing more is looked at,
   not even what came in the same segment: no second request, no second answer.
3. A connection that is being closed is gone after a bounded time, whether its client reads or not.
4. From the first byte of a request to its last a deadline runs that single bytes do not extend.
5. What a connection keeps unread counts as `Connections.kept`. Where there is no room for it, an
   unfinished head is refused; of requests behind one that waits nothing is kept, and the answer to
   that one is the last: a client sends them again (RFC 9112 9.3.2).
6. A client that closes its side gets what was written, answers to all that it had asked, and a 400
   to what it left incomplete; then the connection is closed.
"""

from math import inf
from typing import Any, Final

from twisted.internet.interfaces import IHalfCloseableDescriptor, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from queuerelay.errors import BadRequest, BodyTooLarge, Refusal, RequestTimeout
from queuerelay.http.chunked import ChunkedDecoder
from queuerelay.http.connections import Connections
from queuerelay.http.head import Head, HeadReader, read_head
from queuerelay.http.kept import KeepingChannel

#: Seconds for which a client is still read from after an early answer, so that the answer arrives.
LINGER: Final = 2.0
#: Bytes that are read ahead while a request waits: to see the client leave, without keeping much.
EAGER: Final = 16 * 1024
#: Bytes a second that a body must come with, on an average of `ClientLimits.body_time`: so that a
#: large upload over a slow line succeeds, and single bytes keep nothing open.
LEAST_RATE: Final = 1024

_UNKNOWN: Final = (b"-", b"-", b"-")


class StrictChannel(KeepingChannel):
    """One connection of a client; `factory.connections` has its limits."""

    #: Whether the client got time to read an earlier answer before its request has to come on.
    _excused = False
    #: The head whose body is coming in, and that body.
    _head: Head | None = None
    _decoder: ChunkedDecoder | None = None
    _left = 0
    #: Bytes of the body that have come since its deadline was last set.
    _progress = 0

    # What a subclass has to say

    def make_request(self, head: Head) -> Any:
        """A request with the fields of `head`, for `requests`."""
        raise NotImplementedError

    def keeps(self, head: Head) -> bool:
        """Whether the connection stays open after the answer to `head`."""
        return head.keep_alive

    def begin_request(self, request: Any, head: Head) -> None:
        """The head is complete and valid; from here on the request may be answered early."""
        request.gotLength(head.length)

    def take_body(self, request: Any, part: bytes) -> None:
        """A part of the body has come."""
        request.handleContentChunk(part)

    def early_answer(self, request: Any, refusal: Refusal) -> bytes:
        """An error as bytes, for a request that is still being read."""
        answer: bytes = request.early_answer(refusal)
        return answer

    # The transport's side

    def connectionMade(self) -> None:
        """A client has connected."""
        super().connectionMade()
        connections: Connections = self.factory.connections
        connections.add(self)
        if self._take_place(connections):
            self.due = connections.seconds() + connections.limits.idle

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client has left, or was sent away."""
        self.deaf = True
        self._pending = b""
        self._reader = None
        self._let_go()
        super().connectionLost(reason)
        self.factory.connections.left(self)

    def dataReceived(self, data: bytes) -> None:
        """The client has sent `data`."""
        if self.deaf:
            return
        self._pending = self._pending + data if self._pending else data
        if not (self._handlingRequest or self._waitingForTransport):
            if not self._busy:
                self._advance()
        elif len(self._pending) > EAGER and not self._paused:
            self._paused = True
            self._networkProducer.pauseProducing()
        if self._pending or self._reader is not None or self._kept:
            self._keep()

    def resumeProducing(self) -> None:
        """The transport has sent what was written."""
        super().resumeProducing()
        if not self._handlingRequest:
            # And then it reads again, too.
            self._paused = False
            if (self._pending or self._half_closed) and not self._busy:
                self._advance()
            if self._kept:
                self._count()

    # Reading

    def _advance(self) -> None:
        """Look at the bytes that were read, until a request waits or no more bytes are there."""
        self._busy = True
        try:
            # Who does not read answers gets no further ones either.
            # Nothing is pending once nothing more is to be looked at.
            while self._pending and not (self._handlingRequest or self._waitingForTransport):
                data, self._pending = self._pending, b""
                if self._head is None:
                    self._read_head(data)
                else:
                    self._read_body(self._head, data)
        finally:
            self._busy = False
        if self._half_closed:
            self._cut_short()

    def _read_head(self, data: bytes) -> None:
        connections: Connections = self.factory.connections
        limits = connections.limits
        reader = self._reader
        if reader is None:
            whole = read_head(data, limits.head)
            if whole is not None:
                head, end = whole
                self._begin(head, data[end:])
                return
            reader = self._reader = HeadReader(limits.head)
        begun = reader.begun
        try:
            found = reader.feed(data)
        except Refusal as refusal:
            self._refuse_head(refusal)
            return
        if found is not None:
            self._reader = None
            self._begin(*found)
        elif reader.begun and not begun:
            self._excused = False
            self.due = connections.seconds() + limits.header_time

    def _begin(self, head: Head, rest: bytes) -> None:
        """A head is complete; `rest` came after it."""
        self._head = head
        self._pending = rest
        self.persistent = self.keeps(head)
        request = self.make_request(head)
        self.requests.append(request)
        if head.refusal is not None:
            self.answer_early(request, head.refusal)
            return
        length = head.length
        if length == 0:
            self.begin_request(request, head)
            if not self.deaf:
                self._complete(head)
            return
        connections: Connections = self.factory.connections
        limits = connections.limits
        if length is None:
            self._decoder = ChunkedDecoder(limits.head, max_body=limits.max_body)
        elif length > limits.max_body:
            self.answer_early(request, BodyTooLarge(f"more than {limits.max_body} bytes"))
            return
        else:
            self._left = length
        self.begin_request(request, head)
        if self.deaf:
            return
        self._excused = False
        self._progress = 0
        self.due = connections.seconds() + limits.body_time
        # RFC 9110 10.1.1: not where the body is already coming.
        if head.continues and not rest:
            self._send100Continue()

    def _read_body(self, head: Head, data: bytes) -> None:
        self._progress += len(data)
        request = self.requests[-1]
        decoder = self._decoder
        if decoder is None:
            part = data[: self._left]
            self._pending = data[self._left :]
            self._left -= len(part)
            complete = not self._left
        else:
            try:
                part = decoder.feed(data)
            except Refusal as refusal:
                self.answer_early(request, refusal)
                return
            complete = decoder.rest is not None
            self._pending = decoder.rest or b""
        if part:
            self.take_body(request, part)
        if complete and not self.deaf:
            self._complete(head)

    def _complete(self, head: Head) -> None:
        """A request is complete, and waits for its answer from now on."""
        self._head = self._decoder = None
        self._handlingRequest = True
        self.due = inf
        if self._half_closed:
            self._await_answer()
        self.requests[-1].requestReceived(head.method, head.target, head.version)

    # Answers

    def requestDone(self, request: Any) -> None:
        """The answer to the only request that waits was written."""
        if request is not self.requests[0]:
            raise TypeError("not the request that is being answered")
        del self.requests[0]
        self._handlingRequest = False
        if self.deaf:
            return
        connections: Connections = self.factory.connections
        if not self.persistent:
            self._close()
            return
        self.due = connections.seconds() + connections.limits.idle
        if self._paused:
            self._paused = False
            # Who has not read the answer yet is not read from either.
            if not self._waitingForTransport:
                self._networkProducer.resumeProducing()
        if self._pending and not self._busy:
            self._advance()
        if self._kept:
            self._count()

    def answer_early(self, request: Any, refusal: Refusal) -> None:
        """Answer a request that is still being sent, and close once the client has heard of it."""
        self.close_with(self.early_answer(request, refusal))

    def close_with(self, answer: bytes) -> None:
        """Send `answer` in place of reading on, and close once the client has heard of it."""
        self.transport.write(answer[self.ahead :])
        self.ahead = 0
        # It may not have read the answer before this one.
        self._linger(self.factory.connections.limits.idle if self._waitingForTransport else LINGER)

    def break_off(self) -> None:
        """End in the middle of an answer whose client can tell that; what was written goes out."""
        if self._waitingForTransport:
            # It takes nothing, or not enough.
            self.abort()
        else:
            self._linger(LINGER)

    def _refuse_head(self, refusal: Refusal) -> None:
        """Answer a request whose head is wrong, so that nothing of it can be relied on."""
        if self.deaf:
            return
        line = self._reader.request_line if self._reader is not None else None
        self._head = Head(*(line or _UNKNOWN), [])
        self.persistent = False
        request = self.make_request(self._head)
        self.requests.append(request)
        self.answer_early(request, refusal)

    def _cut_short(self) -> None:
        """No more bytes will come, and those that came are no whole request."""
        if self.deaf or self._handlingRequest or self._waitingForTransport:
            return
        if self.idle:
            self._close_idle()
        elif self._head is None:
            self._refuse_head(BadRequest("cut short"))
        else:
            self.answer_early(self.requests[-1], BadRequest("cut short"))

    def request_line(self) -> tuple[bytes, bytes, bytes]:
        """Method, target and version of the request that is being read, as far as known."""
        head = self._head
        return _UNKNOWN if head is None else (head.method, head.target, head.version)

    def _respondToBadRequestAndDisconnect(self) -> None:
        """A request of twisted.web's finds itself malformed, after all."""
        if not self.deaf:
            self.answer_early(self.requests[-1], BadRequest())

    # The end

    def _close(self) -> None:
        """The last answer was written, and is to be read within the idle time."""
        connections: Connections = self.factory.connections
        if self._pending or self._dropped:
            # Closing with bytes unread would reset the connection, and might cost the answer.
            self._linger(connections.limits.idle)
            return
        self._stop_looking()
        self.due = connections.seconds() + connections.limits.idle
        self.loseConnection()

    def _linger(self, seconds: float) -> None:
        """Close our side, and throw away what the client still sends for some seconds: closing at
        once would reset the connection, and the client might lose the answer (RFC 9112 9.6).
        """
        self._stop_looking()
        self.due = self.factory.connections.seconds() + seconds
        self._networkProducer.resumeProducing()
        self._networkProducer.unregisterProducer()
        transport = self.transport
        # Under TLS closing says so to the client, and reads on until it agrees; half-closing would
        # go past TLS to the socket. A client that sends no more provokes no reset.
        if (
            IHalfCloseableDescriptor.providedBy(transport)
            and not ISSLTransport.providedBy(transport)
            and not self._half_closed
        ):
            transport.loseWriteConnection()  # type: ignore[attr-defined]  # not in the interface
        else:
            transport.loseConnection()

    def _stop_looking(self) -> None:
        self.deaf = True
        self._pending = b""
        self._reader = self._decoder = None
        self._let_go()

    def abort(self) -> None:
        """Close at once, whatever has not been sent."""
        self.transport.abortConnection()

    def _close_idle(self) -> None:
        self._close()
        self.due = self.factory.connections.seconds() + self.abortTimeout

    @property
    def idle(self) -> bool:
        """Whether no request is being read or answered."""
        begun = self._reader is not None and self._reader.begun
        return not (self.requests or self._pending or begun)

    def close_if_idle(self) -> None:
        """Close unless a request is being read or answered."""
        if self.idle and not self.deaf:
            self._close_idle()

    # Time

    def setTimeout(self, period: float | None) -> float | None:
        """Call `expire` in `period` seconds; None for never. `TimeoutMixin`'s, without its call of
        the reactor for each request.
        """
        before, self.timeOut = self.timeOut, period  # type: ignore[assignment]
        self.due = inf if period is None else self.factory.connections.seconds() + period
        return before

    def expire(self, now: float) -> None:
        """The time for what this connection is doing is over."""
        limits = self.factory.connections.limits
        if self._half_closed and self._handlingRequest and not self.deaf:
            self._look_for_client(now)
        elif self.deaf or self._handlingRequest:
            self.abort()
        elif self.idle:
            self._close_idle()
        elif self._waitingForTransport and not self._excused:
            # It reads an answer, and meanwhile we do not read: that time is not the request's.
            self._excused = True
            self.due = now + limits.idle
        elif self._head is None:
            self._refuse_head(RequestTimeout("its header section"))
        elif self._progress >= LEAST_RATE * limits.body_time:
            self._progress = 0
            self.due = now + limits.body_time
        else:
            self.answer_early(self.requests[-1], RequestTimeout("its body"))
