"""The composition root: read from top to bottom, it is the architecture.

`RelayService` is the relay with its broker, as an `IService` for any Twisted application, and its
`resource` to mount anywhere. `Daemon` adds what ``twistd queuerelay`` has beside that: the front of
our own, its listeners and the access log.

This module imports txredisapi and with it the global reactor.
"""

import time
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from queuerelay import __version__
from queuerelay.broker import url
from queuerelay.broker.base import Broker
from queuerelay.broker.embedded import EmbeddedServer, find_server
from queuerelay.broker.keys import Keys
from queuerelay.broker.loop import Loop
from queuerelay.broker.redis import RedisBroker
from queuerelay.config import Config, describe, load
from queuerelay.errors import CannotListen, ConfigError
from queuerelay.relay.accesslog import AccessLog
from queuerelay.relay.core import Relay
from queuerelay.relay.front import Front
from queuerelay.relay.resource import RelayResource

#: Seconds that leaving the list of nodes may take at shutdown; Redis may be away.
LEAVE_BOUND = 2.0
#: Seconds that the last answers get at least to reach their clients, where the drain time is over.
LAST_ANSWERS = 1.0
#: Seconds between two writes of the access log.
FLUSH_INTERVAL = 1.0


class RelayService(Service):
    """The relay and its broker as one service.

    `reactor` is the one that the application runs on. Without `broker` the one that `config` names
    is used; a test may give a `queuerelay.testing.MemoryBroker`.
    """

    name = "queuerelay"
    _log = Logger()

    def __init__(self, config: Config, *, reactor: Any, broker: Broker | None = None) -> None:
        self._reactor = reactor
        self._server: EmbeddedServer | None = None
        if broker is None:
            where = url.parse(config.redis)
            if where.kind == "embedded":
                self._server = EmbeddedServer(where.path, reactor=reactor)
                where = self._server.url
            broker = RedisBroker(where, reactor=reactor, keys=Keys(prefix=config.prefix))
        self._broker = broker
        self.relay = Relay(config.relay, broker, prefix=config.prefix, clock=reactor)
        #: To be mounted anywhere in a twisted.web Site.
        self.resource: Resource = RelayResource(self.relay, max_body=config.relay.max_body)

    @classmethod
    def with_options(cls, *, reactor: Any, **options: object) -> "RelayService":
        """The service with the command line's options as keywords: ``redis="localhost"``,
        ``deadline=20``, ``max_held=500``. Raises `ConfigError`.
        """
        given = {name.replace("_", "-"): _as_text(value) for name, value in options.items()}
        return cls(load(None, given), reactor=reactor)

    def startService(self) -> None:
        """Start everything; Redis may come later."""
        super().startService()
        if self._server is not None:
            self._server.start(on_ready=self._server_ready)
        else:
            self._broker.start()
        self.relay.start()

    def stopService(self) -> Deferred[None]:
        """Let held requests end within the drain time; fires when nothing is left running."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def _server_ready(self) -> None:
        # It may be ready only when we are stopping already.
        if self.running:
            self._broker.start()

    async def _stop(self) -> None:
        await self.relay.drain()
        try:
            await self.relay.stop().addTimeout(LEAVE_BOUND, self._reactor)
        except Exception as error:
            self._log.warn("the relay did not leave properly: {reason}", reason=str(error))
        await self._broker.stop()
        if self._server is not None:
            await self._server.stop()

    def hurry(self) -> None:
        """Cut the drain short: what is still held is answered 503."""
        self.relay.hurry()


class Daemon(Service):
    """What ``twistd queuerelay`` runs: the relay service behind listeners of its own.

    Endpoints are opened in `privilegedStartService`, so that a port below 1024 works before the
    process gives up its privileges; `CannotListen` where one cannot be opened.
    """

    name = "queuerelay"
    _log = Logger()

    def __init__(
        self, config: Config, *, reactor: Any, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._config = config
        self._reactor = reactor
        self._endpoints = [
            (text, endpoint_from(text, reactor=reactor)) for text in config.relay.listen
        ]
        self._ports: list[IListeningPort] = []
        self._hurried = False
        self._cut: IDelayedCall | None = None
        self.relay_service = RelayService(config, reactor=reactor)
        self._access_log: AccessLog | None = None
        self._flush: Loop | None = None
        if config.relay.access_log is not None:
            self._access_log = AccessLog(config.relay.access_log, wall_clock=wall_clock)
            self._flush = Loop("access log", FLUSH_INTERVAL, self._access_log.flush, clock=reactor)
        self._front = Front(
            self.relay_service.relay,
            max_body=config.relay.max_body,
            clock=reactor,
            wall_clock=wall_clock,
            access_log=self._access_log,
        )

    def privilegedStartService(self) -> None:
        """Open the access log and the listeners."""
        super().privilegedStartService()
        if self._access_log is not None:
            try:
                self._access_log.open()
            except OSError as error:
                raise ConfigError.of(
                    "--access-log", self._config.relay.access_log, f"a writable file ({error})"
                ) from error
        for text, endpoint in self._endpoints:
            self._listen(text, endpoint)

    def startService(self) -> None:
        """Start the relay, and say what is in force."""
        super().startService()
        self.relay_service.startService()
        if self._flush is not None:
            self._flush.start()
        self._log.info(
            "queuerelay {version}, relay {relay}: Redis {redis}, limits: {limits}",
            version=__version__,
            relay=self.relay_service.relay.id,
            redis=url.parse(self._config.redis).redacted,
            limits=", ".join(f"{name} {value}" for name, value in describe(self._config)),
        )

    def stopService(self) -> Deferred[None]:
        """Stop listening, drain, stop; fires when nothing is left running."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._log.info(
            "stopping: {held} requests are held, at most {drain:g} s for them",
            held=self.relay_service.relay.snapshot().held,
            drain=self._config.relay.drain,
        )
        began = self._reactor.seconds()
        for port in self._ports:
            try:
                await _stop_listening(port)
            except Exception:
                self._log.failure("a listener could not be closed")
        self._front.drain()
        await self.relay_service.stopService()
        await self._last_answers(began + self._config.relay.drain)
        if self._flush is not None and self._access_log is not None:
            await self._flush.stop()
            self._access_log.close()
        self._log.info("stopped")

    async def _last_answers(self, until: float) -> None:
        """Let clients read what was written for them; the reactor would cut it off."""
        rest = LAST_ANSWERS if self._hurried else max(LAST_ANSWERS, until - self._reactor.seconds())
        self._cut = self._reactor.callLater(rest, self._front.abort)
        await self._front.closed()
        if self._cut.active():
            self._cut.cancel()

    def hurry(self) -> None:
        """Cut the drain short: what is still held is answered 503."""
        self._hurried = True
        self.relay_service.hurry()
        if self._cut is not None and self._cut.active():
            self._cut.reset(LAST_ANSWERS)

    def _listen(self, text: str, endpoint: IStreamServerEndpoint) -> None:
        failures: list[Failure] = []

        def failed(failure: Failure) -> None:
            failures.append(failure)
            # Twisted's own endpoints say so at once; others may come to it later.
            if late:
                self._log.critical("cannot listen on {endpoint}", endpoint=text, failure=failure)

        late = False
        listening = endpoint.listen(self._front)
        listening.addCallbacks(self._ports.append, failed)
        late = True
        if failures:
            raise CannotListen(f"--listen {text}: {failures[0].getErrorMessage()}")


def check(config: Config, *, reactor: Any) -> None:
    """Whether `config` could be run, as far as that shows without running it: `ConfigError`."""
    for text in config.relay.listen:
        endpoint_from(text, reactor=reactor)
    if url.parse(config.redis).kind == "embedded":
        find_server()


def endpoint_from(text: str, *, reactor: Any) -> IStreamServerEndpoint:
    """The endpoint that `text` describes; `ConfigError` where it describes none."""
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, text)
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ConfigError.of(
            "--listen", text, f"an endpoint such as tcp:8000 ({reason})"
        ) from error
    return endpoint


def _stop_listening(port: IListeningPort) -> Deferred[Any]:
    stopped = port.stopListening()
    return stopped if isinstance(stopped, Deferred) else succeed(None)


def _as_text(value: object) -> object:
    """A keyword's value as the command line would have it."""
    if isinstance(value, list | tuple):
        return [str(one) for one in value]
    return None if value is None else str(value)
