"""Streamed and large answers over real sockets; the tests play workers and clients."""

import contextlib
import signal
import socket
import ssl
import struct
import time
from io import BytesIO

import pytest

from queuerelay.wire.reply import encode_frame, encode_reply
from tests.helpers.certificates import Authority
from tests.helpers.ports import free_port, listens
from tests.helpers.strict import Broken, read, request
from tests.helpers.waiting import PATIENCE, eventually

MIB = 1024 * 1024


def begin(worker, taken, body=b"", **fields):
    worker.reply(taken, body=body, more=True, **fields)


def frame(worker, taken, body, *, more=True):
    raw = encode_frame(node_id=taken["node_id"], body=body, more=more)
    worker.redis.rpush(taken["reply_to"], raw)


def gone(worker, taken):
    """Whether the worker can know that nobody waits."""
    return worker.redis.exists(f"queuerelay:gone:{taken['node_id']}") == 1


class Raw:
    """A client that reads when the test says so, with small buffers of its own."""

    def __init__(self, port, data):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(data)
        self.received = b""

    def read(self, size):
        """Up to `size` bytes; b"" at the end."""
        data = self.socket.recv(size)
        self.received += data
        return data

    def throttled(self):
        """A little of it, at 200 kB/s."""
        time.sleep(0.02)
        self.read(4000)

    def until(self, what):
        """Read until `what` has come."""
        while what not in self.received:
            assert self.read(65536), self.received[-200:]

    def cut_off(self):
        """Read on; whether the connection was reset before an end."""
        try:
            while self.read(65536):
                pass
        except ConnectionResetError:
            return True
        return False


@pytest.fixture
def raw():
    with contextlib.ExitStack() as stack:

        def connect(port, *args, **kwargs):
            client = Raw(port, request(*args, **kwargs))
            stack.callback(client.socket.close)
            return client

        yield connect


def test_each_event_comes_before_the_next_is_made(relay, worker, raw):
    one = relay()
    client = raw(one.port, "GET", "/events")
    taken = worker.take()
    begin(worker, taken, headers=[("content-type", "text/event-stream")])
    client.until(b"\r\n\r\n")
    for number in range(5):
        event = b"data: %d\n\n" % number
        frame(worker, taken, event)
        client.until(event)
    frame(worker, taken, b"", more=False)
    client.until(b"0\r\n\r\n")
    assert b"Transfer-Encoding: chunked\r\n" in client.received
    # The connection goes on.
    client.received = b""
    client.socket.sendall(request("GET", "/next"))
    worker.serve()
    client.until(b"/next")


def test_http_1_0(relay, worker, raw):
    one = relay()
    client = raw(one.port, "GET", "/", version="1.0")
    taken = worker.take()
    begin(worker, taken, b"one")
    client.until(b"one")
    frame(worker, taken, b"two", more=False)
    assert not client.cut_off()
    assert client.received.endswith(b"\r\n\r\nonetwo")


# Promise 2
@pytest.mark.parametrize("how", ["silent", "killed and begun anew", "broken", "gave up"])
def test_promise_2_what_a_worker_does_not_finish_is_a_broken_connection(relay, worker, raw, how):
    one = relay("--frame-timeout", "0.5")
    client = raw(one.port, "GET", "/")
    taken = worker.take()
    begin(worker, taken, b"the first try")
    client.until(b"the first try")
    if how == "killed and begun anew":
        begin(worker, taken, b"the second try")
        frame(worker, taken, b"the second try", more=False)
    elif how == "broken":
        worker.redis.rpush(taken["reply_to"], b'{"node_id":"%b",' % taken["node_id"].encode())
    elif how == "gave up":
        worker.reply(taken, status=500, body=b"the second try")
    # The chunks tell: it is an end, which costs the client nothing of what was sent before.
    assert not client.cut_off()
    assert b"the second try" not in client.received
    assert not client.received.endswith(b"0\r\n\r\n")
    eventually(lambda: gone(worker, taken))
    eventually(lambda: "an answer was broken off" in one.log)


def test_a_client_that_leaves_is_told_to_the_worker(relay, worker, raw):
    one = relay()
    client = raw(one.port, "GET", "/")
    taken = worker.take()
    begin(worker, taken, b"one")
    client.until(b"one")
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.close()
    eventually(lambda: gone(worker, taken))


def test_a_stream_at_the_end_of_the_drain_is_broken_off(relay, worker, raw):
    one = relay("--drain", "2")
    client, fine = (raw(one.port, "GET", f"/{number}") for number in range(2))
    requests = {taken["url"]: taken for taken in (worker.take(), worker.take())}
    for number, each in enumerate((client, fine)):
        begin(worker, requests[f"/{number}"], b"one")
        each.until(b"one")
    one.signal(signal.SIGTERM)
    eventually(lambda: "stopping: 2 requests are held" in one.log)
    frame(worker, requests["/1"], b"two", more=False)
    assert not fine.cut_off()
    assert fine.received.endswith(b"3\r\ntwo\r\n0\r\n\r\n")
    assert not client.cut_off()
    assert client.received.endswith(b"3\r\none\r\n")
    assert one.exit() == 0


