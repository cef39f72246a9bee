"""A pool of worker scripts: at most N at a time, judged by their exit status.

Invariants:

1. Never more than `size` messages are claimed and unsettled: a slot is taken in `_fill` for each
   message, and released in `_run`, nowhere else.
2. Slots ask for work: a message is claimed only where a slot is free for it.
3. Every claimed message ends in exactly one of: acknowledged, delayed, put back, failed. Where this
   process dies before that, its lease expires, and whoever finds it decides.
4. A script whose lease was lost is ended, and nothing that it did is acknowledged.
"""

import os
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorProcess, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from queuerelay.broker.base import Bell, Broker, Claim
from queuerelay.broker.loop import Loop
from queuerelay.broker.reaper import REAP_INTERVAL, Reaper
from queuerelay.config import PoolConfig
from queuerelay.errors import (
    BadRequest,
    BrokerError,
    CannotStart,
    MessageError,
    NotConnected,
    ReplyError,
)
from queuerelay.pool import work as working
from queuerelay.pool.child import Child
from queuerelay.pool.exits import Dead, Done, Exit, Outcome, PutBack, RetryAt, Stopped, next_step
from queuerelay.pool.output import Capture, Lines
from queuerelay.pool.priority import order
from queuerelay.pool.sizing import INTERVAL, SizeRule, next_size
from queuerelay.pool.slot import Slot
from queuerelay.pool.snapshot import PoolSnapshot, Tally, exit_snapshot
from queuerelay.pool.work import Answer, Work, Workshop
from queuerelay.wire.message import Attempt, with_attempt
from queuerelay.wire.recovery import unreadable

#: Seconds that a claim holds without being renewed; a third of it between two renewals.
LEASE: Final = 15.0
#: Seconds between two looks for delayed messages that are due.
PROMOTE_INTERVAL: Final = 0.5
#: First and longest rest after a script could not be started, in seconds.
FIRST_REST: Final = 1.0
LONGEST_REST: Final = 60.0


