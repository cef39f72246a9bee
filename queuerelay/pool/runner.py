"""One message, from its claim to its end.

Invariants:

1. `Runner.run` has its claim settled exactly once, by one call of `disposition`: acknowledged,
   delayed, put back or failed. Where that cannot be (the pool stops while Redis is away), the lease
   expires, and whoever finds it decides.
2. Between a message's claim and the start of its script there is no wait, so a slot that has no
   child yet never will have one later than this turn of the reactor.
3. Whatever happens, no script of a message that is over runs on.
4. What was done under a lost lease is neither acknowledged nor answered: settling compares the
   claim's token.
"""

import errno
import os

from twisted.logger import Logger

from queuerelay.config import PoolConfig
from queuerelay.errors import BadRequest, BrokerError, CannotStart, MessageError
from queuerelay.pool import task
from queuerelay.pool.child import Child
from queuerelay.pool.cooldown import PROOF, Cooldown
from queuerelay.pool.disposition import Disposition
from queuerelay.pool.exits import EndReason, doubt
from queuerelay.pool.logged import Logged
from queuerelay.pool.output import Capture
from queuerelay.pool.runtime import Runtime
from queuerelay.pool.settle import GivenUp
from queuerelay.pool.slot import PoolSlot
from queuerelay.pool.stopping import Doubts
from queuerelay.pool.task import Work, Workshop
from queuerelay.wire.message import Attempt
from queuerelay.wire.outcome import Outcome


class Runner:
    """Runs the scripts of one pool, any number at a time."""

    _log = Logger()

    def __init__(
        self,
        config: PoolConfig,
        runtime: Runtime,
        disposition: Disposition,
        rest: Cooldown,
        doubts: Doubts,
    ) -> None:
        self._config = config
        self._broker = runtime.broker
        self._launch = runtime.processes.launch
        self._clock = runtime.clock
        self._wall_clock = runtime.wall_clock
        self._holder = runtime.holder
        self._workshop = Workshop(config, inherited=dict(os.environb))
        self._disposition = disposition
        self._rest = rest
        self._doubts = doubts

    async def run(self, slot: PoolSlot) -> None:
        """Work on the slot's message; never raises."""
        try:
            try:
                await self._work_on(slot)
            except (BrokerError, GivenUp):
                raise
            except Exception:
                self._log.failure("pool {pool} failed on a message", pool=self._config.name)
                await self._disposition.stumbled(slot.claim)
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

    # Before the script

    async def _work_on(self, slot: PoolSlot) -> None:
        claim, now = slot.claim, self._wall_clock()
        try:
            work = task.read(claim, self._broker.keys)
        except MessageError as error:
            await self._disposition.unreadable(claim, error)
            return
        slot.message, slot.attempt = work.id, work.attempt
        request = work.message.request
        slot.client_waits = request is not None
        if request is not None and request.deadline <= now:
            await self._disposition.expired(claim)
            return
        try:
            environment = self._workshop.environment(work, skew=self._broker.skew or 0.0)
            argv = self._workshop.argv(work)
            stdin = work.stdin()
        except BadRequest as error:
            await self._disposition.refuse(work, 400, error)
        except MessageError as error:
            await self._disposition.fail(work, reason=str(error))
        except (CannotStart, ValueError, OSError) as error:
            await self._disposition.not_started(work, str(error))
        else:
            await self._run_script(slot, work, argv, environment, stdin)

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
        errors = Logged(self._clock, lambda line: self._say(work, line))

        def printed(chunk: bytes) -> None:
            output.feed(chunk)
            if output.over_limit:
                child.end(EndReason.OUTPUT)

        child = Child(
            stdin=stdin,
            clock=self._clock,
            on_output=printed,
            on_errors=errors.heard,
            grace=self._config.grace,
        )
        started_at, started = self._wall_clock(), self._clock.seconds()
        try:
            child.start(self._launch, argv, environment)
        except OSError as error:
            if error.errno == errno.E2BIG:
                # What is common to all scripts has room; this message is too large for the rest.
                await self._disposition.too_big(work)
            else:
                await self._disposition.not_started(work, str(error))
            return
        except ValueError as error:
            await self._disposition.not_started(work, str(error))
            return
        slot.child = child
        timers = [self._clock.callLater(self._patience(work), child.end, EndReason.TIMEOUT)]
        if self._rest.reason:
            timers.append(self._clock.callLater(PROOF, self._rest.proved, started))
        try:
            exit = await child.done
        finally:
            for timer in timers:
                if timer.active():
                    timer.cancel()
            errors.end()
        if exit.not_started is not None:
            await self._disposition.not_started(work, exit.not_started)
            return
        outcome = self._workshop.outcome(work, exit, output)
        if outcome is not Outcome.MISCONFIGURED:
            self._rest.proved(started)
        seconds = doubt(exit, outcome, work.message, waited_for=work.reply_to is not None)
        if seconds:
            # Nothing of it runs any more: another message has the slot meanwhile.
            self._disposition.freed(slot)
            if await self._doubts.wait(seconds):
                outcome = Outcome.INTERRUPTED
        request = work.message.request
        attempt = Attempt(
            started_at=started_at,
            run=exit.run,
            error=str(exit),
            worker=self._holder,
            exit=exit.code,
            signal=exit.signal_name or "",
            stderr=errors.lines.tail(),
            # A request's is its client's affair, and nobody's where all went well.
            stdout="" if outcome is Outcome.SUCCESS or request is not None else output.end(),
        )
        self._disposition.count(work, exit, outcome, attempt)
        if outcome is Outcome.SUCCESS:
            await self._disposition.succeed(slot, work, output, attempt, self._doubts)
        else:
            self._log.info(
                "pool {pool}: {message} ended with {exit}: {outcome}",
                pool=self._config.name,
                message=work.id,
                exit=str(exit),
                outcome=outcome.value,
            )
            # Some programs say everything there, PHP without an ini file for one.
            for line in attempt.stdout.splitlines():
                self._say(work, f"stdout: {line}")
            await self._disposition.settle(work, outcome, exit, attempt)

    def _patience(self, work: Work) -> float:
        """Seconds that the script may run: nobody waits after the deadline."""
        request = work.message.request
        if request is None:
            return self._config.timeout
        left = max(0.0, request.deadline - self._wall_clock())
        return min(self._config.timeout, left)

    def _say(self, work: Work, line: str) -> None:
        self._log.info(
            "{pool} {message}: {line}", pool=self._config.name, message=work.id, line=line
        )
