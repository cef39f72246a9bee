"""The place of the master, for all connections of one broker.

Invariants:

1. Who connects asks anew where the master is: Sentinels where there are some, else each address
   that is given, the one that was the master last at first.
2. All connections are at one server. When one of them finds the master elsewhere, those that are
   still at the old one are dropped, and follow.
3. Sentinels are asked now and then as well: a master that they have replaced may go on without
   knowing it, and what it takes meanwhile is lost.
4. Where there are several, none of them is waited for long (`Master.bound`): one that is gone costs
   no more than that, and the others are looked at.
"""

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from queuerelay.broker.redis.entrance import CONNECT_BOUND, connect, reason_of
from queuerelay.errors import Unusable
from queuerelay.loop import Loop
from queuerelay.wire.keys import Keys
from queuerelay.wire.server import login, who_is_master
from queuerelay.wire.url import Address, RedisUrl, address_of

#: Seconds that one of several may take to be connected to, and to be entered again.
HASTY: Final = 1.0
#: Attempts after which more time is given: perhaps all of them are slow, and none is gone.
HASTY_ATTEMPTS: Final = 8
LESS_HASTY: Final = 2.0
#: Seconds between two looks at the Sentinels while all is well.
LOOK_EVERY: Final = 2.0


class Master:
    """Finds the master of `url`; `keys` names what its user may use."""

    _log = Logger()

    def __init__(self, url: RedisUrl, *, keys: Keys, reactor: IReactorTime) -> None:
        self.url = url
        self.keys = keys
        self._reactor = reactor
        #: Addresses of the servers or of the Sentinels, the one that helped last at first.
        self._order = list(url.addresses)
        #: The address of the master; None where it was never found.
        self._address: Address | None = None
        #: By connection that is up, where it is and how it is dropped.
        self._up: dict[object, tuple[Address, Callable[[str], object]]] = {}
        self._loop = Loop(
            "sentinels",
            LOOK_EVERY,
            lambda: Deferred.fromCoroutine(self._look()),
            clock=reactor,
        )

    def start(self) -> None:
        """Begin to look at the Sentinels, where there are some."""
        if self.url.service:
            self._loop.start()

    def stop(self) -> Deferred[None]:
        """Look no more; fires when no look is under way."""
        return self._loop.stop()

    def bound(self, attempt: int) -> float:
        """Seconds that a server may take to be connected to, and to be entered again, at so many
        attempts in a row, from 1.
        """
        if not self.url.several:
            return CONNECT_BOUND
        return HASTY if attempt <= HASTY_ATTEMPTS else LESS_HASTY

    async def places(self) -> list[RedisUrl]:
        """The servers of which one should be the master, the likeliest first; raises `Unusable`
        where no Sentinel names it.
        """
        if not self.url.several:
            return [self.url]
        if self.url.service:
            return [self.url.at(await self._ask_sentinels())]
        return [self.url.at(address) for address in self._order]

    def up(self, connection: object, place: RedisUrl, drop: Callable[[str], object]) -> None:
        """A connection was made to the master at `place`; `drop` ends it for a reason."""
        if not self.url.several:
            return
        (address,) = place.addresses
        self._up[connection] = address, drop
        if self._address != address:
            self._address = address
            self._log.info("the master is at {address}", address=str(address))
        if not self.url.service:
            self._prefer(address)
        self._leave_others(address)

    def down(self, connection: object) -> None:
        """The connection was lost."""
        self._up.pop(connection, None)

    def _leave_others(self, master: Address) -> None:
        for connection, (address, drop) in list(self._up.items()):
            if address != master:
                del self._up[connection]
                drop(f"the master is at {master} now")

    async def _look(self) -> None:
        if self._up:
            self._leave_others(await self._ask_sentinels())

    def _prefer(self, address: Address) -> None:
        self._order.remove(address)
        self._order.insert(0, address)

    async def _ask_sentinels(self) -> Address:
        reasons = []
        for address in [*self._order]:
            try:
                found = await self._ask(self.url.sentinel_at(address))
            except CancelledError:
                raise
            except Exception as error:
                reasons.append(f"{address}: {reason_of(error, HASTY)}")
                continue
            self._prefer(address)
            return found
        service = self.url.service
        raise Unusable(
            f"no Sentinel names a master {service!r}: {'; '.join(reasons)}", code="redis-sentinel"
        )

    async def _ask(self, sentinel: RedisUrl) -> Address:
        protocol = await connect(sentinel, self._reactor, bound=HASTY)
        try:
            if sentinel.username or sentinel.password is not None:
                await protocol.call(*login(sentinel), bound=HASTY)
            answer = await protocol.call(*who_is_master(self.url.service), bound=HASTY)
        finally:
            protocol.drop("asked")
            await protocol.lost
        found = address_of(answer)
        if found is None:
            raise Unusable("it knows none of that name")
        return found
