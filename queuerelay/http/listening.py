"""Twisted's endpoints as operators write them: listened on, or refused in one line."""

import os
import re
import ssl
from typing import Any, Final

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from queuerelay.errors import CannotListen, ConfigError
from queuerelay.http.proxied import PREFIX

#: Clients that may wait to be accepted. Twisted's 50 are less than a burst, and who finds no place
#: tries again after a second (RFC 6298 2); the system's own bound (somaxconn) holds, too.
BACKLOG: Final = 1024
#: Beginnings of the endpoints that have a backlog.
_SOCKETS: Final = ("tcp:", "tcp6:", "ssl:", "unix:")
#: Beginnings of the endpoints that have a port.
_PORTS: Final = ("tcp:", "tcp6:", "ssl:")
_NAMED: Final = re.compile(r"([A-Za-z]+)=(.*)", re.DOTALL)
#: Mode of a Unix socket: who connects there may be believed as a proxy is, so it is not for all.
SOCKET_MODE: Final = "660"
#: Between two arguments of an endpoint, as `serverFromString` reads it.
_SEPARATOR: Final = re.compile(r"(?<!\\):")


def endpoint_from(text: str, *, option: str, example: str, reactor: Any) -> IStreamServerEndpoint:
    """The endpoint that `text` describes, with our backlog where it has none of its own.

    What stands behind `PREFIX` is the endpoint of a proxy's connections, for `behind_proxy`.
    Raises `ConfigError` that names `option`.
    """
    described = text.removeprefix(PREFIX)
    if described != text and described.startswith(("ssl:", "tls:", PREFIX)):
        raise ConfigError.of(
            option,
            text,
            f"an endpoint such as {PREFIX}{example}: there is no TLS behind PROXY",
        )
    if described.startswith(_PORTS):
        _check_port(described, option, text)
    if described.startswith("unix:"):
        described = _with_mode(described, option, text)
    if described.startswith(_SOCKETS) and ":backlog=" not in described:
        described = f"{described}:backlog={BACKLOG}"
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, described)
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ConfigError.of(option, text, f"an endpoint such as {example} ({reason})") from error
    if described.startswith("ssl:"):
        _check_certificate(described, option, text)
    return endpoint


def _arguments(described: str) -> tuple[list[str], dict[str, str]]:
    """The arguments of an endpoint behind its kind: those without a name, and those with one."""
    _, *rest = (part.replace("\\:", ":") for part in _SEPARATOR.split(described))
    named = {found[1]: found[2] for part in rest if (found := _NAMED.fullmatch(part))}
    return [part for part in rest if not _NAMED.fullmatch(part)], named


def _check_port(described: str, option: str, text: str) -> None:
    """Whether the port is one: Twisted takes any number, and fails in `bind`."""
    plain, named = _arguments(described)
    port = named.get("port", plain[0] if plain else "")
    if re.fullmatch("[0-9]{1,5}", port, re.ASCII) is None or int(port) > 65535:
        raise ConfigError.of(option, text, "a port from 0 to 65535")


def _check_certificate(described: str, option: str, text: str) -> None:
    """Whether key and certificate belong together: Twisted looks when the first client comes."""
    _, named = _arguments(described)
    key = named.get("privateKey", "server.pem")
    try:
        # A key with a password would make it ask on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            named.get("certKey", key), key, password=lambda: ""
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ConfigError.of(
            option, text, f"a certificate and its private key ({reason})"
        ) from error


def _with_mode(described: str, option: str, text: str) -> str:
    """The endpoint of a Unix socket with a mode: its own, which may stand behind the path without a
    name, or `SOCKET_MODE`.
    """
    _, *rest = _SEPARATOR.split(described)
    arguments = [part for part in rest if not part.startswith(("mode=", "backlog=", "lockfile="))]
    named = [part.removeprefix("mode=") for part in rest if part.startswith("mode=")]
    given = named or arguments[1:2]
    mode = given[0] if given else SOCKET_MODE
    if re.fullmatch(r"0?[0-7]{3}", mode, re.ASCII) is None:
        raise ConfigError.of(option, text, f"an octal mode such as mode={SOCKET_MODE}")
    return described if given else f"{described}:mode={mode}"


class Listener:
    """One endpoint, called `name` in errors and logs; `open` and `close` once each."""

    _log = Logger()

    def __init__(self, name: str, endpoint: IStreamServerEndpoint) -> None:
        self._name = name
        self._endpoint = endpoint
        self._port: IListeningPort | None = None

    def open(self, factory: IProtocolFactory, *, advice: str = "") -> None:
        """Listen for `factory`; may need privileges. Raises `CannotListen`, with `advice`."""
        failures: list[Failure] = []

        def failed(failure: Failure) -> None:
            failures.append(failure)
            # Twisted's own endpoints say so at once; others may come to it later.
            if late:
                self._log.critical("cannot listen: {name}", name=self._name, failure=failure)

        late = False
        # A Unix socket has its mode only after it is bound; until then nobody else may connect.
        umask = os.umask(0o077)
        try:
            self._endpoint.listen(factory).addCallbacks(self._opened, failed)
        finally:
            os.umask(umask)
        late = True
        if failures:
            raise CannotListen(f"{self._name}: {failures[0].getErrorMessage()}{advice}")

    def _opened(self, port: IListeningPort) -> None:
        self._port = port

    def hand_over(self, user: int, group: int) -> None:
        """Give a Unix socket to this user and group, so that its mode says what it would if they
        had made it. Raises `CannotListen`.
        """
        address: Any = self._port.getHost() if self._port is not None else None
        if isinstance(address, UNIXAddress) and address.name:
            try:
                os.chown(address.name, user, group, follow_symlinks=False)
            except OSError as error:
                raise CannotListen(f"{self._name}: {error}") from error

    def close(self) -> Deferred[Any]:
        """Listen no more; fires when the port is closed."""
        port, self._port = self._port, None
        stopped = port.stopListening() if port is not None else None
        return stopped if isinstance(stopped, Deferred) else succeed(None)
