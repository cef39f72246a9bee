"""One connection: bytes in, bytes out, and the clock."""

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from queuerelay.broker.redis.protocol import CLOSE_BOUND, COMMAND_BOUND, SLOWEST, RedisProtocol
from queuerelay.errors import ConnectionDropped, NotConnected, Refused


class Transport(StringTransport):
    """Ends its protocol when told to, in the next turn of the clock as a real one does."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.aborted = self.ended = False

    def abortConnection(self):
        if not self.aborted and not self.ended:
            self.aborted = True
            self.clock.callLater(0, self.end)

    def end(self):
        self.ended = True
        self.protocol.connectionLost(Failure(ConnectionDone()))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def transport(clock):
    return Transport(clock)


@pytest.fixture
def protocol(clock, transport):
    protocol = RedisProtocol(clock)
    transport.protocol = protocol
    protocol.makeConnection(transport)
    return protocol


def fired(deferred):
    got = []
    deferred.addBoth(got.append)
    return got


def run(clock, seconds):
    clock.pump([0.05] * round(seconds / 0.05))


def test_answers_come_in_order_and_as_bytes(protocol, transport):
    first, second = fired(protocol.call("GET", "a")), fired(protocol.call("LLEN", b"\xff"))
    third = fired(protocol.call("LRANGE", "l", 0, -1))
    assert transport.value().startswith(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n")
    protocol.dataReceived(b"$3\r\n007\r\n:5\r")
    assert (first, second) == ([b"007"], [])
    protocol.dataReceived(b"\n*3\r\n$3\r\n1.5\r\n$-1\r\n$0\r\n\r\n")
    assert second == [5]
    assert third == [[b"1.5", None, b""]]


def test_a_pipeline_is_one_write_and_has_errors_as_values(protocol, transport):
    got = fired(protocol.pipeline(("SADD", "s", "q"), ("RPUSH", "l", "x")))
    protocol.dataReceived(b"-OOM no memory\r\n")
    assert got == []
    protocol.dataReceived(b":1\r\n")
    ((error, length),) = got
    assert isinstance(error, Refused)
    assert "OOM no memory" in str(error)
    assert length == 1


def test_an_empty_pipeline_is_answered(protocol):
    assert fired(protocol.pipeline()) == [[]]


def test_an_error_is_the_commands_own(protocol, transport):
    got = fired(protocol.call("RPUSH", "l", "x"))
    protocol.dataReceived(b"-MISCONF Errors writing to the AOF file\r\n")
    assert got[0].check(Refused)
    assert not transport.aborted


@pytest.mark.parametrize(
    "text",
    [
        "READONLY You can't write against a read only replica.",
        "MASTERDOWN Link with MASTER is down",
        "LOADING Redis is loading the dataset in memory",
        "UNBLOCKED force unblock from blocking operation",
        "NOAUTH Authentication required.",
        "WRONGPASS invalid username-password pair",
    ],
)
def test_a_server_that_is_no_longer_fit_is_left(protocol, transport, clock, text):
    refused, after = fired(protocol.call("RPUSH", "l", "x")), fired(protocol.call("PING"))
    protocol.dataReceived(b"-%s\r\n" % text.encode())
    # Nothing was done, so it may be done elsewhere.
    assert refused[0].check(NotConnected)
    assert text in str(refused[0].value)
    assert not protocol.usable
    clock.advance(0)
    assert transport.aborted
    assert after[0].check(ConnectionDropped)


def test_the_lost_connection_fails_what_waits_and_then_refuses(protocol, transport):
    order = []
    protocol.lost.addCallback(lambda _: order.append("lost"))
    one = protocol.call("GET", "a").addErrback(lambda f: order.append(f.type))
    two = fired(protocol.pipeline(("GET", "a"), ("GET", "b")))
    transport.end()
    # When whoever keeps the connection hears of it, nothing waits on it any more.
    assert order == [ConnectionDropped, "lost"]
    assert one.called
    assert [type(error) for error in two[0]] == [ConnectionDropped] * 2
    assert fired(protocol.call("GET", "a"))[0].check(NotConnected)
    assert [type(error) for error in fired(protocol.pipeline(("GET", "a")))[0]] == [NotConnected]


def test_half_a_pipeline(protocol, transport):
    got = fired(protocol.pipeline(("GET", "a"), ("GET", "b")))
    protocol.dataReceived(b"$1\r\nA\r\n")
    transport.end()
    assert got[0][0] == b"A"
    assert isinstance(got[0][1], ConnectionDropped)


def test_no_answer_in_time_drops_the_connection(protocol, transport, clock):
    got = fired(protocol.call("GET", "a"))
    run(clock, COMMAND_BOUND)
    assert not transport.aborted
    run(clock, 0.3)
    assert transport.aborted
    assert got[0].check(ConnectionDropped)
    assert "no answer in time" in str(got[0].value)
    assert clock.getDelayedCalls() == []


def test_an_idle_connection_is_not_dropped(protocol, transport, clock):
    run(clock, 60)
    assert not transport.aborted


def test_a_blocking_command_has_its_own_bound(protocol, transport, clock):
    got = fired(protocol.call("BLMOVE", "l", "l", "LEFT", "LEFT", 5, bound=7.0))
    run(clock, 7.0)
    assert not transport.aborted
    run(clock, 0.3)
    assert got[0].check(ConnectionDropped)


def test_a_large_command_may_take_longer(protocol, transport, clock):
    got = fired(protocol.call("RPUSH", "l", b"x" * (3 * SLOWEST)))
    run(clock, COMMAND_BOUND + 2.9)
    assert not transport.aborted
    run(clock, 0.5)
    assert got[0].check(ConnectionDropped)


def test_a_long_answer_that_still_comes_in_is_not_late(protocol, transport, clock):
    got = fired(protocol.call("GET", "a"))
    protocol.dataReceived(b"$10\r\n")
    for _ in range(10):
        run(clock, 1.0)
        protocol.dataReceived(b"x")
    assert not transport.aborted
    protocol.dataReceived(b"\r\n")
    assert got == [b"x" * 10]


def test_who_gave_up_is_not_called_and_disturbs_nobody(protocol, transport):
    given_up = protocol.call("GET", "a")
    rest = fired(protocol.call("GET", "b"))
    got = fired(given_up)
    given_up.cancel()
    protocol.dataReceived(b"$1\r\nA\r\n$1\r\nB\r\n")
    assert rest == [b"B"]
    assert len(got) == 1


def test_a_callback_that_raises_harms_only_itself(protocol, logged_failures):
    protocol.call("GET", "a").addCallback(lambda _: 1 / 0)
    rest = fired(protocol.call("GET", "b"))
    protocol.dataReceived(b"$1\r\nA\r\n$1\r\nB\r\n")
    assert rest == [b"B"]
    assert len(logged_failures.flush(ZeroDivisionError)) == 1


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x01", b"$x\r\n"])
def test_something_that_is_no_redis(protocol, transport, clock, said):
    got = fired(protocol.call("INFO"))
    protocol.dataReceived(said)
    clock.advance(0)
    assert transport.aborted
    assert "does not speak Redis's protocol" in str(got[0].value)


def test_something_unasked(protocol, transport, clock):
    protocol.dataReceived(b"-DENIED Redis is running in protected mode\r\n")
    clock.advance(0)
    assert transport.aborted
    assert "DENIED" in protocol.reason


def test_close(protocol, transport, clock):
    protocol.call("GET", "a").addErrback(lambda _: None)
    protocol.close()
    assert transport.disconnecting
    assert not protocol.usable
    assert fired(protocol.call("GET", "a"))[0].check(NotConnected)
    transport.end()
    assert clock.getDelayedCalls() == []


def test_a_peer_that_does_not_let_us_close(protocol, transport, clock):
    protocol.close()
    clock.advance(CLOSE_BOUND)
    clock.advance(0)
    assert transport.aborted
    assert clock.getDelayedCalls() == []


def test_drop_tells_the_first_reason(protocol, transport, clock):
    protocol.drop("one")
    protocol.drop("two")
    clock.advance(0)
    assert protocol.reason == "one"
    assert clock.getDelayedCalls() == []
