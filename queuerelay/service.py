"""The composition root: read from top to bottom, it is the architecture.

`RelayService` is the relay, `PoolService` the pools of worker scripts, `StatusService` the status
room, each with a broker of its own as an `IService` for any Twisted application; the ``resource``
of the first and the last is to be mounted anywhere.
`Daemon` is what ``twistd queuerelay`` runs: those of them that its roles name, on one broker, the
relay behind listeners of its own.

This module imports txredisapi and with it the global reactor.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.resource import IResource, Resource

from queuerelay import __version__
from queuerelay.broker.backend import Backend, Given
from queuerelay.broker.base import Broker
from queuerelay.broker.embedded import find_server
from queuerelay.config import Config, describe, load
from queuerelay.http.error_pages import load_pages
from queuerelay.http.forwarded import Trust
from queuerelay.http.site import Site
from queuerelay.pool.pools import Pools, check_command
from queuerelay.relay.limits import client_limits
from queuerelay.relay.listeners import Listeners, endpoints
from queuerelay.relay.relay import Relay
from queuerelay.relay.resource import RelayResource
from queuerelay.status.listener import StatusListener, endpoint_from
from queuerelay.status.resource import StatusResource
from queuerelay.status.status import Status
from queuerelay.wire import url

_log = Logger()

#: Seconds that leaving the list of nodes may take at shutdown; Redis may be away.
LEAVE_BOUND = 2.0


def _backend(config: Config, reactor: Any, broker: Broker | None) -> Backend | Given:
    if broker is not None:
        return Given(broker)
    return Backend(config.redis, prefix=config.prefix, reactor=reactor)


class RelayService(Service):
    """The relay and its broker as one service.

    `reactor` is the one that the application runs on. Without `broker` the one that `config` names
    is used; a test may give a `queuerelay.testing.MemoryBroker`.
    """

    name = "queuerelay"
    _log = Logger()

    def __init__(self, config: Config, *, reactor: Any, broker: Broker | None = None) -> None:
        self._config = config
        self._reactor = reactor
        self._backend = _backend(config, reactor, broker)
        self.relay = Relay(config.relay, self._backend.broker, prefix=config.prefix, clock=reactor)
        #: To be mounted anywhere in a twisted.web Site.
        self.resource: Resource = _resource(config, self.relay)

    def site(self, resource: IResource, **options: Any) -> Site:
        """A Site for `resource` that treats clients as the daemon does, by the limits of the
        configuration: where the relay's Resource is among its own. `options` are those of
        twisted.web's Site.
        """
        relay = self._config.relay
        return Site(
            resource,
            limits=client_limits(relay),
            max_bodies=relay.max_held_bytes,
            reactor=self._reactor,
            **options,
        )

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
        self._backend.start()
        self.relay.start()

    def stopService(self) -> Deferred[None]:
        """Let held requests end within the drain time; fires when nothing is left running."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await _stop_relay(self.relay, self._reactor)
        await self._backend.stop()

    def hurry(self) -> None:
        """Cut the drain short: what is still held is answered 503."""
        self.relay.hurry()


