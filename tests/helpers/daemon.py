"""The real daemon in a child process, its clients and its workers; the tests play both."""

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from queuerelay.wire.reply import encode_reply
from tests.helpers.ports import free_port, listens
from tests.helpers.strict import Response, read, request
from tests.helpers.waiting import PATIENCE, eventually

ROOT = Path(__file__).parents[2]
TWISTD = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "queuerelay"]


class Client:
    """A client's connection; it reads one strict response for each request."""

    def __init__(self, address: int | str) -> None:
        if isinstance(address, str):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(PATIENCE)
            # The daemon opens its listeners one after the other.
            eventually(lambda: self._socket.connect_ex(address) == 0)
        else:
            self._socket = socket.create_connection(("127.0.0.1", address), PATIENCE)
        self._file = self._socket.makefile("rb")

    def send(self, *args: Any, **kwargs: Any) -> "Client":
        """A request; the arguments are those of `strict.request`."""
        return self.send_raw(request(*args, **kwargs))

    def send_raw(self, data: bytes) -> "Client":
        """Bytes."""
        self._socket.sendall(data)
        return self

    def half_close(self) -> "Client":
        """Close our side, and read on."""
        self._socket.shutdown(socket.SHUT_WR)
        return self

    def response(self, method: str = "GET") -> Response:
        """The next response; bounded by the socket's time-out."""
        return read(self._file, method)

    def readable(self) -> bool:
        """Whether something has come, be it the end."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def take(self, size: int) -> bytes:
        """So many bytes of what comes."""
        return self._file.read(size)

    def rest(self) -> bytes:
        """All that comes until the server closes."""
        return self._file.read()

    def at_end(self) -> bool:
        """Whether the server has closed, and sent nothing more."""
        return self._file.read(1) == b""

    def reset(self) -> None:
        """Leave by a reset, as a process does that is killed with something unread."""
        linger = struct.pack("ii", 1, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close()

    def close(self) -> None:
        """Leave."""
        self._file.close()
        self._socket.close()


class Daemon:
    """One ``twistd -n queuerelay``."""

    def __init__(
        self,
        directory: Path,
        *options: str,
        port: int | None = None,
        listen: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port or free_port()
        if listen:
            options = ("--listen", f"tcp:{self.port}:interface=127.0.0.1", *options)
        if "--status" not in options and "--role" not in options:
            # Several daemons on one host cannot all have its port.
            options = ("--status", "off", *options)
        self._stdout = directory / f"stdout-{self.port}-{time.monotonic_ns()}"
        self._stderr = self._stdout.with_name(self._stdout.name.replace("out", "err", 1))
        self.clients: list[Client] = []
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self.process = subprocess.Popen(
                [*TWISTD, *options],
                cwd=directory,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def ready(self) -> "Daemon":
        """Once it listens."""
        eventually(lambda: listens(self.port) or self.process.poll() is not None)
        assert self.process.poll() is None, self.log + self.stderr
        return self

    @property
    def log(self) -> str:
        """What it has logged."""
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        """What it has written to stderr."""
        return self._stderr.read_text()

    def connect(self) -> Client:
        """A client."""
        client = Client(self.port)
        self.clients.append(client)
        return client

    def get(self, target: str = "/", *headers: tuple[str, str], **kwargs: Any) -> Client:
        """A client that has sent a GET."""
        return self.connect().send("GET", target, *headers, **kwargs)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def exit(self) -> int:
        """Its exit status, once it has ended."""
        return self.process.wait(PATIENCE)

    def remove(self) -> None:
        """Kill it if it still runs."""
        for client in self.clients:
            client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Worker:
    """A worker, played by the test with a blocking client."""

    def __init__(self, client: redis.Redis) -> None:
        self.redis = client

    def take(self, queue: str = "requests") -> dict[str, Any]:
        """The next request, as a stock Resque worker takes it."""
        found = self.redis.blpop([f"resque:queue:{queue}"], timeout=int(PATIENCE))
        assert found is not None, f"nothing on {queue}"
        taken: dict[str, Any] = json.loads(found[1])["args"][0]
        return taken

    def waiting(self, queue: str = "requests") -> int:
        """Messages on the queue."""
        return int(self.redis.llen(f"resque:queue:{queue}"))

    def reply(self, taken: dict[str, Any], **fields: Any) -> None:
        """Answer it."""
        self.redis.rpush(taken["reply_to"], encode_reply(node_id=taken["node_id"], **fields))

    def serve(self, **fields: Any) -> dict[str, Any]:
        """Take the next request and answer it with its own target."""
        taken = self.take()
        self.reply(taken, **{"body": taken["url"].encode(), **fields})
        return taken


def run(
    *options: str, cwd: Path, command: Sequence[str] = TWISTD
) -> subprocess.CompletedProcess[str]:
    """One ``twistd -n queuerelay``, or other `command`, that ends by itself."""
    return subprocess.run(
        [*command, *options],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def refused(*options: str, cwd: Path) -> str:
    """The one line on stderr of a start that fails."""
    done = run(*options, cwd=cwd)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("queuerelay: ")
    return line


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons with the given options; they end with the test."""
    daemons: list[Daemon] = []

    def start(*options: str, **how: Any) -> Daemon:
        daemons.append(Daemon(tmp_path, *options, **how))
        return daemons[-1]

    yield start
    for one in daemons:
        one.remove()
    for one in daemons:
        assert "Traceback" not in one.log, one.log
        assert "Unhandled" not in one.log, one.log


@pytest.fixture
def worker(fresh_valkey: Any) -> Worker:
    """A worker on the session's server, which is empty."""
    return Worker(fresh_valkey.client())


@pytest.fixture
def relay(fresh_valkey: Any, daemon: Callable[..., Daemon]) -> Callable[..., Daemon]:
    """Starts a daemon on the session's server, and waits until it listens."""

    def start(*options: str) -> Daemon:
        return daemon("--redis", fresh_valkey.url, *options).ready()

    return start
