"""The main loop: claim a message, run the application, send reply and acknowledgement as one.

Invariants:

1. A claim is never repeated under the same token, and one whose answer was lost is looked for
   before the next: nothing stays claimed by a living worker that does not know of it.
2. The end of a message (reply, dead letter, drop) is sent until Redis has answered it.
3. After the first SIGTERM nothing is claimed any more; the message in hand is finished.
"""

import logging
import os
import signal
import time
from dataclasses import dataclass
from math import inf
from types import FrameType
from typing import Any, Final
from wsgiref.types import WSGIApplication

from redis.exceptions import RedisError, ResponseError

from queuerelay.errors import MessageError
from queuerelay.wire import commands
from queuerelay.wire.claim import Claim
from queuerelay.wire.commands import Call
from queuerelay.wire.destination import destination
from queuerelay.wire.message import Message, Request, decode_message
from queuerelay.wire.recovery import Fail, Verdict, failed, is_no_list, unanswerable, unreadable
from queuerelay.wire.reply import encode_reply
from queuerelay.worker import wsgi
from queuerelay.worker.doorbell import Doorbell
from queuerelay.worker.in_hand import InHand, Limit
from queuerelay.worker.lease import LeaseKeeper
from queuerelay.worker.link import Link, end_as_stray
from queuerelay.worker.settings import WorkerSettings
from queuerelay.worker.stream import PATIENCE, ReplyStream

log = logging.getLogger(__name__)

#: Longest reply as JSON in bytes; Redis takes no value past 512 MiB (proto-max-bulk-len), and
#: would close the connection on it again and again.
LONGEST_REPLY: Final = 500 * 1024 * 1024

