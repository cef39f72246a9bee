"""What becomes of a message, by what its script did: settled, counted, logged.

`exits` decides, `settle` tells Redis. Invariant: each method that settles a claim does so once, or
raises `GivenUp` or a `BrokerError`: then the lease expires, and somebody else goes on.
"""

import random
from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from queuerelay.backoff import back_off
from queuerelay.config import PoolConfig
from queuerelay.errors import MessageError, ReplyError
from queuerelay.pool import task
from queuerelay.pool.cooldown import FIRST_REST, LONGEST_REST, Cooldown
from queuerelay.pool.exits import (
    MOMENT,
    Acknowledge,
    Dead,
    ProcessEnd,
    PutBack,
    RetryAt,
    may_repeat,
    next_step,
)
from queuerelay.pool.misfits import Misfits, given_up
from queuerelay.pool.output import Capture
from queuerelay.pool.runtime import Runtime
from queuerelay.pool.settle import Settler
from queuerelay.pool.slot import PoolSlot
from queuerelay.pool.stopping import Doubts
from queuerelay.pool.tally import Tally, exit_record
from queuerelay.pool.task import Work
from queuerelay.wire.claim import Claim
from queuerelay.wire.message import (
    Attempt,
    FailedStarts,
    waited,
    with_attempt,
    with_failed_starts,
)
from queuerelay.wire.outcome import Outcome
from queuerelay.wire.recovery import unreadable

#: Seconds before a message that we ourselves failed on gives up its slot.
_STUMBLE: Final = 1.0

_REASONS: Final = {
    400: "400 Bad Request",
    431: "431 Request Header Fields Too Large",
    502: "502 Bad Gateway: the script that had this request failed.",
    504: "504 Gateway Timeout: the script took too long.",
}


