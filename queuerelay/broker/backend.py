"""The broker that the configuration names, and the embedded server where it names that."""

from typing import Any

from twisted.internet.defer import Deferred

from queuerelay.broker.base import Broker
from queuerelay.broker.embedded import EmbeddedServer
from queuerelay.broker.redis.broker import RedisBroker
from queuerelay.wire import url
from queuerelay.wire.keys import Keys


class Backend:
    """One broker for everything in this process; `start` and `stop` once each.

    `redis` is what ``--redis`` takes, `keys` names everything in it. Raises `ConfigError`.
    """

    def __init__(self, redis: str, *, keys: Keys, reactor: Any) -> None:
        where = url.parse(redis)
        self._server: EmbeddedServer | None = None
        if where.kind == "embedded":
            self._server = EmbeddedServer(where.path, reactor=reactor)
            where = self._server.url
        self.broker: Broker = RedisBroker(where, reactor=reactor, keys=keys)
        #: URL of the server for other processes; may contain a password.
        self.address: str | None = where.whole
        self._running = False

    def start(self) -> None:
        """Start the server if it is ours, and begin to connect."""
        self._running = True
        if self._server is not None:
            self._server.start(on_ready=self._server_ready)
        else:
            self.broker.start()

    def _server_ready(self) -> None:
        # It may be ready only when we are stopping already.
        if self._running:
            self.broker.start()

    def stop(self) -> Deferred[None]:
        """Fires when nothing is left running."""
        self._running = False
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self.broker.stop()
        if self._server is not None:
            await self._server.stop()


class Given:
    """A broker that somebody else made, in the place of a `Backend`; it is started and stopped."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.address: str | None = None

    def start(self) -> None:
        """Begin to connect."""
        self.broker.start()

    def stop(self) -> Deferred[None]:
        """Fires when nothing is left running."""
        return self.broker.stop()
