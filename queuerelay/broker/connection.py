"""A connection to Redis that is always being made, until it is told to stop.

The loop is our own instead of `ClientService`, which raises ``NoTransition`` into the log when a
connection drops while it is still being prepared, and reports every single attempt.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, succeed
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.internet.task import deferLater
from twisted.logger import Logger

from queuerelay.broker import scripts
from queuerelay.broker.protocol import COMMAND_BOUND, Answer, RedisProtocol
from queuerelay.broker.url import RedisUrl
from queuerelay.errors import BrokerError, NotConnected, Refused, Unusable

#: Oldest server that has what we use: flags on scripts, EXPIRE NX. Valkey 7.2 says 7.2.
OLDEST_VERSION: Final = (7, 0)
#: First and longest pause between two attempts, in seconds, before jitter.
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
#: Seconds that making and preparing a connection may take.
CONNECT_BOUND: Final = 5.0
#: Seconds between two lines in the log about the same outage.
TELL_EVERY: Final = 30.0


def pause(attempt: int) -> float:
    """Seconds to wait after the failed `attempt`, from 1: doubled each time, half of it jitter."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempt - 1, 16))
    return longest * (0.5 + random.random() / 2)


def endpoint_for(url: RedisUrl, reactor: IReactorTime) -> IStreamClientEndpoint:
    """How to reach `url`; certificates are verified, against ``ssl_ca_certs`` where given."""
    if url.kind == "unix":
        return UNIXClientEndpoint(reactor, url.path, timeout=int(CONNECT_BOUND))
    endpoint = HostnameEndpoint(reactor, url.host, url.port, timeout=int(CONNECT_BOUND))
    if url.kind != "tls":
        return endpoint
    trust = None
    if url.ca_file is not None:
        pem = Path(url.ca_file).read_text("ascii")
        end = "-----END CERTIFICATE-----"
        trust = trustRootFromCertificates(
            [Certificate.loadPEM(part + end) for part in pem.split(end)[:-1]]
        )
    return wrapClientTLS(optionsForClientTLS(url.host, trustRoot=trust), endpoint)


class OutageLog:
    """Says that Redis is away: once at once, then now and then, and when it is over.

    One for all connections of a process, so that an outage is told once.
    """

    _log = Logger()

    def __init__(self, address: str, clock: IReactorTime) -> None:
        self._address = address
        self._clock = clock
        self._down: set[str] = set()
        self._since = 0.0
        self._told: dict[str, float] = {}

    def down(self, name: str, reason: str) -> None:
        """The connection `name` could not be made, or was lost."""
        now = self._clock.seconds()
        if not self._down:
            self._since = now
            self._told.clear()
        self._down.add(name)
        last = self._told.get(reason)
        if (last is None and len(self._told) < 16) or (
            last is not None and now - last >= TELL_EVERY
        ):
            self._told[reason] = now
            self._log.warn(
                "no connection to Redis at {address}: {reason}; trying again",
                address=self._address,
                reason=reason,
                connection=name,
            )

    def up(self, name: str, version: str) -> None:
        """The connection `name` is ready."""
        was_down = name in self._down
        self._down.discard(name)
        if was_down and not self._down:
            self._log.info(
                "connected to Redis {version} at {address} again after {seconds:.1f} s",
                version=version,
                address=self._address,
                seconds=self._clock.seconds() - self._since,
            )


