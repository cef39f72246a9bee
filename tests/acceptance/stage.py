"""What the acceptance tests put together: real daemons and workers as children, raw clients."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.helpers.certificates import Authority
from tests.helpers.daemon import ROOT
from tests.helpers.ports import free_port, listens
from tests.helpers.redis import ValkeyServer
from tests.helpers.waiting import PATIENCE, eventually

HERE = Path(__file__).resolve().parent
NODE = HERE / "node"
#: The application that the WSGI worker and the WSGI server both serve.
APPLICATION = "tests.acceptance.flask_app:application"


class Child:
    """One child process with its output in a file."""

    def __init__(self, log: Path, *command: str | Path, **environment: str) -> None:
        self.log_path = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                cwd=log.parent,
                # A set's order is part of an answer (Allow, in Flask's): the same in each process.
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "PYTHONHASHSEED": "0",
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    def logged(self, text: str) -> "Child":
        """Itself, once its log has `text`."""
        eventually(lambda: text in self.log or self.process.poll() is not None, lambda: self.log)
        assert text in self.log, f"ended with {self.process.poll()}:\n{self.log}"
        return self

    def kill(self) -> None:
        """SIGKILL, as the OOM killer would."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def terminate(self) -> int:
        """SIGTERM; its exit status."""
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def remove(self) -> None:
        """Make sure that it is gone."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


class Stage:
    """Children around one Redis server, all removed at the end."""

    def __init__(self, server: ValkeyServer, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.children: list[Child] = []
        #: Where `relay` listens.
        self.port = 0

    @property
    def redis(self) -> redis.Redis:
        return self.server.client()

    def _start(self, name: str, *command: str | Path, **environment: str) -> Child:
        log = self.directory / f"{name}-{len(self.children)}.log"
        child = Child(log, *command, **environment)
        self.children.append(child)
        return child

    def _listening(
        self, name: str, command: Callable[[int], Sequence[str | Path]], **environment: str
    ) -> int:
        """Start what `command` gives for a free port, until it listens there."""
        for _ in range(5):
            port = free_port()
            child = self._start(name, *command(port), **environment)
            eventually(
                lambda port=port, child=child: child.process.poll() is not None or listens(port)
            )
            if child.process.poll() is None:
                return port
            # Somebody took the port between our look and its bind; anything else is an error.
            assert "in use" in child.log, child.log
        raise AssertionError(f"no free port for {name}")

    def relay(self, *options: str) -> int:
        """The real daemon, connected to Redis; gives its port."""
        nodes = self.redis.zcard("queuerelay:nodes")
        self.port = self._listening(
            "relay",
            lambda port: (
                *(Path(sys.executable).with_name("twistd"), "-n", "--pidfile=", "queuerelay"),
                *("--redis", self.server.tcp_url, "--listen", f"tcp:{port}:interface=127.0.0.1"),
                *("--status", "off"),
                *options,
            ),
        )
        eventually(
            lambda: self.redis.zcard("queuerelay:nodes") > nodes, lambda: self.children[-1].log
        )
        return self.port

    def direct(self, *options: str, application: str = APPLICATION, **environment: str) -> int:
        """The same application behind gunicorn; gives its port."""
        return self._listening(
            "gunicorn",
            lambda port: (
                *(sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}"),
                # Threads, because a client may hold its connection open while another one comes.
                *("--workers", "1", "--threads", "8", "--no-control-socket"),
                *(*options, application),
            ),
            **environment,
        )

    def worker(self, *options: str, application: str = APPLICATION, **environment: str) -> Child:
        """The project's WSGI worker with the application, ready to claim."""
        return self._start(
            "worker",
            *(sys.executable, "-m", "queuerelay.worker", "--redis", self.server.tcp_url),
            *("--log-level", "debug", *options, application),
            **environment,
        ).logged(" queues ")

    def node(self, script: str, *arguments: str) -> Child:
        """A script of node/ on this server."""
        return self._start(
            script.partition(".")[0],
            *("node", NODE / script, "127.0.0.1", str(self.server.port), *arguments),
        )

    @contextlib.contextmanager
    def busy(self, name: str, workers: int = 2) -> Iterator[None]:
        """All workers of the Flask application have something to do; nobody else is served."""
        names = [f"{name}-{number}" for number in range(workers)]
        with contextlib.ExitStack() as clients:
            waiting = [clients.enter_context(Client(self.port)) for _ in names]
            try:
                for client, one in zip(waiting, names, strict=True):
                    client.send(request("GET", f"/hold/{one}"))
                eventually(lambda: all(self.directory.joinpath(f"{n}.pid").exists() for n in names))
                yield
            finally:
                for one in names:
                    self.go(one)
            for client in waiting:
                assert client.answer(method=b"GET").status == 200

    def go(self, name: str) -> None:
        """Let the application's ``/hold/NAME`` or ``/events/NAME`` go on."""
        self.directory.joinpath(f"{name}.go").touch()

    def queued(self, queue: str = "requests") -> int:
        """Messages that nobody has taken yet."""
        return int(self.redis.llen(f"resque:queue:{queue}"))

    def in_flight(self, queue: str = "requests") -> int:
        """Messages that a worker has taken and not yet acknowledged."""
        return int(self.redis.hlen(f"queuerelay:inflight:{queue}"))

    def remove(self) -> None:
        """End all children, the last one first."""
        for child in reversed(self.children):
            child.remove()


