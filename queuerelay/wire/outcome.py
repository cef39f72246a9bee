"""How an attempt at a message ended, in one word."""

from enum import StrEnum
from typing import Final


class Outcome(StrEnum):
    """How an attempt ended; the words of logs, the status page and the ``exits`` option."""

    SUCCESS = "success"
    TRANSIENT = "transient"
    CRITICAL = "critical"
    CRASH = "crash"
    MISCONFIGURED = "misconfigured"
    INTERRUPTED = "interrupted"
    ABANDONED = "abandoned"


#: Exit status of timeout(1) where the time was over.
TIMED_OUT: Final = 124

#: Outcomes that ``exits`` may give to an exit status; the others are ours to find.
CONFIGURABLE: Final = (
    Outcome.SUCCESS,
    Outcome.TRANSIENT,
    Outcome.CRITICAL,
    Outcome.CRASH,
    Outcome.MISCONFIGURED,
)
