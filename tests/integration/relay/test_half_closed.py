"""Clients that close their side of the connection, over real sockets: who waits and who has left is
told by the kernel alone.
"""

import contextlib
import select
import socket

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorFDSet
from twisted.python.failure import Failure
from zope.interface import implementer

from queuerelay.http.half_closed import OPENING, HalfClosedWatch
from queuerelay.wire.reply import encode_frame
from tests.helpers.daemon import Client
from tests.helpers.ports import free_port, listens
from tests.helpers.strict import request
from tests.helpers.waiting import eventually


@pytest.fixture(params=["tcp", "unix"])
def place(request, relay, tmp_path):
    """Starts a daemon with the given options; gives how clients connect to it."""

    def start(*options):
        if request.param == "tcp":
            return relay(*options).connect
        path = str(tmp_path / "relay")
        one = relay("--listen", f"unix:{path}", *options)

        def connect():
            one.clients.append(Client(path))
            return one.clients[-1]

        return connect

    return start


def test_a_half_closed_client_gets_its_answer(place, worker):
    connect = place()
    client = connect().send_raw(request("GET", "/1") + request("GET", "/2")).half_close()
    worker.serve()
    assert client.response().body == b"/1"
    worker.serve()
    assert client.response().body == b"/2"
    assert client.at_end()


def test_our_own_errors_reach_it(place):
    connect = place()
    for wrong in (b"BAD\r\n\r\n", b"GET / HT", request("POST", "/", body=b"abc")[:-1]):
        client = connect().send_raw(wrong).half_close()
        assert client.response().status == 400
        assert client.at_end()


@pytest.mark.parametrize("option", ["wait", "leave"])
def test_a_client_that_closes_is_taken_off_at_once(place, worker, option):
    connect = place("--half-close", option)
    client = connect().send()
    eventually(lambda: worker.waiting() == 1)
    client.close()
    eventually(lambda: worker.waiting() == 0)


def test_a_client_that_half_closes_is_taken_off_with_leave(place, worker):
    connect = place("--half-close", "leave")
    client = connect().send()
    eventually(lambda: worker.waiting() == 1)
    client.half_close()
    assert client.at_end()
    eventually(lambda: worker.waiting() == 0)


def test_a_client_that_closes_later_is_taken_off(place, worker):
    connect = place()
    client = connect().send().half_close()
    # What is read leaves no byte that would reset the connection as the socket is closed.
    assert client.take(1) == OPENING[:1]
    eventually(lambda: worker.waiting() == 1)
    client.close()
    eventually(lambda: worker.waiting() == 0)


def test_a_client_that_resets_is_taken_off(relay, worker):
    client = relay().connect().send().half_close()
    eventually(lambda: worker.waiting() == 1)
    client.reset()
    eventually(lambda: worker.waiting() == 0)


def test_the_worker_of_a_stream_hears_that_a_client_has_left(relay, worker):
    client = relay().connect().send()
    taken = worker.take()
    worker.reply(taken, body=b"event", more=True)
    eventually(client.readable)
    client.close()
    # Nothing more comes from the worker, and yet it can know.
    eventually(lambda: worker.redis.exists(f"queuerelay:gone:{taken['node_id']}") == 1)


def test_a_half_closed_client_gets_a_stream_to_its_end(relay, worker):
    client = relay().connect().send("GET", "/", version="1.0").half_close()
    taken = worker.take()
    worker.reply(taken, body=b"one,", more=True)
    worker.redis.rpush(
        taken["reply_to"], encode_frame(node_id=taken["node_id"], body=b"two", more=False)
    )
    assert client.rest().endswith(b"\r\n\r\none,two")


def test_the_status_listener_answers_a_half_closed_client(relay):
    port = free_port()
    one = relay("--status", f"tcp:{port}:interface=127.0.0.1")
    eventually(lambda: listens(port))
    client = Client(port)
    one.clients.append(client)
    client.send_raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").half_close()
    assert client.response().status == 200
    assert client.at_end()


def test_a_half_closed_client_behind_the_proxy_protocol(relay, worker):
    port = free_port()
    one = relay(
        "--listen",
        f"haproxy:tcp:{port}:interface=127.0.0.1",
        "--trusted-proxies",
        "127.0.0.1",
    )
    eventually(lambda: listens(port))
    client = Client(port)
    one.clients.append(client)
    client.send_raw(b"PROXY TCP4 203.0.113.5 127.0.0.1 1 2\r\n" + request()).half_close()
    assert worker.serve()["remote_addr"] == "203.0.113.5"
    assert client.response().body == b"/"
    assert client.at_end()


@implementer(IReactorFDSet)
class Descriptors:
    """A reactor's readers, of which the test calls what is ready."""

    def __init__(self):
        self.readers = []

    def addReader(self, reader):
        self.readers.append(reader)

    def removeReader(self, reader):
        self.readers.remove(reader)

    def turn(self):
        for reader in select.select(self.readers, [], [], 0)[0]:
            reader.doRead()


class Waiting:
    """A half-closed connection as its watch knows it."""

    def __init__(self, end):
        self.transport = self
        self.end = end
        self.aborted = 0

    def getHandle(self):
        return self.end

    def abort(self):
        self.aborted += 1


@pytest.fixture(params=[socket.AF_INET, socket.AF_UNIX])
def ends(request):
    """Makes connections: our end, and that of a client that has closed its side."""
    with contextlib.ExitStack() as stack, socket.socket(request.param) as port:
        port.bind(("127.0.0.1", 0) if request.param is socket.AF_INET else "")
        port.listen()

        def make():
            client = stack.enter_context(socket.socket(request.param))
            client.connect(port.getsockname())
            ours = stack.enter_context(port.accept()[0])
            client.shutdown(socket.SHUT_WR)
            return ours, client

        yield make


def test_a_reset_is_seen_without_reading_or_writing(ends):
    reactor = Descriptors()
    watch = HalfClosedWatch(reactor)
    first, second = [(Waiting(ours), client) for ours, client in (ends(), ends())]
    for waiting, _ in (first, second):
        watch.add(waiting)
    reactor.turn()
    # To close one side is not to leave.
    assert (first[0].aborted, second[0].aborted) == (0, 0)
    # What the client has not read makes a reset of its leaving.
    first[0].end.send(b"H")
    first[1].close()
    eventually(lambda: reactor.turn() or first[0].aborted == 1)
    reactor.turn()
    assert (first[0].aborted, second[0].aborted, len(watch)) == (1, 0, 1)
    watch.discard(second[0])
    watch.discard(second[0])
    assert (reactor.readers, len(watch), watch.fileno()) == ([], 0, -1)
    watch.add(second[0])
    assert (reactor.readers, len(watch)) == ([watch], 1)
    watch.connectionLost(Failure(ConnectionDone()))
    assert len(watch) == 0
