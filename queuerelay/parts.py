"""The parts of a daemon: a class for each of them, and the service that runs them.

Invariants:

1. Parts are opened and started in the order of their list, and end in the reverse of it, one after
   the other: what a part needs stands before it.
2. No part is started before all have been checked.
3. The drain time is one for all parts: it begins with the stop of the service, and what one part
   took of it the next does not have.

This module imports txredisapi and with it the global reactor.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Self

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from queuerelay import __version__
from queuerelay.broker.backend import Backend, Given
from queuerelay.broker.base import Broker
from queuerelay.clocks import on_wall_clock
from queuerelay.config import Config, describe, load
from queuerelay.http.forwarded import Trust
from queuerelay.pool.pools import Pools
from queuerelay.redact import redact_command
from queuerelay.relay.listeners import Listeners
from queuerelay.relay.relay import Relay
from queuerelay.status.listener import StatusListener
from queuerelay.status.resource import StatusResource
from queuerelay.status.status import Access, Status, ThisProcess
from queuerelay.wire import url
from queuerelay.wire.keys import Keys

#: Seconds that leaving the list of nodes may take at shutdown; Redis may be away.
LEAVE_BOUND: Final = 2.0


class Part:
    """A part of a service; each method is called once, but `hurry`, `reopen` and `reload`."""

    def open(self) -> None:
        """Open what needs privileges; raises `ConfigError` or `CannotListen`."""

    def hand_over(self, user: int, group: int) -> None:
        """Give what was opened to the user that the process is about to become; -1 for no other."""

    def check(self) -> None:
        """Raise `ConfigError` where the part could not be started now: with the working directory
        and the user that the process goes on with.
        """

    def start(self) -> None:
        """Begin to work; Redis may come later."""

    def stopping(self) -> None:
        """The service begins to stop; `stop` comes when those after this part have stopped."""

    async def stop(self, until: float) -> None:
        """End the part; returns when nothing is left running. The drain time is over at `until`, in
        the reactor's seconds.
        """

    def hurry(self) -> None:
        """Cut the drain time short, also where `stop` is yet to come."""

    def reopen(self) -> None:
        """Go on in new log files: the old files have other names now."""

    def reload(self) -> None:
        """Reopen, and take over what has changed in files and programs."""


class ServiceOfParts(Service):
    """A broker and what works with it, as one service; whoever makes one adds its parts.

    `reactor` is the one that the application runs on. Without `broker` the one that `config` names
    is used; a test may give a `queuerelay.testing.MemoryBroker`.
    """

    _log = Logger()

    def __init__(self, config: Config, *, reactor: Any, broker: Broker | None = None) -> None:
        backend = BackendPart(config, reactor=reactor, broker=broker)
        #: Parts in the order in which they are started.
        self._parts: list[Part] = [backend]
        self._broker = backend.broker
        #: URL of Redis for processes of ours, with its password; None where it is in memory.
        self._address = backend.address
        self._drain = config.relay.drain
        self._reactor = reactor
        #: Whether the service has begun to stop.
        self.stopping = False

    @classmethod
    def with_options(cls, *, reactor: Any, **options: Any) -> Self:
        """The service with the command line's options as keywords: ``redis="localhost"``,
        ``deadline=20``, ``max_held=500``. Raises `ConfigError`.
        """
        return cls(of_keywords(options), reactor=reactor)

    def privilegedStartService(self) -> None:
        """Open what needs privileges; raises `ConfigError` or `CannotListen`."""
        super().privilegedStartService()
        for part in self._parts:
            part.open()

    def startService(self) -> None:
        """Start everything; Redis may come later.

        Raises `ConfigError` where a pool's command is not there: here, where the working directory
        and the user are those that its scripts will have.
        """
        for part in self._parts:
            part.check()
        if on_wall_clock(self._reactor):
            self._log.warn(
                "the reactor's timers go by the wall clock: where that is set, requests and jobs "
                "stand still or run into their time-outs; queuerelay.clocks.use_monotonic mends it"
            )
        super().startService()
        for part in self._parts:
            part.start()

    def stopService(self) -> Deferred[None]:
        """Let what is under way end within the drain time; fires when nothing is left running."""
        super().stopService()
        for part in self._parts:
            part.stopping()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.stopping = True
        until = self._reactor.seconds() + self._drain
        for part in reversed(self._parts):
            await part.stop(until)

    def hurry(self) -> None:
        """Cut the drain time short: what is held is answered 503, and scripts are ended."""
        for part in reversed(self._parts):
            part.hurry()


class BackendPart(Part):
    """The broker, and the server where that is ours."""

    def __init__(self, config: Config, *, reactor: Any, broker: Broker | None = None) -> None:
        self._backend: Backend | Given
        if broker is None:
            keys = Keys(prefix=config.prefix, results=config.reply_prefix)
            self._backend = Backend(config.redis, keys=keys, reactor=reactor)
        else:
            self._backend = Given(broker)
        self.broker: Broker = self._backend.broker
        self.address = self._backend.address

    def start(self) -> None:
        """Begin to connect."""
        self._backend.start()

    async def stop(self, until: float) -> None:
        """Disconnect; the server ends."""
        await self._backend.stop()


class RelayPart(Part):
    """The relay, behind whatever front the application has."""

    _log = Logger()

    def __init__(self, config: Config, broker: Broker, *, reactor: Any) -> None:
        self._reactor = reactor
        self.relay = Relay(
            config.relay, broker, prefix=config.prefix, clock=reactor, kept=config.failed
        )

    def start(self) -> None:
        """Begin to hold and to answer."""
        self.relay.start()

    async def stop(self, until: float) -> None:
        """Let held requests end, and leave the list of nodes."""
        await self.relay.drain()
        try:
            await self.relay.stop().addTimeout(LEAVE_BOUND, self._reactor)
        except Exception as error:
            self._log.warn("the relay did not leave properly: {reason}", reason=str(error))

    def hurry(self) -> None:
        """Answer 503 to every request that is still held."""
        self.relay.hurry()


class ListeningRelay(RelayPart):
    """The relay behind listeners of its own, with its access log."""

    def __init__(self, config: Config, broker: Broker, *, reactor: Any) -> None:
        super().__init__(config, broker, reactor=reactor)
        self._config = config
        self._listeners = Listeners(
            config.relay, self.relay, reactor=reactor, log_format=config.log_format
        )

    def open(self) -> None:
        """Open the listeners."""
        self._listeners.open()

    def hand_over(self, user: int, group: int) -> None:
        """Give Unix sockets to the user that the process is about to become."""
        self._listeners.hand_over(user, group)

    def check(self) -> None:
        """Open the access log: now, so that it belongs to the user that goes on in a new one."""
        self._listeners.open_log()

    def start(self) -> None:
        """Begin to serve, and log the limits in force."""
        super().start()
        self._listeners.start()
        relay = replace(self._config.relay, max_connections=self._listeners.max_connections)
        self._log.info(
            "queuerelay {version}, relay {relay}: Redis {redis}, limits: {limits}",
            version=__version__,
            relay=self.relay.id,
            redis=url.parse(self._config.redis).redacted,
            limits=", ".join(
                f"{name} {value}" for name, value in describe(replace(self._config, relay=relay))
            ),
        )

    async def stop(self, until: float) -> None:
        """Take no more connections, let held requests end, and let clients read their answers."""
        self._log.info(
            "stopping: {held} requests are held, at most {drain:g} s for them",
            held=self.relay.snapshot().held,
            drain=self._config.relay.drain,
        )
        await self._listeners.close()
        await super().stop(until)
        await self._listeners.finish()

    def hurry(self) -> None:
        """Answer 503 to every held request, and cut off clients that read slowly."""
        self._listeners.hurry()
        super().hurry()

    def reopen(self) -> None:
        """Go on in a new access log."""
        self._listeners.reopen()

    def reload(self) -> None:
        """Reopen the access log, and read the pages for errors again."""
        self._listeners.reopen()
        self._listeners.reload()


class PoolsPart(Part):
    """The pools of the configuration."""

    _log = Logger()

    def __init__(
        self, config: Config, broker: Broker, *, reactor: Any, address: str | None = None
    ) -> None:
        self._config = config
        self._reactor = reactor
        self.pools = Pools(
            config.pools, broker, reactor=reactor, address=address, kept=config.failed
        )

    def check(self) -> None:
        """Raise `ConfigError` where a pool's command is not there."""
        self.pools.check()

    def start(self) -> None:
        """Begin to work, and log what each pool does."""
        self.pools.start()
        for pool in self._config.pools:
            self._log.info(
                "pool {pool}: {size} x {command}, queues {queues}, Redis {redis}",
                pool=pool.name,
                size=pool.size if pool.min == pool.max else f"{pool.min} to {pool.max}",
                command=redact_command(pool.command),
                queues=",".join(pool.queues) or "its own",
                redis=url.parse(self._config.redis).redacted,
            )

    def stopping(self) -> None:
        """Take the end of a script for the stop's doing from now on: the relay drains before."""
        self.pools.stopping()

    async def stop(self, until: float) -> None:
        """Let scripts end within the rest of the drain time."""
        await self.pools.stop(max(0.0, until - self._reactor.seconds()))

    def hurry(self) -> None:
        """End the scripts that still run."""
        self.pools.hurry()

    def reload(self) -> None:
        """Replace resident workers one by one."""
        self.pools.roll().addErrback(
            lambda failure: self._log.failure("a rolling restart failed", failure)
        )


