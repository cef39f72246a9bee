"""Back-off, and what is said about an outage."""

import logging

import pytest
from redis.exceptions import RedisError

from queuerelay.wire.keys import Keys
from queuerelay.wire.url import parse
from queuerelay.worker.link import Link, Outage, delay_after
from queuerelay.worker.master import MasterFinder


def test_backoff_grows_to_its_bound():
    assert delay_after(0) == 0
    for failures, longest in [(1, 0.1), (2, 0.2), (3, 0.4), (7, 5.0), (1000000, 5.0)]:
        tries = [delay_after(failures) for _ in range(200)]
        assert all(longest / 2 <= one <= longest for one in tries)
        assert len(set(tries)) > 100, "no jitter"


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "queuerelay")
    return lambda: [record.getMessage() for record in caplog.records]


def test_an_outage_is_said_once_and_every_30_s(lines):
    now = [0.0]
    outage = Outage(clock=lambda: now[0])
    outage.up()
    for now[0] in (100.0, 110.0, 129.9):
        outage.down("away")
    assert lines() == ["Redis does not do what is asked, trying on: away"]
    now[0] = 130.0
    outage.down("still away")
    assert len(lines()) == 2
    now[0] = 135.0
    outage.up()
    outage.up()
    assert lines()[2:] == ["Redis is back after 35.0 s"]


def test_a_flapping_server_does_not_fill_the_log(lines):
    now = [0.0]
    outage = Outage(clock=lambda: now[0])
    for second in range(30):
        now[0] = float(second)
        outage.down("away")
        outage.up()
    assert len(lines()) == 2


@pytest.mark.parametrize(
    "url", ["unix:///nonexistent/socket", "redis://127.0.0.1:1/0", "redis://a..b:1/0"]
)
def test_a_link_without_a_server_fails_and_counts(url, lines):
    master = MasterFinder(parse(url), keys=Keys())
    link = Link(master, role="test", outage=Outage(), timeout=1.0)
    assert link.delay() == 0
    for failures in (1, 2):
        with pytest.raises(RedisError):
            link.send(("PING",))
        assert link.failures == failures
        assert link.delay() > 0
    assert len(lines()) == 1
