"""A connection to Redis that is always being made, until it is told to stop.

The loop is our own instead of `ClientService`, which raises ``NoTransition`` into the log when a
connection drops while it is still being prepared, and reports every single attempt.
"""

import random
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    TimeoutError,
    fail,
    maybeDeferred,
    succeed,
)
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from queuerelay.backoff import back_off
from queuerelay.broker.insist import insist
from queuerelay.broker.redis.outage import OutageLog
from queuerelay.broker.redis.protocol import COMMAND_BOUND, Answer, RedisProtocol, checked
from queuerelay.errors import ConnectionDropped, NotConnected, Refused, Unusable
from queuerelay.waiters import Waiters
from queuerelay.wire.commands import Call, load
from queuerelay.wire.url import RedisUrl

#: Oldest server that has what we use: flags on scripts, EXPIRE NX. Valkey 7.2 says 7.2.
OLDEST_VERSION: Final = (7, 0)
#: First and longest pause between two attempts, in seconds, before jitter.
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
#: Seconds that making a connection may take, and preparing it again.
CONNECT_BOUND: Final = 5.0

_T = TypeVar("_T")


def pause(attempt: int) -> float:
    """Seconds to wait after the failed `attempt`, from 1: doubled each time, half of it jitter."""
    jitter = random.random() / 2
    return back_off(attempt, first=FIRST_PAUSE, longest=LONGEST_PAUSE, jitter=jitter)


def endpoint_for(url: RedisUrl, reactor: IReactorTime) -> IStreamClientEndpoint:
    """How to reach `url`; certificates are verified, against ``ssl_ca_certs`` where given."""
    if url.kind == "unix":
        return UNIXClientEndpoint(reactor, url.path, timeout=int(CONNECT_BOUND))
    endpoint = HostnameEndpoint(reactor, url.host, url.port, timeout=int(CONNECT_BOUND))
    if url.kind != "tls":
        return endpoint
    trust = None
    if url.ca_file is not None:
        trust = trustRootFromCertificates(_certificates(url.ca_file))
    return wrapClientTLS(optionsForClientTLS(url.host, trustRoot=trust), endpoint)


