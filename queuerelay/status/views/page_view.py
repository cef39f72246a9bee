"""What the page's template shows: the snapshot, in the order and bounds in which people read it.

Pure; the template has no logic but loops and conditions, and this has no HTML.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from queuerelay.status.collect.dead_letters import DeadLetterAttempt, DeadLetters
from queuerelay.status.collect.snapshot import NodeStatus, PoolStatus, Severity, StatusSnapshot
from queuerelay.status.views import page_text
from queuerelay.status.views.page_plot import plots
from queuerelay.wire.node import ExitRecord, SlotState
from queuerelay.wire.outcome import TIMED_OUT

#: Exits that are shown: the newest of all pools, and the newest ones that failed.
EXITS: Final = 12
FAILED_EXITS: Final = 12
#: Slots of a pool that are shown, those busy for longest.
SLOTS: Final = 12
#: Reasons that are shown.
REASONS: Final = 20
#: Seconds after which a snapshot is old; a new one is made each second.
OLD: Final = 5.0
#: Outcomes of an attempt that nobody has to look at.
FINE: Final = ("success", "abandoned", "interrupted")

#: A mark and a word for each severity, so that colour is never alone.
MARKS: Final = {Severity.OK: "\u25cf", Severity.WARNING: "\u25b2", Severity.CRITICAL: "\u25a0"}
_COLOURS: Final = {
    Severity.OK: "%2317703a",
    Severity.WARNING: "%23b56a00",
    Severity.CRITICAL: "%23b3202a",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """An exit, and the pool of its process."""

    key: str
    pool: PoolStatus
    exit: ExitRecord
    #: ``exit 1``, ``SIGKILL`` or ``not started``.
    how: str
    fine: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """A pool, in the bounds in which the page shows it."""

    key: str
    pool: PoolStatus
    #: What is in the way of the pool's work, or "".
    trouble: str
    #: Slots that are shown: busy ones.
    slots: tuple[SlotState, ...]
    #: How many more slots are busy.
    more: int
    idle: int
    percent: int
    #: Attempts by outcome; outcomes without attempts are left out.
    outcomes: tuple[tuple[str, int], ...]
    fine: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The page, before it is HTML."""

    s: StatusSnapshot
    failures: DeadLetters
    #: Whether `failures` are other ones than the newest.
    elsewhere: bool
    #: Whether the listener takes actions.
    writable: bool
    #: Whether the page reloads itself where no script does better.
    refresh: bool
    #: Result of an action for people, "" without one.
    said: str
    #: Whether the snapshot itself is old.
    old: bool
    title: str
    headline: str
    mark: str
    #: A picture for the browser's tab: ``data:``.
    icon: Markup
    plots: Mapping[str, Markup]
    pools: tuple[PoolView, ...]
    exits: tuple[Ended, ...]
    slots: int
    busy: int
    rate_in: float
    rate_out: float
    #: Where the pages of dead letters before and after this one start, None where there is none.
    newer: int | None
    older: int | None

    @property
    def reasons_more(self) -> int:
        """How many reasons are not shown."""
        return max(0, len(self.s.health.reasons) - REASONS)


