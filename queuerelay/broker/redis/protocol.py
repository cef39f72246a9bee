"""One connection's protocol: txredisapi's RESP and command vocabulary, with bounded waits.

Invariants:

1. Commands are answered in the order in which they were sent; every one has a time bound, and when
   the oldest is not answered in time, and nothing is coming in, the connection is dropped.
2. When the connection is lost, every command that waits fails with `ConnectionDropped`: whether it
   took effect is then unknown. Those that come later fail with `NotConnected`: they were not sent.
3. An answer that says that this server or session is no longer fit (a replica, a cluster, still
   loading, not authenticated) drops the connection as well, and its command fails with
   `NotConnected`, because nothing was done; any other error is the command's own, `Refused`.
4. Nothing is ever cancelled: a blocking command that is forgotten halfway loses what it pops.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import hiredis
import txredisapi
from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from queuerelay import eager
from queuerelay.errors import BrokerError, ConnectionDropped, NotConnected, Refused
from queuerelay.wire.commands import Unanswered
from queuerelay.wire.server import explained

#: Seconds that an ordinary command may take.
COMMAND_BOUND: Final = 2.0
#: Bytes per second below which sending a command counts as stalled.
SLOWEST: Final = 4_000_000
#: Seconds that closing in order may take before the connection is cut.
CLOSE_BOUND: Final = 1.0
#: How often the oldest command's age is looked at, in seconds.
_TICK: Final = 0.25
#: Error prefixes after which the connection is of no use.
_UNFIT: Final = (
    *("READONLY", "MASTERDOWN", "LOADING", "UNBLOCKED", "NOAUTH", "WRONGPASS"),
    # What only a cluster says: the server may be one now, or hide one.
    *("CROSSSLOT", "MOVED ", "ASK ", "CLUSTERDOWN", "TRYAGAIN"),
)

_NOTHING: Final = nullcontext()

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
        self._late: IDelayedCall | None = None
        self._heard = 0.0
        self._usable = False
        # What is held back to go out with what comes next; None where nothing is.
        self._corked: list[bytes] | None = None
        self._cork = _Cork(self)
        #: Fires once, when the connection is gone.
        self.lost: Deferred[None] = Deferred()
        #: Why it is gone, or going.
        self.reason = ""

    @property
    def usable(self) -> bool:
        """Whether what is sent now can arrive."""
        return self._usable

    def connectionMade(self) -> None:
        """The transport is there."""
        super().connectionMade()
        self._usable = True
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
                    done.errback(_explained(answer, args))
                else:
                    done.callback(answer)

        self._send(hiredis.pack_command(args), answered, bound)
        return done

    def pipeline(
        self, *commands: Sequence[Any], bound: float = COMMAND_BOUND
    ) -> "Deferred[list[Answer]]":
        """Send several commands in one write; fires with all their answers together, errors as
        values (`BrokerError`) among them. Those that are `Unanswered` have none.
        """
        heard = [command for command in commands if type(command) is not Unanswered]
        if not heard:
            return succeed([])
        done: Deferred[list[Answer]] = Deferred()
        answers: list[Answer] = []

        def answered(answer: Answer) -> None:
            if isinstance(answer, Refused):
                answer = _explained(answer, heard[len(answers)])
            answers.append(answer)
            if len(answers) == len(heard) and not done.called:
                done.callback(answers)

        self._send(
            b"".join([hiredis.pack_command(tuple(command)) for command in commands]),
            answered,
            bound,
            len(heard),
        )
        return done

    def _send(
        self, packed: bytes, answered: Callable[[Answer], object], bound: float, answers: int = 1
    ) -> None:
        if not self._usable:
            for _ in range(answers):
                answered(NotConnected(self.reason))
            return
        # What is large may take longer to arrive.
        due = self._clock.seconds() + bound + len(packed) / SLOWEST
        self._waiting.extend([(answered, due)] * answers)
        if self._corked is None:
            eager.write(self.transport, packed)
        else:
            self._corked.append(packed)

    def together(self) -> AbstractContextManager[None]:
        """What is sent within goes out in one write at the end of it; within another, of that."""
        return self._cork if self._corked is None else _NOTHING

    def cork(self) -> None:
        """Hold back what is sent from now on."""
        self._corked = []

    def uncork(self) -> None:
        """Send what was held back."""
        corked, self._corked = self._corked, None
        if corked and self._usable:
            eager.write(self.transport, corked[0] if len(corked) == 1 else b"".join(corked))

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        """Bytes of one or more answers."""
        self._heard = self._clock.seconds()
        try:
            super().dataReceived(data, unpause)
        except txredisapi.InvalidData:
            self.drop("what answers there does not speak Redis's protocol")

    def replyReceived(self, reply: Answer) -> None:
        """An answer for the oldest command that waits."""
        if not self._waiting:
            self.drop(f"it said something unasked: {str(reply)[:200]}")
            return
        answered, _ = self._waiting.popleft()
        if isinstance(reply, Exception):
            text = str(reply)
            if text.startswith(_UNFIT):
                self.drop(text)
                reply = NotConnected(text)
            else:
                reply = Refused(text)
        answered(reply)

    def connectionLost(self, why: Failure) -> None:
        """Fail everything that waits, and tell who keeps the connection."""
        self._usable = False
        for call in (self._watch, self._late):
            if call is not None and call.active():
                call.cancel()
        self.reason = self.reason or _why(why)
        waiting, self._waiting = self._waiting, deque()
        super().connectionLost(why)
        for answered, _ in waiting:
            answered(ConnectionDropped(self.reason))
        self.lost.callback(None)

    def drop(self, reason: str) -> None:
        """Cut the connection at once, because of `reason`."""
        self.reason = self.reason or reason
        if self._usable:
            self._usable = False
            self.transport.abortConnection()

    def close(self) -> None:
        """Send what was written, and close the connection in order."""
        self.reason = self.reason or "closed"
        if self._usable:
            self._usable = False
            self.transport.loseConnection()
            # A peer that does not take our bytes or never closes its side must not keep us.
            self._late = self._clock.callLater(CLOSE_BOUND, self.transport.abortConnection)

    def _look(self) -> None:
        self._watch = self._clock.callLater(_TICK, self._look)
        now = self._clock.seconds()
        # A long answer that is still coming in is not late.
        if self._waiting and self._waiting[0][1] < now and self._heard + COMMAND_BOUND < now:
            self.drop("no answer in time")


class _Cork(AbstractContextManager[None]):
    """`RedisProtocol.together`; made once, as a generator for each job costs more than it saves."""

    def __init__(self, protocol: RedisProtocol) -> None:
        self._protocol = protocol

    def __enter__(self) -> None:
        self._protocol.cork()

    def __exit__(self, *raised: object) -> None:
        self._protocol.uncork()


def _explained(error: Exception, command: Sequence[Any]) -> Exception:
    """The error; where a right is missing, with what it was wanted for."""
    return Refused(explained(str(error.args[0]), command)) if isinstance(error, Refused) else error


def _why(failure: Failure) -> str:
    """The reason for a lost connection, in words; TLS has only lists of tuples for it."""
    error = failure.value
    if isinstance(error, VerificationError):
        return "TLS: the certificate is for another host"
    if isinstance(error, TLSError) and error.args and error.args[0]:
        return "TLS: " + "; ".join(str(one[-1]) for one in error.args[0])
    return failure.getErrorMessage()


def checked(answer: Answer) -> Answer:
    """One of the answers of `RedisProtocol.pipeline`; raised where it is an error."""
    if isinstance(answer, BrokerError):
        raise answer
    return answer