class StatusPart(Part):
    """The status room, on whatever site the application has.

    `process` is what it shows of this process without asking Redis.
    """

    _log = Logger()

    def __init__(
        self,
        config: Config,
        broker: Broker,
        *,
        reactor: Any,
        process: ThisProcess | None = None,
    ) -> None:
        self.status = Status(
            broker,
            address=url.parse(config.redis).place,
            clock=reactor,
            process=process or ThisProcess(),
            access=Access(
                credentials=config.status.credentials,
                private=config.status.readers == "credentials",
            ),
        )

    def start(self) -> None:
        """Begin to collect."""
        self.status.start()

    async def stop(self, until: float) -> None:
        """Collect no more."""
        await self.status.stop()


class ListeningStatus(StatusPart):
    """The status room behind a listener of its own, at `endpoint`."""

    def __init__(
        self,
        config: Config,
        broker: Broker,
        *,
        endpoint: str,
        reactor: Any,
        process: ThisProcess,
    ) -> None:
        super().__init__(config, broker, reactor=reactor, process=process)
        self._endpoint = endpoint
        self._listener = StatusListener(
            endpoint,
            StatusResource(self.status, hosts=config.status.hosts),
            trust=Trust(config.relay.trusted_proxies, config.relay.proxy_fields),
            reactor=reactor,
        )

    def open(self) -> None:
        """Open the listener."""
        self._listener.open()

    def hand_over(self, user: int, group: int) -> None:
        """Give a Unix socket to the user that the process is about to become."""
        self._listener.hand_over(user, group)

    def start(self) -> None:
        """Begin to collect, and log the place of the listener."""
        super().start()
        self._log.info("status at {endpoint}", endpoint=self._endpoint)

    async def stop(self, until: float) -> None:
        """Close the listener, and collect no more."""
        await self._listener.close()
        await super().stop(until)


def of_keywords(options: Mapping[str, object]) -> Config:
    """The configuration for the command line's options as keywords. Raises `ConfigError`."""
    return load(None, {name.replace("_", "-"): _as_text(value) for name, value in options.items()})


def _as_text(value: object) -> object:
    """The value of a keyword as the command line would have it."""
    if isinstance(value, list | tuple):
        return [str(one) for one in value]
    return None if value is None else str(value)
