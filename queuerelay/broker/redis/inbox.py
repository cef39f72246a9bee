"""The inbox: replies are read in batches, in one round trip each, and none is ever lost.

Invariants:

1. An item leaves the list only after its batch was handed over: a connection that drops in between
   shows the same items again on the next one, never none.
2. Only this reader takes from the head of its list; everybody else appends at the tail. There is
   one run of it at a time, and each run belongs to one connection.
3. Waiting costs nothing: ``BLMOVE list list LEFT LEFT`` blocks until there is an item and leaves it
   where it is. Its answer, an item of any size, is not sent; where it was an error the wait ended
   at once and for nothing, and then a short one with its answer tells which.
4. A batch is bounded in count and in bytes, and an item that is too large is not fetched at all.
5. Nothing is cancelled: a run that is over finds out when it is answered.
6. What a connection that was given up had sent and comes late takes nothing from the list: each
   raises the reader's `Fence` before it reads.
7. A reader whose handler does not come back, or whose turns fail by an error of ours, is `still`;
   one that waits for a reply or for Redis is not.
"""

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from queuerelay.broker.base import LARGEST_REPLY, InboxHandler
from queuerelay.broker.redis.connection import RedisConnection
from queuerelay.broker.redis.fence import Fence, fenced
from queuerelay.broker.redis.nap import Nap
from queuerelay.broker.redis.protocol import COMMAND_BOUND, checked
from queuerelay.errors import BrokerError, ConnectionDropped, NotConnected, Refused
from queuerelay.loop import PATIENCE, Watched
from queuerelay.seldom import Seldom
from queuerelay.wire.commands import (
    Call,
    Command,
    TooLarge,
    move,
    peek,
    trim,
    unheard,
    wait_for,
)
from queuerelay.wire.keys import Keys

#: Most items of a batch.
BATCH: Final = 256
#: Bytes of a batch, its first item apart, which may be as large as a reply may be.
BATCH_BYTES: Final = 4 * 1024 * 1024
#: Seconds that Redis waits for an item before it answers "none".
BLOCK: Final = 2
#: Seconds of a wait that only asks whether Redis lets us wait.
PROBE: Final = 0.01
#: Seconds between two looks where Redis refuses to block (at maxmemory).
POLL: Final = 0.05
#: Seconds until the next try where it refuses for another reason, or something went wrong here.
PAUSE: Final = 1.0


