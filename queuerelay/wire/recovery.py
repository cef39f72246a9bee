"""What becomes of a message whose worker is gone: again, never mind, or failed.

One rule for everybody who finds such a message, relay or worker (RFC 9110 9.2.2): what may run
twice goes back on its queue until it has been tried three times; what may not is answered 502.
"""

from dataclasses import dataclass
from typing import Final

from queuerelay.errors import MessageError
from queuerelay.wire.destination import destination, salvage
from queuerelay.wire.failure import KEPT, Kept, encode_failure
from queuerelay.wire.keys import Keys
from queuerelay.wire.message import Attempt, Message, decode_message, with_attempt
from queuerelay.wire.reply import encode_reply

#: How often a message is tried in all.
TRIES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """The verdict to push the message again."""

    #: The message with the lost attempt noted in it.
    message: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """The verdict to put the message into ``resque:failed``, and to tell the client that waits."""

    #: The entry for ``resque:failed``.
    entry: bytes
    #: The list that takes `reply`, or None where nobody waits.
    reply_to: str | None = None
    reply: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """The verdict to forget the message: no client waits any more."""


Verdict = Retry | Fail | Drop


def recover(
    raw: bytes,
    *,
    keys: Keys,
    queue: str,
    worker: str,
    since: float,
    now: float,
    tries: int = TRIES,
    kept: Kept = KEPT,
) -> Verdict:
    """The verdict on `raw`, which `worker` took at `since` and never acknowledged.

    Times are Unix seconds; `worker` is ``hostname:pid`` or the like, "" where unknown.
    """
    found = understood(raw, keys=keys, queue=queue, worker=worker, now=now, kept=kept)
    if isinstance(found, Fail):
        return found
    message, reply_to = found
    request = message.request
    if request is not None and request.deadline <= now:
        return Drop()
    lost = Attempt(started_at=since, run=max(0.0, now - since), error="worker died", worker=worker)
    if request is not None and not request.idempotent:
        why = "not idempotent, so not tried again"
    elif len(message.attempts) + 1 >= tries:
        why = f"tried {tries} times"
    else:
        try:
            return Retry(message=with_attempt(raw, lost))
        except MessageError as error:
            why = f"not tried again: {error}"
    return failed(
        raw,
        message,
        reply_to=reply_to,
        queue=queue,
        worker=worker,
        exception="WorkerDied",
        error=f"the worker died while it held this message; {why}",
        now=now,
        attempts=(*message.attempts, lost),
        kept=kept,
    )


def understood(
    raw: bytes, *, keys: Keys, queue: str, worker: str, now: float, kept: Kept = KEPT
) -> tuple[Message, str | None] | Fail:
    """The message, and where its reply goes; or the verdict on it where it cannot be understood."""
    try:
        message = decode_message(raw)
        return message, destination(message, keys)
    except MessageError as error:
        return unreadable(
            raw, keys=keys, queue=queue, worker=worker, error=error, now=now, kept=kept
        )


def unreadable(
    raw: bytes,
    *,
    keys: Keys,
    queue: str,
    worker: str,
    error: MessageError,
    now: float,
    kept: Kept = KEPT,
) -> Fail:
    """The verdict on a message that cannot be understood, or would have its reply where none may
    go: kept as far as it is readable, and answered 502 where it still says to whom.
    """
    entry = encode_failure(
        raw=raw,
        queue=queue,
        worker=_worker(worker, queue),
        exception="MessageError",
        error=str(error),
        failed_at=now,
        kept=kept,
    )
    waiting = salvage(raw, keys)
    if waiting is None:
        return Fail(entry=entry)
    node_id, reply_to = waiting
    return Fail(entry=entry, reply_to=reply_to, reply=_bad_gateway(node_id))


def is_no_list(refusal: str, reply_to: str | None) -> bool:
    """Whether Redis's `refusal` says that the list for a reply is none; asking again is in vain."""
    return reply_to is not None and refusal.startswith(f"WRONGTYPE {reply_to} is a ")


def unanswerable(
    raw: bytes, *, queue: str, worker: str, error: str, now: float, kept: Kept = KEPT
) -> Fail:
    """The verdict on a message that was worked on, and whose reply nobody can get because of
    `error`: it is kept, with the reason, and its place is free.
    """
    entry = encode_failure(
        raw=raw,
        queue=queue,
        worker=_worker(worker, queue),
        exception="ReplyRefused",
        error=f"it was done, and its reply cannot be given: {error}",
        failed_at=now,
        kept=kept,
    )
    return Fail(entry=entry)


def failed(
    raw: bytes,
    message: Message,
    *,
    reply_to: str | None,
    queue: str,
    worker: str,
    exception: str,
    error: str,
    now: float,
    attempts: tuple[Attempt, ...] = (),
    timed_out: bool = False,
    kept: Kept = KEPT,
) -> Fail:
    """The verdict on a readable message that failed for good; its client, who waits at `reply_to`,
    gets 502, or 504 where its worker took too long.
    """
    entry = encode_failure(
        raw=raw,
        queue=queue,
        worker=_worker(worker, queue),
        exception=exception,
        error=error,
        failed_at=now,
        attempts=attempts,
        kept=kept,
    )
    if message.request is None:
        return Fail(entry=entry)
    request = message.request
    reply = _gateway_timeout if timed_out else _bad_gateway
    return Fail(entry=entry, reply_to=reply_to, reply=reply(request.node_id))


def _bad_gateway(node_id: str) -> bytes:
    text = b"502 Bad Gateway: the worker that had this request failed.\n"
    return _refusal(node_id, 502, text, "worker-failed")


def _gateway_timeout(node_id: str) -> bytes:
    text = b"504 Gateway Timeout: the worker that had this request took too long.\n"
    return _refusal(node_id, 504, text, "worker-timeout")


def _refusal(node_id: str, status: int, text: bytes, problem: str) -> bytes:
    return encode_reply(
        node_id=node_id,
        status=status,
        headers=[("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")],
        body=text,
        problem=problem,
    )


def _worker(worker: str, queue: str) -> str:
    """The name of the worker in three parts, as resque-web splits it."""
    return f"queuerelay.{worker or 'unknown:0'}:{queue}"
