"""One message, from its claim to its end.

Invariants:

1. `Runner.run` settles its claim exactly once: acknowledged, delayed, put back or failed. Where it
   cannot (the pool stops while Redis is away), the lease expires, and whoever finds it decides.
2. Between a message's claim and the start of its script there is no wait, so a slot that has no
   child yet never will have one later than this turn of the reactor.
3. Whatever happens, no script of a message that is over runs on.
4. What was done under a lost lease is neither acknowledged nor answered: settling compares the
   claim's token.
"""

import errno
import os
import random
from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from queuerelay.backoff import back_off
from queuerelay.broker.base import Broker
from queuerelay.config import PoolConfig
from queuerelay.errors import BadRequest, BrokerError, CannotStart, MessageError, ReplyError
from queuerelay.pool import task
from queuerelay.pool.child import Child
from queuerelay.pool.cooldown import FIRST_REST, LONGEST_REST, PROOF, Rest
from queuerelay.pool.exits import (
    Acknowledge,
    Dead,
    EndReason,
    ProcessEnd,
    PutBack,
    RetryAt,
    next_step,
)
from queuerelay.pool.output import Capture, Lines
from queuerelay.pool.settle import GivenUp, Settler
from queuerelay.pool.slot import PoolSlot
from queuerelay.pool.tally import Tally, exit_record
from queuerelay.pool.task import Work, Workshop
from queuerelay.processes.interfaces import IProcesses
from queuerelay.wire.message import Attempt, with_attempt
from queuerelay.wire.outcome import Outcome
from queuerelay.wire.recovery import unreadable

#: Seconds before a message that we ourselves failed on gives up its slot.
_STUMBLE: Final = 1.0

#: How many messages are remembered whose script said that it cannot run.
MISFITS: Final = 1024

_REASONS: Final = {
    400: "400 Bad Request",
    431: "431 Request Header Fields Too Large",
    502: "502 Bad Gateway: the script that had this request failed.",
    504: "504 Gateway Timeout: the script took too long.",
}