#: Seconds for which the end of a streamed answer is worth sending.
LAST_FRAME: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How the message in hand ends; to be sent to Redis."""

    claim: Claim
    call: Call[bool]
    #: Monotonic seconds after which nobody waits for what it says.
    late_after: float
    #: The list that takes its reply, None where there is none.
    reply_to: str | None = None
    #: The dead letter that it makes of the message, None where it makes none.
    entry: bytes | None = None

    def late(self) -> bool:
        """Whether nobody waits any more."""
        return time.monotonic() > self.late_after


class WorkerLoop:
    """One worker's main loop, for the main thread of its process."""

    def __init__(
        self,
        application: WSGIApplication,
        settings: WorkerSettings,
        link: Link,
        keeper: LeaseKeeper,
        doorbell: Doorbell,
        *,
        in_hand: InHand,
    ) -> None:
        self._application = application
        self._settings = settings
        self._link = link
        self._keeper = keeper
        self._doorbell = doorbell
        self._in_hand = in_hand
        self._pid = os.getpid()
        #: The time of the last claim on the monotonic clock of this process.
        self._claimed_at = 0.0
        self._claims = 0
        self._served = 0
        self._skipped = 0
        self._signal = 0

    def obey_signals(self) -> None:
        """SIGTERM and SIGINT end `run` from now on; a second one ends the process."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._doorbell.ring_at_signals()
        self._in_hand.serve()

    def stop(self, number: int) -> None:
        """End `run` as at this signal; safe in any thread."""
        self._signal = number
        self._doorbell.ring()

    def run(self) -> None:
        """Serve until a signal, or until the limit of requests."""
        end: End | None = None
        while not (self._signal or self._served >= self._settings.requests > 0):
            claim = self._next(end)
            if claim is not None:
                end = self._work(claim)
            else:
                end = None
                if not self._signal:
                    self._doorbell.wait()
        if end is not None:
            self._finish(end, first=True)
        log.info(
            "stopped%s: %d requests answered, %d skipped past their deadline",
            f" by {signal.Signals(self._signal).name}" if self._signal else "",
            self._served,
            self._skipped,
        )

    def _stop(self, number: int, frame: FrameType | None) -> None:
        # Nothing here may take a lock or write: the signal may have come inside of either.
        self._signal = number
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)
        self._doorbell.ring()

    # Redis.

    def _next(self, end: End | None) -> Claim | None:
        """End the last message and claim the next one, in one round trip."""
        self._claims += 1
        token = f"{self._keeper.tokens}-{self._claims}"
        settings = self._settings
        claim = commands.claim(
            settings.keys, settings.queues, [token], holder=settings.holder, lease=settings.lease
        )
        calls: list[Call[Any]] = [claim] if end is None else [end.call, claim]
        answers: list[Any]
        try:
            answers = self._link.send(*calls)
        except RedisError as error:
            answers = [error] * len(calls)
        if end is not None:
            if isinstance(answers[0], Exception):
                self._finish(end, first=False)
            else:
                self._ended(end, answers[0], first=True)
        return self._claimed(token, answers[-1])

    def _finish(self, end: End, *, first: bool) -> None:
        """Send `end` until Redis has answered; `first` if it has not been sent yet."""
        call = end.call
        while True:
            if not first:
                self._pause()
                if end.late():
                    if self._signal:
                        log.warning("gave up an answer on %s past its deadline", end.claim.queue)
                        return
                    # Perhaps the reply is what Redis does not take; nobody wants it any more.
                    call = self._drop(end.claim)
            try:
                (answer,) = self._link.send(call)
            except RedisError as error:
                answer = error
            if not isinstance(answer, Exception):
                self._ended(end, answer, first=first)
                return
            first = False
            if is_no_list(str(answer), end.reply_to):
                # Asked again it would be refused again.
                end = self._without_reply(end, str(answer))
                call = end.call
            log.debug("the end of a message on %s is not acknowledged yet", end.claim.queue)

    def _without_reply(self, end: End, refusal: str) -> End:
        """The end of a message whose reply cannot be given: a dead letter with the reason."""
        claim = end.claim
        log.error(
            "a reply on %s cannot be given, so its message is in resque:failed: %s; "
            "look at that key, then delete it",
            claim.queue,
            refusal,
        )
        entry = end.entry
        if entry is None:
            entry = unanswerable(
                claim.message,
                queue=claim.queue,
                worker=self._settings.holder,
                error=refusal,
                now=claim.since,
                kept=self._settings.kept,
            ).entry
        call = commands.fail(self._settings.keys, claim.queue, claim.token, entry)
        return End(claim=claim, call=call, late_after=float("inf"), entry=entry)

    def _ended(self, end: End, answer: object, *, first: bool) -> None:
        self._keeper.held = None
        if answer is False and first:
            log.warning(
                "the lease on a message of %s was lost; its answer was dropped", end.claim.queue
            )

    def _claimed(self, token: str, answer: Any) -> Claim | None:
        if isinstance(answer, ResponseError):
            # Refused, and then claim.lua takes nothing, or puts it back; the doorbell rings again.
            self._pause()
            return None
        if isinstance(answer, Exception):
            return self._find(token)
        return self._take(answer[0]) if answer else None

    def _find(self, token: str) -> Claim | None:
        """The message that a claim without an answer took, if it did."""
        keys, queues = self._settings.keys, self._settings.queues
        while True:
            self._pause()
            try:
                *found, now = self._link.send(*commands.find(keys, queues, token))
            except RedisError as error:
                now = error
            if isinstance(now, Exception):
                if self._signal:
                    # If it took one, whoever reaps finds it soon.
                    return None
                continue
            for queue, raw in zip(queues, found, strict=True):
                if isinstance(raw, bytes):
                    return self._take(
                        Claim(
                            queue=queue,
                            token=token,
                            message=raw,
                            since=int(now[0]) + int(now[1]) / 1e6,
                            holder=self._settings.holder,
                        )
                    )
            return None

    def _take(self, claim: Claim) -> Claim:
        self._keeper.held = (claim.queue, claim.token)
        self._claimed_at = time.monotonic()
        return claim

    def _pause(self) -> None:
        self._doorbell.pause(self._link.delay())

    # Work.

    def _work(self, claim: Claim) -> End:
        """Run what was claimed; whatever it is, the worker lives on."""
        holder = self._settings.holder
        try:
            message = decode_message(claim.message)
            # A request that passes names the inbox that is its own, so it is followed as it stands.
            reply_to = destination(message, self._settings.keys)
        except MessageError as error:
            log.warning("unreadable message on %s, now in resque:failed: %s", claim.queue, error)
            verdict = unreadable(
                claim.message,
                keys=self._settings.keys,
                queue=claim.queue,
                worker=holder,
                error=error,
                now=claim.since,
                kept=self._settings.kept,
            )
            return self._concluded(claim, verdict)
        if message.request is None:
            return self._refuse_job(claim, message, reply_to)
        if message.request.deadline <= claim.since:
            self._skipped += 1
            log.debug("skipped %s: past its deadline", message.request.node_id)
            late_after = self._late_after(claim, message.request.deadline)
            return End(claim=claim, call=self._drop(claim), late_after=late_after)
        return self._answer(claim, message.request)

    def _answer(self, claim: Claim, request: Request) -> End:
        began = time.monotonic()
        timing: dict[str, float] = {}
        if request.accepted_at:
            timing["wait"] = round(max(0.0, claim.since - request.accepted_at), 6)
        limit = self._limit(claim, request)
        stream = ReplyStream(
            self._settings.keys, self._link, request, claim=claim, timing=timing, limit=limit
        )
        self._in_hand.take(claim.queue, claim.token, until=limit.first)
        answer = wsgi.run(
            self._application,
            request,
            stream,
            queue=claim.queue,
            max_reply=self._settings.max_reply,
        )
        end_as_stray(self._pid)
        limit.rest()
        run = time.monotonic() - began
        self._served += 1
        late_after = self._late_after(claim, request.deadline)
        if stream.begun:
            # That was for the first frame; the last one is wanted while the relay waits for it.
            late_after = time.monotonic() + LAST_FRAME
        call = self._end_of(claim, request, stream, answer, {**timing, "run": round(run, 6)})
        return End(claim=claim, call=call, late_after=late_after, reply_to=request.reply_to)

    def _limit(self, claim: Claim, request: Request) -> Limit:
        """The time that the application has for `request`."""
        deadline = self._late_after(claim, request.deadline)
        timeout = self._settings.timeout
        if timeout is None:
            first, silence = deadline, max(PATIENCE, request.deadline - request.accepted_at)
        elif timeout == 0:
            first = silence = inf
        else:
            first, silence = self._claimed_at + timeout, timeout
        return Limit(self._in_hand, first=first, silence=silence, deadline=deadline)

    def _end_of(
        self,
        claim: Claim,
        request: Request,
        stream: ReplyStream,
        answer: wsgi.WSGIAnswer | None,
        timing: dict[str, float],
    ) -> Call[bool]:
        """What ends the message: the answer, the end of a streamed one, or nothing any more."""
        if stream.stopped:
            log.info("%s: %s after %d bytes", request.node_id, stream.stopped, stream.size)
            return self._drop(claim)
        if answer is None:
            log.debug("%s streamed, %d bytes", request.node_id, stream.size)
            return self._reply(claim, request.reply_to, stream.last())
        reply = _encode(request, answer, timing)
        if len(reply) > LONGEST_REPLY:
            log.error("%s %r: a reply of %d bytes", request.method, request.url, len(reply))
            answer = wsgi.FAILED
            reply = _encode(request, answer, timing)
        log.debug(
            "%s %s %r %d, %d bytes in %.4f s",
            request.node_id,
            request.method,
            request.url,
            answer.status,
            len(answer.body),
            timing["run"],
        )
        return self._reply(claim, request.reply_to, reply)

    def _refuse_job(self, claim: Claim, message: Message, reply_to: str | None) -> End:
        log.warning("a job of class %r on %s, now in resque:failed", message.cls, claim.queue)
        verdict = failed(
            claim.message,
            message,
            reply_to=reply_to,
            queue=claim.queue,
            worker=self._settings.holder,
            exception="NotARequest",
            error=f"a WSGI worker answers requests only, this is a job of class {message.cls}",
            now=claim.since,
            attempts=tuple(message.attempts),
            kept=self._settings.kept,
        )
        return self._concluded(claim, verdict)

    def _concluded(self, claim: Claim, verdict: Verdict) -> End:
        call = commands.conclude(self._settings.keys, claim.queue, claim.token, verdict)
        reply_to = verdict.reply_to if isinstance(verdict, Fail) else None
        entry = verdict.entry if isinstance(verdict, Fail) else None
        return End(claim=claim, call=call, late_after=float("inf"), reply_to=reply_to, entry=entry)

    def _drop(self, claim: Claim) -> Call[bool]:
        return commands.ack(self._settings.keys, claim.queue, claim.token)

    def _reply(self, claim: Claim, reply_to: str, reply: bytes) -> Call[bool]:
        keys = self._settings.keys
        return commands.ack(keys, claim.queue, claim.token, reply_to=reply_to, reply=reply)

    def _late_after(self, claim: Claim, deadline: float) -> float:
        """Monotonic seconds of a deadline in Unix seconds by Redis's clock, as of the claim."""
        return self._claimed_at + deadline - claim.since


def _encode(request: Request, answer: wsgi.WSGIAnswer, timing: dict[str, float]) -> bytes:
    return encode_reply(
        node_id=request.node_id,
        status=answer.status,
        headers=answer.headers,
        body=answer.body,
        timing=timing,
    )
