"""What a script's exit means, and what becomes of its message.

Two steps, both plain functions. `decide`: from the exit to an `Outcome`, by rules that a pool may
change (exit statuses are those of sysexits and of the shell). `next_step`: from the outcome to what
is done with the message, by one rule for everybody:

============= ======================================================================
success       acknowledged
transient     again after a back-off, until its tries are used up
crash         like transient where the message may run twice (RFC 9110 9.2.2), else failed
critical      failed, no second try
misconfigured back, without using a try: the script is at fault, not the message
interrupted   (the daemon stops) back without using a try where it may run twice
abandoned     (we ended it: its client left, or another pool has the message) acknowledged,
              which does nothing where the lease is lost
============= ======================================================================
"""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from queuerelay.backoff import back_off
from queuerelay.pool.stopping import DOUBT
from queuerelay.wire.message import Message
from queuerelay.wire.outcome import TIMED_OUT, Outcome
from queuerelay.wire.recovery import TRIES

_SIGNALS: Final = signal.valid_signals()

#: Seconds before the second try, the factor for each further one, and the longest: 1, 4, 16, then
#: 60, before jitter.
BACK_OFF: Final = 1.0
BACK_OFF_FACTOR: Final = 4.0
BACK_OFF_LONGEST: Final = 60.0


class EndReason(StrEnum):
    """Why we ended a child ourselves."""

    #: It ran longer than the pool's time-out.
    TIMEOUT = "time-out"
    #: It printed more than the pool takes.
    OUTPUT = "output"
    #: The pool stops.
    SHUTDOWN = "shutdown"
    #: Its client left.
    CLIENT_GONE = "client gone"
    #: Its message is somebody else's by now.
    LEASE_LOST = "lease lost"
    #: An operator stopped it.
    REQUESTED = "requested"
    #: A resident process makes room for its successor.
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEnd:
    """How a child ended; exactly one of `code`, `signal` and `not_started` is given."""

    #: Exit status, 0 to 255.
    code: int | None = None
    #: Number of the signal that ended it.
    signal: int | None = None
    #: Why it could not be started.
    not_started: str | None = None
    #: Seconds from its start to its end.
    run: float = 0.0
    #: Why we ended it, None where it ended by itself.
    ended_by_us: EndReason | None = None

    @property
    def signal_name(self) -> str | None:
        """``SIGKILL`` and the like, None where no signal ended it, nor what it stood for."""
        number = self.signal or died_of(self.code)
        return None if number is None else signal_name(number)

    @property
    def reply_status(self) -> int:
        """The HTTP status for a client whose message failed with this exit."""
        timed_out = self.ended_by_us is EndReason.TIMEOUT or self.code == TIMED_OUT
        return 504 if timed_out else 502

    def __str__(self) -> str:
        """In words: ``exit status 1``, ``SIGKILL, ended by us: time-out``."""
        if self.not_started is not None:
            return f"not started: {self.not_started}"
        how = self.signal_name or ""
        if self.signal is None:
            meant = "time-out" if self.code == TIMED_OUT else how
            how = f"exit status {self.code}: {meant}" if meant else f"exit status {self.code}"
        return how if self.ended_by_us is None else f"{how}, ended by us: {self.ended_by_us}"


#: What a shell adds to the number of the signal that ended its command (POSIX XCU 2.8.2).
_BY_SIGNAL: Final = 128


def died_of(code: int | None) -> int | None:
    """The signal that an exit status of a shell stands for: 9 for 137; None where it is none."""
    if code is not None and code - _BY_SIGNAL in _SIGNALS:
        return code - _BY_SIGNAL
    return None


def signal_name(number: int) -> str:
    """The name of a signal: ``SIGKILL`` for 9, ``SIGRTMIN+1`` for 35, ``signal 99`` where it has
    none.
    """
    try:
        return signal.Signals(number).name
    except ValueError:
        first, last = signal.SIGRTMIN, signal.SIGRTMAX
        return f"SIGRTMIN+{number - first}" if first < number < last else f"signal {number}"


# --- From the exit to the outcome ----------------------------------------------------------------

#: 75 is EX_TEMPFAIL of sysexits; 126 and 127 are the shell's "cannot execute" and "not found"
#: (POSIX XCU 2.8.2). Those that stand for a signal, and for the end of a time, are crashes like
#: those; every other status is critical.
DEFAULT_EXITS: Final[Mapping[int, Outcome]] = {
    0: Outcome.SUCCESS,
    75: Outcome.TRANSIENT,
    126: Outcome.MISCONFIGURED,
    127: Outcome.MISCONFIGURED,
}

#: What scripts print under ``status = "stdout"``.
_PRINTED: Final = {b"1": Outcome.SUCCESS, b"2": Outcome.TRANSIENT, b"3": Outcome.CRITICAL}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRules:
    """A pool's reading of exits."""

    #: Exit status to outcome, before the defaults.
    exits: Mapping[int, Outcome] = field(default_factory=dict)
    #: Whether exit status 0 means what stdout says (``status = "stdout"``).
    stdout: bool = False