class Runner:
    """Works on the messages of one pool, any number at a time.

    `holder` is ``hostname:pid`` of this process.
    """

    _log = Logger()

    def __init__(
        self,
        config: PoolConfig,
        broker: Broker,
        *,
        processes: IProcesses,
        clock: IReactorTime,
        wall_clock: Callable[[], float],
        holder: str,
    ) -> None:
        self._config = config
        self._broker = broker
        self._processes = processes
        self._clock = clock
        self._wall_clock = wall_clock
        self._holder = holder
        self._worker = f"queuerelay.{holder}:{','.join(config.queues)}"
        self._workshop = Workshop(config, inherited=dict(os.environb))
        self.rest = Rest(clock)
        self.tally = Tally()
        self.settler = Settler(broker, clock, self.tally.left)
        #: How often each has said so, the latest last.
        self._misfits: dict[str, int] = {}
        #: Called when the process of a slot is gone and its message is being acknowledged.
        self.on_settling: Callable[[PoolSlot], object] = lambda slot: None

    async def run(self, slot: PoolSlot) -> None:
        """Work on the slot's message; never raises."""
        try:
            try:
                await self._work_on(slot)
            except (BrokerError, GivenUp):
                raise
            except Exception:
                self._log.failure("pool {pool} failed on a message", pool=self._config.name)
                await self._stumbled(slot)
        except (BrokerError, GivenUp) as error:
            # The lease expires, and somebody else goes on.
            self._log.warn(
                "pool {pool} could not settle {message}: {reason}",
                pool=self._config.name,
                message=slot.message,
                reason=str(error),
            )
        except Exception:
            self._log.failure("pool {pool} could not settle a message", pool=self._config.name)
        finally:
            if slot.child is not None:
                slot.child.kill(EndReason.SHUTDOWN)

    async def _stumbled(self, slot: PoolSlot) -> None:
        """An error of ours, which another try may not meet: it counts as a crash."""
        try:
            work = task.read(slot.claim)
        except MessageError:
            await self.settler.sleep(_STUMBLE)
            return
        attempt = Attempt(
            started_at=self._wall_clock(),
            run=0.0,
            error="an error of queuerelay's own; its log has more",
            worker=self._holder,
        )
        await self._settle(work, Outcome.CRASH, ProcessEnd(not_started=attempt.error), attempt)

    # Before the script

    async def _work_on(self, slot: PoolSlot) -> None:
        claim, now = slot.claim, self._wall_clock()
        try:
            work = task.read(claim)
        except MessageError as error:
            await self._unreadable(slot, error)
            return
        slot.message, slot.attempt = work.id, work.attempt
        request = work.message.request
        slot.client_waits = request is not None
        if request is not None and request.deadline <= now:
            self._count("expired")
            await self.settler.acknowledge(claim)
            return
        try:
            environment = self._workshop.environment(work)
            argv = self._workshop.argv(work)
            stdin = work.stdin()
        except BadRequest as error:
            await self._refuse(work, 400, error)
        except MessageError as error:
            await self._fail(work, reason=str(error))
        except (CannotStart, ValueError, OSError) as error:
            await self._not_started(work, str(error))
        else:
            await self._run_script(slot, work, argv, environment, stdin)

    async def _unreadable(self, slot: PoolSlot, error: MessageError) -> None:
        claim = slot.claim
        self._log.warn(
            "pool {pool}: unreadable message on queue {queue}: {reason}",
            pool=self._config.name,
            queue=claim.queue,
            reason=str(error),
        )
        self._count("unreadable")
        verdict = unreadable(
            claim.message,
            queue=claim.queue,
            worker=self._holder,
            error=error,
            now=self._wall_clock(),
        )
        answer = None
        if verdict.reply_to is not None and verdict.reply is not None:
            answer = task.OutgoingReply(reply_to=verdict.reply_to, reply=verdict.reply)
        self.tally.failed += 1
        await self.settler.fail(claim, verdict.entry, answer)

    async def _refuse(self, work: Work, status: int, error: Exception) -> None:
        """The client asks for what no script can be given: its fault, and nobody else's matter."""
        self._count("refused")
        answer = task.refusal(work, status, f"{_REASONS[status]}: {error}")
        await self.settler.acknowledge(work.claim, answer)

    # The script

    async def _run_script(
        self,
        slot: PoolSlot,
        work: Work,
        argv: list[bytes],
        environment: dict[bytes, bytes],
        stdin: bytes,
    ) -> None:
        output = Capture(whole=work.wants_output, cap=self._config.max_output)
        errors = Lines()

        def printed(chunk: bytes) -> None:
            output.feed(chunk)
            if output.over_limit:
                child.end(EndReason.OUTPUT)

        def complained(chunk: bytes) -> None:
            for line in errors.feed(chunk, self._clock.seconds()):
                self._say(work, line)

        child = Child(
            stdin=stdin,
            clock=self._clock,
            on_output=printed,
            on_errors=complained,
            grace=self._config.grace,
        )
        started_at, started = self._wall_clock(), self._clock.seconds()
        try:
            child.start(self._processes.launch, argv, environment)
        except OSError as error:
            if error.errno == errno.E2BIG:
                # What is common to all scripts has room; this message is too large for the rest.
                await self._too_big(work)
            else:
                await self._not_started(work, str(error))
            return
        except ValueError as error:
            await self._not_started(work, str(error))
            return
        slot.child = child
        timers = [self._clock.callLater(self._patience(work), child.end, EndReason.TIMEOUT)]
        if self.rest.reason:
            timers.append(self._clock.callLater(PROOF, self.rest.proved, started))
        try:
            exit = await child.done
        finally:
            for timer in timers:
                if timer.active():
                    timer.cancel()
        if exit.not_started is not None:
            await self._not_started(work, exit.not_started)
            return
        for line in errors.finish():
            self._say(work, line)
        if errors.skipped:
            self._say(work, f"{errors.skipped} more lines on stderr were not logged")
        outcome = self._workshop.outcome(work, exit, output)
        if outcome is not Outcome.MISCONFIGURED:
            self.rest.proved(started)
        stderr = errors.tail()
        self._add(work, exit, outcome, stderr)
        self._measure(work, started_at, exit)
        attempt = Attempt(
            started_at=started_at,
            run=exit.run,
            error=str(exit),
            worker=self._holder,
            exit=exit.code,
            signal=exit.signal_name or "",
            stderr=stderr,
        )
        if outcome is Outcome.SUCCESS:
            await self._succeed(slot, work, output, attempt)
        else:
            self._log.info(
                "pool {pool}: {message} ended with {exit}: {outcome}",
                pool=self._config.name,
                message=work.id,
                exit=str(exit),
                outcome=outcome.value,
            )
            await self._settle(work, outcome, exit, attempt)

    def _patience(self, work: Work) -> float:
        """Seconds that the script may run: nobody waits after the deadline."""
        request = work.message.request
        if request is None:
            return self._config.timeout
        left = max(0.0, request.deadline - self._wall_clock())
        return min(self._config.timeout, left)

    # What becomes of the message

    async def _succeed(self, slot: PoolSlot, work: Work, output: Capture, attempt: Attempt) -> None:
        request = work.message.request
        # The seed's relay does not say when it took the request.
        wait = attempt.started_at - request.accepted_at if request and request.accepted_at else 0.0
        try:
            answer = task.success(work, output, wait=wait, run=attempt.run)
        except ReplyError as error:
            await self._fail(work, reason=str(error), last=attempt)
            return
        with self._broker.together():
            acknowledged = self.settler.acknowledge(work.claim, answer)
            # The next message is asked for in the same write, without waiting for Redis in between.
            slot.settling = True
            self.on_settling(slot)
        if not await acknowledged:
            self._log.warn(
                "pool {pool}: {message} was no longer ours when its script had ended",
                pool=self._config.name,
                message=work.id,
            )

    async def _settle(
        self, work: Work, outcome: Outcome, exit: ProcessEnd, attempt: Attempt
    ) -> None:
        step = next_step(
            outcome,
            work.message,
            attempt=work.attempt,
            tries=self._config.tries,
            now=self._wall_clock(),
            jitter=random.random(),
        )
        match step:
            case Acknowledge():
                await self.settler.acknowledge(work.claim)
            case RetryAt(when=when):
                try:
                    message = with_attempt(work.claim.message, attempt)
                except MessageError as error:
                    await self._fail(work, reason=str(error), last=attempt)
                    return
                await self.settler.delay(work.claim, message, max(0.0, when - self._wall_clock()))
            case PutBack() if outcome is Outcome.MISCONFIGURED:
                reason = f"{exit}; {attempt.stderr[-200:].strip()}".rstrip("; ")
                await self._misfit(work, reason)
            case PutBack():
                await self.settler.put_back(work.claim)
            case Dead(reason=reason):
                await self._fail(work, reason=reason, last=attempt, status=exit.reply_status)

    async def _not_started(self, work: Work, reason: str) -> None:
        """The script is at fault, not the message: it goes back without using a try."""
        self._take_a_rest(reason)
        self._add(work, ProcessEnd(not_started=reason), Outcome.MISCONFIGURED, "")
        await self.settler.put_back(work.claim)

    async def _misfit(self, work: Work, reason: str) -> None:
        """The script says that it cannot run: back, without using a try.

        Mostly that is the script's affair, and the pool rests. Where the same message says so
        again it may be the message's: then it waits, so that the others behind it get their turn,
        and the pool goes on where they succeed.
        """
        again = self._misfits.pop(work.id, 0)
        while len(self._misfits) >= MISFITS:
            del self._misfits[next(iter(self._misfits))]
        self._misfits[work.id] = again + 1
        if not again or self.rest.reason:
            self._take_a_rest(reason)
        if again:
            pause = back_off(again + 1, first=FIRST_REST, longest=LONGEST_REST)
            await self.settler.delay(work.claim, work.claim.message, pause)
        else:
            await self.settler.put_back(work.claim)

    async def _too_big(self, work: Work) -> None:
        reason = "it is more than a process can be given in arguments and environment"
        if work.message.request is not None:
            await self._refuse(work, 431, MessageError(reason))
        else:
            await self._fail(work, reason=reason)

    async def _fail(
        self, work: Work, *, reason: str, last: Attempt | None = None, status: int = 502
    ) -> None:
        entry = task.failure(
            work, worker=self._worker, reason=reason, last=last, now=self._wall_clock()
        )
        self._log.warn(
            "pool {pool}: {message} failed: {reason}",
            pool=self._config.name,
            message=work.id,
            reason=reason,
        )
        self.tally.failed += 1
        await self.settler.fail(work.claim, entry, task.refusal(work, status, _REASONS[status]))

    def _take_a_rest(self, reason: str) -> None:
        if self.rest.take(reason):
            self._log.error(
                "pool {pool} cannot run its command: {reason}; it tries again in {rest:.0f} s",
                pool=self._config.name,
                reason=reason,
                rest=self.rest.seconds,
            )

    # What is told of it

    def _count(self, what: str) -> None:
        self.tally.count(what, self._clock.seconds())

    def _add(self, work: Work, exit: ProcessEnd, outcome: Outcome, stderr: str) -> None:
        shown = exit_record(
            exit,
            at=self._wall_clock(),
            message=work.id,
            queue=work.claim.queue,
            outcome=outcome,
            stderr=stderr,
        )
        self.tally.add(shown, self._clock.seconds())

    def _measure(self, work: Work, started_at: float, exit: ProcessEnd) -> None:
        queue, pushed_at = work.claim.queue, work.message.pushed_at
        self.tally.runs[queue].observe(exit.run)
        if work.attempt == 1 and pushed_at is not None:
            self.tally.waits[queue].observe(started_at - pushed_at)

    def _say(self, work: Work, line: str) -> None:
        self._log.info(
            "{pool} {message}: {line}", pool=self._config.name, message=work.id, line=line
        )
