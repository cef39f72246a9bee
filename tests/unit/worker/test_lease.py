"""The keeper's turns, with a link that remembers what was sent."""

import logging
import time

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from queuerelay.wire.commands import Call
from queuerelay.wire.keys import Keys
from queuerelay.wire.message import encode_request
from queuerelay.worker.lease import LeaseKeeper
from queuerelay.worker.settings import WorkerSettings
from tests.unit.worker.requests import NODE_ID

INBOX = "queuerelay:inbox:3f9c21aa"


class FakeLink:
    """Answers by script name; raises while `down`."""

    def __init__(self):
        self.sent = []
        self.failures = 0
        self.down = False
        self.answers = {"renew": [1], "reap": [], "ack": 1, "retry": 1, "fail": 1}

    def send(self, *commands):
        if self.down:
            self.failures += 1
            raise RedisConnectionError("down")
        self.failures = 0
        return [self._answer(command) for command in commands]

    def _answer(self, command):
        if not isinstance(command, Call):
            self.sent.append((command[0], command))
            return [b"2000", b"500000"] if command[0] == "TIME" else None
        self.sent.append((command.script, command.command()))
        return command.decode(self.answers[command.script])

    def take(self):
        names = [name for name, _ in self.sent]
        self.sent.clear()
        return names

    def delay(self):
        return 0.1


class World:
    def __init__(self, lease=10.0):
        self.now = 0.0
        self.link = FakeLink()
        settings = WorkerSettings(keys=Keys(), queues=("a", "b"), lease=lease, holder="host:1")
        self.keeper = LeaseKeeper(settings, self.link, tokens="t", clock=lambda: self.now)


@pytest.fixture
def world():
    return World()


def test_idle_reaps_at_once_and_then_every_5_s(world):
    taken = []
    for _ in range(6):
        delay = world.keeper.turn()
        taken.append((round(world.now, 2), world.link.take()))
        world.now += delay
    assert taken == [
        (0.0, ["reap", "reap", "TIME"]),
        (3.33, []),
        (5.0, ["reap", "reap", "TIME"]),
        (8.33, []),
        (10.0, ["reap", "reap", "TIME"]),
        (13.33, []),
    ]


def test_a_held_message_is_renewed_at_least_each_third():
    world = World(lease=1.0)
    world.keeper.held = ("a", "t-1")
    last = 0.0
    for _ in range(20):
        delay = world.keeper.turn()
        assert world.link.take()[0] == "renew"
        assert world.now - last <= 1 / 3 + 1e-6
        last, world.now = world.now, world.now + delay


def test_after_an_outage_reaping_rests_for_a_lease(world):
    """All leases have expired then, those of the living too."""
    world.keeper.turn()
    world.keeper.held = ("a", "t-1")
    world.link.down = True
    for _ in range(100):
        world.now += world.keeper.turn()
    world.link.down = False
    world.link.take()
    back = world.now
    while True:
        delay = world.keeper.turn()
        names = world.link.take()
        if "reap" in names:
            break
        assert names == ["renew"]
        world.now += delay
    assert 9.99 <= world.now - back <= 15.0


def test_an_idle_keeper_finds_out_that_redis_is_back(world):
    world.link.down = True
    world.keeper.turn()
    world.link.down = False
    world.keeper.turn()
    assert world.link.take() == ["PING"]
    assert world.link.failures == 0


def message(method, deadline=2060.0):
    return encode_request(
        queue="a",
        node_id=NODE_ID,
        url="/",
        method=method,
        http_version="1.1",
        headers=[],
        body=b"",
        remote_addr="",
        scheme="http",
        reply_to=INBOX,
        accepted_at=1990.0,
        deadline=deadline,
    )


def test_what_was_taken_over_is_decided_and_the_odd_one_harms_no_other(world, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG, "queuerelay")
    meta = b"1995000 other:7"
    found = [
        [b"t-r1-1", message("GET"), meta],
        [b"t-r1-2", message("POST"), meta],
        [b"t-r1-3", message("GET", deadline=2000.0), meta],
        [b"t-r1-4", b"\xff", b""],
    ]
    world.link.answers["reap"] = found
    world.keeper.turn()
    # The same for both queues here.
    ends = world.link.sent[3:7]
    assert [name for name, _ in ends] == ["retry", "fail", "ack", "fail"]
    assert [command[command[2] + 3] for _, command in ends] == [
        "t-r1-1",
        "t-r1-2",
        "t-r1-3",
        "t-r1-4",
    ]
    retried = ends[0][1][-1]
    assert b'"started_at":1995,"run":5.5' in retried
    assert b'"worker":"other:7"' in retried
    assert INBOX in ends[1][1]
    assert ends[1][1][-2:] == (3600, 0)
    assert "retried 1, failed 2, dropped 1" in caplog.records[0].getMessage()


def test_the_thread_outlives_an_error(world, caplog, monkeypatch):
    def broken(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr("queuerelay.worker.lease.recover", broken)
    world.link.answers["reap"] = [[b"t", b"{}", b""]]
    assert world.keeper.turn() > 0
    assert any(record.exc_info for record in caplog.records)


def test_start_and_stop():
    world = World()
    world.keeper.start()
    end = time.monotonic() + 20
    while not world.link.sent and time.monotonic() < end:
        time.sleep(0.001)
    world.keeper.stop()
    assert world.link.sent
