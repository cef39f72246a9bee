"""The end of a claim, whatever Redis does meanwhile."""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from queuerelay.backoff import back_off
from queuerelay.broker.base import Broker
from queuerelay.errors import NotConnected, QueuerelayError, Refused
from queuerelay.pool.task import OutgoingReply
from queuerelay.seldom import Seldom
from queuerelay.wire.claim import Claim
from queuerelay.wire.failure import KEPT, Kept
from queuerelay.wire.recovery import is_no_list, unanswerable

#: First and longest pause before what Redis refused is asked again, in seconds.
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 5.0

_T = TypeVar("_T")
_Send = Callable[[], Deferred[bool]]


class GivenUp(QueuerelayError):
    """a message could not be settled before the pool stopped; its lease will expire"""


class Settler:
    """One way to end a claim each; they give whether it was still ours.

    Redis being away is the broker's to wait out; Redis saying no (BUSY, MISCONF, ...) is waited out
    here: what a script did must not be done again because of it. Both until `give_up`.
    Where the list for the reply is none, the message is a dead letter, and nothing is waited for.

    `left` counts by queue the messages that are over, `kept` is what dead letters keep.
    """

    _log = Logger()

    def __init__(
        self, broker: Broker, clock: IReactorTime, left: Counter[str], *, kept: Kept = KEPT
    ) -> None:
        self._broker = broker
        self._kept = kept
        self._clock = clock
        self._seldom = Seldom(clock)
        self._left = left
        self._given_up = False
        #: What is waited for, by what waits for it.
        self._waiting: dict[Deferred[Any], Deferred[Any]] = {}

    def acknowledge(self, claim: Claim, answer: OutgoingReply | None = None) -> Deferred[bool]:
        """The message is done; `answer` goes out in the same step."""
        if answer is None:
            acknowledged = self._until_answered(lambda: self._broker.leases.ack(claim))
        else:
            reply_to, reply = answer.reply_to, answer.reply
            acknowledged = self._until_answered(
                lambda: self._broker.leases.ack(claim, reply_to=reply_to, reply=reply),
                lambda refusal: self._without_reply(claim, reply_to, refusal),
            )
        return acknowledged.addCallback(self._over, claim.queue)

    def put_back(self, claim: Claim, message: bytes | None = None) -> Deferred[bool]:
        """The message goes back to the head of its queue, as if never taken, or as `message`."""
        back = claim.message if message is None else message
        return self._until_answered(lambda: self._broker.leases.retry(claim, back))

    def delay(self, claim: Claim, message: bytes, seconds: float) -> Deferred[bool]:
        """The message comes again as `message`, in `seconds`."""
        return self._until_answered(
            lambda: self._broker.delayed.delay(claim, message, seconds=seconds)
        )

    def fail(self, claim: Claim, entry: bytes, answer: OutgoingReply | None) -> Deferred[bool]:
        """The message is in ``resque:failed`` as `entry`; `answer` goes out in the same step."""
        reply_to = answer.reply_to if answer is not None else None
        reply = answer.reply if answer is not None else None
        failed = self._until_answered(
            lambda: self._broker.leases.fail(claim, entry, reply_to=reply_to, reply=reply),
            lambda refusal: self._without_reply(claim, reply_to, refusal, entry),
        )
        return failed.addCallback(self._over, claim.queue)

    def _without_reply(
        self, claim: Claim, reply_to: str | None, refusal: str, entry: bytes | None = None
    ) -> _Send | None:
        """What ends the claim where the list for its reply is none: a dead letter with the reason,
        as else the slot would wait until somebody mends the key. None for any other refusal.
        """
        if not is_no_list(refusal, reply_to):
            return None
        self._log.error(
            "a reply to a message of queue {queue} cannot be given, so it is a dead letter: "
            "{reason}; look at that key, then delete it",
            queue=claim.queue,
            reason=refusal,
        )
        if entry is None:
            entry = unanswerable(
                claim.message,
                queue=claim.queue,
                worker=claim.holder,
                error=refusal,
                now=self._broker.time(),
                kept=self._kept,
            ).entry
        kept = entry
        return lambda: self._broker.leases.fail(claim, kept)

    def _over(self, was_ours: bool, queue: str) -> bool:
        self._left[queue] += was_ours
        return was_ours

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds`; raises `GivenUp` where that comes first."""
        sleeping: Deferred[None] = deferLater(self._clock, seconds)
        try:
            await self._unless_given_up(sleeping)
        finally:
            sleeping.cancel()

    def give_up(self) -> None:
        """Wait for nothing from now on: what is not settled raises `GivenUp`."""
        self._given_up = True
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting.values():
            waiter.errback(GivenUp())

    def _until_answered(
        self, send: _Send, instead: Callable[[str], _Send | None] = lambda refusal: None
    ) -> Deferred[bool]:
        """Send until there is an answer; after a refusal what `instead` gives, if anything."""
        # Nearly always this is all of it, so only what comes after a refusal is a coroutine.
        return self._unless_given_up(send()).addErrback(
            lambda failure: Deferred.fromCoroutine(self._again(send, instead, failure))
        )

    async def _again(
        self, send: _Send, instead: Callable[[str], _Send | None], failure: Failure
    ) -> bool:
        refusals = 0
        while True:
            if failure.check(NotConnected):
                # The broker itself has stopped.
                raise GivenUp from failure.value
            failure.trap(Refused)
            assert failure.value is not None
            other = instead(str(failure.value.args[0]))
            if other is not None:
                return await self._until_answered(other)
            if self._seldom.due(str(failure.value)):
                self._log.warn(
                    "a message cannot be settled yet, it is tried again: {reason}",
                    reason=str(failure.value),
                )
            refusals += 1
            await self.sleep(back_off(refusals, first=FIRST_PAUSE, longest=LONGEST_PAUSE))
            try:
                return await self._unless_given_up(send())
            except (Refused, NotConnected):
                failure = Failure()

    def _unless_given_up(self, step: Deferred[_T]) -> Deferred[_T]:
        """Fires as `step` does, which is not cancelled: nothing that Redis was asked is."""
        if self._given_up:
            step.addErrback(lambda _: None)
            return fail(GivenUp())
        waiter: Deferred[_T] = Deferred()
        self._waiting[step] = waiter

        def fired(result: Any) -> None:
            if self._waiting.pop(step, None) is not None:
                # A Failure among them goes to the errbacks.
                waiter.callback(result)

        step.addBoth(fired)
        return waiter