class RedisConnection:
    """Keeps one prepared connection to a master of a known version, whatever happens to it.

    `name` shows in ``CLIENT LIST``.
    """

    _log = Logger()

    def __init__(
        self,
        url: RedisUrl,
        *,
        name: str,
        reactor: IReactorTime,
        outages: OutageLog,
    ) -> None:
        self._url = url
        self._name = name
        self._reactor = reactor
        self._outages = outages
        #: Called each time that the connection is ready.
        self.on_up: Callable[[], object] = lambda: None
        self._protocol: RedisProtocol | None = None
        self._shas: dict[str, str] = {}
        self._loop: Deferred[None] | None = None
        self._waiters: list[Deferred[None]] = []
        self._stopping = False
        #: Clock seconds at which the connection was last known to be down, None while it is up.
        self.down_since: float | None = reactor.seconds()
        #: How often a connection that had been ready was lost.
        self.losses = 0

    @property
    def is_up(self) -> bool:
        """Whether commands can be sent now."""
        return self._protocol is not None

    def start(self) -> None:
        """Begin to connect, and never stop trying."""
        self._stopping = False
        self._loop = Deferred.fromCoroutine(self._keep())

    def stop(self) -> Deferred[None]:
        """Close the connection; fires when nothing of it is left."""
        self._stopping = True
        self._release(NotConnected("stopping"))
        if self._loop is None:
            return succeed(None)
        loop, self._loop = self._loop, None
        ended: Deferred[None] = Deferred()
        loop.addBoth(lambda _: ended.callback(None))
        if self._protocol is not None:
            self._protocol.transport.loseConnection()
            # A peer that never closes its side must not keep us.
            late = self._reactor.callLater(1.0, self._protocol.transport.abortConnection)
            ended.addBoth(lambda result: (late.active() and late.cancel(), result)[1])
        else:
            loop.cancel()
        return ended

    def drop(self) -> None:
        """Abort the connection; it is made anew at once."""
        if self._protocol is not None:
            self._protocol.drop("dropped")

    def when_up(self) -> Deferred[None]:
        """Fires when commands can be sent; fails with `NotConnected` when stopped. May be
        cancelled.
        """
        if self.is_up:
            return succeed(None)
        if self._stopping:
            return fail(NotConnected("stopping"))

        def forget(waiter: Deferred[None]) -> None:
            self._waiters.remove(waiter)

        waiter: Deferred[None] = Deferred(forget)
        self._waiters.append(waiter)
        return waiter

    def call(self, *args: object, bound: float = COMMAND_BOUND) -> Deferred[Answer]:
        """One command, refused at once with `NotConnected` while there is no connection."""
        if self._protocol is None:
            return fail(NotConnected(self._url.redacted))
        return self._protocol.call(*args, bound=bound)

    def pipeline(
        self, *commands: Sequence[object], bound: float = COMMAND_BOUND
    ) -> Deferred[list[Answer]]:
        """Several commands in one round trip; errors come as values among the answers."""
        if self._protocol is None:
            return fail(NotConnected(self._url.redacted))
        return self._protocol.pipeline(*commands, bound=bound)

    def script(self, name: str, keys: Sequence[str], args: Sequence[object]) -> Deferred[Answer]:
        """One of our Lua scripts, with its KEYS and ARGV."""
        if self._protocol is None:
            return fail(NotConnected(self._url.redacted))
        answer = self._protocol.call(*self.script_call(name, keys, args))

        def reload(failure: object) -> Deferred[Answer]:
            error = getattr(failure, "value", None)
            if not (isinstance(error, Refused) and "NOSCRIPT" in str(error)):
                return fail(error)
            # Somebody ran SCRIPT FLUSH: EVAL loads it again.
            return self.call("EVAL", scripts.source(name), len(keys), *keys, *args)

        return answer.addErrback(reload)

    def script_call(
        self, name: str, keys: Sequence[str], args: Sequence[object]
    ) -> tuple[object, ...]:
        """The script as a command for `pipeline`; without `script`'s repair of NOSCRIPT."""
        return ("EVALSHA", self._shas[name], len(keys), *keys, *args)

    async def _keep(self) -> None:
        attempt = 0
        while not self._stopping:
            protocol: RedisProtocol | None = None
            try:
                protocol = await self._connect()
                version = await self._prepare(protocol).addTimeout(CONNECT_BOUND, self._reactor)
            except CancelledError:
                reason = "stopping"
            except TimeoutError:
                reason = f"no answer within {CONNECT_BOUND:.0f} s"
            except Exception as error:
                reason = str(error) or type(error).__name__
            else:
                attempt = 0
                reason = await self._serve(protocol, version)
                self.losses += 1
            if protocol is not None:
                protocol.drop(reason)
            if self._stopping:
                break
            attempt += 1
            self._outages.down(self._name, reason)
            try:
                await deferLater(self._reactor, pause(attempt))
            except CancelledError:
                break

    async def _connect(self) -> RedisProtocol:
        factory = Factory.forProtocol(lambda: RedisProtocol(self._reactor))
        factory.noisy = False
        connecting = endpoint_for(self._url, self._reactor).connect(factory)
        protocol = await connecting.addTimeout(CONNECT_BOUND, self._reactor)
        assert isinstance(protocol, RedisProtocol)
        return protocol

    def _prepare(self, protocol: RedisProtocol) -> Deferred[str]:
        return Deferred.fromCoroutine(self._prepared(protocol))

    async def _prepared(self, protocol: RedisProtocol) -> str:
        """Enter, check that this server is fit, load the scripts; gives its version."""
        url = self._url
        if url.password is not None:
            user = (url.username,) if url.username else ()
            await protocol.call("AUTH", *user, url.password)
        if url.db:
            await protocol.call("SELECT", url.db)
        await protocol.call("CLIENT", "SETNAME", f"queuerelay-{self._name}")
        version = _version(await protocol.call("INFO", "server"))
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_VERSION:
            raise Unusable(f"version {version} is too old, at least Redis 7.0 or Valkey 7.2")
        role = await protocol.call("ROLE")
        if role[0] != b"master":
            where = b":".join(
                str(part).encode() if isinstance(part, int) else part for part in role[1:3]
            ).decode("utf-8", "replace")
            raise Unusable(f"it is a replica of {where}, and the master is needed")
        for name in scripts.NAMES:
            sha = await protocol.call("SCRIPT", "LOAD", scripts.source(name))
            self._shas[name] = sha.decode("ascii")
        return version

    async def _serve(self, protocol: RedisProtocol, version: str) -> str:
        """Offer the connection until it is lost; gives the reason."""
        if self._stopping or not protocol.connected:
            return "the connection was lost"
        self._protocol = protocol
        self.down_since = None
        self._outages.up(self._name, version)
        self._release(None)
        try:
            self.on_up()
        except Exception:
            self._log.failure("a callback of the connection {name} failed", name=self._name)
        reason = await protocol.lost
        self._protocol = None
        self.down_since = self._reactor.seconds()
        return reason

    def _release(self, error: BrokerError | None) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if error is None:
                waiter.callback(None)
            else:
                waiter.errback(error)


def _version(info: bytes) -> str:
    for line in info.decode("utf-8", "replace").splitlines():
        name, _, value = line.partition(":")
        if name == "redis_version" and value[:1].isdigit():
            return value
    raise Unusable("its INFO names no redis_version")
