"""The half of a front that is the same for each of them: a request is put to the relay, and its
answer comes back, whole or in parts.

Invariants:

1. One answer, ours or the worker's, is begun for each request, and nothing follows an answer that
   has begun but its end or a break.
2. An answer that may have to wait for its client is sent only where the relay has room for it.
3. Every answer has the request's id, the client's own where that is fit for it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final, Protocol

from twisted.logger import Logger

from queuerelay.errors import InternalError, Refusal, TooManyHeld
from queuerelay.http import forwarded
from queuerelay.http.error_pages import Pages
from queuerelay.http.negotiate import prefers_events
from queuerelay.http.problems import Fields, for_refusal
from queuerelay.http.request_id import request_id
from queuerelay.http.sender import PIECE, Sender
from queuerelay.relay.framing import Framing, has_body, without_body
from queuerelay.relay.held import Held
from queuerelay.relay.relay import Relay
from queuerelay.relay.response import for_reply
from queuerelay.relay.stream import Break
from queuerelay.wire.reply import Reply

#: Longest body, in bytes, that goes out in one write and so never waits for its client.
AT_ONCE: Final = PIECE

#: Statuses of ours for what may be over soon. They end a browser's EventSource for good, while it
#: comes back after a connection that broke (WHATWG HTML 9.2.3).
TEMPORARY: Final = frozenset({429, 502, 503, 504})

_log = Logger()


class FrontHome(Protocol):
    """The settings that all requests of a front share."""

    relay: Relay
    #: Whether answers tell how long they took (``Server-Timing``).
    server_timing: bool
    #: The operator's pages for errors.
    pages: Pages


class Answering(ABC):
    """One request of a front as the relay's `HeldClient`.

    A front says how a whole answer goes out (`_send`), how the body of a streamed one ends
    (`_framed`) and how it begins (`_open`), and how its connection is closed (`_cut`).
    """

    __slots__ = (
        "_framing",
        "_given_id",
        "_home",
        "_id",
        "_sender",
        "_timing",
        "client",
        "held",
        "method",
        "requestHeaders",
    )

    #: Header fields of the request, as far as the relay asks for them by name.
    requestHeaders: Any
    _home: FrontHome

    def __init__(self, home: FrontHome, client: Any) -> None:
        self._home = home
        #: The client's address as text, or the connection's peer while nothing more is known.
        self.client = client
        self.method = b"GET"
        #: This request as the relay holds it; None before that, and once nobody asks any more.
        self.held: Held | None = None
        self._id = b""
        self._given_id = False
        self._sender: Sender | None = None
        self._framing: Framing | None = None
        #: Seconds in the queue and in the worker, as the worker says; None where it does not.
        self._timing: tuple[float | None, float | None] | None = None

    # Towards the relay

    def _name(self) -> None:
        """Name the request by the client's id, or by a new one."""
        given = self.requestHeaders.getRawHeaders(b"x-request-id")
        self._given_id = given is not None
        self._id = request_id(given)

    def hold(
        self,
        met: forwarded.Peer,
        fields: forwarded.Fields,
        *,
        target: bytes,
        http_version: str,
        body: bytes,
    ) -> None:
        """Put the request on its queue, or answer why it cannot be.

        `met` is who is at the other end of the connection; `fields` are as `Peer.forward` takes
        them, and `http_version` is such as ``1.1``.
        """
        url = target.decode("latin-1")
        headers, remote_addr, scheme = met.forward(fields, url, http_version)
        self.client = remote_addr
        if self._given_id:
            headers = [pair for pair in headers if pair[0] != "x-request-id"]
        headers.append(("x-request-id", self._id.decode("ascii")))
        try:
            self.held = self._home.relay.hold(
                self,
                method=self.method.decode("latin-1"),
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
            self.failed("a request could not be held")

    # What the relay calls

    def answer(self, reply: Reply) -> None:
        """Send the worker's answer."""
        home = self._home
        try:
            fields, body = for_reply(reply, self.method, timed=home.server_timing)
        except Exception:
            self.failed("an answer could not be made")
            return
        self._timing = reply.timing
        if len(body) > AT_ONCE and not home.relay.budget.fits(len(body)):
            self.refuse(home.relay.count(TooManyHeld("no room for a large answer"), self.held))
        else:
            self._send(reply.status, fields, body)

    def refuse(self, refusal: Refusal) -> None:
        """Send an error of our own, or break the connection: some clients come back only then."""
        if refusal.status in TEMPORARY and self.method == b"GET" and self._awaits_events():
            self._drop(refusal.status)
            return
        fields, body = self._refusal_fields(refusal)
        self._send(refusal.status, fields, body)

    def begin(self, reply: Reply, parts: Sequence[bytes], *, last: bool) -> bool:
        """Begin a streamed answer."""
        self._timing = reply.timing
        try:
            timed = self._home.server_timing
            fields, _ = for_reply(without_body(reply), b"HEAD", timed=timed)
        except Exception:
            self.failed("an answer could not be made")
            return False
        if not has_body(reply.status, self.method):
            self._send(reply.status, fields, b"")
            return False
        framing = self._framed(reply)
        body = framing.encode(parts, last=last)
        self._framing = framing
        self._open(framing, reply.status, fields, body, last=last)
        return True

    def proceed(self, parts: Sequence[bytes], *, last: bool) -> None:
        """Send more of a streamed answer."""
        sender, framing = self._sender, self._framing
        if sender is not None and framing is not None:
            sender.go_on(framing.encode(parts, last=last), last=last)

    @property
    def backlog(self) -> int:
        """Bytes of a streamed answer that the client has not taken yet."""
        return 0 if self._sender is None else self._sender.waiting

    def abort(self) -> None:
        """An answer could not be sent: what may have gone out of it must not pass for one."""
        self.stop()
        self._cut()

    def stop(self) -> None:
        """Send nothing more."""
        if self._sender is not None:
            self._sender.stop()

    def failed(self, what: str) -> None:
        """A bug of ours, and nothing has been sent yet."""
        _log.failure("{what}", what=what)
        self.refuse(self._home.relay.count(InternalError(what), self.held))

    def _awaits_events(self) -> bool:
        return prefers_events(self.requestHeaders.getRawHeaders(b"accept") or ())

    def _refusal_fields(self, refusal: Refusal) -> tuple[Fields, bytes]:
        accept = self.requestHeaders.getRawHeaders(b"accept") or ()
        return for_refusal(refusal, self.method, accept, self._id, self._home.pages)

    # What the sender calls

    def _taken(self) -> None:
        if self.held is not None:
            self._home.relay.taken(self.held)

    def _stalled(self) -> None:
        self._home.relay.cut_off(self.held, self, Break.STALLED, "its client takes nothing")

    # What a front has to say

    @abstractmethod
    def _send(self, status: int, fields: Fields, body: bytes) -> None:
        """Send a whole answer."""

    @abstractmethod
    def _framed(self, reply: Reply) -> Framing:
        """How the body of the streamed answer that `reply` begins is to end."""

    @abstractmethod
    def _open(
        self, framing: Framing, status: int, fields: Fields, body: bytes, *, last: bool
    ) -> None:
        """Send the header section of a streamed answer, and `body`, which is framed."""

    @abstractmethod
    def _drop(self, status: int) -> None:
        """Close the client's connection without an answer, in place of an error of this status."""

    @abstractmethod
    def _cut(self) -> None:
        """Close the client's connection at once."""
