"""A connection to Redis that is always being made, until it is told to stop.

The loop is our own instead of `ClientService`, which raises ``NoTransition`` into the log when a
connection drops while it is still being prepared, and reports every single attempt.
"""

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from queuerelay.backoff import back_off
from queuerelay.broker.insist import insist
from queuerelay.broker.redis.entrance import connect, enter, reason_of
from queuerelay.broker.redis.master import Master
from queuerelay.broker.redis.outage import OutageLog
from queuerelay.broker.redis.protocol import COMMAND_BOUND, Answer, RedisProtocol, checked
from queuerelay.errors import BrokerError, NotConnected, Refused, Unusable
from queuerelay.waiters import Waiters
from queuerelay.wire.commands import Call
from queuerelay.wire.server import meaning
from queuerelay.wire.url import RedisUrl

#: First and longest pause between two attempts, in seconds, before jitter.
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
#: Longest one where there are several servers: an election is soon over.
LONGEST_PAUSE_OF_SEVERAL: Final = 1.0

_T = TypeVar("_T")


def pause(attempt: int, longest: float | None = None) -> float:
    """Seconds to wait after the failed `attempt`, from 1: doubled each time, half of it jitter."""
    jitter, most = random.random() / 2, longest or LONGEST_PAUSE
    return back_off(attempt, first=FIRST_PAUSE, longest=most, jitter=jitter)


class RedisConnection:
    """Keeps one prepared connection to the master, whatever happens to it.

    `name` shows in ``CLIENT LIST``.
    """

    _log = Logger()

    def __init__(
        self,
        master: Master,
        *,
        name: str,
        reactor: IReactorTime,
        outages: OutageLog,
    ) -> None:
        self._master = master
        self._name = name
        self._reactor = reactor
        self._outages = outages
        #: Called each time that the connection is ready; `when_up` waits for the Deferred that it
        #: may give.
        self.on_up: Callable[[], object] = lambda: None
        #: Why what answers there cannot be used; None where it can, or nobody answers.
        self.fault: Unusable | None = None
        #: Place of the server that it is connected to, or was last.
        self.place = ""
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

    def drop(self, reason: str = "dropped") -> None:
        """Abort the connection; it is made anew at once."""
        if self._protocol is not None:
            self._protocol.drop(reason)

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
            return fail(NotConnected(self._master.url.redacted))
        return self._protocol.call(*args, bound=bound)

    def pipeline(
        self, *commands: Sequence[object], bound: float = COMMAND_BOUND
    ) -> Deferred[list[Answer]]:
        """Several commands in one round trip; errors come as values among the answers."""
        if self._protocol is None:
            return fail(NotConnected(self._master.url.redacted))
        return self._protocol.pipeline(*commands, bound=bound)

    def together(self) -> AbstractContextManager[None]:
        """What is sent within goes out in one write, where there is a connection."""
        return self._protocol.together() if self._protocol is not None else nullcontext()

    def run(self, call: Call[_T]) -> Deferred[_T]:
        """One run of a script; fires with what its answer means."""
        if self._protocol is None:
            return fail(NotConnected(self._master.url.redacted))

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
        attempt, several = 0, self._master.url.several
        while True:
            attempt += 1
            failed: list[tuple[str, Exception]] = []
            try:
                places = await self._until_stop(Deferred.fromCoroutine(self._master.places()))
            except Exception as error:
                places, failed = [], [("", error)]
            for place in places:
                served, ended = await self._visit(place, self._master.bound(attempt))
                if self._stopping:
                    return
                # What the others said is over where one has served.
                failed = [] if served else failed
                failed.append((f"{place.server}: " if several else "", ended))
                if served:
                    attempt = 1
                    break
            if self._stopping:
                return
            self._failed(failed, self._master.bound(attempt))
            wait = pause(attempt, LONGEST_PAUSE_OF_SEVERAL if several else None)
            try:
                await self._until_stop(deferLater(self._reactor, wait))
            except CancelledError:
                return

    async def _until_stop(self, step: Deferred[_T]) -> _T:
        """The result of `step`, which `stop` cancels."""
        self._step = step
        try:
            return await step
        finally:
            self._step = None

    async def _visit(self, place: RedisUrl, bound: float) -> tuple[bool, Exception]:
        """Connect to the server at `place`, and offer the connection until it is lost.

        Gives whether it was offered, and the reason of its end.
        """
        protocol: RedisProtocol | None = None
        served, ended = False, Exception()
        try:
            connecting = connect(place, self._reactor, bound=bound)
            protocol = await self._until_stop(connecting)
            version = await self._until_stop(self._enter(protocol, place, bound))
        except Exception as error:
            ended = error
        else:
            served = await self._serve(protocol, version, place)
            ended = NotConnected(protocol.reason)
        if protocol is not None:
            protocol.drop(reason_of(ended, bound))
            # Not a moment later than the transport is anything of it left.
            await protocol.lost
        return served, ended

    def _enter(self, protocol: RedisProtocol, place: RedisUrl, bound: float) -> Deferred[str]:
        name = f"queuerelay-{self._name}"
        entering = enter(protocol, place, name=name, keys=self._master.keys)
        return Deferred.fromCoroutine(entering).addTimeout(bound, self._reactor)

    async def _serve(self, protocol: RedisProtocol, version: str, place: RedisUrl) -> bool:
        """Offer the connection until it is lost; False where it was lost already."""
        if self._stopping or not protocol.usable:
            return False
        self._protocol = protocol
        self.place = place.server
        self.fault = None
        self._master.up(self, place, protocol.drop)
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
        self._master.down(self)
        return True

    def _failed(self, failed: Sequence[tuple[str, Exception]], bound: float) -> None:
        """Say why there is no connection, by the place and the error of each server."""
        said = [f"{place}{reason_of(error, bound)}" for place, error in failed]
        reason = "; ".join(said)
        faults = (_fault(error) for _, error in failed)
        found = next((fault for fault in faults if fault is not None), None)
        if found is not None:
            several = len(failed) > 1
            found = Unusable(reason if several else str(found.args[0]), code=found.code)
            reason = str(found.args[0])
        self.fault = found
        self._outages.down(self._name, reason)


def _fault(error: Exception) -> Unusable | None:
    """What an error says of the server as a whole; None where it does not answer."""
    if isinstance(error, Unusable):
        return error
    return meaning(str(error.args[0])) if isinstance(error, BrokerError) and error.args else None
