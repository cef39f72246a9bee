"""Streamed answers through the queue, with the real daemon and real workers."""

import os
import signal
import socket
import sys

import pytest

from tests.acceptance import stream_app
from tests.acceptance.stage import Client, request
from tests.helpers.daemon import ROOT
from tests.helpers.waiting import eventually

ROWS = "tests.acceptance.stream_app:application"
MIB = 1024 * 1024


def pool(stage, *, size):
    """A relay with a pool of workers that it keeps alive; gives its port."""
    config = stage.directory / "pool.toml"
    command = [sys.executable, "-m", "queuerelay.worker", "--redis", stage.server.tcp_url]
    config.write_text(
        "[[pool]]\n"
        'name = "rows"\n'
        "resident = true\n"
        f"size = {size}\n"
        f"command = {[*command, '--lease', '1', ROWS]!r}\n"
        f"env = {{ PYTHONPATH = {str(ROOT)!r} }}\n"
    )
    return stage.relay("--config", str(config))


class Reader(Client):
    """A client that reads a streamed answer chunk by chunk."""

    def begin(self, method, target):
        self.send(request(method, target, body=b"" if method == "POST" else None))
        version, status, headers = self._head()
        assert (version, status) == ("HTTP/1.1", 200)
        assert ("Transfer-Encoding", "chunked") in headers
        return self

    def chunk(self):
        """The next chunk; b"" at the end."""
        size = int(self._line(), 16)
        data = self._read(size)
        assert self._line() == b""
        return data

    def rest(self):
        """All chunks up to the end, and whether it was a proper one."""
        found = []
        try:
            while chunk := self.chunk():
                found.append(chunk)
        except (AssertionError, ConnectionResetError):
            return found, False
        return found, True


def rows(chunks):
    """The runs that made these rows; they must be numbered without a gap."""
    found = [chunk.decode().split() for chunk in chunks]
    assert [int(number) for _, _, number in found] == list(range(len(found)))
    return {run for _, run, _ in found}


def test_server_sent_events_of_a_flask_application(stage):
    port = stage.relay()
    stage.worker()
    with Reader(port) as client:
        client.begin("GET", "/events/sse")
        assert client.chunk().endswith("data: first ü\n\n".encode())
        # It has not been told yet to make the second one.
        (stage.directory / "sse.go").touch()
        assert client.chunk().endswith(b"data: second\ndata: line\n\n")
        assert client.chunk() == b""
        # The connection goes on.
        assert client.ask(request("GET", "/say/word")).status == 200
    eventually(lambda: stage.in_flight() == 0)


# Promise 2
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_promise_2_a_worker_that_is_killed_in_the_middle_is_never_continued_by_another(
    stage, method
):
    port = pool(stage, size=2)
    for number in range(3):
        name = f"{method}-{number}"
        with Reader(port) as client, Reader(port) as other:
            client.begin(method, f"/rows/{name}")
            # All that it makes before it has to wait.
            begun = [client.chunk() for _ in range(stream_app.ROWS // 2)]
            other.begin(method, f"/rows/{name}")
            os.kill(int(begun[0].split()[0]), signal.SIGKILL)
            # Whoever takes a GET over may go on at once.
            (stage.directory / f"{name}.go").touch()
            rest, ended = client.rest()
            assert (rest, ended) == ([], False)
            assert len(rows(begun)) == 1
            # Who has another worker does not notice.
            rest, ended = other.rest()
            assert ended
            assert len(rows(rest)) == 1
            assert len(rest) == stream_app.ROWS
    relay = next(child for child in stage.children if child.log_path.name.startswith("relay"))
    assert "an answer was broken off (restarted)" in relay.log
    eventually(lambda: stage.in_flight() == 0)
    # What was taken over for nobody has ended as well.
    eventually(lambda: stage.queued() == 0)


def test_a_client_that_leaves_frees_its_worker(stage):
    port = pool(stage, size=1)
    with Reader(port) as client:
        client.begin("GET", f"/bytes/{10**12}")
        client.chunk()
    with Reader(port) as client:
        client.begin("GET", "/bytes/10")
        assert client.rest() == ([bytes(range(10))], True)


# Promise 6
def test_promise_6_a_worker_waits_for_a_slow_client(stage):
    port = pool(stage, size=1)
    with Reader(port) as client:
        client._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.begin("GET", f"/bytes/{32 * MIB}")
        client.chunk()
        (id,) = (
            key.decode().removeprefix("queuerelay:taken:")
            for key in eventually(lambda: stage.redis.keys("queuerelay:taken:*"))
        )
        # The kernel's buffers are full, and from then on nothing moves.
        seen = [-1]

        def settled():
            seen.append(int(stage.redis.get(f"queuerelay:taken:{id}")))
            return len(seen) > 20 and len(set(seen[-20:])) == 1

        eventually(settled)
        assert seen[-1] < 16 * MIB
        assert stage.redis.llen(f"queuerelay:inbox:{id.partition('-')[0]}") == 0
        chunks, ended = client.rest()
        assert ended
        assert sum(map(len, chunks)) == 32 * MIB - 65536


def test_a_large_answer_of_an_iterable_is_the_whole_of_it(stage):
    port = pool(stage, size=1)
    size = 8 * MIB + 17
    with Reader(port) as client:
        client.begin("GET", f"/bytes/{size}")
        chunks, ended = client.rest()
    assert ended
    assert b"".join(chunks) == b"".join(stream_app._bytes(size))
