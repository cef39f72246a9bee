"""One request of a client on the daemon's own HTTP front, and its answer.

Invariants:

1. A request is answered at most once: `FrontRequest.channel` is None from then on.
2. Its body counts against the relay's bytes while it is coming in.
"""

from typing import TYPE_CHECKING, Any, Final

from twisted.logger import Logger
from twisted.python.failure import Failure

from queuerelay.broker import eager
from queuerelay.errors import BodyTooLarge, InternalError, Refusal, TooManyHeld
from queuerelay.relay.accesslog import Entry
from queuerelay.relay.held import Held
from queuerelay.relay.request_id import request_id
from queuerelay.relay.response import Fields, for_refusal, for_reply
from queuerelay.wire.headers import request_headers
from queuerelay.wire.reply import Reply

if TYPE_CHECKING:
    from queuerelay.relay.channel import FrontChannel

#: Seconds that a client may take for the last answer on its connection.
LAST: Final = 60.0
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
        "_front",
        "_given_id",
        "_held",
        "_id",
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
        self.client = channel.peer
        self.requestHeaders = FieldList()
        self.method = b"GET"
        self.uri = self.clientproto = b"-"
        self._front = channel.factory
        self._body: bytes | bytearray = b""
        self._held: Held | None = None
        self._id = b""
        self._given_id = False

    # What the channel calls, in this order

    def parseCookies(self) -> None:
        """Cookies are the worker's business."""

    def gotLength(self, length: int | None) -> None:
        """The header section is complete; the body has `length` bytes, None for chunked."""
        self._name()
        if length is not None and length > self._front.max_body:
            self._refuse_early(BodyTooLarge(f"more than {self._front.max_body} bytes"))

    def handleContentChunk(self, data: bytes) -> None:
        """A part of the body."""
        if self.channel.deaf:
            return
        front = self._front
        # Most bodies come in one piece; a list of many small ones would weigh a multiple of them.
        if not self._body:
            self._body = data
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data
        front.receiving += len(data)
        if len(self._body) > front.max_body:
            self._refuse_early(BodyTooLarge(f"more than {front.max_body} bytes"))
        elif front.receiving > front.relay.room:
            self._refuse_early(TooManyHeld("no room for another body"))

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The request is complete."""
        channel = self.channel
        if channel.deaf:
            return
        self.method, self.uri, self.clientproto = command, path, version
        headers = request_headers(self.requestHeaders.fields)
        if self._given_id:
            headers = [pair for pair in headers if pair[0] != "x-request-id"]
        headers.append(("x-request-id", self._id.decode("ascii")))
        body = self._take_body() if self._body else b""
        try:
            self._held = self._front.relay.hold(
                self,
                method=command.decode("latin-1"),
                url=path.decode("latin-1"),
                http_version=version[5:].decode("latin-1"),
                headers=headers,
                body=body,
                remote_addr=channel.remote_addr,
                scheme=channel.scheme,
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
        self.channel = None
        self._take_body()
        held, self._held = self._held, None
        if held is not None:
            self._front.relay.gone(held)
            # RFC 9110 has no status for this; 499 is what logs have used since nginx.
            self._log_access(499, 0)

    def _name(self) -> None:
        given = self.requestHeaders.getRawHeaders(b"x-request-id")
        self._given_id = given is not None
        self._id = request_id(given)

    def _take_body(self) -> bytes:
        body, self._body = bytes(self._body), b""
        self._front.receiving -= len(body)
        return body

    def _refuse_early(self, refusal: Refusal) -> None:
        self._take_body()
        self.channel.answer_early(self, refusal)

    # What the relay calls

    def answer(self, reply: Reply) -> None:
        """Send the worker's answer."""
        try:
            fields, body = for_reply(reply, self.method)
        except Exception:
            self._failed("an answer could not be made")
        else:
            self._send(reply.status, fields, body)

    def refuse(self, refusal: Refusal) -> None:
        """Send an error of our own."""
        fields, body = self._refusal_fields(refusal)
        self._send(refusal.status, fields, body)

    def abort(self) -> None:
        """An answer could not be sent: what may have gone out of it must not pass for one."""
        if self.channel is not None:
            self.channel.abort()

    def _failed(self, what: str) -> None:
        """A bug of ours, and nothing has been sent yet."""
        _log.failure("{what}", what=what)
        self.refuse(self._front.relay.count(InternalError(what)))

    def early_answer(self, refusal: Refusal) -> bytes:
        """An error as bytes, for a request that is still being read."""
        self.method, self.uri, self.clientproto = self.channel.request_line()
        if not self._id:
            self._name()
        fields, body = self._refusal_fields(self._front.relay.count(refusal))
        self._log_access(refusal.status, len(body))
        return self._front.head(refusal.status, fields, self._id, close=True) + body

    def _refusal_fields(self, refusal: Refusal) -> tuple[Fields, bytes]:
        accept = self.requestHeaders.getRawHeaders(b"accept") or ()
        return for_refusal(refusal, self.method, accept)

    def _send(self, status: int, fields: Fields, body: bytes) -> None:
        channel = self.channel
        if self._front.draining:
            channel.persistent = False
        if not channel.persistent:
            # The last answer on its connection: a client that does not read it must not keep it.
            channel.setTimeout(LAST)
        head = self._front.head(status, fields, self._id, close=not channel.persistent)
        if len(body) <= COPIED:
            eager.write(channel.transport, head + body)
        else:
            channel.transport.writeSequence((head, body))
        self._log_access(status, len(body))
        self._held = None
        self.channel = None
        channel.requestDone(self)

    def _log_access(self, status: int, length: int) -> None:
        if self._front.access_log is not None:
            self._front.access_log.add(
                Entry(
                    client=self.client,
                    method=self.method,
                    target=self.uri,
                    version=self.clientproto,
                    status=status,
                    length=length,
                    headers=self.requestHeaders,
                    id=self._id,
                )
            )
