"""Whether the reader of an inbox goes on, with a connection and a time that are the test's."""

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from queuerelay.broker.redis.inbox import BLOCK, InboxReader
from queuerelay.errors import ConnectionDropped, Refused
from queuerelay.wire.commands import Unanswered


class Connection:
    """Answers what waits for an item with `items`, after as long as Redis waits for one."""

    def __init__(self, clock):
        self.clock = clock
        self.is_up = True
        self.items = []
        self.asked = []

    def pipeline(self, *commands, bound):
        answer = Deferred()
        self.asked.append(answer)
        items, self.items = self.items, []
        answered = [command for command in commands if type(command) is not Unanswered]
        answers = [None] * (len(answered) - 1) + [items]

        def fire():
            if not answer.called:
                answer.callback(answers)

        self.clock.callLater(0 if items else BLOCK, fire)
        return answer

    def call(self, *command):
        return succeed(b"OK")

    def lose(self):
        self.is_up = False
        self.asked[-1].errback(ConnectionDropped("gone"))


class Fence:
    """Stands."""

    key = token = "f"

    def up(self):
        return succeed(None)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def connection(clock):
    return Connection(clock)


@pytest.fixture
def read(clock, connection):
    def start(handler):
        reader = InboxReader(connection, key="inbox", fence=Fence(), handler=handler, clock=clock)
        reader.connected()
        return reader

    return start


def pass_by(clock, seconds):
    for _ in range(int(seconds * 4)):
        clock.advance(0.25)


def test_an_idle_one_goes_on(clock, read):
    reader = read(print)
    for _ in range(60):
        pass_by(clock, 1)
        assert reader.still <= BLOCK
    assert reader.limit > 2 * BLOCK
    reader.stop()


def test_one_whose_handler_never_returns_stands_still(clock, connection, read):
    connection.items = [b"1"]
    reader = read(lambda items: Deferred())
    pass_by(clock, 10)
    assert reader.still == pytest.approx(10)
    pass_by(clock, 10)
    assert reader.still > reader.limit


def test_one_without_redis_waits(clock, connection, read):
    reader = read(print)
    connection.lose()
    pass_by(clock, 60)
    assert reader.still == 0
    connection.is_up = True
    reader.connected()
    assert reader.still == 0
    pass_by(clock, 60)
    assert reader.still <= BLOCK
    reader.stop()


def test_what_redis_refuses_is_no_standing_still(clock, connection, read, monkeypatch):
    reader = read(print)
    refused = Refused("ERR no")

    async def refuse():
        raise refused

    monkeypatch.setattr(reader, "_look", refuse)
    monkeypatch.setattr(reader, "_wait", refuse)
    pass_by(clock, 60)
    assert reader.still <= BLOCK
    reader.stop()


def test_one_that_gets_nowhere_by_a_bug_stands_still(clock, read, monkeypatch, logged_failures):
    reader = read(print)

    async def broken():
        raise ZeroDivisionError

    monkeypatch.setattr(reader, "_wait", broken)
    pass_by(clock, 60)
    assert reader.still > reader.limit
    reader.stop()
    assert logged_failures.flush(ZeroDivisionError)


def test_one_that_died_by_a_bug_stands_still(clock, connection, read, monkeypatch, logged_failures):
    reader = read(print)

    async def broken(run, reason):
        raise ZeroDivisionError

    monkeypatch.setattr(reader, "_refused", broken)
    connection.asked[-1].errback(Refused("ERR no"))
    pass_by(clock, 60)
    assert reader.still > reader.limit
    assert logged_failures.flush(ZeroDivisionError)
