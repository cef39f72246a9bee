"""One request of a client on the daemon's own HTTP front, and its answer.

Invariants:

1. A request is answered at most once: `FrontRequest.channel` is None from then on. A large or
   streamed answer is on its way before that, with a `Sender`.
2. Its body counts against the relay's bytes while it is coming in.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import Logger
from twisted.python.failure import Failure

from queuerelay import eager
from queuerelay.errors import InternalError, Refusal, TooManyHeld
from queuerelay.http.accesslog import Entry
from queuerelay.http.problems import Fields, for_refusal
from queuerelay.http.request_id import request_id
from queuerelay.http.sender import Sender
from queuerelay.relay.framing import Framing, has_body, without_body
from queuerelay.relay.held import Held, State
from queuerelay.relay.response import for_reply
from queuerelay.relay.stream import Break
from queuerelay.wire.reply import Reply

if TYPE_CHECKING:
    from queuerelay.relay.channel import FrontChannel

#: Longest body, in bytes, that is copied behind its header section to go out in one write.
COPIED: Final = 64 * 1024

_log = Logger()


class FieldList:
    """Header fields in the order of arrival, as far as the channel asks a `Headers` for them.

    The channel has already checked what it adds, so nothing is checked or sorted here.
    """

    __slots__ = ("fields",)

    def __init__(self) -> None:
        #: ``(name, (value,))``, names as the channel writes them.
        self.fields: list[tuple[bytes, tuple[bytes]]] = []

    def addRawHeader(self, name: bytes, value: bytes) -> None:
        """Append a field."""
        self.fields.append((name, (value,)))

    def getRawHeaders(self, name: bytes, default: Any = None) -> Any:
        """All values of `name`, or `default` where there is none."""
        name = name.lower()
        return [values[0] for each, values in self.fields if each.lower() == name] or default


class FrontRequest:
    """One request, and the relay's `Client` for it.

    What the channel needs of a `twisted.web.http.Request`, which weighs three times as much.
    """

    __slots__ = (
        "__weakref__",
        "_body",
        "_framing",
        "_front",
        "_given_id",
        "_held",
        "_id",
        "_length",
        "_logged",
        "_sender",
        "_status",
        "_timing",
        "aborted",
        "channel",
        "client",
        "clientproto",
        "method",
        "requestHeaders",
        "uri",
    )

    def __init__(self, channel: "FrontChannel", queued: object = None) -> None:
        #: None once the client has left or has its answer.
        self.channel: Any = channel
        #: Its address as text, or the connection's peer while nothing more is known.
        self.client: Any = channel.peer
        #: Whether its answer was broken off.
        self.aborted = False
        self.requestHeaders = FieldList()
        self.method = b"GET"
        self.uri = self.clientproto = b"-"
        self._front = channel.factory
        self._body: bytes | bytearray = b""
        self._held: Held | None = None
        self._id = b""
        self._given_id = False
        self._sender: Sender | None = None
        self._framing: Framing | None = None
        # For the access log. RFC 9110 has no status for a client that left without an answer; 499
        # is what logs have used since nginx.
        self._status = 499
        self._length = 0
        self._timing: tuple[float | None, float | None] | None = None
        self._logged = False

    # What the channel calls, in this order

    def parseCookies(self) -> None:
        """Cookies are the worker's business."""

    def gotLength(self, length: int | None) -> None:
        """The header section is complete; the body has `length` bytes, None for chunked."""
        self._name()
        if length and length > self._front.relay.room:
            # Else all of it might come before there is too much of it.
            self._refuse_early(TooManyHeld("no room for another body"))

    def handleContentChunk(self, data: bytes) -> None:
        """A part of the body."""
        if self.channel.deaf:
            return
        relay = self._front.relay
        # Most bodies come in one piece; a list of many small ones would weigh a multiple of them.
        if not self._body:
            self._body = data
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data
        relay.receiving += len(data)
        if relay.room < 0:
            self._refuse_early(TooManyHeld("no room for another body"))

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The request is complete."""
        channel = self.channel
        if channel.deaf:
            return
        self.method, self.uri, self.clientproto = command, path, version
        url, http_version = path.decode("latin-1"), version[5:].decode("latin-1")
        met = channel.met or channel.meet()
        headers, remote_addr, scheme = met.forward(self.requestHeaders.fields, url, http_version)
        self.client = remote_addr
        if self._given_id:
            headers = [pair for pair in headers if pair[0] != "x-request-id"]
        headers.append(("x-request-id", self._id.decode("ascii")))
        body = self._take_body() if self._body else b""
        try:
            self._held = self._front.relay.hold(
                self,
                method=command.decode("latin-1"),
                url=url,
                http_version=http_version,
                headers=headers,
                body=body,
                remote_addr=remote_addr,
                scheme=scheme,
            )
        except Refusal as refusal:
            self.refuse(refusal)
        except Exception:
            self._failed("a request could not be held")
        else:
            if self._front.access_log is None:
                # All that is wanted of them from now on; ten fields weigh more than their message.
                accept = self.requestHeaders.getRawHeaders(b"accept") or ()
                self.requestHeaders = FieldList()
                for value in accept:
                    self.requestHeaders.addRawHeader(b"Accept", value)

    def connectionLost(self, reason: Failure) -> None:
        """The client has left."""
        channel, self.channel = self.channel, None
        self._take_body()
        held = self._held
        if held is None and channel is not None:
            self._learn(channel)
        self._log_access("aborted" if self.aborted else "gone")
        if self._sender is not None:
            self._sender.stop()
        self._held = None
        if held is not None:
            self._front.relay.gone(held)

    def _name(self) -> None:
        given = self.requestHeaders.getRawHeaders(b"x-request-id")
        self._given_id = given is not None
        self._id = request_id(given)

    def _take_body(self) -> bytes:
        body, self._body = bytes(self._body), b""
        self._front.relay.receiving -= len(body)
        return body

    def _refuse_early(self, refusal: Refusal) -> None:
        self.channel.answer_early(self, refusal)

    # What the relay calls

    def answer(self, reply: Reply) -> None:
        """Send the worker's answer."""
        try:
            fields, body = for_reply(reply, self.method, timed=self._front.server_timing)
        except Exception:
            self._failed("an answer could not be made")
            return
        self._timing = reply.timing
        if len(body) > COPIED and not self._front.relay.fits(len(body)):
            self.refuse(
                self._front.relay.count(TooManyHeld("no room for a large answer"), self._held)
            )
        else:
            self._send(reply.status, fields, body)

    def refuse(self, refusal: Refusal) -> None:
        """Send an error of our own."""
        fields, body = self._refusal_fields(refusal)
        self._send(refusal.status, fields, body)

    def begin(self, reply: Reply, parts: Sequence[bytes], *, last: bool) -> bool:
        """Begin a streamed answer."""
        timed = self._front.server_timing
        self._timing = reply.timing
        try:
            fields, _ = for_reply(without_body(reply), b"HEAD", timed=timed)
        except Exception:
            self._failed("an answer could not be made")
            return False
        if not has_body(reply.status, self.method):
            self._send(reply.status, fields, b"")
            return False
        length = reply.declared_length
        # RFC 9112 7.1: HTTP/1.0 knows no chunks; there the end of the connection is the end.
        chunked = length is None and self.clientproto == b"HTTP/1.1"
        framing = Framing(reply.status, chunked=chunked, length=length)
        body = framing.encode(parts, last=last)
        if chunked:
            fields = [*fields, (b"transfer-encoding", b"chunked")]
        elif length is None:
            self.channel.persistent = False
        self._framing = framing
        self._status = reply.status
        sender = self._sending()
        sender.go_on(self._head(reply.status, fields) + body, last=last)
        return True

    def proceed(self, parts: Sequence[bytes], *, last: bool) -> None:
        """Send more of a streamed answer."""
        sender, framing = self._sender, self._framing
        if self.channel is None or sender is None or framing is None:
            return
        sender.go_on(framing.encode(parts, last=last), last=last)

    @property
    def backlog(self) -> int:
        """Bytes of a streamed answer that the client has not taken yet."""
        return 0 if self._sender is None else self._sender.waiting

    def abort(self) -> None:
        """An answer could not be sent: what may have gone out of it must not pass for one."""
        self.aborted = True
        if self._sender is not None:
            self._sender.stop()
        if self.channel is not None:
            self.channel.abort()

    def _failed(self, what: str) -> None:
        """A bug of ours, and nothing has been sent yet."""
        _log.failure("{what}", what=what)
        self.refuse(self._front.relay.count(InternalError(what), self._held))

    def early_answer(self, refusal: Refusal) -> bytes:
        """An error as bytes, for a request that is still being read."""
        self._take_body()
        self._learn(self.channel)
        if not self._id:
            self._name()
        fields, body = self._refusal_fields(self._front.relay.count(refusal))
        self._status, self._length = refusal.status, len(body)
        self._log_access("early")
        return self._front.head(refusal.status, fields, self._id, close=True) + body

    def _learn(self, channel: "FrontChannel") -> None:
        """See what is known of a request that is not complete, and of its client."""
        self.method, self.uri, self.clientproto = channel.request_line()
        met = channel.met or channel.meet()
        self.client = met.client_address(self.requestHeaders.fields)

    def _refusal_fields(self, refusal: Refusal) -> tuple[Fields, bytes]:
        accept = self.requestHeaders.getRawHeaders(b"accept") or ()
        return for_refusal(refusal, self.method, accept, self._id, self._front.pages)

    def _send(self, status: int, fields: Fields, body: bytes) -> None:
        head = self._head(status, fields)
        self._status, self._length = status, len(body)
        if len(body) <= COPIED:
            eager.write(self.channel.transport, head + body)
            self._done()
        else:
            sender = self._sending()
            sender.send(head)
            sender.send(body)
            sender.end()

    def _head(self, status: int, fields: Fields) -> bytes:
        channel = self.channel
        if self._front.draining:
            channel.persistent = False
        old = self.clientproto == b"HTTP/1.0"
        return self._front.head(status, fields, self._id, close=not channel.persistent, old=old)

    def _done(self) -> None:
        """The answer has left us, or is in the transport's own buffer."""
        channel = self.channel
        if self._front.draining:
            channel.persistent = False
        if self._front.access_log is not None:
            held = self._held
            if held is None:
                end = "refused"
            else:
                # The relay notes the end of a streamed answer when all of it was written.
                end = State.ANSWERED.value if held.alive else held.state.value
            self._log_access(end)
        self._held = None
        self.channel = None
        channel.requestDone(self)

    # Answers that do not go out in one write

    def _sending(self) -> Sender:
        channel = self.channel
        sender = self._sender = Sender(
            self._front.relay.senders,
            channel,
            write=partial(eager.write, channel.transport),
            done=self._sent,
            give_up=self._stalled,
            taken=self._taken,
        )
        channel.registerProducer(sender, True)
        return sender

    def _sent(self) -> None:
        self.channel.unregisterProducer()
        self._sender = None
        self._done()

    def _taken(self) -> None:
        if self._held is not None:
            self._front.relay.taken(self._held)

    def _stalled(self) -> None:
        self._front.relay.cut_off(self._held, self, Break.STALLED, "its client takes nothing")

    def _log_access(self, end: str) -> None:
        log = self._front.access_log
        # Once: who got an early answer leaves as well.
        if log is None or self._logged:
            return
        self._logged = True
        length = self._length if self._framing is None else self._framing.sent
        if self._sender is not None:
            length = max(0, length - self._sender.waiting - self._sender.unsent)
        held = self._held
        wait, run = self._timing or (None, None)
        log.add(
            Entry(
                client=self.client,
                method=self.method,
                target=self.uri,
                version=self.clientproto,
                status=self._status,
                length=length,
                headers=self.requestHeaders,
                id=self._id,
                end=end,
                queue="" if held is None else held.queue,
                wait=wait,
                run=run,
                total=None if held is None else self._front.relay.seconds_since(held),
            )
        )