class Disposition:
    """Settles the messages of one pool, counts them in `tally`, and takes a `rest` where the pool's
    command cannot be run.
    """

    _log = Logger()

    def __init__(
        self, config: PoolConfig, runtime: Runtime, settler: Settler, rest: Cooldown, tally: Tally
    ) -> None:
        self._config = config
        self._broker = runtime.broker
        self._clock = runtime.clock
        self._wall_clock = runtime.wall_clock
        self._holder = runtime.holder
        self._kept = runtime.kept
        self._worker = runtime.worker_id(config.queues)
        self._settler = settler
        self._rest = rest
        self._tally = tally
        self.misfits = Misfits(runtime.clock)
        #: Called when the process of a slot is gone and its message is still to be settled.
        self.on_settling: Callable[[PoolSlot], object] = lambda slot: None

    # No script has seen it

    async def unreadable(self, claim: Claim, error: MessageError) -> None:
        """The message says nothing that could be given to a script: it fails for good."""
        self._log.warn(
            "pool {pool}: unreadable message on queue {queue}: {reason}",
            pool=self._config.name,
            queue=claim.queue,
            reason=str(error),
        )
        self._count("unreadable")
        verdict = unreadable(
            claim.message,
            keys=self._broker.keys,
            queue=claim.queue,
            worker=self._holder,
            error=error,
            now=self._wall_clock(),
            kept=self._kept,
        )
        answer = None
        if verdict.reply_to is not None and verdict.reply is not None:
            answer = task.OutgoingReply(reply_to=verdict.reply_to, reply=verdict.reply)
        self._tally.failed += 1
        await self._settler.fail(claim, verdict.entry, answer)

    async def expired(self, claim: Claim) -> None:
        """The deadline is over before its script was started: nobody waits any more."""
        self._count("expired")
        await self._settler.acknowledge(claim)

    async def refuse(self, work: Work, status: int, error: Exception) -> None:
        """The client asks for what no script can be given: its fault, and nobody else's matter."""
        self._count("refused")
        answer = task.refusal(work, status, f"{_REASONS[status]}: {error}")
        await self._settler.acknowledge(work.claim, answer)

    async def too_big(self, work: Work) -> None:
        """The message does not fit into the arguments and the environment of a process."""
        reason = "it is more than a process can be given in arguments and environment"
        if work.message.request is not None:
            await self.refuse(work, 431, MessageError(reason))
        else:
            await self.fail(work, reason=reason)

    async def not_started(self, work: Work, reason: str) -> None:
        """The script is at fault, not the message: it goes back without using a try."""
        self._take_a_rest(reason)
        self._add(work, ProcessEnd(not_started=reason), Outcome.MISCONFIGURED)
        await self._back_or_dead(work, reason)

    async def stumbled(self, claim: Claim) -> None:
        """An error of ours, which another try may not meet: it counts as a crash."""
        try:
            work = task.read(claim, self._broker.keys)
        except MessageError:
            await self._settler.sleep(_STUMBLE)
            return
        attempt = Attempt(
            started_at=self._wall_clock(),
            run=0.0,
            error="an error of queuerelay's own; its log has more",
            worker=self._holder,
        )
        end = ProcessEnd(not_started=attempt.error)
        await self.settle(work, Outcome.CRASH, end, attempt)

    # Its script has ended

    def count(self, work: Work, exit: ProcessEnd, outcome: Outcome, attempt: Attempt) -> None:
        """Count the attempt, how long it ran, and how long the message had waited for the first."""
        if outcome is not Outcome.MISCONFIGURED:
            self.misfits.forget(work.id)
        self._add(work, exit, outcome, attempt)
        queue, wait = work.claim.queue, waited(work.message.pushed_at, attempt.started_at)
        self._tally.runs[queue].observe(exit.run)
        if work.attempt == 1 and wait is not None:
            self._tally.waits[queue].observe(wait)

    async def succeed(
        self, slot: PoolSlot, work: Work, output: Capture, attempt: Attempt, doubts: Doubts
    ) -> None:
        """Acknowledge the message, and send what its script printed to whoever waits for it.

        What is no answer may be so because of our stop: then the message goes back.
        """
        request = work.message.request
        # The seed's relay does not say when it took the request.
        wait = attempt.started_at - request.accepted_at if request and request.accepted_at else 0.0
        try:
            answer = task.success(work, output, wait=wait, run=attempt.run)
        except ReplyError as error:
            if may_repeat(work.message):
                self.freed(slot)
                if await doubts.wait(MOMENT):
                    await self._settler.put_back(work.claim)
                    return
            await self.fail(work, reason=str(error), last=attempt)
            return
        with self._broker.together():
            acknowledged = self._settler.acknowledge(work.claim, answer)
            # The next message is asked for in the same write, without waiting for Redis in between.
            self.freed(slot)
        if not await acknowledged:
            self._log.warn(
                "pool {pool}: {message} was no longer ours when its script had ended",
                pool=self._config.name,
                message=work.id,
            )

    def freed(self, slot: PoolSlot) -> None:
        """The process of the slot is gone: there is room for another, whatever is still to do."""
        slot.settling = True
        self.on_settling(slot)

    async def settle(
        self, work: Work, outcome: Outcome, exit: ProcessEnd, attempt: Attempt
    ) -> None:
        """Do with the message what `exits.next_step` says."""
        step = next_step(
            outcome,
            work.message,
            attempt=work.attempt,
            tries=self._config.tries,
            # Whatever was waited for since: the pause begins with the end.
            now=attempt.started_at + attempt.run,
            jitter=random.random(),
        )
        match step:
            case Acknowledge():
                await self._settler.acknowledge(work.claim)
            case RetryAt(when=when):
                try:
                    message = with_attempt(work.claim.message, attempt)
                except MessageError as error:
                    await self.fail(work, reason=str(error), last=attempt)
                    return
                await self._settler.delay(work.claim, message, max(0.0, when - self._wall_clock()))
            case PutBack() if outcome is Outcome.MISCONFIGURED:
                said = attempt.stderr or attempt.stdout
                reason = f"{exit}; {said[-200:].strip()}".rstrip("; ")
                await self._misfit(work, reason, attempt)
            case PutBack():
                await self._settler.put_back(work.claim)
            case Dead(reason=reason):
                await self.fail(work, reason=reason, last=attempt, status=exit.reply_status)

    async def _misfit(self, work: Work, reason: str, attempt: Attempt) -> None:
        """The script says that it cannot run.

        Mostly that is the script's affair, and the pool rests. Where the same message says so
        again it may be the message's: then it waits, so that the others behind it get their turn,
        and the pool goes on where they succeed.
        """
        again = work.message.failed_starts.number > 0
        if not again or self._rest.reason:
            self._take_a_rest(reason)
        await self._back_or_dead(work, reason, last=attempt, waits=again)

    async def _back_or_dead(
        self, work: Work, reason: str, *, last: Attempt | None = None, waits: bool = False
    ) -> None:
        """Back without using a try, where it `waits` after a while; after too many tries, or too
        long, it fails. The message itself knows of them: also whoever takes it next.
        """
        before, now = work.message.failed_starts, self._wall_clock()
        starts = FailedStarts(
            number=before.number + 1, since=before.since if before.number else now
        )
        most, since = self._config.start_tries, now - starts.since
        if since >= self._config.start_patience or (most is not None and starts.number >= most):
            await self.fail(work, reason=given_up(starts.number, since, reason), last=last)
            return
        if before.number:
            self.misfits.note(work.id, reason)
        try:
            message = with_failed_starts(work.claim.message, starts)
        except MessageError as error:
            await self.fail(work, reason=str(error), last=last)
            return
        if waits:
            pause = back_off(starts.number, first=FIRST_REST, longest=LONGEST_REST)
            await self._settler.delay(work.claim, message, pause)
        else:
            await self._settler.put_back(work.claim, message)

    async def fail(
        self, work: Work, *, reason: str, last: Attempt | None = None, status: int = 502
    ) -> None:
        """The message fails for good for `reason`; whoever waits for a reply gets `status`."""
        entry = task.failure(
            work,
            worker=self._worker,
            reason=reason,
            last=last,
            now=self._wall_clock(),
            kept=self._kept,
        )
        self._log.warn(
            "pool {pool}: {message} failed: {reason}",
            pool=self._config.name,
            message=work.id,
            reason=reason,
        )
        self.misfits.forget(work.id)
        self._tally.failed += 1
        await self._settler.fail(work.claim, entry, task.refusal(work, status, _REASONS[status]))

    def _take_a_rest(self, reason: str) -> None:
        if self._rest.take(reason):
            self._log.error(
                "pool {pool} cannot run its command: {reason}; it tries again in {rest:.0f} s",
                pool=self._config.name,
                reason=reason,
                rest=self._rest.seconds,
            )

    # Counters

    def _count(self, what: str) -> None:
        self._tally.count(what, self._clock.seconds())

    def _add(
        self, work: Work, exit: ProcessEnd, outcome: Outcome, attempt: Attempt | None = None
    ) -> None:
        shown = exit_record(
            exit,
            at=self._wall_clock(),
            message=work.id,
            queue=work.claim.queue,
            outcome=outcome,
            stderr=attempt.stderr if attempt is not None else "",
            stdout=attempt.stdout if attempt is not None else "",
        )
        self._tally.add(shown, self._clock.seconds())