@contextlib.contextmanager
def staged(server: ValkeyServer, directory: Path) -> Iterator[Stage]:
    """A stage on the emptied server; in its directory the children run and log."""
    server.flush()
    stage = Stage(server, directory)
    try:
        yield stage
    finally:
        stage.remove()


@dataclass(frozen=True, slots=True)
class Secure:
    """A port for TLS, with a certificate for localhost."""

    port: int
    #: The authority's certificate, for clients.
    ca: Path
    #: Key and certificate, for the server.
    pem: Path

    @classmethod
    def made(cls, directory: Path) -> "Secure":
        """With an authority of its own; the files are in the directory."""
        authority = Authority(directory, "authority")
        return cls(free_port(), authority.ca, authority.issue("localhost"))

    @property
    def endpoint(self) -> str:
        """For ``--listen``."""
        return f"ssl:{self.port}:interface=127.0.0.1:privateKey={self.pem}:certKey={self.pem}"


# Clients.


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One response as it came over the socket."""

    version: str
    status: int
    #: Lower-case names, ISO-8859-1 values, in order.
    headers: list[tuple[str, str]]
    #: The same with the names as they were written.
    fields: list[tuple[str, str]]
    #: After de-chunking.
    body: bytes
    #: Statuses of interim responses (1xx) before it.
    interim: tuple[int, ...] = ()

    def all(self, name: str) -> list[str]:
        """Every value of the field."""
        return [value for key, value in self.headers if key == name]

    def one(self, name: str) -> str | None:
        """The value of a field that must not be repeated."""
        values = self.all(name)
        assert len(values) <= 1, (name, values)
        return values[0] if values else None


class Client:
    """A raw HTTP connection: bytes in, bytes out, and a parser that forgives nothing."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._stream = self._socket.makefile("rb")

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def ask(self, data: bytes) -> Answer:
        """Send a request, read its answer."""
        self.send(data)
        return self.answer(method=data.split(b" ", 1)[0])

    def at_end(self) -> bool:
        """Whether the server closes, and sends nothing more."""
        return self._stream.read(1) == b""

    def end(self) -> None:
        """Nothing more will be sent."""
        self._socket.shutdown(socket.SHUT_WR)

    def until_end(self) -> bytes:
        """All that comes until the server closes, be it in order or not."""
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while data := self._stream.read1(65536):
                found += data
        return found

    def interim(self) -> int:
        """Read an interim response; gives its status."""
        _, status, headers = self._head()
        assert 100 <= status < 200, status
        assert not headers, headers
        return status

    def answer(self, *, method: bytes) -> Answer:
        """Read the final answer to a request of that method."""
        interim = []
        while True:
            version, status, fields = self._head()
            if status >= 200:
                break
            interim.append(status)
        headers = [(name.lower(), value) for name, value in fields]
        return Answer(
            version=version,
            status=status,
            headers=headers,
            fields=fields,
            body=self._body(method, status, headers),
            interim=tuple(interim),
        )

    def _line(self) -> bytes:
        line = self._stream.readline(65536)
        assert line.endswith(b"\r\n"), f"not a line: {line!r}"
        return line[:-2]

    def _head(self) -> tuple[str, int, list[tuple[str, str]]]:
        version, status, _ = self._line().decode("latin-1").split(" ", 2)
        assert version in ("HTTP/1.0", "HTTP/1.1"), version
        headers = []
        while line := self._line():
            name, colon, value = line.decode("latin-1").partition(":")
            assert colon, line
            assert name == name.strip() != "", line
            headers.append((name, value.strip(" \t")))
        return version, int(status), headers

    def _body(self, method: bytes, status: int, headers: list[tuple[str, str]]) -> bytes:
        fields = dict(headers)
        if method == b"HEAD" or status in (204, 304):
            return b""
        if fields.get("transfer-encoding", "").lower() == "chunked":
            assert "content-length" not in fields, headers
            return b"".join(self._chunks())
        if "content-length" in fields:
            return self._read(int(fields["content-length"]))
        return self._stream.read()

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._line(), 16):
            yield self._read(size)
            assert self._line() == b""
        assert self._line() == b"", "a trailer"

    def _read(self, size: int) -> bytes:
        data = self._stream.read(size)
        assert len(data) == size, f"{len(data)} bytes of {size}"
        return data


def request(
    method: str,
    target: str | bytes,
    *headers: tuple[str, str | bytes],
    body: bytes | None = None,
    version: str = "1.1",
) -> bytes:
    """The bytes of a request; Content-Length follows from the body."""
    fields = [("Host", "shop.example:8080"), ("X-Request-Id", "acceptance-1"), *headers]
    if body is not None:
        fields.append(("Content-Length", str(len(body))))
    head = [b"%b %b HTTP/%b" % (_bytes(method), _bytes(target), _bytes(version))]
    head += [b"%b: %b" % (_bytes(name), _bytes(value)) for name, value in fields]
    return b"\r\n".join([*head, b"", body or b""])


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("ascii")


def get(port: int, target: str, *headers: tuple[str, str | bytes]) -> Answer:
    """A GET on a connection of its own."""
    with Client(port) as client:
        return client.ask(request("GET", target, *headers))


def post(port: int, target: str, body: bytes, *headers: tuple[str, str | bytes]) -> Answer:
    """A POST on a connection of its own."""
    with Client(port) as client:
        return client.ask(request("POST", target, *headers, body=body))
