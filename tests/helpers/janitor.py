"""A pytest plugin that fails tests for what they leave behind.

Under pytest-twisted a delayed call, a socket, a child process, an unhandled failure in a Deferred
and a logged failure all pass unseen. Here each fails the test that left it, and is cleared away
so that the next one starts clean.
"""

import contextlib
import ctypes
import gc
import inspect
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import task
from twisted.internet.error import ConnectionAborted
from twisted.logger import (
    LogEvent,
    LogLevel,
    STDLibLogObserver,
    formatEvent,
    globalLogBeginner,
)
from twisted.python.failure import Failure

from tests.helpers.processes import alive, children

#: Turns of the reactor in which sockets that a test has closed may disappear.
TURNS = 20
#: Seconds in which processes that a test has told to end may disappear.
GRACE = 10.0

_PR_SET_CHILD_SUBREAPER = 36


class LoggedFailures:
    """Failures and critical events logged since the test began, and not yet expected."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        """Observe one event (`ILogObserver`)."""
        if failure_of(event) is None:
            # Only a heading: the failure follows in an event of its own.
            heading = event.get("log_namespace") == "twisted.internet.defer"
            if heading or event["log_level"] is not LogLevel.critical:
                return
        self.events.append(event)

    def flush(self, *types: type[BaseException]) -> list[LogEvent]:
        """Forget and return the events whose failure is one of `types`; all of them if none.

        A test that provokes failures calls this and looks at what it gets.
        """
        gc.collect()
        found = [event for event in self.events if not types or _is(event, types)]
        self.events = [event for event in self.events if event not in found]
        return found


def failure_of(event: LogEvent) -> Failure | None:
    """The failure in the event, new style or old."""
    failure = event.get("log_failure", event.get("failure"))
    return failure if isinstance(failure, Failure) else None


def _is(event: LogEvent, types: tuple[type[BaseException], ...]) -> bool:
    failure = failure_of(event)
    return failure is not None and failure.check(*types) is not None


_logged = LoggedFailures()


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").replace("\0", " ")[:200]
    except OSError:
        return "?"


def _wait(holds: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while holds() and time.monotonic() < end:
        time.sleep(0.02)


def pytest_configure(config: pytest.Config) -> None:
    """Log to us from the start; adopt orphans, so that children of children are seen too."""
    globalLogBeginner.beginLoggingTo(
        # The second shows what was logged beside a failed test.
        [_logged, STDLibLogObserver("twisted")],
        redirectStandardIO=False,
        discardBuffer=True,
    )
    logging.getLogger("twisted").setLevel(logging.INFO)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """An ``async def`` test runs in the reactor without a decorator."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
            pytest_twisted.ensureDeferred(item.function)


def pytest_collection_finish() -> None:
    """Keep what was imported out of every later collection: that makes them cheap."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def freezes_what_is_left() -> Iterator[None]:
    """The same for what each module leaves that lives on, such as examples of hypothesis: it is the
    collection after every test that takes the time of a long run.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Undo what pytest-twisted does to a hypothesis test.

    It wraps the inner test at each call and never unwraps it, so that a test that is both
    parametrized and given would enter the reactor from within the reactor.
    """
    hypothesis = getattr(pyfuncitem.obj, "hypothesis", None)
    inner = getattr(hypothesis, "inner_test", None)
    try:
        return (yield)
    finally:
        if inner is not None:
            hypothesis.inner_test = inner


def _skip_is_failure(report: Any) -> None:
    if (
        os.environ.get("QUEUERELAY_CI") == "1"
        and report.skipped
        and not hasattr(report, "wasxfail")
    ):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped, but nothing may be skipped in CI: {reason}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failed one."""
    report = yield
    _skip_is_failure(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """In CI a skipped module is a failed one."""
    report = yield
    _skip_is_failure(report)
    return report


def _selectables() -> set[Any]:
    from twisted.internet import reactor

    found = {*reactor.getReaders(), *reactor.getWriters()}
    return found - reactor._internalReaders


def _turn() -> None:
    from twisted.internet import reactor

    pytest_twisted.blockon(task.deferLater(reactor, 0))


def _left_in_reactor(calls: set[Any], selectables: set[Any]) -> Iterator[str]:
    from twisted.internet import reactor

    for _ in range(TURNS):
        if not _selectables() - selectables and not set(reactor.getDelayedCalls()) - calls:
            return
        _turn()
    for call in set(reactor.getDelayedCalls()) - calls:
        yield f"a delayed call was left in the reactor: {call}"
        call.cancel()
    for selectable in _selectables() - selectables:
        yield f"a reader or writer was left in the reactor: {selectable!r}"
        reactor.removeReader(selectable)
        reactor.removeWriter(selectable)
        # Closes its socket, or a later test would be blamed for that.
        with contextlib.suppress(Exception):
            selectable.connectionLost(Failure(ConnectionAborted()))


def _left_children(before: set[int]) -> Iterator[str]:
    ours = os.getpid()
    left = children(ours) - before
    if left:
        _wait(lambda: children(ours) - before, GRACE)
        left = children(ours) - before
    for pid in left:
        yield f"a child process was left running: {pid}: {_command(pid)}"
        os.kill(pid, signal.SIGKILL)
        _wait(lambda pid=pid: alive(pid), GRACE)


def _logged_lines(events: Iterable[LogEvent]) -> Iterator[str]:
    for event in events:
        failure = failure_of(event)
        trace = "" if failure is None else f"\n{failure.getTraceback()}"
        yield f"logged and not expected: {formatEvent(event)}{trace}"


@pytest.fixture
def logged_failures() -> LoggedFailures:
    """The failures logged in this test; `flush` those that belong to it."""
    return _logged


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """Fails the test for anything it left in the reactor, the log or the process table."""
    from twisted.internet import reactor

    calls = set(reactor.getDelayedCalls())
    selectables = _selectables()
    before = children(os.getpid())
    _logged.events.clear()
    yield
    left = [*_left_in_reactor(calls, selectables), *_left_children(before)]
    gc.collect()
    left += _logged_lines(_logged.events)
    _logged.events.clear()
    if left:
        pytest.fail("\n".join(left), pytrace=False)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails the run for processes that even the session's fixtures left."""
    left = list(_left_children(set()))
    if left:
        print("\n" + "\n".join(left), file=sys.stderr)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