class PoolService(Service):
    """The pools of a configuration and their broker as one service."""

    name = "queuerelay-pools"

    def __init__(self, config: Config, *, reactor: Any, broker: Broker | None = None) -> None:
        self._drain = config.relay.drain
        self._backend = _backend(config, reactor, broker)
        self.pools = Pools(config.pools, self._backend.broker, reactor=reactor)

    def startService(self) -> None:
        """Start everything; Redis may come later. `ConfigError` where a command is not there."""
        self.pools.check()
        super().startService()
        self._backend.start()
        self.pools.start()

    def stopService(self) -> Deferred[None]:
        """Let scripts end within the drain time; fires when nothing is left running."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self.pools.stop(self._drain)
        await self._backend.stop()

    def hurry(self) -> None:
        """Cut the drain short: what still runs is ended."""
        self.pools.hurry()

    def roll(self) -> Deferred[None]:
        """Replace resident workers one by one; fires when it is over."""
        return self.pools.roll()


class StatusService(Service):
    """The status room and its broker as one service, for an application's own site.

    `hosts` are the names under which that site may ask it beside addresses and localhost; None for
    any, where the site itself sees to that.
    """

    name = "queuerelay-status"

    def __init__(
        self,
        config: Config,
        *,
        reactor: Any,
        hosts: Collection[str] | None = (),
        broker: Broker | None = None,
    ) -> None:
        self._backend = _backend(config, reactor, broker)
        address = url.parse(config.redis).place
        self.status = Status(
            self._backend.broker,
            address=address,
            clock=reactor,
            credentials=config.status.credentials,
        )
        #: To be mounted anywhere in a twisted.web Site.
        self.resource: Resource = StatusResource(self.status, hosts=hosts)

    @classmethod
    def with_options(
        cls, *, reactor: Any, hosts: Collection[str] | None = (), **options: object
    ) -> "StatusService":
        """The service with the command line's options as keywords: ``redis="localhost"``. Raises
        `ConfigError`.
        """
        given = {name.replace("_", "-"): _as_text(value) for name, value in options.items()}
        return cls(load(None, given), reactor=reactor, hosts=hosts)

    def startService(self) -> None:
        """Start everything; Redis may come later."""
        super().startService()
        self._backend.start()
        self.status.start()

    def stopService(self) -> Deferred[None]:
        """Fires when nothing is left running."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self.status.stop()
        await self._backend.stop()


