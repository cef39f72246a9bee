"""One connection's protocol: txredisapi's RESP and command vocabulary, with bounded waits.

Invariants:

1. Commands are answered in the order in which they were sent; every one has a time bound, and when
   the oldest is not answered in time, and nothing is coming in, the connection is dropped.
2. When the connection is lost, every command that waits fails with `ConnectionDropped`: whether it
   took effect is then unknown.
3. An answer that says that this server or session is no longer fit (a replica, still loading, not
   authenticated) drops the connection as well; any other error is the command's own, `Refused`.
4. Nothing is ever cancelled: a blocking command that is forgotten halfway loses what it pops.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis
import txredisapi
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from queuerelay.errors import ConnectionDropped, Refused

#: Seconds that an ordinary command may take.
COMMAND_BOUND: Final = 2.0
#: How often the oldest command's age is looked at, in seconds.
_TICK: Final = 0.25
#: Error prefixes after which the connection is of no use.
_UNFIT: Final = ("READONLY", "MASTERDOWN", "LOADING", "UNBLOCKED", "NOAUTH", "WRONGPASS")

#: What Redis gives: bytes, integers, None, or lists of them.
Answer = Any


class RedisProtocol(txredisapi.HiredisProtocol):  # type: ignore[misc]  # txredisapi is untyped
    """A connection to Redis. Values are bytes; numbers stay as Redis typed them.

    AUTH and SELECT are not txredisapi's here: it stops reconnecting for ever when the connection
    drops before they are answered.
    """

    def __init__(self, clock: IReactorTime) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self._clock = clock
        self._waiting: deque[tuple[Callable[[Answer], object], float]] = deque()
        self._watch: IDelayedCall | None = None
        self._heard = 0.0
        self._dropped: str | None = None
        #: Fires once, with the reason, when the connection is gone.
        self.lost: Deferred[str] = Deferred()

    def connectionMade(self) -> None:
        """The transport is there."""
        super().connectionMade()
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        self._watch = self._clock.callLater(_TICK, self._look)

    def execute_command(self, *args: Any, **kwargs: Any) -> "Deferred[Answer]":
        """The command that txredisapi's own methods end in; see `call`."""
        return self.call(*args)

    def call(self, *args: Any, bound: float = COMMAND_BOUND) -> "Deferred[Answer]":
        """Send one command; fires with its answer within `bound` seconds, or with a
        `BrokerError`.
        """
        done: Deferred[Answer] = Deferred()

        def answered(answer: Answer) -> None:
            # A failure where the answer is an error; nothing where the caller gave up.
            if not done.called:
                if isinstance(answer, Exception):
                    done.errback(answer)
                else:
                    done.callback(answer)

        self._send(hiredis.pack_command(args), answered, bound)
        return done

    def pipeline(
        self, *commands: Sequence[Any], bound: float = COMMAND_BOUND
    ) -> "Deferred[list[Answer]]":
        """Send several commands in one write; fires with all their answers together, errors as
        values (`BrokerError`) among them.
        """
        done: Deferred[list[Answer]] = Deferred()
        answers: list[Answer] = []

        def answered(answer: Answer) -> None:
            answers.append(answer)
            if len(answers) == len(commands) and not done.called:
                done.callback(answers)

        for command in commands:
            self._send(hiredis.pack_command(tuple(command)), answered, bound)
        return done

    def _send(self, packed: bytes, answered: Callable[[Answer], object], bound: float) -> None:
        if not self.connected:
            answered(ConnectionDropped("the connection is closed"))
            return
        self._waiting.append((answered, self._clock.seconds() + bound))
        self.transport.write(packed)

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        """Bytes of one or more answers."""
        self._heard = self._clock.seconds()
        super().dataReceived(data, unpause)

    def replyReceived(self, reply: Answer) -> None:
        """An answer for the oldest command that waits."""
        if not self._waiting:
            self.drop("an answer to no command")
            return
        answered, _ = self._waiting.popleft()
        if isinstance(reply, Exception):
            text = str(reply)
            if text.startswith(_UNFIT):
                self.drop(text)
                reply = ConnectionDropped(text)
            else:
                reply = Refused(text)
        answered(reply)

    def connectionLost(self, why: Failure) -> None:
        """Fail everything that waits, and tell who keeps the connection."""
        self.connected = 0
        if self._watch is not None and self._watch.active():
            self._watch.cancel()
        reason = self._dropped or why.getErrorMessage()
        waiting, self._waiting = self._waiting, deque()
        for answered, _ in waiting:
            answered(ConnectionDropped(reason))
        super().connectionLost(why)
        self.lost.callback(reason)

    def drop(self, reason: str) -> None:
        """Close the connection at once, because of `reason`."""
        self._dropped = self._dropped or reason
        self.transport.abortConnection()

    def _look(self) -> None:
        self._watch = self._clock.callLater(_TICK, self._look)
        now = self._clock.seconds()
        # A long answer that is still coming in is not late.
        if self._waiting and self._waiting[0][1] < now and self._heard + COMMAND_BOUND < now:
            self.drop("no answer in time")
