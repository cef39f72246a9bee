"""What others may see of a pool on Redis: Resque's list of workers, and its counters.

Invariant: a job never waits for its registration. What is said in one turn of the reactor goes out
in one write, and what becomes of it is told to the log alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure as TwistedFailure

from queuerelay.broker.redis.connection import RedisConnection
from queuerelay.errors import ConnectionDropped, NotConnected, Refused
from queuerelay.seldom import Seldom
from queuerelay.waiters import Waiters
from queuerelay.wire.keys import Keys
from queuerelay.wire.working import encode_working, iso_8601


class RedisRegistry:
    """See `queuerelay.broker.base.RegistryPart`; in the words of Ruby Resque's `Resque::Worker`."""

    _log = Logger()

    def __init__(
        self,
        commands: RedisConnection,
        keys: Keys,
        *,
        clock: IReactorTime,
        unix_time: Callable[[], float],
    ) -> None:
        self._commands = commands
        self._keys = keys
        self._clock = clock
        self._unix_time = unix_time
        self._seldom = Seldom(clock)
        #: What is said in this turn, and who is to hear that it was.
        self._said: list[Sequence[object]] = []
        self._waiting: Waiters[None] = Waiters()
        self._turn: IDelayedCall | None = None

    def register(self, worker_id: str, queues: Sequence[str]) -> Deferred[None]:
        """List a worker and its queues, where resque-web looks."""
        keys = self._keys
        started = iso_8601(self._unix_time())
        said: list[Sequence[object]] = [
            ("SADD", keys.workers, worker_id),
            ("SET", keys.worker_started(worker_id), started),
        ]
        if queues:
            said.append(("SADD", keys.queues, *queues))
        return self._say(*said)

    def unregister(self, worker_id: str) -> Deferred[None]:
        """Take the worker off the list."""
        keys = self._keys
        return self._say(
            ("SREM", keys.workers, worker_id),
            (
                "DEL",
                keys.worker(worker_id),
                keys.worker_started(worker_id),
                keys.stat("processed", worker_id),
                keys.stat("failed", worker_id),
            ),
        )

    def working_on(self, worker_id: str, queue: str, message: bytes | None) -> Deferred[None]:
        """Say what the worker runs from now on."""
        key = self._keys.worker(worker_id)
        if message is None:
            return self._say(("DEL", key))
        now = self._unix_time()
        return self._say(("SET", key, encode_working(worker_id, queue, message, run_at=now)))

    def count(
        self, worker_id: str | None = None, *, processed: int = 0, failed: int = 0
    ) -> Deferred[None]:
        """Add to Resque's counters."""
        return self._say(
            *(
                ("INCRBY", self._keys.stat(name, whose), by)
                for name, by in (("processed", processed), ("failed", failed))
                for whose in dict.fromkeys((None, worker_id))
                if by
            )
        )

    def all_paused(self) -> Deferred[bool]:
        """Whether somebody has paused all workers."""
        return self._commands.call("GET", self._keys.pause_all).addCallback(
            lambda value: value == b"true"
        )

    def _say(self, *commands: Sequence[object]) -> Deferred[None]:
        if self._turn is None:
            self._turn = self._clock.callLater(0, self.flush)
        self._said.extend(commands)
        return self._waiting.wait()

    def flush(self) -> None:
        """Send what is left to say."""
        turn, self._turn = self._turn, None
        if turn is None:
            return
        if turn.active():
            turn.cancel()
        said, self._said = self._said, []
        waiting, self._waiting = self._waiting, Waiters()

        def told(answers: Sequence[Any]) -> None:
            for answer in answers:
                if isinstance(answer, Refused) and self._seldom.due(reason := str(answer.args[0])):
                    self._log.warn(
                        "Redis refuses what it is told of workers: {reason}", reason=reason
                    )
            waiting.fire(None)

        def lost(failure: TwistedFailure) -> Sequence[Any]:
            # Whoever keeps the connection tells of that.
            failure.trap(NotConnected, ConnectionDropped)
            return ()

        sent = self._commands.pipeline(*said)
        sent.addErrback(lost).addCallback(told)
        sent.addErrback(lambda failure: self._log.failure("registration failed", failure))