# Promise 6
def test_promise_6_who_reads_nothing_of_a_stream_is_cut_and_others_are_not(relay, worker, raw):
    one = relay("--max-unsent", str(MIB))
    stuck, fine = (raw(one.port, "GET", f"/{number}") for number in range(2))
    requests = {taken["url"]: taken for taken in (worker.take(), worker.take())}
    for taken in requests.values():
        begin(worker, taken)
    part = b"x" * 256 * 1024
    # The kernel takes some MiB; this is more, and it comes faster than anybody could read.
    for _ in range(100):
        if gone(worker, requests["/0"]):
            break
        frame(worker, requests["/0"], part)
        frame(worker, requests["/1"], b"event")
        fine.until(b"event")
        fine.received = b""
    assert gone(worker, requests["/0"])
    assert not gone(worker, requests["/1"])
    assert stuck.cut_off()
    frame(worker, requests["/1"], b"", more=False)
    fine.until(b"0\r\n\r\n")


# Promise 6
@pytest.mark.parametrize("streamed", [False, True])
def test_promise_6_a_slow_reader_is_served_and_one_that_stalls_is_not(relay, worker, raw, streamed):
    one = relay("--send-stall", "2", "--frame-timeout", "1", "--max-unsent", str(64 * MIB))
    slow, stuck = (raw(one.port, "GET", f"/{number}") for number in range(2))
    body = bytes(range(256)) * 4096 * 6
    for _ in range(2):
        taken = worker.take()
        if streamed:
            begin(worker, taken, headers=[("content-length", str(len(body)))])
            frame(worker, taken, body, more=False)
        else:
            worker.reply(taken, body=body)
    # 200 kB/s. The kernel's buffer is so large that the relay cannot write for seconds, and still
    # it is told apart from the other, which takes nothing at all.
    cut = eventually_reading(slow, lambda: "an answer was broken off (stalled)" in one.log)
    for _ in range(110):
        slow.throttled()
    assert cut < len(slow.received) < len(body)
    slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    while len(slow.received) < len(body):
        slow.read(1 << 20)
    assert stuck.cut_off()
    with pytest.raises(Broken):
        read(BytesIO(stuck.received), "GET")
    slow.until(body[-1000:])
    assert read(BytesIO(slow.received), "GET").body == body
    slow.received = b""
    slow.socket.sendall(request("GET", "/next"))
    worker.serve()
    slow.until(b"/next")
    assert one.log.count("an answer was broken off") == 1


def eventually_reading(client, what):
    """Bytes that `client` has read, slowly, once `what()` is true."""

    def look():
        client.throttled()
        return what()

    eventually(look)
    return len(client.received)


def test_the_first_frame_may_be_in_the_batch_of_the_last(relay, worker, raw):
    one = relay()
    client = raw(one.port, "GET", "/")
    taken = worker.take()
    id = taken["node_id"]
    worker.redis.rpush(
        taken["reply_to"],
        encode_reply(node_id=id, body=b"one", more=True),
        encode_frame(node_id=id, body=b"two", more=False),
    )
    client.until(b"0\r\n\r\n")
    assert client.received.endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")


def test_over_tls(relay, worker, tmp_path):
    authority = Authority(tmp_path, "authority")
    pem, port = authority.issue("127.0.0.1"), free_port()
    listen = f"ssl:{port}:privateKey={pem}:certKey={pem}:interface=127.0.0.1"
    one = relay("--listen", listen, "--send-stall", "2")
    eventually(lambda: listens(port))
    context = ssl.create_default_context(cafile=str(authority.ca))
    plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
    body = bytes(range(256)) * 4096 * 6
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as client:
        client.sendall(request())
        taken = worker.take()
        begin(worker, taken, b"one")
        file = client.makefile("rb")
        while b"one" not in file.readline():
            pass
        frame(worker, taken, b"two", more=False)
        assert [file.readline() for _ in range(4)] == [b"3\r\n", b"two\r\n", b"0\r\n", b"\r\n"]
        client.sendall(request())
        worker.serve(body=body)
        received = b""
        # It reads slowly for longer than nothing may be taken, as far as TLS lets it.
        for _ in range(110):
            time.sleep(0.02)
            received += file.read1(4000)
        while len(received) < len(body):
            received += file.read1(1 << 20)
        while not received.endswith(body[-4096:]):
            received += file.read1(1 << 20)
        assert read(BytesIO(received), "GET").body == body
        stuck = tls_stuck(context, port)
        worker.serve(body=body)
        eventually(lambda: "an answer was broken off (stalled)" in one.log)
        stuck.close()
        assert one.log.count("an answer was broken off") == 1
        file.close()


def tls_stuck(context, port):
    """A client over TLS that asks and reads nothing."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.settimeout(PATIENCE)
    plain.connect(("127.0.0.1", port))
    client = context.wrap_socket(plain, server_hostname="127.0.0.1")
    client.sendall(request())
    return client


def test_where_only_the_end_would_tell_a_broken_answer_is_a_reset(relay, worker, raw):
    one = relay()
    client = raw(one.port, "GET", "/", version="1.0")
    taken = worker.take()
    begin(worker, taken, b"half")
    client.until(b"half")
    worker.reply(taken, status=500)
    assert client.cut_off()
