"""One request of a client on the daemon's own HTTP front, and its answer.

Invariants:

1. A request is answered at most once: `FrontRequest.channel` is None from then on. A large or
   streamed answer is on its way before that, with a `Sender`; any other goes out in one write.
2. Its body counts against the relay's bytes while it is coming in.
"""

from functools import partial
from typing import Any, Protocol

from twisted.python.failure import Failure

from queuerelay import eager
from queuerelay.errors import Refusal, TooManyHeld
from queuerelay.http.accesslog import AccessLog
from queuerelay.http.problems import Fields
from queuerelay.http.sender import Sender
from queuerelay.log_format import Entry
from queuerelay.relay.answering import AT_ONCE, Answering, FrontHome
from queuerelay.relay.framing import Framing
from queuerelay.relay.held import HeldState
from queuerelay.wire.reply import Reply


class DaemonFront(FrontHome, Protocol):
    """What a request needs of its `queuerelay.relay.front.Front`."""

    access_log: AccessLog | None
    #: Whether every answer is the last one on its connection.
    draining: bool

    def head(
        self, status: int, fields: Fields, id: bytes, *, close: bool, old: bool = False
    ) -> bytes:
        """Status line and header section of an answer."""


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


class FrontRequest(Answering):
    """One request on the daemon's front.

    It has what the channel needs of a `twisted.web.http.Request`, which weighs three times as much.
    """

    __slots__ = (
        "__weakref__",
        "_body",
        "_length",
        "_logged",
        "_status",
        "aborted",
        "channel",
        "clientproto",
        "uri",
    )

    _home: DaemonFront

    def __init__(self, front: DaemonFront, channel: Any) -> None:
        # Not by super(), which costs as much again, for every request.
        Answering.__init__(self, front, channel.peer)
        #: The `front.FrontChannel`; None once the client has left or has its answer.
        self.channel = channel
        #: Whether the answer was broken off.
        self.aborted = False
        self.requestHeaders = FieldList()
        self.uri = self.clientproto = b"-"
        self._body: bytes | bytearray = b""
        # For the access log. RFC 9110 has no status for a client that left without an answer; 499
        # is what logs have used since nginx.
        self._status = 499
        self._length = 0
        self._logged = False

    # What the channel calls, in this order

    def gotLength(self, length: int | None) -> None:
        """The header section is complete; the body has `length` bytes, None for chunked."""
        self._name()
        if length and length > self._home.relay.budget.room and not self._has_room(length):
            # Else all of it might come before there is too much of it.
            self._refuse_early(TooManyHeld("no room for another body"))

    def handleContentChunk(self, data: bytes) -> None:
        """A part of the body."""
        if self.channel.deaf:
            return
        relay = self._home.relay
        # Most bodies come in one piece; a list of many small ones would weigh a multiple of them.
        if not self._body:
            self._body = data
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data
        relay.budget.receiving += len(data)
        if relay.budget.room < 0 and not self._has_room(0):
            self._refuse_early(TooManyHeld("no room for another body"))

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The request is complete."""
        channel = self.channel
        if channel.deaf:
            return
        self.method, self.uri, self.clientproto = command, path, version
        met = channel.met or channel.meet()
        body = self._take_body() if self._body else b""
        fields = self.requestHeaders.fields
        http_version = version[5:].decode("latin-1")
        self.hold(met, fields, target=path, http_version=http_version, body=body)
        if self.held is not None and self._home.access_log is None:
            # All that is wanted of them from now on; ten fields weigh more than their message.
            accept = self.requestHeaders.getRawHeaders(b"accept") or ()
            self.requestHeaders = FieldList()
            for value in accept:
                self.requestHeaders.addRawHeader(b"Accept", value)

    def connectionLost(self, reason: Failure) -> None:
        """The client has left."""
        channel, self.channel = self.channel, None
        self._take_body()
        held = self.held
        if held is None and channel is not None:
            self._learn(channel)
        self._log_access("aborted" if self.aborted else "gone")
        if self._sender is not None:
            self._sender.stop()
        self.held = None
        if held is not None:
            self._home.relay.gone(held)

    def _take_body(self) -> bytes:
        body, self._body = bytes(self._body), b""
        self._home.relay.budget.receiving -= len(body)
        return body

    def _has_room(self, size: int) -> bool:
        self._learn(self.channel)
        return self._home.relay.make_room(self.client, size)

    def _refuse_early(self, refusal: Refusal) -> None:
        self.channel.answer_early(self, refusal)

    # Its answer

    def early_answer(self, refusal: Refusal) -> bytes:
        """An error as bytes, for a request that is still being read."""
        self._take_body()
        self._learn(self.channel)
        if not self._id:
            self._name()
        fields, body = self._refusal_fields(self._home.relay.count(refusal))
        self._status, self._length = refusal.status, len(body)
        self._log_access("early")
        return self._home.head(refusal.status, fields, self._id, close=True) + body

    def _learn(self, channel: Any) -> None:
        """Take over what is known of a request that is not complete, and of its client."""
        self.method, self.uri, self.clientproto = channel.request_line()
        met = channel.met or channel.meet()
        self.client = met.client_address(self.requestHeaders.fields)

    def _send(self, status: int, fields: Fields, body: bytes) -> None:
        head = self._head(status, fields)
        self._status, self._length = status, len(body)
        if len(body) <= AT_ONCE:
            eager.write(self.channel.transport, head + body)
            self._done()
        else:
            sender = self._sending()
            sender.send(head)
            sender.send(body)
            sender.end()

    def _head(self, status: int, fields: Fields) -> bytes:
        channel = self.channel
        if self._home.draining:
            channel.persistent = False
        old = self.clientproto == b"HTTP/1.0"
        head = self._home.head(status, fields, self._id, close=not channel.persistent, old=old)
        if channel.ahead:
            head = head[channel.ahead :]
            channel.ahead = 0
        return head

    def send_ahead(self) -> None:
        """Send one byte of the answer, for a client that may have left to show that."""
        if self._sender is None:
            self.channel.send_opening()
        elif self._framing is not None and not self._sender.waiting:
            self._sender.go_on(self._framing.ahead(), last=False)

    def _done(self) -> None:
        """The answer has left us, or is in the transport's own buffer."""
        channel = self.channel
        if self._home.draining:
            channel.persistent = False
        if self._home.access_log is not None:
            held = self.held
            if held is None:
                end = "refused"
            else:
                # The relay notes the end of a streamed answer when all of it was written.
                end = HeldState.ANSWERED.value if held.alive else held.state.value
            self._log_access(end)
        self.held = None
        self.channel = None
        channel.requestDone(self)

    # Answers that do not go out in one write

    def _sending(self) -> Sender:
        channel = self.channel
        sender = self._sender = Sender(
            self._home.relay.senders,
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

    def _framed(self, reply: Reply) -> Framing:
        length = reply.declared_length
        # RFC 9112 7.1: HTTP/1.0 knows no chunks; there the end of the connection is the end.
        chunked = length is None and self.clientproto == b"HTTP/1.1"
        return Framing(chunked=chunked, length=length)

    def _open(
        self, framing: Framing, status: int, fields: Fields, body: bytes, *, last: bool
    ) -> None:
        if framing.chunked:
            fields = [*fields, (b"Transfer-Encoding", b"chunked")]
        elif framing.until_close:
            self.channel.persistent = False
        self._status = status
        sender = self._sending()
        sender.go_on(self._head(status, fields) + body, last=last)

    def _drop(self, status: int) -> None:
        self._status = status
        self.channel.persistent = False
        self._done()

    def _cut(self) -> None:
        self.aborted = True
        channel, framing = self.channel, self._framing
        if channel is None:
            return
        if framing is None or framing.until_close:
            # An end would be that of the answer.
            channel.abort()
        else:
            self._log_access("aborted")
            channel.break_off()

    def _log_access(self, end: str) -> None:
        log = self._home.access_log
        # Once: who got an early answer leaves as well.
        if log is None or self._logged:
            return
        self._logged = True
        length = self._length if self._framing is None else self._framing.sent
        if self._sender is not None:
            length = max(0, length - self._sender.waiting - self._sender.unsent)
        held = self.held
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
                total=None if held is None else self._home.relay.seconds_since(held),
            )
        )