class Pool:
    """One pool of ``script`` mode; `start` and `stop` once each.

    `holder` is ``hostname:pid`` of this process.
    """

    _log = Logger()

    def __init__(
        self,
        config: PoolConfig,
        broker: Broker,
        *,
        processes: IReactorProcess,
        clock: IReactorTime,
        wall_clock: Callable[[], float],
        holder: str,
    ) -> None:
        self.config = config
        self._broker = broker
        self._processes = processes
        self._clock = clock
        self._wall_clock = wall_clock
        self._holder = holder
        self._worker = f"queuerelay.{holder}:{','.join(config.queues)}"
        self._workshop = Workshop(config, inherited=dict(os.environb))
        self._size = config.size
        self._slots: list[Slot] = []
        self._idle_since = clock.seconds()
        self._tally = Tally()
        self._rest = 0.0
        self._rest_reason = ""
        self._stopping = False
        self._draining = False
        self._bell: Bell | None = None
        self._filling: Deferred[None] | None = None
        self._waiting: Deferred[None] | None = None
        self._runs: set[Deferred[None]] = set()
        self._rule = SizeRule(
            min=config.min,
            max=config.max,
            grow_after=config.grow_after,
            shrink_after=config.shrink_after,
        )
        reaper = Reaper(broker, config.queues, wall_clock=wall_clock, tries=config.tries)
        self._loops = [
            Loop("renew", LEASE / 3, self._renew, clock=clock),
            Loop("promote", PROMOTE_INTERVAL, self._promote, clock=clock),
            Loop("reap", REAP_INTERVAL, lambda: Deferred.fromCoroutine(reaper.reap()), clock=clock),
        ]
        if config.min != config.max:
            self._loops.append(Loop("size", INTERVAL, self._resize, clock=clock))

    # Life

    def start(self) -> None:
        """Begin to take messages."""
        self._bell = self._broker.bell(self.config.queues)
        for loop in self._loops:
            loop.start()
        self._filling = Deferred.fromCoroutine(self._fill())

    def drain(self) -> None:
        """Take no more messages; what runs goes on."""
        self._draining = True
        self._wake()

    def resume(self) -> None:
        """Take messages again."""
        self._draining = False
        self._wake()

    def stop(self, drain: float = 0.0) -> Deferred[None]:
        """Take no more messages, give what runs `drain` seconds, then end it: TERM, grace, KILL.

        Fires when nothing is left running and everything is settled, or the broker is stopped.
        """
        return Deferred.fromCoroutine(self._stop(drain))

    async def _stop(self, drain: float) -> None:
        self._stopping = True
        self._wake()
        if self._filling is not None:
            await self._filling
        late = self._clock.callLater(drain, self._end_all)
        while self._runs:
            await gatherResults([_copy(run) for run in self._runs])
        if late.active():
            late.cancel()
        await gatherResults([loop.stop() for loop in self._loops])
        if self._bell is not None:
            await self._bell.stop()

    def hurry(self) -> None:
        """End at once what runs."""
        self._end_all()

    def _end_all(self) -> None:
        for slot in self._slots:
            if slot.child is not None:
                slot.child.end(Stopped.SHUTDOWN)

    # Size

    @property
    def size(self) -> int:
        """How many messages are worked on at a time."""
        return self._size

    def set_size(self, size: int) -> None:
        """Change the size; what runs above it ends by itself. At least 0.

        For a pool that follows its backlog it is where it goes on from.
        """
        if size != self._size:
            self._log.info(
                "pool {pool}: {old} slots, now {new}",
                pool=self.config.name,
                old=self._size,
                new=size,
            )
        self._size = max(0, size)
        self._idle_since = self._clock.seconds()
        self._wake()

    async def _resized(self) -> None:
        depths = await self._broker.depths(self.config.queues)
        oldest = min((one.oldest_at for one in depths if one.oldest_at is not None), default=None)
        now = self._clock.seconds()
        size = next_size(
            self._size,
            busy=len(self._slots),
            oldest_wait=self._wall_clock() - oldest if oldest is not None else None,
            idle_for=now - self._idle_since,
            rule=self._rule,
        )
        if size != self._size:
            self.set_size(size)

    def _resize(self) -> Deferred[None]:
        if len(self._slots) >= self._size:
            self._idle_since = self._clock.seconds()
        return Deferred.fromCoroutine(self._resized())

    # Taking messages

    async def _fill(self) -> None:
        """Claim as many messages as there are free slots, for ever."""
        while not self._stopping:
            try:
                await self._fill_once()
            except CancelledError:
                pass
            except NotConnected:
                await self._wait(self._broker.when_up())
            except BrokerError:
                await self._wait(deferLater(self._clock, FIRST_REST))
            except Exception:
                self._log.failure("pool {pool} cannot take messages", pool=self.config.name)
                await self._wait(deferLater(self._clock, FIRST_REST))

    async def _fill_once(self) -> None:
        free = self._size - len(self._slots)
        if free <= 0 or self._draining:
            await self._wait(Deferred())
            return
        if self._rest_reason:
            await self._wait(deferLater(self._clock, self._rest))
            self._rest_reason = ""
            # One at a time, until a start succeeds again.
            free = 1
        elif self._rest:
            free = min(free, 1) if not self._slots else 0
            if not free:
                await self._wait(Deferred())
                return
        claims = await self._broker.claim_many(
            order(self.config.queues, self.config.weights),
            holder=self._holder,
            lease=LEASE,
            most=free,
        )
        if not claims:
            assert self._bell is not None
            await self._wait(self._bell.wait())
            return
        for claim in claims:
            self._begin(claim)

    async def _wait(self, until: Deferred[None]) -> None:
        """Wait for `until`, or until `_wake`."""
        self._waiting = until
        if self._stopping:
            until.cancel()
        with suppress(CancelledError, NotConnected):
            await until
        self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()

    def _begin(self, claim: Claim) -> None:
        taken = {slot.number for slot in self._slots}
        number = next(number for number in range(1, len(taken) + 2) if number not in taken)
        slot = Slot(number=number, claim=claim, since=self._clock.seconds())
        self._slots.append(slot)
        run = Deferred.fromCoroutine(self._run(slot))
        self._runs.add(run)
        run.addBoth(lambda _: self._runs.discard(run))

    async def _run(self, slot: Slot) -> None:
        """One message, from its claim to its end; the slot is released here and nowhere else."""
        try:
            await self._work_on(slot)
        except BrokerError as error:
            # Only where the broker is stopped: the lease expires, and somebody else goes on.
            self._log.warn(
                "pool {pool} could not settle {message}: {reason}",
                pool=self.config.name,
                message=slot.message,
                reason=str(error),
            )
        except Exception:
            self._log.failure("pool {pool} failed on a message", pool=self.config.name)
            await deferLater(self._clock, FIRST_REST)
        finally:
            self._slots.remove(slot)
            self._wake()

    # One message

    async def _work_on(self, slot: Slot) -> None:
        claim, now = slot.claim, self._wall_clock()
        try:
            work = working.read(claim)
        except MessageError as error:
            self._log.warn(
                "unreadable message on queue {queue}: {reason}",
                queue=claim.queue,
                reason=str(error),
            )
            verdict = unreadable(
                claim.message, queue=claim.queue, worker=self._holder, error=error, now=now
            )
            await self._broker.fail(
                claim, verdict.entry, reply_to=verdict.reply_to, reply=verdict.reply
            )
            return
        slot.message, slot.attempt = work.id, work.attempt
        request = work.message.request
        if request is not None and request.deadline <= now:
            await self._broker.ack(claim)
            return
        try:
            argv, environment = self._workshop.argv(work), self._workshop.environment(work)
        except BadRequest as error:
            answer = working.refusal(work, 400, f"400 Bad Request: {error}")
            await self._acknowledge(work, answer)
            return
        except MessageError as error:
            await self._fail(work, reason=str(error), last=None, status=502)
            return
        except (CannotStart, ValueError) as error:
            await self._not_started(work, str(error))
            return
        await self._run_script(slot, work, argv, environment)

    async def _run_script(
        self, slot: Slot, work: Work, argv: list[bytes], environment: dict[bytes, bytes]
    ) -> None:
        output = Capture(whole=work.wants_output, cap=self.config.max_output)
        errors = Lines()

        def printed(chunk: bytes) -> None:
            output.feed(chunk)
            if output.over_limit:
                child.end(Stopped.OUTPUT)

        def complained(chunk: bytes) -> None:
            for line in errors.feed(chunk, self._clock.seconds()):
                self._say(work, line)

        child = Child(
            stdin=work.stdin(),
            clock=self._clock,
            on_output=printed,
            on_errors=complained,
            grace=self.config.grace,
        )
        started_at = self._wall_clock()
        try:
            child.start(self._processes, argv, environment)
        except (OSError, ValueError) as error:
            await self._not_started(work, str(error))
            return
        self._rest = 0.0
        slot.child = child
        late = self._clock.callLater(self._patience(work), child.end, Stopped.TIMEOUT)
        exit = await child.done
        if late.active():
            late.cancel()
        for line in errors.finish():
            self._say(work, line)
        outcome = self._workshop.outcome(work, exit, output)
        self._tally.add(
            exit_snapshot(
                exit,
                at=self._wall_clock(),
                message=work.id,
                queue=work.claim.queue,
                outcome=outcome,
                stderr=errors.tail(),
            ),
            self._clock.seconds(),
        )
        attempt = Attempt(
            started_at=started_at,
            run=exit.run,
            error=str(exit),
            worker=self._holder,
            exit=exit.code,
            signal=exit.signal_name or "",
            stderr=errors.tail(),
        )
        if outcome is Outcome.SUCCESS:
            await self._succeed(work, output, attempt, started_at)
        else:
            await self._settle(work, outcome, exit, attempt)

    def _patience(self, work: Work) -> float:
        """Seconds that the script may run: nobody waits after the deadline."""
        request = work.message.request
        if request is None:
            return self.config.timeout
        left = max(0.0, request.deadline - self._wall_clock())
        return min(self.config.timeout, left)

    async def _succeed(
        self, work: Work, output: Capture, attempt: Attempt, started_at: float
    ) -> None:
        request = work.message.request
        wait = started_at - request.accepted_at if request is not None else 0.0
        try:
            answer = working.success(work, output, wait=wait, run=attempt.run)
        except ReplyError as error:
            await self._fail(work, reason=str(error), last=attempt, status=502)
            return
        await self._acknowledge(work, answer)

    async def _settle(self, work: Work, outcome: Outcome, exit: Exit, attempt: Attempt) -> None:
        step = next_step(
            outcome,
            work.message,
            attempt=work.attempt,
            tries=self.config.tries,
            now=self._wall_clock(),
            jitter=random.random(),
        )
        self._log.info(
            "pool {pool}: {message} ended with {exit}: {outcome}",
            pool=self.config.name,
            message=work.id,
            exit=str(exit),
            outcome=outcome.value,
        )
        match step:
            case Done():
                await self._broker.ack(work.claim)
            case RetryAt(when=when):
                try:
                    message = with_attempt(work.claim.message, attempt)
                except MessageError as error:
                    await self._fail(work, reason=str(error), last=attempt, status=502)
                    return
                seconds = max(0.0, when - self._wall_clock())
                await self._broker.delay(work.claim, message, seconds=seconds)
            case PutBack():
                if outcome is Outcome.MISCONFIGURED:
                    self._take_a_rest(str(exit))
                await self._broker.retry(work.claim, work.claim.message)
            case Dead(reason=reason):
                await self._fail(work, reason=reason, last=attempt, status=exit.reply_status)

    async def _not_started(self, work: Work, reason: str) -> None:
        """The script is at fault, not the message: it goes back without using a try."""
        self._take_a_rest(reason)
        exit = Exit(not_started=reason)
        self._tally.add(
            exit_snapshot(
                exit,
                at=self._wall_clock(),
                message=work.id,
                queue=work.claim.queue,
                outcome=Outcome.MISCONFIGURED,
                stderr="",
            ),
            self._clock.seconds(),
        )
        await self._broker.retry(work.claim, work.claim.message)

    def _take_a_rest(self, reason: str) -> None:
        if not self._rest_reason:
            self._rest = min(LONGEST_REST, max(FIRST_REST, self._rest * 2))
            self._rest_reason = reason
            self._log.error(
                "pool {pool} cannot run its command: {reason}; it tries again in {rest:.0f} s",
                pool=self.config.name,
                reason=reason,
                rest=self._rest,
            )

    async def _acknowledge(self, work: Work, answer: Answer | None) -> None:
        if answer is None:
            held = await self._broker.ack(work.claim)
        else:
            held = await self._broker.ack(work.claim, reply_to=answer.reply_to, reply=answer.reply)
        if not held:
            self._log.warn(
                "pool {pool}: {message} was no longer ours when its script had ended",
                pool=self.config.name,
                message=work.id,
            )

    async def _fail(self, work: Work, *, reason: str, last: Attempt | None, status: int) -> None:
        entry = working.failure(
            work, worker=self._worker, reason=reason, last=last, now=self._wall_clock()
        )
        text = (
            "504 Gateway Timeout: the script took too long."
            if status == 504
            else "502 Bad Gateway: the script that had this request failed."
        )
        answer = working.refusal(work, status, text)
        self._log.warn(
            "pool {pool}: {message} failed: {reason}",
            pool=self.config.name,
            message=work.id,
            reason=reason,
        )
        await self._broker.fail(
            work.claim,
            entry,
            reply_to=answer.reply_to if answer is not None else None,
            reply=answer.reply if answer is not None else None,
        )

    def _say(self, work: Work, line: str) -> None:
        self._log.info(
            "{pool} {message}: {line}", pool=self.config.name, message=work.id, line=line
        )

    # Loops

    def _renew(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._renewed())

    async def _renewed(self) -> None:
        by_queue: dict[str, list[Slot]] = {}
        for slot in self._slots:
            by_queue.setdefault(slot.claim.queue, []).append(slot)
        for queue, slots in by_queue.items():
            held = await self._broker.renew(
                queue, [slot.claim.token for slot in slots], lease=LEASE
            )
            for slot, is_held in zip(slots, held, strict=True):
                if not is_held and slot.child is not None:
                    slot.child.end(Stopped.LEASE_LOST)
        if self.config.client_gone == "kill" and self._slots:
            gone = await self._broker.which_gone([slot.message for slot in self._slots])
            for slot in self._slots:
                if slot.message in gone and slot.child is not None:
                    slot.child.end(Stopped.CLIENT_GONE)

    def _promote(self) -> Deferred[int]:
        return self._broker.promote(self.config.queues)

    # Looking

    @property
    def busy(self) -> int:
        """How many slots have a message."""
        return len(self._slots)

    def stop_job(self, message: str, *, kill: bool = False) -> bool:
        """End the script that works on `message`; False where none does."""
        for slot in self._slots:
            if slot.message == message and slot.child is not None:
                if kill:
                    slot.child.kill(Stopped.REQUESTED)
                else:
                    slot.child.end(Stopped.REQUESTED)
                return True
        return False

    def snapshot(self) -> PoolSnapshot:
        """What it is doing now."""
        now = self._clock.seconds()
        return PoolSnapshot(
            name=self.config.name,
            queues=self.config.queues,
            size=self._size,
            min=self.config.min,
            max=self.config.max,
            resting="draining" if self._draining else self._rest_reason,
            slots=[slot.snapshot(now) for slot in self._slots],
            exits=list(self._tally.exits),
            counters=dict(self._tally.counters),
            rates=self._tally.rates(now),
        )


def _copy(run: Deferred[None]) -> Deferred[None]:
    """Fires with `run`, which stays as it is."""
    if run.called:
        return succeed(None)
    copied: Deferred[None] = Deferred()
    run.addBoth(lambda result: (copied.callback(None), result)[1])
    return copied
