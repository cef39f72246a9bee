"""Fixtures of the broker's tests on real servers."""

import pytest
import pytest_twisted

from queuerelay.broker.redis import connection
from queuerelay.broker.redis.broker import RedisBroker
from queuerelay.wire import url
from tests.integration.broker.bench import RedisBench
from tests.integration.broker.doubles import FakeServer, Proxy


@pytest.fixture
def bench(fresh_valkey):
    """Brokers on the session's server."""
    bench = RedisBench(fresh_valkey)
    yield bench
    bench.free()
    for broker in bench.brokers:
        pytest_twisted.blockon(broker.stop())


@pytest.fixture
def broker_at():
    """Brokers at an address: ``broker_at(address)``; to be started."""
    brokers = []

    def make(address):
        from twisted.internet import reactor

        brokers.append(RedisBroker(url.parse(address), reactor=reactor))
        return brokers[-1]

    yield make
    for broker in brokers:
        pytest_twisted.blockon(broker.stop())


@pytest.fixture
def soon(monkeypatch):
    """Try again sooner than in life, so that tests need not wait."""
    monkeypatch.setattr(connection, "LONGEST_PAUSE", 0.1)


@pytest.fixture
def bench_on():
    """Brokers on another server, or behind another address: ``bench_on(server, address)``."""
    benches = []

    def make(server, address=None):
        benches.append(RedisBench(server, address))
        return benches[-1]

    yield make
    for bench in benches:
        for broker in bench.brokers:
            pytest_twisted.blockon(broker.stop())


@pytest.fixture
def proxy_to():
    """Proxies in front of a server: ``proxy_to(server)``."""
    proxies = []

    def make(server):
        proxies.append(Proxy(server.port))
        return proxies[-1]

    yield make
    for proxy in proxies:
        pytest_twisted.blockon(proxy.stop())


@pytest.fixture
def fake():
    """A server that answers as the test says."""
    server = FakeServer()
    yield server
    pytest_twisted.blockon(server.stop())
