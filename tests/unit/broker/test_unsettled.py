"""Messages on queues that nobody is configured for any more."""

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from queuerelay.broker.reaper import REST
from queuerelay.broker.unsettled import OVERDUE, UnsettledQueues
from queuerelay.testing import MemoryBroker
from tests.unit.broker.contract import claim_one

JOB = b'{"class":"J","args":[]}'


class Place:
    """A process that is configured for the queue "own" alone."""

    def __init__(self):
        self.clock = Clock()
        self.broker = MemoryBroker(clock=self.clock)
        self.broker.start()
        self.clock.advance(0)
        self.unsettled = UnsettledQueues(self.broker, ["own"])
        self.broker.queues.push("own", [JOB])
        self.broker.queues.push("old", [JOB])

    def claim(self, queue):
        return claim_one(self.broker, [queue], holder="web1:77", lease=10.0)

    def look(self):
        ended = []
        Deferred.fromCoroutine(self.unsettled.look()).addBoth(ended.append)
        self.clock.pump([0.0] * 20)
        assert ended == [None]

    def waiting(self, queue):
        return len(self.broker.messages(queue))


@pytest.fixture
def place():
    return Place()


def test_what_a_dead_worker_had_comes_back_a_while_after_its_own_would_have_found_it(place):
    place.claim("own")
    place.claim("old")
    place.clock.advance(10.0 + OVERDUE - 1.0)
    place.look()
    assert place.waiting("old") == 0
    place.clock.advance(1.0)
    place.look()
    assert place.waiting("old") == 1
    assert place.broker.inflight("old") == []
    # Its own reaper knows how often it may be tried.
    assert place.waiting("own") == 0


def test_what_is_due_comes_back_at_once(place):
    claim = place.claim("old")
    place.clock.advance(0)
    claimed = place.broker.inflight("old")[0]
    place.broker.delayed.delay(claimed, JOB, seconds=5.0)
    place.clock.advance(4.0)
    place.look()
    assert place.waiting("old") == 0
    place.clock.advance(1.0)
    place.look()
    assert place.waiting("old") == 1
    assert claim is not None


def test_living_workers_come_back_first_after_redis_was_away(place):
    place.claim("old")
    place.clock.advance(11.0 + OVERDUE)
    place.broker.disconnect()
    place.broker.reconnect()
    place.clock.advance(0)
    for _ in range(REST):
        place.look()
        assert place.waiting("old") == 0
    place.look()
    assert place.waiting("old") == 1
