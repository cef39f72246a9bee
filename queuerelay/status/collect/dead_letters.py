"""Dead letters as the status room shows them: what failed, why and when, and no arguments."""

from collections.abc import Mapping
from typing import Any, Final

from queuerelay.broker.records import DeadLetterEntry, DeadLetterPage
from queuerelay.status.collect.snapshot import Attempt, DeadLetter, Failures

#: Characters of an error and of stderr, and of any other text.
LONG: Final = 2048
TEXT: Final = 256
#: Attempts of one entry, the last ones.
ATTEMPTS: Final = 10


def failures(page: DeadLetterPage, start: int) -> Failures:
    """A page as it is shown; `start` is how many it leaves out before its first."""
    return Failures(total=page.total, start=start, items=tuple(map(_letter, page.items)))


def _letter(failure: DeadLetterEntry) -> DeadLetter:
    entry = failure.entry or {}
    payload, ours = _table(entry, "payload"), _table(entry, "queuerelay")
    attempts = ours.get("attempts")
    return DeadLetter(
        id=failure.id,
        index=failure.index,
        message=failure.message_id[:TEXT],
        queue=_text(entry, "queue"),
        cls=_text(payload, "class"),
        exception=_text(entry, "exception") if failure.entry is not None else "unreadable",
        error=_text(entry, "error", LONG),
        failed_at=_text(entry, "failed_at"),
        worker=_text(entry, "worker"),
        attempts=tuple(
            _attempt(one)
            for one in (attempts[-ATTEMPTS:] if isinstance(attempts, list) else ())
            if isinstance(one, dict)
        ),
        retried=bool(entry.get("retried_at")),
    )


def _attempt(one: Mapping[str, Any]) -> Attempt:
    code = one.get("exit")
    return Attempt(
        started_at=_number(one, "started_at"),
        run=_number(one, "run"),
        code=code if type(code) is int and 0 <= code <= 255 else None,
        signal=_text(one, "signal"),
        error=_text(one, "error", LONG),
        stderr=_text(one, "stderr", LONG),
    )


def _table(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _text(value: Mapping[str, Any], key: str, longest: int = TEXT) -> str:
    found = value.get(key)
    if not isinstance(found, str):
        return ""
    # Halves of characters are no text of anybody's.
    return found[:longest].encode("utf-8", "replace").decode()


def _number(value: Mapping[str, Any], key: str) -> float:
    found: Any = value.get(key)
    return float(found) if type(found) in (int, float) and 0 <= found < 2**53 else 0.0
