"""What pools make of orders that are not as usual."""

import itertools

import pytest
from twisted.internet.defer import fail
from twisted.internet.task import Clock

from queuerelay.config import PoolConfig
from queuerelay.errors import ConnectionDropped
from queuerelay.pool.pools import Pools
from queuerelay.testing import MemoryBroker
from queuerelay.wire.order import Order, decode_report, encode_order
from tests.unit.pool.stage import PROGRAM, FakeProcesses


class Place:
    """A pool that follows its backlog, and one that does not."""

    def __init__(self):
        self._ids = itertools.count()
        self.clock = Clock()
        self.broker = MemoryBroker(clock=self.clock)
        self.broker.start()
        self.turn()
        self.pools = Pools(
            [
                PoolConfig(name="auto", queues=("q",), command=(PROGRAM,), size=2, min=1, max=4),
                PoolConfig(name="fixed", queues=("q",), command=(PROGRAM,), size=2, min=2, max=2),
            ],
            self.broker,
            reactor=self.clock,
            processes=FakeProcesses(self.clock),
        )
        self.pools.start()
        self.turn()

    def turn(self, seconds=0.0):
        for part in (seconds, 0.0, 0.0):
            self.clock.advance(part)

    def order(self, action, pool="", size=0, message=""):
        id = f"{next(self._ids):032d}"
        order = Order(id=id, action=action, pool=pool, size=size, message=message)
        self.broker.orders.give(self.pools.id, encode_order(order))
        return id

    def reports(self, id):
        found = []
        self.broker.orders.reports(id).addCallback(found.extend)
        self.turn()
        return [(report.done, report.text) for report in map(decode_report, found)]

    def close(self):
        self.pools.stop(0.0)
        self.turn(10.0)
        self.broker.stop()


@pytest.fixture
def place():
    place = Place()
    yield place
    place.close()


@pytest.mark.parametrize("size", [0, 5])
def test_a_pool_that_follows_its_backlog_is_not_sized_past_its_bounds(place, size):
    id = place.order("size", "auto", size)
    place.turn(1.0)
    assert place.reports(id) == [(False, "it follows its backlog, between 1 and 4 slots")]
    assert place.pools["auto"].size == 2
    id = place.order("size", "auto", 3)
    place.turn(1.0)
    assert place.reports(id) == [(True, "2 slots before, 3 now")]
    id = place.order("size", "fixed", size)
    place.turn(1.0)
    assert place.reports(id) == [(True, f"2 slots before, {size} now")]


def test_a_report_that_is_lost_takes_no_order_with_it(place, monkeypatch, caplog):
    place.order("size", "auto", 3)
    place.order("size", "fixed", 7)
    monkeypatch.setattr(place.broker.orders, "report", lambda *_: fail(ConnectionDropped("report")))
    place.turn(1.0)
    assert place.pools["auto"].size == 3
    assert place.pools["fixed"].size == 7
    assert "cannot be reported on" in caplog.text


def test_a_process_that_stops_says_so(place):
    place.broker.queues.push("q", [b'{"class":"J","args":[1]}'])
    place.turn(3.0)
    assert place.pools["auto"].busy + place.pools["fixed"].busy == 1
    place.pools.stop(60.0)
    ids = [place.order("resume", "auto"), place.order("size", "fixed", 5), place.order("stop")]
    place.turn(1.0)
    place.turn(1.0)
    answers = [place.reports(id) for id in ids]
    stopping = [(False, "this process is stopping")]
    assert answers == [stopping, stopping, [(False, "not here")]]


def test_an_order_cannot_forge_the_log(place, caplog):
    place.order("stop", message="a\n\x1b[31mb" + "c" * 9000)
    place.order("drain", pool="\u202ed")
    place.turn(1.0)
    (stop, drain) = [one.getMessage() for one in caplog.records if "ordered" in one.getMessage()]
    assert stop.startswith(r"ordered: stop a\n\x1b[31mbccc")
    assert len(stop) < 500
    assert drain == r"ordered: drain \u202ed: no such pool here"
