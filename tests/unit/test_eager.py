"""What is written at once is what would have been written later: all of it, in order."""

import socket
from types import SimpleNamespace

import pytest
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport

from queuerelay import eager


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def connection(ends):
    writing = []
    reactor = SimpleNamespace(addWriter=writing.append, removeWriter=writing.remove)
    connection = Connection(ends[0], Protocol(), reactor)
    connection.connected = True
    connection.writing = writing
    return connection


def received(theirs):
    try:
        return theirs.recv(1 << 20)
    except BlockingIOError:
        return b""


def test_goes_out_at_once(connection, ends):
    eager.write(connection, b"hello")
    assert received(ends[1]) == b"hello"
    assert not connection.writing


def test_what_the_socket_does_not_take_waits_and_nothing_overtakes_it(connection, ends):
    long = bytes(range(256)) * 16384
    eager.write(connection, long)
    assert connection.writing
    eager.write(connection, b"second")
    got = b""
    while connection.writing:
        got += received(ends[1])
        assert connection.doWrite() is None
        # There is room again before the transport has sent what waits.
        if len(got) < 1 << 20:
            eager.write(connection, b"")
    while part := received(ends[1]):
        got += part
    assert got == long + b"second"


def test_nothing_overtakes_what_the_transport_has(connection, ends):
    connection.write(b"first ")
    eager.write(connection, b"second")
    assert received(ends[1]) == b""
    connection.doWrite()
    assert received(ends[1]) == b"first second"


@pytest.mark.parametrize("gone", ["connected", "_writeDisconnecting", "disconnecting", "TLS"])
def test_leaves_a_connection_that_is_ending_or_secret_to_its_transport(connection, ends, gone):
    setattr(connection, gone, gone != "connected")
    asked = []
    connection.write = asked.append
    eager.write(connection, b"x")
    assert asked == [b"x"]
    assert received(ends[1]) == b""


def test_an_error_is_the_transports_to_notice(connection, ends):
    ends[1].close()
    eager.write(connection, b"x")
    assert isinstance(connection.doWrite(), Exception)


def test_any_other_transport_is_written_to():
    transport = StringTransport()
    eager.write(transport, b"x")
    assert transport.value() == b"x"