def _certificates(path: str) -> list[Certificate]:
    pem, end = Path(path).read_bytes(), b"-----END CERTIFICATE-----"
    try:
        found = [Certificate.loadPEM(part + end) for part in pem.split(end)[:-1]]
    except Exception as error:
        raise ValueError(f"{path} has a certificate that cannot be read: {error!r}") from error
    if not found:
        raise ValueError(f"{path} has no certificate in it")
    return found


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
        #: Called each time that the connection is ready; `when_up` waits for the Deferred that it
        #: may give.
        self.on_up: Callable[[], object] = lambda: None
        self._protocol: RedisProtocol | None = None
        self._loop: Deferred[None] | None = None
        #: What the loop waits for while there is no connection.
        self._step: Deferred[Any] | None = None
        self._waiters: Waiters[None] = Waiters()
        self._stopping = False

    @property
    def is_up(self) -> bool:
        """Whether commands can be sent now."""
        return self._protocol is not None and self._protocol.usable

    def start(self) -> None:
        """Begin to connect, and never stop trying."""
        self._loop = Deferred.fromCoroutine(self._keep())

    def stop(self) -> Deferred[None]:
        """Close the connection; fires when nothing of it is left."""
        self._stopping = True
        self._waiters.fail(NotConnected("stopping"))
        loop, self._loop = self._loop, None
        if loop is None:
            return succeed(None)
        ended: Deferred[None] = Deferred()
        loop.addBoth(lambda _: ended.callback(None))
        if self._protocol is not None:
            self._protocol.close()
        elif self._step is not None:
            self._step.cancel()
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
        return self._waiters.wait()

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

    def together(self) -> AbstractContextManager[None]:
        """What is sent within goes out in one write, where there is a connection."""
        return self._protocol.together() if self._protocol is not None else nullcontext()

    def run(self, call: Call[_T]) -> Deferred[_T]:
        """One run of a script; fires with what its answer means."""
        if self._protocol is None:
            return fail(NotConnected(self._url.redacted))

        def reload(failure: Failure) -> Failure | Deferred[Answer]:
            if "NOSCRIPT" not in str(failure.value) or not failure.check(Refused):
                return failure
            # Somebody ran SCRIPT FLUSH: EVAL loads it again.
            return self.call(*call.whole())

        running = self._protocol.call(*call.command())
        return running.addErrback(reload).addCallback(call.decode)

    async def run_all(self, calls: Sequence[Call[_T]]) -> list[_T]:
        """Several runs of scripts in one round trip; raises the first error of their answers."""
        answers = await self.pipeline(*(call.command() for call in calls))
        if any(isinstance(one, Refused) and "NOSCRIPT" in str(one) for one in answers):
            # Somebody ran SCRIPT FLUSH: the first EVAL loads it again.
            answers = await self.pipeline(*(call.whole() for call in calls))
        return [call.decode(checked(one)) for call, one in zip(calls, answers, strict=True)]

    def insist(self, call: Call[bool]) -> Deferred[bool]:
        """Run a script that may run twice, over any number of lost connections."""
        return insist(lambda: self.run(call), self.when_up)

    async def _keep(self) -> None:
        attempt = 0
        while True:
            protocol: RedisProtocol | None = None
            try:
                protocol = await self._until_stop(self._connect())
                version = await self._until_stop(self._prepare(protocol))
            except Exception as error:
                reason = _reason(error)
            else:
                attempt = 0
                reason = await self._serve(protocol, version)
            if protocol is not None:
                protocol.drop(reason)
                # Not a moment later than the transport is anything of it left.
                await protocol.lost
            if self._stopping:
                return
            attempt += 1
            self._outages.down(self._name, reason)
            try:
                await self._until_stop(deferLater(self._reactor, pause(attempt)))
            except CancelledError:
                return

    async def _until_stop(self, step: Deferred[_T]) -> _T:
        """The result of `step`, which `stop` cancels."""
        self._step = step
        try:
            return await step
        finally:
            self._step = None

    def _connect(self) -> Deferred[RedisProtocol]:
        factory = Factory.forProtocol(lambda: RedisProtocol(self._reactor))
        factory.noisy = False
        try:
            connecting = endpoint_for(self._url, self._reactor).connect(factory)
        except Exception:
            # A certificate file that cannot be read, for one.
            return fail(Failure())
        # The endpoint's own time-out says nothing of the name's resolution.
        connecting.addTimeout(2 * CONNECT_BOUND, self._reactor)
        return cast(Deferred[RedisProtocol], connecting)

    def _prepare(self, protocol: RedisProtocol) -> Deferred[str]:
        preparing = Deferred.fromCoroutine(self._prepared(protocol))
        return preparing.addTimeout(CONNECT_BOUND, self._reactor)

    async def _prepared(self, protocol: RedisProtocol) -> str:
        """Enter, check that this server is fit, load the scripts; gives its version."""
        url = self._url
        if url.username or url.password is not None:
            user = (url.username,) if url.username else ()
            await protocol.call("AUTH", *user, url.password or "")
        if url.db:
            await protocol.call("SELECT", url.db)
        await protocol.call("CLIENT", "SETNAME", f"queuerelay-{self._name}")
        version = check_version(await protocol.call("INFO", "server"))
        check_role(await protocol.call("ROLE"))
        for answer in await protocol.pipeline(*load()):
            _text(checked(answer), "SCRIPT LOAD")
        return version

    async def _serve(self, protocol: RedisProtocol, version: str) -> str:
        """Offer the connection until it is lost; gives the reason."""
        if self._stopping or not protocol.usable:
            return protocol.reason
        self._protocol = protocol
        self._outages.up(self._name, version)
        told = maybeDeferred(self.on_up)
        told.addErrback(
            lambda failure: self._log.failure(
                "a callback of the connection {name} failed", failure, name=self._name
            )
        )
        told.addCallback(lambda _: self._waiters.fire(None) if self.is_up else None)
        await protocol.lost
        self._protocol = None
        return protocol.reason


def check_version(info: Answer) -> str:
    """Name and version out of an ``INFO server``; `Unusable` where it is too old."""
    fields = dict(re.findall(r"^(\w+):(\S*)", _text(info, "INFO"), re.MULTILINE))
    # Valkey says its own version, and beside it the one of Redis that it stands for.
    redis, valkey = fields.get("redis_version", ""), fields.get("valkey_version")
    parts = re.match(r"(\d+)\.(\d+)", redis)
    if parts is None:
        raise Unusable("its INFO names no redis_version")
    if (int(parts[1]), int(parts[2])) < OLDEST_VERSION:
        raise Unusable(f"version {redis} is too old, at least Redis 7.0 or Valkey 7.2 is needed")
    return f"Valkey {valkey}" if valkey else f"Redis {redis}"


def check_role(role: Answer) -> None:
    """`Unusable` where an answer to ``ROLE`` does not say that this is a master."""
    name, *details = role if isinstance(role, list) and role else [role]
    name = _text(name, "ROLE")
    if name == "slave":
        host, port = (*details, b"?", 0)[:2]
        raise Unusable(f"it is a replica of {_text(host, 'ROLE')}:{port}, and the master is needed")
    if name != "master":
        raise Unusable(f"it is a {name}, and a master is needed")


def _text(answer: Answer, command: str) -> str:
    if not isinstance(answer, bytes):
        raise Unusable(f"it answers {command} as no Redis does")
    return answer.decode("utf-8", "replace")


def _reason(error: Exception) -> str:
    """What to tell of an attempt that failed."""
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_BOUND:.0f} s"
    if isinstance(error, ConnectionDropped | NotConnected | Refused) and error.args:
        # That nothing was done, or perhaps, is of no interest here.
        return str(error.args[0])
    return str(error) or type(error).__name__
