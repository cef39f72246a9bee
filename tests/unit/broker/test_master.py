"""Where the master is: in which order servers are looked at, and who follows whom."""

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from queuerelay.broker.redis.entrance import CONNECT_BOUND
from queuerelay.broker.redis.master import HASTY, LESS_HASTY, Master
from queuerelay.wire.keys import Keys
from queuerelay.wire.url import parse


def master_of(address):
    return Master(parse(address), keys=Keys(), reactor=Clock())


def places(master):
    found = []
    Deferred.fromCoroutine(master.places()).addCallback(found.extend)
    return [one.server for one in found]


@pytest.mark.parametrize(
    ("address", "bound"),
    [
        ("localhost", CONNECT_BOUND),
        ("unix:///s", CONNECT_BOUND),
        ("redis://a,b", HASTY),
        ("sentinel://a/m", HASTY),
    ],
)
def test_of_several_none_is_waited_for_long(address, bound):
    master = master_of(address)
    assert (master.bound(1), master.bound(8)) == (bound, bound)
    # All may be slow, and none gone.
    assert master.bound(9) == max(bound, LESS_HASTY)


def test_the_last_master_is_looked_at_first():
    master = master_of("redis://a,b,c/3")
    assert places(master) == ["a:6379", "b:6379", "c:6379"]
    for name in ("c", "b"):
        master.up("one", parse(f"redis://{name}/3"), lambda reason: None)
    assert places(master) == ["b:6379", "c:6379", "a:6379"]
    assert places(master_of("redis://a:1/5")) == ["a:1"]


def test_who_is_at_another_server_is_dropped_once():
    master = master_of("redis://a,b")
    dropped = []
    for name in ("one", "two", "three"):
        master.up(
            name, parse("redis://a"), lambda reason, name=name: dropped.append((name, reason))
        )
    master.down("three")
    assert dropped == []
    master.up("one", parse("redis://b"), lambda reason: dropped.append(("one", reason)))
    assert dropped == [("two", "the master is at b:6379 now")]
    master.up("two", parse("redis://b"), lambda reason: dropped.append(("two", reason)))
    assert len(dropped) == 1


def test_a_single_server_keeps_no_list():
    master = master_of("unix:///s")
    for _ in range(3):
        master.up(object(), parse("unix:///s"), lambda reason: None)
    assert not master._up
