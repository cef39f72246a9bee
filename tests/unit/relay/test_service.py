"""The relay as a service: what an application that embeds it may rely on."""

import gc
import signal

import pytest
from twisted.application.service import MultiService
from twisted.internet.task import Clock
from twisted.web.resource import Resource

from queuerelay.config import Config, RelayConfig
from queuerelay.errors import ConfigError
from queuerelay.service import RelayService
from queuerelay.testing import MemoryBroker
from tests.unit.relay.stage import FakeClient


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(1000.0)
    return clock


def make(clock, **options):
    broker = MemoryBroker(clock=clock)
    config = Config(relay=RelayConfig(**options))
    return RelayService(config, reactor=clock, broker=broker), broker


def hold(service):
    client = FakeClient()
    service.relay.hold(
        client,
        method="GET",
        url="/",
        http_version="1.1",
        headers=[],
        body=b"",
        remote_addr="",
        scheme="http",
    )
    return client


def test_it_is_a_service_like_any_other(clock):
    service, broker = make(clock)
    parent = MultiService()
    service.setServiceParent(parent)
    parent.startService()
    clock.advance(0)
    assert isinstance(service.resource, Resource)
    client = hold(service)
    clock.advance(0)
    assert len(broker.messages("requests")) == 1
    ended = []
    parent.stopService().addCallback(ended.append)
    clock.advance(0)
    assert ended == [], "it waits for who is held"
    clock.advance(26)
    clock.advance(1)
    assert client.status == 503
    assert len(ended) == 1
    # Nothing is left: no timer, no node, no message.
    assert clock.getDelayedCalls() == []
    assert broker.store.nodes == {}
    assert broker.messages("requests") == []


@pytest.mark.parametrize("away", [False, True])
def test_it_stops_whether_redis_is_there_or_not(clock, away):
    service, broker = make(clock)
    service.startService()
    clock.advance(0)
    if away:
        broker.disconnect()
    ended = []
    service.stopService().addCallback(ended.append)
    clock.advance(0)
    clock.advance(3)
    assert ended == [None]
    assert clock.getDelayedCalls() == []


# Promise 6
def test_promise_6_a_redis_that_does_not_answer_does_not_keep_it(clock, monkeypatch):
    from twisted.internet.defer import Deferred

    service, broker = make(clock)
    service.startService()
    clock.advance(0)
    monkeypatch.setattr(broker.nodes, "leave", lambda node: Deferred())
    ended = []
    service.stopService().addCallback(ended.append)
    clock.advance(1.9)
    assert ended == []
    clock.advance(0.2)
    assert ended == [None]
    assert clock.getDelayedCalls() == []


def test_it_can_be_stopped_before_it_was_started(clock):
    service, _ = make(clock)
    ended = []
    service.stopService().addCallback(ended.append)
    clock.advance(0)
    assert ended == [None]
    assert clock.getDelayedCalls() == []


def test_it_leaves_the_process_alone(clock):
    def settings():
        signals = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
        return gc.get_threshold(), gc.get_freeze_count(), gc.isenabled(), signals

    before = settings()
    service, _ = make(clock)
    service.startService()
    clock.advance(1)
    assert settings() == before
    service.stopService()
    clock.advance(0)
    assert settings() == before


def test_options_are_keywords(clock):
    service = RelayService.with_options(
        reactor=clock, redis="localhost", deadline=20, max_held=500, max_body=10, prefix="mine:"
    )
    assert service.relay._config.deadline == 20.0
    assert service.relay._config.max_held == 500
    assert service.relay._reply_to.startswith("mine:inbox:")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"deadline": "soon"}, "--deadline"),
        ({"max_helt": 1}, "max-held"),
        ({"queue": "a:b"}, "a:b"),
    ],
)
def test_a_wrong_keyword_is_refused_at_once(clock, options, said):
    with pytest.raises(ConfigError, match=said):
        RelayService.with_options(reactor=clock, **options)
