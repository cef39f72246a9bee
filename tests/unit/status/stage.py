"""A status room over a broker in memory, on a `Clock`, with relays beside it."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from queuerelay.relay.probe import Probe
from queuerelay.status.collect.snapshot import QueueStatus, StatusSnapshot
from queuerelay.status.listener import status_site
from queuerelay.status.resource import StatusResource
from queuerelay.status.status import Access, Status, ThisProcess
from queuerelay.testing import MemoryBroker
from tests.helpers.strict import Response
from tests.unit.relay.stage import Connection
from tests.unit.relay.stage import Stage as RelayStage


class Stage(RelayStage):
    """A relay and, in the same process, a status room."""

    def __init__(
        self,
        *,
        alone: bool = False,
        hosts: Any = (),
        access: Access | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.draining = False
        self.status = Status(
            self.broker,
            address="redis://localhost:6379/0",
            clock=self.clock,
            process=ThisProcess(
                parts=[] if alone else [self.relay],
                draining=lambda: self.draining,
                probe=None if alone else Probe(self.relay, clock=self.clock),
            ),
            access=access or Access(),
        )
        self.resource = StatusResource(self.status, hosts=hosts)
        self.site = status_site(self.resource, reactor=self.clock)
        self.status.start()
        self.turn(1.0)

    @property
    def snapshot(self) -> StatusSnapshot:
        return self.status.snapshot

    @property
    def reasons(self) -> list[tuple[str, str]]:
        """Codes and subjects of what is not well."""
        return [(one.code, one.subject) for one in self.snapshot.health.reasons]

    def queue(self, name: str = "requests") -> QueueStatus:
        (found,) = [queue for queue in self.snapshot.queues if queue.name == name]
        return found

    def work(self, queue: str = "requests", **fields: Any) -> None:
        """Answer a request, and acknowledge it, as a worker does."""
        claim = self.broker.store.claim([queue], holder="test:1", lease=3600.0)
        assert claim is not None, "the queue is empty"
        self.broker.store.end(claim)
        self.reply(json.loads(claim.message)["args"][0], **fields)

    def other(self) -> MemoryBroker:
        """Another process's broker."""
        broker = MemoryBroker(clock=self.clock, store=self.broker.store)
        broker.start()
        self.turn()
        return broker

    def beat(self, id: str, **published: Any) -> None:
        """Another node says this of itself."""
        raw = json.dumps({"id": id, "host": "other", "pid": 7, "uptime": 1.0, **published})
        self.broker.nodes.beat(id, raw.encode(), inbox_life=60.0)
        self.turn()

    def ask(
        self, target: str, method: str = "GET", *headers: tuple[str, str], host: str = "localhost"
    ) -> Response:
        """The answer of the status listener."""
        connection = self.connect_status()
        fields = [*([("Host", host)] if host else []), *headers]
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {text}" for name, text in fields)]
        connection.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
        self.turn()
        return connection.response(method)

    def connect_status(self) -> Connection:
        """A connection to the status listener."""
        connection = Connection(self, self.site.buildProtocol(None))
        self.connections.append(connection)
        return connection

    def json(self, target: str) -> Any:
        return json.loads(self.ask(target).body)

    def close(self) -> None:
        self.status.stop()
        super().close()


@pytest.fixture
def make_stage() -> Iterator[Callable[..., Stage]]:
    """Makes stages; at the end nothing may be left of them."""
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
    """One with the defaults."""
    return make_stage()
