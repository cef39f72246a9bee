"""A connection to a `MemoryStore`, which comes and goes as one to Redis does, and its turns.

Invariants:

1. A command takes effect when it is sent, and its Deferred fires in a later turn of the clock, as
   with Redis; with a `Clock`, ``clock.advance(0)`` runs all of it.
2. A command that was sent before the connection was lost, and not answered, fails with
   `ConnectionDropped`, whatever it did.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from queuerelay.broker.insist import insist
from queuerelay.errors import ConnectionDropped, NotConnected, Refused
from queuerelay.waiters import Waiters

_T = TypeVar("_T")


class MemoryConnection:
    """Answers commands, turn by turn; what it calls is set by the broker that has it."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        #: Called when there is a connection.
        self.on_up: Callable[[], object] = lambda: None
        #: Called when the connection is lost, before its commands fail.
        self.on_lost: Callable[[], object] = lambda: None
        #: Called at the end of each turn.
        self.on_turn: Callable[[], object] = lambda: None
        #: Why commands are refused, None while they are not.
        self.refusal: str | None = None
        self.up = False
        self._reachable = True
        self._started = self._stopped = False
        self._losing = False
        self._turn: IDelayedCall | None = None
        self._answers: deque[tuple[Deferred[Any], Any]] = deque()
        self._waiters: Waiters[None] = Waiters()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def start(self) -> None:
        """Connect, in the next turn."""
        self._started = True
        self.wake()

    def stop(self) -> None:
        """End all of it."""
        self._stopped = True
        self.lose("stopping")
        self._waiters.fail(NotConnected("stopping"))
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def when_up(self) -> Deferred[None]:
        """Fires when commands can be sent; may be cancelled."""
        if self.up:
            return succeed(None)
        if self._stopped:
            return fail(NotConnected("stopping"))
        return self._waiters.wait()

    def reach(self, reachable: bool) -> None:
        """Whether another connection can be made."""
        self._reachable = reachable
        if reachable:
            self.wake()

    def lose(self, reason: str) -> None:
        """Lose the connection now."""
        self.up = self._losing = False
        self.on_lost()
        answers, self._answers = self._answers, deque()
        for done, _ in answers:
            done.errback(ConnectionDropped(reason))

    def lose_later(self) -> None:
        """Lose the connection in the next turn, before anything is answered."""
        self._losing = True

    def ask(self, effect: Callable[[], _T], *, adds: bool = False) -> Deferred[_T]:
        """Let `effect` happen, if there is a connection, and answer in the next turn."""
        if not self.up:
            return fail(NotConnected("memory"))
        done: Deferred[_T] = Deferred()
        answer: _T | Failure
        try:
            if self.refusal is not None and (adds or not self.refusal.startswith("OOM")):
                raise Refused(self.refusal)
            answer = effect()
        except Refused:
            answer = Failure()
        self._answers.append((done, answer))
        self.wake()
        return done

    def insist(self, effect: Callable[[], bool]) -> Deferred[bool]:
        """Ask until there is an answer."""
        return insist(lambda: self.ask(effect), self.when_up)

    def wake(self) -> None:
        """Let there be a turn."""
        if self._turn is None and self._started and not self._stopped:
            self._turn = self._clock.callLater(0, self._take_turn)

    def _take_turn(self) -> None:
        self._turn = None
        if self._losing:
            self.lose("lost by the test")
        elif not self.up and self._reachable:
            self.up = True
            self.on_up()
            self._waiters.fire(None)
        # Those that these answers lead to get theirs in the next turn.
        for _ in range(len(self._answers)):
            if self._answers:
                done, answer = self._answers.popleft()
                (done.errback if isinstance(answer, Failure) else done.callback)(answer)
        self.on_turn()
        if self._answers or (not self.up and self._reachable):
            self.wake()