class RedisInbox:
    """See `queuerelay.broker.base.InboxPart`; each list is read on a connection of its own, which
    `connect` gives by its name.
    """

    def __init__(
        self,
        commands: RedisConnection,
        keys: Keys,
        *,
        connect: Callable[[str], RedisConnection],
        clock: IReactorTime,
    ) -> None:
        self._commands = commands
        self._keys = keys
        self._connect = connect
        self._clock = clock
        self._readers: list[tuple[RedisConnection, InboxReader]] = []
        self._largest = LARGEST_REPLY
        #: The list that many relays share, None where there is none.
        self.legacy: str | None = None

    def open(
        self,
        node_id: str,
        handler: InboxHandler,
        *,
        legacy: tuple[str, InboxHandler] | None = None,
        largest: int = LARGEST_REPLY,
    ) -> None:
        """Read replies for `node_id` from now on."""
        self._largest = largest
        self._read("inbox", self._keys.inbox(node_id), handler, None)
        if legacy is not None:
            self.legacy, handler = legacy
            self._read("legacy", self._keys.legacy_inbox(node_id), handler, self.legacy)

    def _read(self, name: str, key: str, handler: InboxHandler, source: str | None) -> None:
        connection = self._connect(name)
        reader = InboxReader(
            connection,
            key=key,
            fence=Fence(connection, self._keys),
            handler=handler,
            clock=self._clock,
            source=source,
        )
        reader.largest = self._largest
        connection.on_up = reader.connected
        self._readers.append((connection, reader))

    def reply(self, node_id: str, replies: Sequence[bytes]) -> Deferred[int]:
        """Append `replies` to a node's inbox."""
        return self._commands.call("RPUSH", self._keys.inbox(node_id), *replies)

    def loops(self) -> list[Watched]:
        """The readers of the lists."""
        return [reader for _, reader in self._readers]

    def start(self) -> None:
        """Begin to read."""
        for connection, _ in self._readers:
            connection.start()

    def stop(self) -> list[Deferred[None]]:
        """Read no more; each fires when a connection is closed."""
        for _, reader in self._readers:
            reader.stop()
        return [connection.stop() for connection, _ in self._readers]


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
        fence: Fence,
        handler: InboxHandler,
        clock: IReactorTime,
        source: str | None = None,
    ) -> None:
        self._connection = connection
        self._fence = fence
        self._key = key
        self._handler = handler
        self._clock = clock
        self._source = source
        #: Bytes of an item that is fetched.
        self.largest = LARGEST_REPLY
        self._seldom = Seldom(clock)
        #: Counts the runs; one that is not the latest is over.
        self._run = 0
        self._nap = Nap(clock)
        #: Whether waits are sent so that they get no answer.
        self._unheard = True
        #: Whether the fence stands for this connection.
        self._fenced = False
        #: Items at the head of the list that have been handed over.
        self._done = 0
        #: Whether the list was empty when last seen.
        self._empty = False
        #: Clock seconds at which the last turn ended in good order, or the connection was made.
        self._turned = clock.seconds()

    @property
    def name(self) -> str:
        """What health calls it."""
        return "inbox" if self._source is None else "legacy inbox"

    @property
    def still(self) -> float:
        """Seconds since the last turn ended, unless by an error of ours; 0 while Redis is away."""
        return self._clock.seconds() - self._turned if self._connection.is_up else 0.0

    @property
    def limit(self) -> float:
        """Seconds after which a reader that is `still` is stuck; waiting for a reply takes less."""
        return PATIENCE

    def connected(self) -> None:
        """The connection is ready: read on it until it is lost."""
        self.stop()
        self._turned = self._clock.seconds()
        reading = Deferred.fromCoroutine(self._read(self._run))
        reading.addErrback(lambda failure: self._log.failure("the inbox is not read", failure))

    def stop(self) -> None:
        """Read no more; what is in the list stays there."""
        self._run += 1
        self._nap.cut()

    async def _read(self, run: int) -> None:
        """Turn after turn, until the connection is lost."""
        self._done, self._empty, self._fenced = 0, False, False
        refused = False
        while run == self._run:
            try:
                if not self._fenced:
                    await self._fence.up()
                    self._unheard = await self._may_be_unheard()
                    self._fenced = True
                items = await (self._look() if refused else self._wait())
                refused = False
                # Not where it was stopped while it waited.
                if items and run == self._run:
                    await self._hand_over(run, items)
                self._went_on(run)
            except (ConnectionDropped, NotConnected):
                # `connected` begins again on the next connection.
                return
            except Refused as error:
                refused = True
                if fenced(error):
                    # Redis does not know the fence any more: the list may be another one, too.
                    self._fenced, self._done = False, 0
                    continue
                self._went_on(run)
                await self._refused(run, str(error.args[0]))
            except Exception:
                # Nothing that happens here may end the reading for good, or lose an item.
                self._log.failure("reading replies failed; it starts over")
                self._done = 0
                await self._sleep(run, PAUSE)

    def _went_on(self, run: int) -> None:
        if run == self._run:
            self._turned = self._clock.seconds()

    async def _wait(self) -> Sequence[bytes | TooLarge]:
        """Drop what has been handed over, wait for more, and fetch it."""
        commands: list[Sequence[object]] = []
        done = self._done
        if done:
            commands.append(self._trim(done).command())
        # Not while there is something to do, or to take: others read the shared list too.
        waits = self._source is None or self._empty
        since = self._clock.seconds()
        if waits:
            waiting = self._await(BLOCK)
            commands += unheard(waiting) if self._unheard else [waiting]
            if self._source is not None:
                commands.append(move(self._source, self._key, BATCH).command())
        looking = self._peek(0)
        commands.append(looking.command())
        answers = await self._connection.pipeline(*commands, bound=BLOCK + COMMAND_BOUND)
        if done:
            checked(answers.pop(0))
            self._done -= done
        for answer in answers:
            checked(answer)
        items = looking.decode(answers[-1])
        if waits and not items and self._clock.seconds() - since < BLOCK / 2:
            checked((await self._connection.pipeline(self._await(PROBE)))[0])
        self._empty = not items
        return items

    async def _may_be_unheard(self) -> bool:
        """Whether Redis lets us have no answer to a wait; else an item may come twice, however
        large.
        """
        try:
            await self._connection.call("CLIENT", "REPLY", "ON")
        except Refused as error:
            reason = str(error.args[0])
            if self._seldom.due(reason):
                self._log.warn("replies of any size are fetched: {reason}", reason=reason)
            return False
        return True

    def _await(self, seconds: float) -> Command:
        """Wait until there is something to read."""
        if self._source is None:
            return wait_for(self._key, seconds)
        return ("BLMOVE", self._source, self._key, "LEFT", "RIGHT", seconds)

    def _peek(self, first: int) -> Call[list[bytes | TooLarge]]:
        return peek(self._key, first, BATCH, BATCH_BYTES, largest=self.largest)

    async def _look(self) -> Sequence[bytes | TooLarge]:
        """The same without blocking, and one by one: some of it is refused, at maxmemory BLMOVE."""
        call = self._connection
        if self._done:
            try:
                await call.run(self._trim(self._done))
            except Refused as error:
                if fenced(error):
                    raise
            else:
                self._done = 0
        if self._source is not None and self._empty:
            await call.run(move(self._source, self._key, BATCH))
        items = await call.run(self._peek(self._done))
        self._empty = not items
        return items

    def _trim(self, count: int) -> Call[None]:
        return trim(self._key, self._fence.key, self._fence.token, count)

    async def _hand_over(self, run: int, items: Sequence[bytes | TooLarge]) -> None:
        try:
            await maybeDeferred(self._handler, items)
        except BrokerError:
            # The handler could not pass them on yet; they are still in the list.
            await self._sleep(run, POLL)
            return
        except Exception:
            self._log.failure("a batch of replies was not handled; it is dropped")
        if run == self._run:
            self._done += len(items)

    async def _refused(self, run: int, reason: str) -> None:
        if reason.startswith("NOSCRIPT"):
            # Somebody ran SCRIPT FLUSH; `_look` repairs it.
            return
        if self._seldom.due(reason):
            self._log.warn("Redis refuses what reading replies needs: {reason}", reason=reason)
        await self._sleep(run, POLL if reason.startswith("OOM") else PAUSE)

    async def _sleep(self, run: int, seconds: float) -> None:
        if run == self._run:
            await self._nap.take(seconds)
