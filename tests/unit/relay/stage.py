"""A relay on a `Clock` and a broker in memory, with clients on both sides of it."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from queuerelay.config import RelayConfig, Route
from queuerelay.errors import Refusal
from queuerelay.http.accesslog import AccessLog
from queuerelay.relay.front import Front
from queuerelay.relay.held import Held
from queuerelay.relay.limits import client_limits
from queuerelay.relay.relay import Relay
from queuerelay.testing import MemoryBroker, MemoryStore
from queuerelay.wire.reply import Reply, encode_frame, encode_reply
from tests.helpers.strict import Response, parse


class FakeClient:
    """A `HeldClient` that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Reply | Refusal] = []
        self.aborted = 0
        self.broken = False
        #: Of a streamed answer.
        self.writes: list[Sequence[bytes]] = []
        self.ended = False
        self.has_body = True
        self.backlog = 0

    def answer(self, reply: Reply) -> None:
        self.told.append(reply)
        if self.broken:
            raise RuntimeError("the front is broken")

    refuse: Callable[[Refusal], None] = answer  # type: ignore[assignment]

    def begin(self, reply: Reply, parts: Sequence[bytes], *, last: bool) -> bool:
        self.answer(reply)
        self.writes.append(parts)
        self.ended = last
        return self.has_body

    def proceed(self, parts: Sequence[bytes], *, last: bool) -> None:
        assert self.told, "it has not begun"
        assert not self.ended, "it has ended"
        self.writes.append(parts)
        self.ended = last

    def abort(self) -> None:
        self.aborted += 1

    @property
    def status(self) -> int | None:
        """Of its one answer; None where it waits."""
        assert len(self.told) < 2, f"told more than once: {self.told}"
        return self.told[0].status if self.told else None


@implementer(IHalfCloseableDescriptor)
class Wire(StringTransport):
    """A connection as TCP has it: closing takes effect in a later turn."""

    def __init__(self, clock: Clock, *, half_closes: bool) -> None:
        super().__init__()
        self.protocol: Any = None
        self.aborted = False
        self.half_closed = False
        self.lost = False
        #: Whether the client reads nothing, so that what is written stays in our buffers.
        self.stuck = False
        #: Bytes that the transport takes before it says that its buffer is full; None for any.
        self.capacity: int | None = None
        self._buffered = 0
        self._clock = clock
        if not half_closes:
            del self.loseWriteConnection

    def write(self, data: bytes) -> None:
        super().write(data)
        self._buffered += len(data)
        if self.capacity is not None and self._buffered > self.capacity and self.producer:
            self.producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def drain(self) -> None:
        """The client has taken what was in the buffer."""
        self._buffered = 0
        if self.producer:
            self.producer.resumeProducing()

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def writeConnectionLost(self, reason: Failure) -> None: ...
    def readConnectionLost(self, reason: Failure) -> None: ...

    def loseConnection(self) -> None:
        if not self.disconnecting:
            self.disconnecting = True
            if not self.stuck:
                self._clock.callLater(0, self.lose)

    def abortConnection(self) -> None:
        self.aborted = self.disconnecting = True
        self._clock.callLater(0, self.lose)

    @property
    def cut(self) -> bool:
        """Whether it was reset, or ended although the client may go on."""
        return self.aborted or self.half_closed

    def lose(self) -> None:
        """The connection is gone."""
        if not self.lost:
            self.lost = True
            self.protocol.connectionLost(Failure(ConnectionDone()))


class Connection:
    """A client's side of a connection."""

    def __init__(self, stage: "Stage", protocol: Protocol, *, client: str = "192.168.1.1") -> None:
        self._stage = stage
        self.wire = Wire(stage.clock, half_closes=True)
        self.wire.peerAddr = IPv4Address("TCP", client, 54321)
        self.protocol = self.wire.protocol = protocol
        protocol.makeConnection(self.wire)

    def send(self, *data: bytes) -> "Connection":
        """Each of `data` arrives as one segment."""
        for one in data:
            if not self.wire.lost:
                self.protocol.dataReceived(one)
        self._stage.turn()
        return self

    def half_close(self) -> "Connection":
        """The client closes its side, and may read on."""
        self.protocol.readConnectionLost()
        self._stage.turn()
        return self

    def leave(self) -> None:
        """The client closes."""
        self.wire.lose()
        self._stage.turn()

    @property
    def raw(self) -> bytes:
        """All that was sent to the client."""
        return self.wire.value()

    def responses(self, *methods: str, streamed: bool = False) -> list[Response]:
        """What it got for requests with `methods`."""
        return parse(self.raw, methods, streamed=streamed)

    def response(self, method: str = "GET", *, streamed: bool = False) -> Response:
        """The only response that it got."""
        (response,) = self.responses(method, streamed=streamed)
        return response


