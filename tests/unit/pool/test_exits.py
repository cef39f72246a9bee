"""Exits, outcomes, and what comes next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.pool.exits import (
    BACK_OFF_LONGEST,
    Acknowledge,
    Dead,
    EndReason,
    ExitRules,
    ProcessEnd,
    PutBack,
    RetryAt,
    decide,
    next_step,
    signal_name,
)
from queuerelay.wire.message import Message, Request
from queuerelay.wire.outcome import CONFIGURABLE, Outcome

RULES = ExitRules()
STDOUT = ExitRules(stdout=True)
JOB = Message(cls="Resize", args=[{}], request=None)


def asked(method="GET", deadline=1060.0):
    request = Request(
        node_id="n",
        url="/",
        method=method,
        http_version="1.1",
        headers=[],
        body=b"",
        remote_addr="",
        scheme="http",
        reply_to="r",
        accepted_at=1000.0,
        deadline=deadline,
    )
    return Message(cls="RequestProcessor", args=[{}], request=request)


def step(outcome, message=JOB, *, attempt=1, jitter=0.5, **more):
    return next_step(outcome, message, attempt=attempt, now=1000.0, jitter=jitter, **more)


# --- decide --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exit", "outcome"),
    [
        (ProcessEnd(code=0), Outcome.SUCCESS),
        (ProcessEnd(code=75), Outcome.TRANSIENT),
        (ProcessEnd(code=126), Outcome.MISCONFIGURED),
        (ProcessEnd(code=127), Outcome.MISCONFIGURED),
        (ProcessEnd(code=1), Outcome.CRITICAL),
        (ProcessEnd(code=255), Outcome.CRITICAL),
        (ProcessEnd(code=137), Outcome.CRASH),
        (ProcessEnd(code=129), Outcome.CRASH),
        (ProcessEnd(code=128 + 64), Outcome.CRASH),
        (ProcessEnd(code=124), Outcome.CRASH),
        (ProcessEnd(code=125), Outcome.CRITICAL),
        (ProcessEnd(code=128), Outcome.CRITICAL),
        (ProcessEnd(code=128 + 32), Outcome.CRITICAL),
        (ProcessEnd(code=128 + 65), Outcome.CRITICAL),
        (ProcessEnd(signal=9), Outcome.CRASH),
        (ProcessEnd(signal=11), Outcome.CRASH),
        (ProcessEnd(not_started="no such file"), Outcome.MISCONFIGURED),
        (ProcessEnd(signal=9, ended_by_us=EndReason.TIMEOUT), Outcome.CRASH),
        (ProcessEnd(code=0, ended_by_us=EndReason.TIMEOUT), Outcome.CRASH),
        (ProcessEnd(signal=9, ended_by_us=EndReason.OUTPUT), Outcome.CRITICAL),
        (ProcessEnd(code=0, ended_by_us=EndReason.OUTPUT), Outcome.CRITICAL),
        (ProcessEnd(signal=15, ended_by_us=EndReason.SHUTDOWN), Outcome.INTERRUPTED),
        (ProcessEnd(code=1, ended_by_us=EndReason.SHUTDOWN), Outcome.INTERRUPTED),
        (ProcessEnd(code=75, ended_by_us=EndReason.SHUTDOWN), Outcome.TRANSIENT),
        (ProcessEnd(code=0, ended_by_us=EndReason.SHUTDOWN), Outcome.SUCCESS),
        (ProcessEnd(signal=15, ended_by_us=EndReason.CLIENT_GONE), Outcome.ABANDONED),
        (ProcessEnd(code=75, ended_by_us=EndReason.CLIENT_GONE), Outcome.ABANDONED),
        (ProcessEnd(signal=9, ended_by_us=EndReason.LEASE_LOST), Outcome.ABANDONED),
        (ProcessEnd(code=0, ended_by_us=EndReason.CLIENT_GONE), Outcome.SUCCESS),
    ],
)
def test_default_rules(exit, outcome):
    assert decide(exit, RULES) is outcome
    # Without the option it does not matter what a job prints.
    assert decide(exit, RULES, stdout=b"2") is outcome


@pytest.mark.parametrize(
    ("stdout", "outcome"),
    [
        (b"1", Outcome.SUCCESS),
        (b"2\n", Outcome.TRANSIENT),
        (b" \t3\r\n\n", Outcome.CRITICAL),
        (b"", Outcome.CRITICAL),
        (b"0", Outcome.CRITICAL),
        (b"4", Outcome.CRITICAL),
        (b"11", Outcome.CRITICAL),
        (b"1 1", Outcome.CRITICAL),
        (b"1\0", Outcome.CRITICAL),
        (b"PHP Notice: x\n1", Outcome.CRITICAL),
    ],
)
def test_stdout_contract(stdout, outcome):
    assert decide(ProcessEnd(code=0), STDOUT, stdout=stdout) is outcome


@pytest.mark.parametrize("code", [1, 75, 126, 127])
def test_stdout_contract_with_another_status_is_critical(code):
    assert decide(ProcessEnd(code=code), STDOUT, stdout=b"1") is Outcome.CRITICAL


def test_stdout_contract_changes_nothing_else():
    assert decide(ProcessEnd(signal=9), STDOUT, stdout=b"1") is Outcome.CRASH
    assert decide(ProcessEnd(code=137), STDOUT, stdout=b"1") is Outcome.CRASH
    assert decide(ProcessEnd(code=124), STDOUT, stdout=b"1") is Outcome.CRASH
    assert decide(ProcessEnd(not_started="x"), STDOUT, stdout=b"") is Outcome.MISCONFIGURED
    # A request's stdout is its answer.
    assert decide(ProcessEnd(code=0), STDOUT) is Outcome.SUCCESS
    assert decide(ProcessEnd(code=75), STDOUT) is Outcome.TRANSIENT


def test_configured_exits_come_before_the_defaults():
    rules = ExitRules(
        exits={
            2: Outcome.TRANSIENT,
            75: Outcome.CRITICAL,
            3: Outcome.SUCCESS,
            137: Outcome.CRITICAL,
            124: Outcome.SUCCESS,
        }
    )
    assert decide(ProcessEnd(code=137), rules) is Outcome.CRITICAL
    assert decide(ProcessEnd(code=124), rules) is Outcome.SUCCESS
    assert decide(ProcessEnd(code=2), rules) is Outcome.TRANSIENT
    assert decide(ProcessEnd(code=75), rules) is Outcome.CRITICAL
    assert decide(ProcessEnd(code=3), rules) is Outcome.SUCCESS
    assert decide(ProcessEnd(code=127), rules) is Outcome.MISCONFIGURED
    printed = ExitRules(exits=rules.exits, stdout=True)
    assert decide(ProcessEnd(code=2), printed, stdout=b"1") is Outcome.TRANSIENT
    assert decide(ProcessEnd(code=3), printed, stdout=b"2") is Outcome.TRANSIENT
    assert decide(ProcessEnd(code=4), printed, stdout=b"1") is Outcome.CRITICAL


# --- next_step -----------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [JOB, asked("GET"), asked("POST")])
def test_what_does_not_depend_on_the_message(message):
    assert step(Outcome.SUCCESS, message) == Acknowledge()
    assert step(Outcome.ABANDONED, message) == Acknowledge()
    assert step(Outcome.CRITICAL, message) == Dead(reason="critical, so not tried again")
    assert step(Outcome.MISCONFIGURED, message, attempt=99) == PutBack()
    assert step(Outcome.TRANSIENT, message) == RetryAt(when=1001.0)
    assert step(Outcome.TRANSIENT, message, attempt=2) == RetryAt(when=1004.0)
    assert step(Outcome.TRANSIENT, message, attempt=3) == Dead(reason="tried 3 times")
    assert step(Outcome.TRANSIENT, message, tries=1) == Dead(reason="tried 1 times")


@pytest.mark.parametrize(
    ("message", "repeats"),
    [(JOB, True), (asked("GET"), True), (asked("PUT"), True), (asked("POST"), False)],
)
def test_only_what_may_run_twice_runs_again_after_a_crash(message, repeats):
    refused = Dead(reason="not idempotent, so not tried again")
    assert step(Outcome.CRASH, message) == (RetryAt(when=1001.0) if repeats else refused)
    assert step(Outcome.INTERRUPTED, message, attempt=3) == (PutBack() if repeats else refused)
    if repeats:
        assert step(Outcome.CRASH, message, attempt=3) == Dead(reason="tried 3 times")


def test_no_try_after_the_deadline():
    late = Dead(reason="the next try would come after the deadline")
    assert step(Outcome.TRANSIENT, asked(deadline=1001.0)) == late
    assert step(Outcome.TRANSIENT, asked(deadline=900.0)) == late
    assert step(Outcome.TRANSIENT, asked(deadline=1001.1)) == RetryAt(when=1001.0)
    assert step(Outcome.TRANSIENT, asked(deadline=float("inf"))) == RetryAt(when=1001.0)


@pytest.mark.parametrize(
    ("attempt", "least", "most"),
    [(1, 0.5, 1.5), (2, 2.0, 6.0), (3, 8.0, 24.0), (4, 30.0, 60.0), (10**6, 30.0, 60.0)],
)
def test_back_off(attempt, least, most):
    for jitter, seconds in ((0.0, least), (1.0, most)):
        got = step(Outcome.TRANSIENT, attempt=attempt, tries=10**7, jitter=jitter)
        assert got == RetryAt(when=1000.0 + seconds)


@given(
    outcome=st.sampled_from(Outcome),
    message=st.sampled_from([JOB, asked("GET"), asked("POST")]),
    attempt=st.integers(1, 10**9),
    tries=st.integers(1, 100),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_every_outcome_has_a_step(outcome, message, attempt, tries, jitter):
    got = step(outcome, message, attempt=attempt, tries=tries, jitter=jitter)
    if isinstance(got, RetryAt):
        assert attempt < tries
        assert 1000.5 <= got.when <= 1000.0 + BACK_OFF_LONGEST
        assert outcome in {Outcome.TRANSIENT, Outcome.CRASH}
    if outcome is not Outcome.SUCCESS and outcome is not Outcome.ABANDONED:
        assert got != Acknowledge()


# --- Words ---------------------------------------------------------------------------------------


def test_signal_names():
    assert [signal_name(number) for number in (9, 11, 15)] == ["SIGKILL", "SIGSEGV", "SIGTERM"]
    assert signal_name(35) == "SIGRTMIN+1"
    assert signal_name(99) == "signal 99"
    assert ProcessEnd(signal=9).signal_name == "SIGKILL"
    assert ProcessEnd(code=9).signal_name is None
    assert ProcessEnd(code=137).signal_name == "SIGKILL"


@pytest.mark.parametrize(
    ("exit", "words", "status"),
    [
        (ProcessEnd(code=3), "exit status 3", 502),
        (ProcessEnd(signal=11), "SIGSEGV", 502),
        (ProcessEnd(code=137), "exit status 137: SIGKILL", 502),
        (ProcessEnd(code=124), "exit status 124: time-out", 504),
        (
            ProcessEnd(signal=9, ended_by_us=EndReason.TIMEOUT),
            "SIGKILL, ended by us: time-out",
            504,
        ),
        (
            ProcessEnd(code=1, ended_by_us=EndReason.CLIENT_GONE),
            "exit status 1, ended by us: client gone",
            502,
        ),
        (ProcessEnd(not_started="no such file: /x"), "not started: no such file: /x", 502),
    ],
)
def test_exit_in_words(exit, words, status):
    assert str(exit) == words
    assert exit.reply_status == status


def test_configurable_outcomes_are_those_of_the_scripts():
    assert set(Outcome) - set(CONFIGURABLE) == {Outcome.INTERRUPTED, Outcome.ABANDONED}
