"""Dead letters as the status room shows them: what failed, why and when, and no arguments."""

from dataclasses import dataclass
from typing import Final

from queuerelay.broker.records import DeadLetterEntry, DeadLetterPage
from queuerelay.wire.dead_letter import text_of
from queuerelay.wire.untrusted import TEXT, Table, bounded

#: Most characters of an error, and of stderr.
LONG: Final = 2048
#: Most attempts of one entry that are shown: the last ones.
ATTEMPTS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterAttempt:
    """One attempt at a message that failed."""

    #: Unix seconds at which the attempt began.
    started_at: float
    #: Seconds that the attempt ran.
    run: float
    #: Exit status, None where there was none.
    code: int | None
    #: Name of the signal, "" for none.
    signal: str
    #: Why the attempt ended.
    error: str
    #: The last output on stderr, bounded.
    stderr: str
    #: The last output on stdout, bounded.
    stdout: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One entry of ``resque:failed``; its arguments and its backtrace are not shown, but the text
    of what could not be read is: else nobody could mend it.
    """

    #: Id of the dead letter, in actions too: 40 hex digits.
    id: str
    #: Place in the list, from 0 for the oldest; it changes when others are taken out.
    index: int
    #: Id of the message that failed, "" where the entry does not say.
    message: str
    queue: str
    #: Class of the message.
    cls: str
    exception: str
    error: str
    #: Time of the failure as the entry has it: ``2026/11/22 05:14:06 UTC``.
    failed_at: str
    worker: str
    attempts: tuple[DeadLetterAttempt, ...]
    #: Whether resque-web has put it back already.
    retried: bool
    #: How many bytes the entry has.
    size: int = 0
    #: Text of a message that could not be read, bounded; "" for others.
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetters:
    """A page of the dead letters, and how many there are."""

    #: How many dead letters there are.
    total: int = 0
    #: How many were dropped, ever, for being too many or too old.
    dropped: int = 0
    #: How many `items` leave out before their first.
    start: int = 0
    #: Dead letters, the newest first; in a snapshot the first `collect.PAGE`.
    items: tuple[DeadLetter, ...] = ()


def failures(page: DeadLetterPage, start: int, *, dropped: int = 0) -> DeadLetters:
    """A page as it is shown; `start` is how many it leaves out before its first."""
    items = tuple(map(_letter, page.items))
    return DeadLetters(total=page.total, dropped=dropped, start=start, items=items)


def _letter(failure: DeadLetterEntry) -> DeadLetter:
    entry = Table(failure.entry or {})
    attempts = entry.table("queuerelay").get("attempts")
    return DeadLetter(
        id=failure.id,
        index=failure.index,
        message=failure.message_id[:TEXT],
        queue=entry.text("queue"),
        cls=entry.table("payload").text("class"),
        exception=entry.text("exception") if failure.entry is not None else "unreadable",
        error=entry.text("error", LONG),
        failed_at=entry.text("failed_at"),
        worker=entry.text("worker"),
        attempts=tuple(
            _attempt(Table(one))
            for one in (attempts[-ATTEMPTS:] if isinstance(attempts, list) else ())
            if isinstance(one, dict)
        ),
        retried=bool(entry.get("retried_at")),
        size=failure.size,
        text=bounded(text_of(failure.entry or {}), LONG),
    )


def _attempt(one: Table) -> DeadLetterAttempt:
    code = one.maybe_whole("exit")
    return DeadLetterAttempt(
        started_at=one.number("started_at"),
        run=one.number("run"),
        code=code if code is not None and 0 <= code <= 255 else None,
        signal=one.text("signal"),
        error=one.text("error", LONG),
        stderr=one.text("stderr", LONG),
        stdout=one.text("stdout", LONG),
    )