class Stage:
    """Everything of one test."""

    def __init__(
        self,
        *,
        store: MemoryStore | None = None,
        clock: Clock | None = None,
        access_log: AccessLog | None = None,
        **options: Any,
    ) -> None:
        self.clock = clock or Clock()
        if clock is None:
            self.clock.advance(1_790_000_000.0)
        self.broker = MemoryBroker(clock=self.clock, store=store)
        self.config = RelayConfig(**options)
        self.relay = Relay(
            self.config,
            self.broker,
            prefix="queuerelay:",
            clock=self.clock,
        )
        self.front = Front(
            self.relay,
            limits=client_limits(self.config),
            clock=self.clock,
            wall_clock=self.clock.seconds,
            access_log=access_log,
        )
        self.connections: list[Connection] = []
        self.broker.start()
        self.relay.start()
        self.turn()

    def turn(self, seconds: float = 0.0) -> None:
        """Let everything happen that is due within `seconds`, in its order."""
        self.clock.pump([0.0, *[0.05] * round(seconds / 0.05), 0.0])

    def connect(self) -> Connection:
        """A client of the front."""
        connection = Connection(self, self.front.buildProtocol(None))
        self.connections.append(connection)
        return connection

    def hold(self, client: FakeClient | None = None, **fields: Any) -> Held:
        """A held request, without HTTP."""
        return self.relay.hold(
            client or FakeClient(),
            **{
                "method": "GET",
                "url": "/",
                "http_version": "1.1",
                "headers": [("host", "example.org")],
                "body": b"",
                "remote_addr": "192.0.2.1",
                "scheme": "http",
                **fields,
            },
        )

    def waiting(self, queue: str = "requests") -> list[dict[str, Any]]:
        """The requests on a queue, as workers see them."""
        return [json.loads(raw)["args"][0] for raw in self.broker.messages(queue)]

    def take(self, queue: str = "requests") -> dict[str, Any]:
        """Take a request as a worker does."""
        claim = self.broker.store.claim([queue], holder="test:1", lease=3600.0)
        assert claim is not None, "the queue is empty"
        first: dict[str, Any] = json.loads(claim.message)["args"][0]
        return first

    def reply(self, taken: "dict[str, Any] | str", **fields: Any) -> None:
        """Answer a request as a worker does."""
        id = taken if isinstance(taken, str) else taken["node_id"]
        self.push_reply(encode_reply(node_id=id, **fields))

    def stream(self, taken: "dict[str, Any] | str", *bodies: bytes, **fields: Any) -> None:
        """Begin to answer a request with frames, one for each of `bodies`."""
        id = taken if isinstance(taken, str) else taken["node_id"]
        frames = [encode_reply(node_id=id, body=bodies[0], more=True, **fields)]
        frames += [encode_frame(node_id=id, body=body, more=True) for body in bodies[1:]]
        self.push_reply(*frames)

    def frame(self, taken: "dict[str, Any] | str", body: bytes = b"", *, more: bool = True) -> None:
        """A further frame."""
        id = taken if isinstance(taken, str) else taken["node_id"]
        self.push_reply(encode_frame(node_id=id, body=body, more=more))

    def push_reply(self, *raw: bytes) -> None:
        """Put these bytes on the relay's inbox."""
        self.broker.store.append(f"queuerelay:inbox:{self.relay.id}", raw)
        self.turn()

    def counter(self, name: str) -> int:
        """Of the relay's snapshot."""
        return self.relay.snapshot().counters.get(name, 0)

    def close(self) -> None:
        """Stop it, and see that nothing is left."""
        for connection in self.connections:
            connection.wire.lose()
        stopped: list[object] = []
        self.relay.stop().addBoth(stopped.append)
        self.turn()
        self.broker.stop()
        self.turn()
        assert stopped == [None]


@pytest.fixture
def make_stage() -> Iterator[Callable[..., Stage]]:
    """Makes stages with options of `RelayConfig`; at the end nothing may be left of them."""
    stages: list[Stage] = []

    def make(**options: Any) -> Stage:
        stages.append(Stage(**options))
        return stages[-1]

    yield make
    for stage in stages:
        stage.close()
    for stage in stages:
        assert stage.clock.getDelayedCalls() == []


@pytest.fixture
def stage(make_stage: Callable[..., Stage]) -> Stage:
    """A stage with all defaults."""
    return make_stage()


def to(queue: str, **condition: Any) -> Route:
    """A route."""
    return Route(queue=queue, **condition)
