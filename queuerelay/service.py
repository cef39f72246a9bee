"""The composition root: read from top to bottom, it is the architecture.

`RelayService` is the relay, `PoolService` the pools of worker scripts, `StatusService` the status
room, each with a broker of its own as an `IService` for any Twisted application; the ``resource``
of the first and the last is to be mounted anywhere.
`Daemon` is what ``twistd queuerelay`` runs: those of them that its roles name, on one broker, the
relay and the status room behind listeners of their own. What each part does at start and stop is
in `queuerelay.parts`.

This module imports txredisapi and with it the global reactor.
"""

from collections.abc import Collection
from typing import Any, Self

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.resource import IResource, Resource

from queuerelay.broker.base import Broker
from queuerelay.broker.embedded import find_server
from queuerelay.config import Config
from queuerelay.http.error_pages import load_pages
from queuerelay.http.site import Site
from queuerelay.parts import (
    ListeningRelay,
    ListeningStatus,
    PoolsPart,
    RelayPart,
    ServiceOfParts,
    StatusPart,
    of_keywords,
)
from queuerelay.pool.pools import check_command
from queuerelay.relay.limits import client_limits
from queuerelay.relay.listeners import check_log, endpoints
from queuerelay.relay.probe import Probe
from queuerelay.relay.relay import Relay
from queuerelay.relay.resource import RelayResource
from queuerelay.status.credentials import check_credentials
from queuerelay.status.listener import endpoint_from
from queuerelay.status.resource import StatusResource
from queuerelay.status.status import ThisProcess
from queuerelay.wire import url


class Daemon(ServiceOfParts):
    """What ``twistd queuerelay`` runs.

    Endpoints are opened in `privilegedStartService`, so that a port below 1024 works before the
    process gives up its privileges; `CannotListen` where one cannot be opened.
    """

    name = "queuerelay"
    _log = Logger()

    def __init__(self, config: Config, *, reactor: Any) -> None:
        super().__init__(config, reactor=reactor)
        broker = self._broker
        relay = pools = status = None
        if "relay" in config.role:
            relay = ListeningRelay(config, broker, reactor=reactor)
        if "pool" in config.role:
            pools = PoolsPart(config, broker, reactor=reactor, address=self._address)
        if "status" in config.role and config.status.listen is not None:
            process = ThisProcess(
                parts=[
                    *([relay.relay] if relay is not None else []),
                    *([pools.pools] if pools is not None else []),
                ],
                draining=lambda: self.stopping,
                probe=None if relay is None else Probe(relay.relay, clock=reactor),
            )
            status = ListeningStatus(
                config, broker, endpoint=config.status.listen, reactor=reactor, process=process
            )
        # They end the other way round. The relay first: pools of this very process may be those
        # that answer. The status room after both: it shows how they stop.
        self._parts += [part for part in (status, pools, relay) if part is not None]

    async def _stop(self) -> None:
        await super()._stop()
        self._log.info("stopped")

    def hand_over(self, user: int, group: int) -> None:
        """Give what was opened to the user that the process becomes."""
        for part in self._parts:
            part.hand_over(user, group)

    def reopen(self) -> None:
        """Go on in a new access log: the old one has been renamed."""
        for part in reversed(self._parts):
            part.reopen()

    def reload(self) -> None:
        """Reopen the access log, read the pages for errors again, and replace resident workers."""
        self._log.info("reloading")
        for part in reversed(self._parts):
            part.reload()


class RelayService(ServiceOfParts):
    """The relay and its broker as one service."""

    name = "queuerelay"

    def __init__(self, config: Config, *, reactor: Any, broker: Broker | None = None) -> None:
        super().__init__(config, reactor=reactor, broker=broker)
        part = RelayPart(config, self._broker, reactor=reactor)
        self._parts.append(part)
        self._config = config
        self.relay: Relay = part.relay
        #: The resource, to be mounted anywhere in a twisted.web Site.
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


class PoolService(ServiceOfParts):
    """The pools of a configuration and their broker as one service."""

    name = "queuerelay-pools"

    def __init__(self, config: Config, *, reactor: Any, broker: Broker | None = None) -> None:
        super().__init__(config, reactor=reactor, broker=broker)
        part = PoolsPart(config, self._broker, reactor=reactor, address=self._address)
        self._parts.append(part)
        self.pools = part.pools

    def roll(self) -> Deferred[None]:
        """Replace resident workers one by one; fires when it is over."""
        return self.pools.roll()


class StatusService(ServiceOfParts):
    """The status room and its broker as one service, for an application's own site.

    `hosts` are the names under which the site may be asked beside addresses and localhost; None for
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
        super().__init__(config, reactor=reactor, broker=broker)
        part = StatusPart(config, self._broker, reactor=reactor)
        self._parts.append(part)
        self.status = part.status
        #: The resource, to be mounted anywhere in a twisted.web Site.
        self.resource: Resource = StatusResource(self.status, hosts=hosts)

    @classmethod
    def with_options(
        cls, *, reactor: Any, hosts: Collection[str] | None = (), **options: Any
    ) -> Self:
        """The service by the command line's options as keywords, and `hosts` beside them."""
        return cls(of_keywords(options), reactor=reactor, hosts=hosts)


def check(config: Config, *, reactor: Any) -> None:
    """Raise `ConfigError` where `config` could not be run, as far as that shows without a run."""
    if "relay" in config.role:
        endpoints(config.relay.listen, reactor=reactor)
        if config.relay.error_pages is not None:
            load_pages(config.relay.error_pages)
        if config.relay.access_log is not None:
            check_log(config.relay.access_log)
    if "pool" in config.role:
        for pool in config.pools:
            check_command(pool)
    if "status" in config.role and config.status.listen is not None:
        endpoint_from(config.status.listen, reactor=reactor)
        if config.status.credentials is not None:
            check_credentials(config.status.credentials)
    if url.parse(config.redis).kind == "embedded":
        find_server()


def _resource(config: Config, relay: Relay) -> RelayResource:
    relayed = config.relay
    resource = RelayResource(relay, max_body=relayed.max_body, server_timing=relayed.server_timing)
    if relayed.error_pages is not None:
        resource.pages = load_pages(relayed.error_pages)
    return resource
