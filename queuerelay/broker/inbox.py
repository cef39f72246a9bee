"""The inbox: replies are read in batches, in one round trip each, and none is ever lost.

Invariants:

1. An item leaves the list only after its batch was handed over: a connection that drops in between
   shows the same items again on the next one, never none.
2. Only this reader takes from the head of its list; everybody else appends at the tail.
3. Waiting costs nothing: ``BLMOVE list list LEFT LEFT`` blocks until there is an item and leaves it
   where it is.
4. A batch is bounded in count, and in bytes by what the last one weighed.
"""

from collections.abc import Callable, Sequence
from typing import Final, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from queuerelay.broker.connection import LONGEST_PAUSE, RedisConnection
from queuerelay.broker.protocol import COMMAND_BOUND
from queuerelay.errors import BrokerError, ConnectionDropped, NotConnected, Refused

#: Most items of a batch.
BATCH: Final = 256
#: Bytes that a batch should not exceed by much.
BATCH_BYTES: Final = 4 * 1024 * 1024
#: Seconds that Redis waits for an item before it answers "none".
BLOCK: Final = 2
#: Seconds between two looks where Redis refuses to block (at maxmemory).
POLL: Final = 0.05

Handler = Callable[[Sequence[bytes]], object]


class InboxReader:
    """Reads one list, on a connection of its own, and hands every batch to `handler`.

    With `source`, items are first moved from that list, which many readers share, to this one.
    """

    _log = Logger()

    def __init__(
        self,
        connection: RedisConnection,
        *,
        key: str,
        handler: Handler,
        clock: IReactorTime,
        source: str | None = None,
    ) -> None:
        self._connection = connection
        self._key = key
        self._handler = handler
        self._clock = clock
        self._source = source
        self._running: Deferred[None] | None = None
        #: Clock seconds of the last turn; a stale one means that replies do not come in.
        self.last_turn = clock.seconds()

    def connected(self) -> None:
        """The connection is ready: read on it until it is lost."""
        self._running = Deferred.fromCoroutine(self._read())
        self._running.addErrback(lambda failure: failure.trap(CancelledError))

    def stop(self) -> None:
        """Read no more; what is in the list stays there."""
        if self._running is not None:
            self._running.cancel()

    async def _read(self) -> None:
        """Turn after turn, until the connection is lost."""
        done, window = 0, BATCH
        try:
            while True:
                self.last_turn = self._clock.seconds()
                items = await self._turn(done, window)
                if items and not await self._handled(items):
                    done = 0
                    continue
                if items:
                    heaviest = max(map(len, items))
                    window = max(1, min(BATCH, BATCH_BYTES // max(1, heaviest)))
                done = len(items)
        except (ConnectionDropped, NotConnected, CancelledError):
            # `connected` begins again on the next connection.
            return
        except Exception:
            # Nothing that happens here may end the reading for good.
            self._log.failure("reading replies failed; it starts over")
        await deferLater(self._clock, LONGEST_PAUSE)
        self._connection.drop()

    async def _handled(self, items: Sequence[bytes]) -> bool:
        """Hand a batch over; False where it must be handed over again."""
        try:
            handled = self._handler(items)
            if isinstance(handled, Deferred):
                await handled
        except BrokerError:
            # The handler could not pass them on yet; they are still in the list.
            await deferLater(self._clock, POLL)
            return False
        except Exception:
            self._log.failure("a batch of replies was not handled; it is dropped")
        return True

    async def _turn(self, done: int, window: int) -> Sequence[bytes]:
        """Drop the `done` items of the last batch, wait for more, and fetch them."""
        shared = self._source is not None
        into = "RIGHT" if shared else "LEFT"
        commands: list[Sequence[object]] = []
        if done:
            commands.append(("LTRIM", self._key, done, -1))
        commands.append(("BLMOVE", self._source or self._key, self._key, "LEFT", into, BLOCK))
        if shared:
            commands.append(self._move(window))
        # The item that BLMOVE gives is the head of our own list: it need not come twice.
        commands.append(("LRANGE", self._key, 0 if shared else 1, window - 1))
        answers = await self._connection.pipeline(*commands, bound=BLOCK + COMMAND_BOUND)
        first, rest = answers[1 if done else 0], answers[-1]
        if isinstance(first, Refused):
            return await self._look(str(first), window)
        for answer in answers:
            if isinstance(answer, BrokerError):
                raise answer
        if shared:
            return cast(Sequence[bytes], rest)
        # Without a first, what came in the meantime is not ours to count.
        return [] if first is None else [first, *rest]

    async def _look(self, reason: str, window: int) -> Sequence[bytes]:
        """Look without blocking: at maxmemory Redis refuses BLMOVE, but answers this."""
        if not reason.startswith("OOM"):
            self._log.warn("Redis refuses to wait for replies: {reason}", reason=reason)
            await deferLater(self._clock, LONGEST_PAUSE)
        await deferLater(self._clock, POLL)
        commands: list[Sequence[object]] = [self._move(window)] if self._source else []
        commands.append(("LRANGE", self._key, 0, window - 1))
        items = (await self._connection.pipeline(*commands))[-1]
        if isinstance(items, BrokerError):
            raise items
        return cast(Sequence[bytes], items)

    def _move(self, window: int) -> Sequence[object]:
        assert self._source is not None
        return self._connection.script_call("move", [self._source, self._key], [window])
