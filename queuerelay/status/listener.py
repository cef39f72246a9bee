"""Where the status resource listens, when it has a listener of its own."""

from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from queuerelay.errors import CannotListen, ConfigError
from queuerelay.status.resource import MAX_BODY

#: Seconds that a connection may be idle.
IDLE: Final = 60.0
#: Connections at a time; dashboards and people are few.
CONNECTIONS: Final = 200


class _Request(Request):
    def gotLength(self, length: int | None) -> None:
        """The length of the body is known: too large a one is not read at all."""
        if length is not None and length > MAX_BODY and self.channel is not None:
            self.channel.loseConnection()
            length = 0
        super().gotLength(length)


class _Channel(HTTPChannel):
    totalHeadersSize = 16384


class _Site(Site):
    def __init__(self, resource: Resource, *, reactor: Any) -> None:
        super().__init__(resource, requestFactory=_Request, timeout=IDLE, reactor=reactor)
        self._channels: set[Any] = set()

    # A request a second for each dashboard is nothing for a log.
    def log(self, request: object) -> None:
        """Nothing."""

    def startFactory(self) -> None:
        """Without opening a log, and without its timer."""

    def stopFactory(self) -> None:
        """As little."""


class StatusListener:
    """One endpoint; `open` and `close` once each. Raises `ConfigError` where `text` is none."""

    _log = Logger()

    def __init__(self, text: str, resource: Resource, *, reactor: Any) -> None:
        self._text = text
        self._endpoint = endpoint_from(text, reactor=reactor)
        self._site = _Site(resource, reactor=reactor)
        self._port: IListeningPort | None = None

    def open(self) -> None:
        """Listen; may need privileges. Raises `CannotListen`."""
        failures: list[Failure] = []

        def failed(failure: Failure) -> None:
            failures.append(failure)
            if late:
                self._log.critical("cannot listen on {endpoint}", endpoint=self._text)

        late = False
        self._endpoint.listen(self._site).addCallbacks(self._opened, failed)
        late = True
        if failures:
            raise CannotListen(
                f"--status {self._text}: {failures[0].getErrorMessage()} (--status ENDPOINT "
                "for another place, --status off for none)"
            )

    def _opened(self, port: IListeningPort) -> None:
        self._port = port

    def close(self) -> Deferred[Any]:
        """Listen no more."""
        port, self._port = self._port, None
        stopped = port.stopListening() if port is not None else None
        return stopped if isinstance(stopped, Deferred) else succeed(None)


def endpoint_from(text: str, *, reactor: Any) -> IStreamServerEndpoint:
    """The endpoint that `text` describes; `ConfigError` where it describes none."""
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, text)
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ConfigError.of(
            "--status", text, f"an endpoint such as tcp:8080:interface=127.0.0.1 ({reason})"
        ) from error
    return endpoint
