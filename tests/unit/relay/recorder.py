"""The front and the Site with nothing behind them but a record of what they accepted."""

from dataclasses import dataclass
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from queuerelay.config import RelayConfig
from queuerelay.errors import Refusal
from queuerelay.http.connections import ClientLimits
from queuerelay.http.forwarded import Trust
from queuerelay.http.sender import Senders
from queuerelay.http.site import Site
from queuerelay.relay.budget import ByteBudget
from queuerelay.relay.front import Front
from queuerelay.relay.held import HeldTable


class Recorded(Refusal):
    """it was recorded"""

    status = 200
    reason = "recorded"


@dataclass(frozen=True, slots=True)
class Message:
    """A request that was accepted."""

    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def get(self, name: str) -> str | None:
        """The value of a field."""
        return dict(self.headers).get(name)


class RecordingRelay:
    """What `Front` needs of a relay; answers at once, by refusing all that it has noted."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.budget = ByteBudget(HeldTable(), Senders(stall=60.0), limit=2**30)
        self.trust = Trust((), RelayConfig().proxy_fields)

    def hold(self, client: object, **request: Any) -> None:
        """Note the request."""
        self.messages.append(
            Message(
                request["method"],
                request["url"],
                request["http_version"],
                tuple(request["headers"]),
                bytes(request["body"]),
            )
        )
        raise Recorded

    def count(self, refusal: Refusal) -> Refusal:
        """An early answer is given."""
        return refusal


class RecordingResource(Resource):
    """Notes every request that a Site accepts."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Message] = []

    def render(self, request: Any) -> bytes:
        """Note the request."""
        fields = [
            (name.decode().lower(), value.decode("latin-1"))
            for name, values in request.requestHeaders.getAllRawHeaders()
            for value in values
        ]
        self.messages.append(
            Message(
                request.method.decode("latin-1"),
                request.uri.decode("latin-1"),
                request.clientproto.decode()[5:],
                tuple(fields),
                request.content.read(),
            )
        )
        request.setHeader(b"content-type", b"text/plain")
        return b"it was recorded"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of some bytes."""

    messages: tuple[Message, ...]
    raw: bytes
    #: Whether our side of the connection was closed.
    closed: bool
    #: Whether a further request has begun, and is not complete.
    partial: bool


class _Wire(StringTransport):
    """Notes the end of our side."""

    ended = False

    def loseConnection(self) -> None:
        self.ended = True

    def abortConnection(self) -> None:
        self.ended = True


def recording_front(limits: ClientLimits) -> tuple[Front, RecordingRelay]:
    """A front that notes what it accepts."""
    relay: Any = RecordingRelay()
    clock = Clock()
    return Front(relay, limits=limits, clock=clock, wall_clock=clock.seconds), relay


def recording_site(limits: ClientLimits) -> tuple[Site, RecordingResource]:
    """A Site that notes what it accepts."""
    resource = RecordingResource()
    return Site(resource, limits=limits, reactor=Clock()), resource


def feed(factory: Any, recorder: Any, *segments: bytes) -> Verdict:
    """What `factory` makes of these segments on one connection."""
    recorder.messages.clear()
    wire = _Wire()
    channel = factory.buildProtocol(None)
    channel.makeConnection(wire)
    for segment in segments:
        channel.dataReceived(segment)
    partial = not (wire.ended or channel.idle)
    verdict = Verdict(tuple(recorder.messages), wire.value(), wire.ended, partial)
    channel.connectionLost(Failure(ConnectionError()))
    return verdict
