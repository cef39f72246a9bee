"""The daemon's HTTP side: the front behind its endpoints, with its access log."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IStreamServerEndpoint
from twisted.logger import Logger

from queuerelay.config import RelayConfig
from queuerelay.errors import ConfigError
from queuerelay.http import listening
from queuerelay.http.accesslog import AccessLog
from queuerelay.http.error_pages import load_pages
from queuerelay.http.listening import Listener
from queuerelay.http.proxied import behind_proxy
from queuerelay.log_format import TEXT
from queuerelay.loop import Loop
from queuerelay.own_files import check_appendable
from queuerelay.relay.front import Front
from queuerelay.relay.limits import client_limits
from queuerelay.relay.relay import Relay

#: Seconds that the last answers get at least to reach their clients, where the drain time is over.
LAST_ANSWERS = 1.0
#: Seconds between two writes of the access log.
FLUSH_INTERVAL = 1.0


class Listeners:
    """Where clients connect; `open`, `open_log`, `start`, `close` and `finish` once each, in this
    order.
    """

    _log = Logger()

    def __init__(
        self,
        config: RelayConfig,
        relay: Relay,
        *,
        reactor: Any,
        wall_clock: Callable[[], float] = time.time,
        log_format: str = TEXT,
    ) -> None:
        self._config = config
        self._reactor = reactor
        self._endpoints = endpoints(config.listen, reactor=reactor)
        self._trust = relay.trust
        self._listeners: list[Listener] = []
        self._hurried = False
        self._cut: IDelayedCall | None = None
        self._until = 0.0
        self._access_log: AccessLog | None = None
        self._flush: Loop | None = None
        if config.access_log is not None:
            self._access_log = AccessLog(
                config.access_log, wall_clock=wall_clock, log_format=log_format
            )
            self._flush = Loop("access log", FLUSH_INTERVAL, self._access_log.flush, clock=reactor)
        #: Most clients at a time; None until `open`.
        self.max_connections: int | None = None
        self._front = Front(
            relay,
            limits=client_limits(config),
            clock=reactor,
            wall_clock=wall_clock,
            access_log=self._access_log,
            server_timing=config.server_timing,
        )

    def open(self) -> None:
        """Read the pages for errors and open the endpoints; may need privileges.

        Raises `ConfigError` or `CannotListen`.
        """
        if self._config.error_pages is not None:
            self._front.pages = load_pages(self._config.error_pages)
        self.max_connections = self._front.connections.settle()
        for text, endpoint in self._endpoints:
            listener = Listener(f"--listen {text}", endpoint)
            listener.open(behind_proxy(text, self._front, trust=self._trust))
            self._listeners.append(listener)

    def hand_over(self, user: int, group: int) -> None:
        """Give Unix sockets to this user and group."""
        for listener in self._listeners:
            listener.hand_over(user, group)

    def open_log(self) -> None:
        """Open the access log, as the user that writes it. Raises `ConfigError`."""
        if self._access_log is not None:
            try:
                self._access_log.open()
            except OSError as error:
                raise _not_writable(self._config.access_log, error) from error

    def start(self) -> None:
        """Begin to write the access log."""
        if self._flush is not None:
            self._flush.start()

    def reopen(self) -> None:
        """Go on in a new access log: the old one has another name now."""
        if self._access_log is not None:
            self._access_log.reopen()

    def reload(self) -> None:
        """Read the pages for errors again; where they cannot be read, the old ones stay."""
        if self._config.error_pages is not None:
            try:
                self._front.pages = load_pages(self._config.error_pages)
            except ConfigError as error:
                self._log.warn("the pages for errors stay as they were: {error}", error=str(error))

    async def close(self) -> None:
        """Take no more connections, and make each answer the last of its connection."""
        self._until = self._reactor.seconds() + self._config.drain
        for listener in self._listeners:
            try:
                await listener.close()
            except Exception:
                self._log.failure("a listener could not be closed")
        self._front.drain()

    async def finish(self) -> None:
        """Let clients read what was written for them; the reactor would cut it off."""
        left = self._until - self._reactor.seconds()
        rest = LAST_ANSWERS if self._hurried else max(LAST_ANSWERS, left)
        self._cut = self._reactor.callLater(rest, self._front.abort)
        await self._front.closed()
        if self._cut.active():
            self._cut.cancel()
        if self._flush is not None and self._access_log is not None:
            await self._flush.stop()
            self._access_log.close()

    def hurry(self) -> None:
        """Cut the waiting for the last answers short."""
        self._hurried = True
        if self._cut is not None and self._cut.active():
            self._cut.reset(LAST_ANSWERS)


def endpoints(texts: Sequence[str], *, reactor: Any) -> list[tuple[str, IStreamServerEndpoint]]:
    """The endpoints that `texts` describe, each with its text; raises `ConfigError`."""
    return [(text, endpoint_from(text, reactor=reactor)) for text in texts]


def endpoint_from(text: str, *, reactor: Any) -> IStreamServerEndpoint:
    """The endpoint that `text` describes; `ConfigError` where it describes none."""
    return listening.endpoint_from(text, option="--listen", example="tcp:8000", reactor=reactor)


def check_log(path: str) -> None:
    """Raise `ConfigError` where the access log could not be opened; it is not made."""
    try:
        check_appendable(path)
    except OSError as error:
        raise _not_writable(path, error) from error


def _not_writable(path: str | None, error: OSError) -> ConfigError:
    return ConfigError.of("--access-log", path, f"a writable file ({error})")