def decide(exit: ProcessEnd, rules: ExitRules, *, stdout: bytes | None = None) -> Outcome:
    """The outcome of `exit`.

    `stdout` is what a job's script printed, at least its first 64 KiB. It is None for a request:
    its stdout is the answer, so its exit status decides under every rule.
    """
    if exit.not_started is not None:
        return Outcome.MISCONFIGURED
    if exit.ended_by_us is EndReason.TIMEOUT:
        # However it then ended: a status that comes after TERM says nothing about the work.
        return Outcome.CRASH
    if exit.ended_by_us is EndReason.OUTPUT:
        # It would print as much again.
        return Outcome.CRITICAL
    if exit.ended_by_us is EndReason.REQUESTED:
        # Whoever stopped it does not want it run again; that can be asked for in resque:failed.
        return Outcome.CRITICAL
    if exit.signal is not None or exit.code is None:
        ended = Outcome.CRASH
    else:
        ended = _by_code(exit.code, rules, stdout)
    if exit.ended_by_us is None or ended is Outcome.SUCCESS:
        return ended
    if exit.ended_by_us in (EndReason.CLIENT_GONE, EndReason.LEASE_LOST):
        return Outcome.ABANDONED
    return ended if ended is Outcome.TRANSIENT else Outcome.INTERRUPTED


def _by_code(code: int, rules: ExitRules, stdout: bytes | None) -> Outcome:
    by_stdout = rules.stdout and stdout is not None
    if code in rules.exits:
        outcome = rules.exits[code]
    elif code == TIMED_OUT or died_of(code) is not None:
        outcome = Outcome.CRASH
    elif by_stdout:
        outcome = Outcome.SUCCESS if code == 0 else Outcome.CRITICAL
    else:
        outcome = DEFAULT_EXITS.get(code, Outcome.CRITICAL)
    if by_stdout and stdout is not None and outcome is Outcome.SUCCESS:
        return _PRINTED.get(stdout.strip(), Outcome.CRITICAL)
    return outcome


#: Signals that a service manager ends a group of processes with, and what a shell makes of them.
_TOLD: Final = (signal.SIGTERM, signal.SIGINT)
#: Seconds in which an end that does not look like one by them may still be of the stop, where
#: somebody waits for the answer: the group is told at once, within milliseconds.
MOMENT: Final = 0.1


def doubt(exit: ProcessEnd, outcome: Outcome, message: Message, *, waited_for: bool) -> float:
    """Seconds for which it may still turn out that the stop of the daemon made this end; 0 for one
    that stands.

    `waited_for` says whether somebody waits for a reply.
    """
    if exit.ended_by_us is EndReason.SHUTDOWN:
        # It says "later", and so do we.
        return DOUBT if outcome is Outcome.TRANSIENT and may_repeat(message) else 0.0
    if exit.ended_by_us is not None or not may_repeat(message):
        return 0.0
    if outcome not in (Outcome.CRASH, Outcome.CRITICAL, Outcome.TRANSIENT):
        return 0.0
    told = (exit.signal or died_of(exit.code)) in _TOLD
    return DOUBT if told or not waited_for else MOMENT


def may_repeat(message: Message) -> bool:
    """Whether the message may run twice (RFC 9110 9.2.2)."""
    return message.request is None or message.request.idempotent


# --- From the outcome to the message -------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledge:
    """Acknowledge it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryAt:
    """Into the delayed set, with this attempt noted."""

    #: When it is due, on the clock of the caller's `now`.
    when: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PutBack:
    """Back on its queue as it was: the attempt does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dead:
    """Into ``resque:failed``, and its client is told."""

    #: Why there is no further try.
    reason: str


Step = Acknowledge | RetryAt | PutBack | Dead


def next_step(
    outcome: Outcome,
    message: Message,
    *,
    attempt: int,
    tries: int = TRIES,
    now: float,
    jitter: float,
) -> Step:
    """What becomes of `message`.

    `attempt` is the number of the one that just ended, from 1; `tries` how many there are in all.
    `now` is in Unix seconds, as the message's deadline is; `jitter` is drawn from [0, 1).
    """
    request = message.request
    match outcome:
        case Outcome.SUCCESS | Outcome.ABANDONED:
            return Acknowledge()
        case Outcome.CRITICAL:
            return Dead(reason="critical, so not tried again")
        case Outcome.MISCONFIGURED:
            return PutBack()
        case Outcome.CRASH | Outcome.INTERRUPTED if not may_repeat(message):
            return Dead(reason="not idempotent, so not tried again")
        case Outcome.INTERRUPTED:
            return PutBack()
    if attempt >= tries:
        return Dead(reason=f"tried {tries} times")
    when = now + back_off(
        attempt, first=BACK_OFF, longest=BACK_OFF_LONGEST, factor=BACK_OFF_FACTOR, jitter=jitter
    )
    if request is not None and when >= request.deadline:
        # The client learns now what it would otherwise learn from its deadline.
        return Dead(reason="the next try would come after the deadline")
    return RetryAt(when=when)