class Daemon(Service):
    """What ``twistd queuerelay`` runs.

    Endpoints are opened in `privilegedStartService`, so that a port below 1024 works before the
    process gives up its privileges; `CannotListen` where one cannot be opened.
    """

    name = "queuerelay"
    _log = Logger()

    def __init__(self, config: Config, *, reactor: Any) -> None:
        self._config = config
        self._reactor = reactor
        self._stopping = False
        self._backend = _backend(config, reactor, None)
        broker = self._backend.broker
        self.relay: Relay | None = None
        self._listeners: Listeners | None = None
        if "relay" in config.role:
            self.relay = Relay(config.relay, broker, prefix=config.prefix, clock=reactor)
            self._listeners = Listeners(config.relay, self.relay, reactor=reactor)
        self.pools: Pools | None = None
        if "pool" in config.role:
            self.pools = Pools(config.pools, broker, reactor=reactor)
        self.status: Status | None = None
        self._status_listener: StatusListener | None = None
        if "status" in config.role and config.status.listen is not None:
            self.status = self._made_status(config)
            resource = StatusResource(self.status, hosts=config.status.hosts)
            self._status_listener = StatusListener(
                config.status.listen,
                resource,
                trust=Trust(config.relay.trusted_proxies, config.relay.proxy_fields),
                reactor=reactor,
            )

    def _made_status(self, config: Config) -> Status:
        parts = [part for part in (self.relay, self.pools) if part is not None]
        return Status(
            self._backend.broker,
            address=url.parse(config.redis).place,
            clock=self._reactor,
            local=[part.published for part in parts],
            loops=[part.loops for part in parts],
            draining=lambda: self._stopping,
            holder=self.relay,
            credentials=config.status.credentials,
        )

    def privilegedStartService(self) -> None:
        """Open the access log and the listeners."""
        super().privilegedStartService()
        if self._listeners is not None:
            self._listeners.open()
        if self._status_listener is not None:
            self._status_listener.open()

    def startService(self) -> None:
        """Start what the roles name, and say what is in force.

        Raises `ConfigError` where a pool's command is not there: here, where the working directory
        and the user are those that its scripts will have.
        """
        if self.pools is not None:
            self.pools.check()
        super().startService()
        self._backend.start()
        if self.relay is not None and self._listeners is not None:
            self.relay.start()
            self._listeners.start()
            relay = replace(self._config.relay, max_connections=self._listeners.max_connections)
            in_force = replace(self._config, relay=relay)
            self._log.info(
                "queuerelay {version}, relay {relay}: Redis {redis}, limits: {limits}",
                version=__version__,
                relay=self.relay.id,
                redis=url.parse(self._config.redis).redacted,
                limits=", ".join(f"{name} {value}" for name, value in describe(in_force)),
            )
        if self.pools is not None:
            self.pools.start()
            for pool in self._config.pools:
                self._log.info(
                    "pool {pool}: {size} x {command}, queues {queues}, Redis {redis}",
                    pool=pool.name,
                    size=pool.size if pool.min == pool.max else f"{pool.min} to {pool.max}",
                    command=" ".join(pool.command),
                    queues=",".join(pool.queues) or "its own",
                    redis=url.parse(self._config.redis).redacted,
                )
        if self.status is not None:
            self.status.start()
            self._log.info("status at {endpoint}", endpoint=self._config.status.listen)

    def stopService(self) -> Deferred[None]:
        """Stop listening, drain, stop; fires when nothing is left running."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._stopping = True
        drain = self._config.relay.drain
        began = self._reactor.seconds()
        if self.relay is not None and self._listeners is not None:
            self._log.info(
                "stopping: {held} requests are held, at most {drain:g} s for them",
                held=self.relay.snapshot().held,
                drain=drain,
            )
            await self._listeners.close()
            # The pools of this very process may be those that answer.
            await _stop_relay(self.relay, self._reactor)
            await self._listeners.finish()
        if self.pools is not None:
            await self.pools.stop(max(0.0, drain - (self._reactor.seconds() - began)))
        # The last to go: it shows how the others stop.
        if self._status_listener is not None:
            await self._status_listener.close()
        if self.status is not None:
            await self.status.stop()
        await self._backend.stop()
        self._log.info("stopped")

    def hurry(self) -> None:
        """Cut the drain short: what is held is answered 503, and scripts are ended."""
        if self.relay is not None and self._listeners is not None:
            self._listeners.hurry()
            self.relay.hurry()
        if self.pools is not None:
            self.pools.hurry()

    def reopen(self) -> None:
        """Go on in a new access log: the old one has been renamed."""
        if self._listeners is not None:
            self._listeners.reopen()

    def reload(self) -> None:
        """Reopen the access log, read the pages for errors again, and replace resident workers."""
        self._log.info("reloading")
        if self._listeners is not None:
            self._listeners.reopen()
            self._listeners.reload()
        if self.pools is not None:
            self.pools.roll().addErrback(
                lambda failure: self._log.failure("a rolling restart failed", failure)
            )


def check(config: Config, *, reactor: Any) -> None:
    """Whether `config` could be run, as far as that shows without running it: `ConfigError`."""
    if "relay" in config.role:
        endpoints(config.relay.listen, reactor=reactor)
        if config.relay.error_pages is not None:
            load_pages(config.relay.error_pages)
    if "pool" in config.role:
        for pool in config.pools:
            check_command(pool)
    if "status" in config.role and config.status.listen is not None:
        endpoint_from(config.status.listen, reactor=reactor)
    if url.parse(config.redis).kind == "embedded":
        find_server()


def _resource(config: Config, relay: Relay) -> RelayResource:
    relayed = config.relay
    resource = RelayResource(relay, max_body=relayed.max_body, server_timing=relayed.server_timing)
    if relayed.error_pages is not None:
        resource.pages = load_pages(relayed.error_pages)
    return resource


async def _stop_relay(relay: Relay, reactor: Any) -> None:
    await relay.drain()
    try:
        await relay.stop().addTimeout(LEAVE_BOUND, reactor)
    except Exception as error:
        _log.warn("the relay did not leave properly: {reason}", reason=str(error))


def _as_text(value: object) -> object:
    """A keyword's value as the command line would have it."""
    if isinstance(value, list | tuple):
        return [str(one) for one in value]
    return None if value is None else str(value)