def view(
    snapshot: StatusSnapshot,
    *,
    now: float,
    plots_: Mapping[str, Markup] | None = None,
    failures: DeadLetters | None = None,
    page: int = 20,
    writable: bool = False,
    refresh: bool = True,
    said: str = "",
) -> View:
    """The page of `snapshot`, shown at Unix second `now`.

    `page` is how many dead letters a page has. `failures` are those of another page.
    """
    severity, reasons = snapshot.health.severity, snapshot.health.reasons
    headline = _headline(severity, len(reasons))
    shown = snapshot.failures if failures is None else failures
    end = shown.start + len(shown.items)
    pools = tuple(_pool(pool) for pool in snapshot.pools)
    return View(
        s=snapshot,
        failures=shown,
        elsewhere=failures is not None,
        writable=writable,
        refresh=refresh,
        said=said,
        old=now - snapshot.at > OLD,
        title=headline if severity is Severity.OK else f"{MARKS[severity]} {headline}",
        headline=headline,
        mark=MARKS[severity],
        icon=_icon(severity),
        plots=plots(snapshot.history) if plots_ is None else plots_,
        pools=pools,
        exits=_exits(snapshot),
        slots=sum(one.pool.size for one in pools),
        busy=sum(one.pool.busy for one in pools),
        rate_in=sum(queue.in_per_minute for queue in snapshot.queues),
        rate_out=sum(queue.out_per_minute for queue in snapshot.queues),
        newer=max(0, shown.start - page) if shown.start > 0 else None,
        older=end if end < shown.total and shown.items else None,
    )


def _headline(severity: Severity, reasons: int) -> str:
    if severity is Severity.OK:
        return "All is well"
    word = "Critical" if severity is Severity.CRITICAL else "Warning"
    return f"{word}: {reasons} reason{'s' if reasons != 1 else ''}"


def _icon(severity: Severity) -> Markup:
    shape = {
        Severity.OK: "%3Ccircle cx='8' cy='8' r='7'",
        Severity.WARNING: "%3Cpath d='M8 1 15.5 15H.5z'",
        Severity.CRITICAL: "%3Cpath d='M1 1h14v14H1z'",
    }[severity]
    return Markup(
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
        f"{shape} fill='{_COLOURS[severity]}'/%3E%3C/svg%3E"
    )


def _exits(snapshot: StatusSnapshot) -> tuple[Ended, ...]:
    found = [(pool, one) for pool in snapshot.pools for one in pool.exits]
    found.sort(key=lambda pair: -pair[1].at)
    ended: list[Ended] = []
    bad = 0
    for number, (pool, one) in enumerate(found):
        fine = one.outcome in FINE
        bad += not fine
        # Else what failed would soon be gone, among all that is well.
        if number < EXITS or (not fine and bad <= FAILED_EXITS):
            key = f"{pool.node}/{pool.name}/{one.message}/{one.at}"
            ended.append(
                Ended(key=key, pool=pool, exit=one, how=how(one.code, one.signal), fine=fine)
            )
    return tuple(ended)


def how(code: int | None, signal: str | None) -> str:
    """How a process ended."""
    if code is None:
        return signal or "not started"
    meant = signal or ("time-out" if code == TIMED_OUT else "")
    return f"exit {code}: {meant}" if meant else f"exit {code}"


def attempted(attempt: DeadLetterAttempt) -> str:
    """How an attempt ended; what was refused beforehand has neither status nor signal."""
    return "" if attempt.code is None and not attempt.signal else how(attempt.code, attempt.signal)


def _pool(pool: PoolStatus) -> PoolView:
    busy = tuple(slot for slot in pool.slots if slot.state != "idle")
    shown = busy[:SLOTS]
    return PoolView(
        key=f"{pool.node}/{pool.name}",
        pool=pool,
        trouble=_trouble(pool),
        slots=shown,
        more=max(0, max(pool.busy, len(busy)) - len(shown)),
        idle=max(0, pool.size - max(pool.busy, len(busy))),
        percent=page_text.percent(pool.busy, pool.size),
        outcomes=tuple((name, number) for name, number in pool.outcomes.items() if number),
        fine=not (pool.looping or pool.resting or pool.unstartable),
    )


def _trouble(pool: PoolStatus) -> str:
    if pool.looping:
        return f"{pool.looping} of its processes do not stay up"
    return f"takes no work: {pool.resting}" if pool.resting else pool.unstartable


def node_state(node: NodeStatus) -> str:
    """The state of a node in one word."""
    if node.stale:
        return "silent"
    if any(loop.stale for loop in node.loops):
        return "stuck"
    return "draining" if node.draining else "alive"
