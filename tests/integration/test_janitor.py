"""The janitor itself: a run of its own, in a child, in which tests leave things behind."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LEAKING = """
import os, signal, socket, subprocess, sys
import pytest
from hypothesis import given, strategies as st
from twisted.internet import defer, protocol, reactor, task
from twisted.logger import Logger
from twisted.python import log as legacy
from tests.helpers import janitor

log = Logger()
janitor.GRACE = 0.3  # seconds; or each test that leaves a process would take ten


async def fails():
    raise ValueError("nobody looks")


def test_clean(): pass

async def test_async_clean():
    await task.deferLater(reactor, 0.001)

async def test_async_that_fails():
    await task.deferLater(reactor, 0)
    raise AssertionError("seen")

def test_delayed_call():
    reactor.callLater(1000, print)

def test_unhandled_deferred():
    defer.fail(ValueError("nobody looks"))

def test_unhandled_coroutine():
    defer.Deferred.fromCoroutine(fails())

def test_unawaited_coroutine():
    fails()

def test_unclosed_socket():
    socket.socket()

def test_logged_failure():
    try:
        1 / 0
    except ZeroDivisionError:
        log.failure("division")

def test_legacy_logged_failure():
    legacy.err(ValueError("old style"))

def test_logged_critical():
    log.critical("meltdown")

def test_logged_warning_is_fine():
    log.warn("hm")

def test_expected_failure(logged_failures):
    legacy.err(ValueError("old style"))
    defer.fail(KeyError("unhandled"))
    assert len(logged_failures.flush(KeyError)) == 1
    [event] = logged_failures.flush(ValueError)
    assert janitor.failure_of(event).getErrorMessage() == "old style"

def test_expected_wrong_failure(logged_failures):
    legacy.err(ValueError("old style"))
    assert logged_failures.flush(KeyError) == []

def test_listening_port():
    reactor.listenTCP(0, protocol.Factory(), interface="127.0.0.1")

async def test_closed_port():
    port = reactor.listenTCP(0, protocol.Factory(), interface="127.0.0.1")
    await port.stopListening()

def test_child():
    subprocess.Popen(["sleep", "1000"]).returncode = 0

def test_orphan():
    subprocess.run(["sh", "-c", "sleep 1000 & exit 0"], check=True)

def test_ended_child():
    process = subprocess.Popen(["sleep", "1000"])
    process.kill()
    process.wait()

@pytest.mark.parametrize("one", [1, 2, 3])
@given(two=st.integers())
def test_parametrized_and_given(one, two): pass

def test_skipped():
    pytest.skip("no such tool")

@pytest.mark.xfail(strict=True)
def test_known_bug():
    raise AssertionError

def test_clean_after_all(): pass
"""

#: Name of a test -> what is said about it; those that are not here pass.
EXPECTED = {
    "test_async_that_fails": "seen",
    "test_delayed_call": "a delayed call was left",
    "test_unhandled_deferred": "nobody looks",
    "test_unhandled_coroutine": "nobody looks",
    "test_unawaited_coroutine": "never awaited",
    "test_unclosed_socket": "unclosed",
    "test_logged_failure": "division",
    "test_legacy_logged_failure": "old style",
    "test_logged_critical": "meltdown",
    "test_expected_wrong_failure": "old style",
    "test_listening_port": "a reader or writer was left",
    "test_child": "a child process was left running",
    "test_orphan": "a child process was left running",
}


def _run(folder: Path, **environment: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit status, and for each test its outcome and what was said about it."""
    (folder / "test_leaking.py").write_text(LEAKING)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "setup.cfg")]
    command += ["-p", "tests.helpers.janitor", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    command += ["--junit-xml", str(folder / "report.xml"), str(folder / "test_leaking.py")]
    ran = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "QUEUERELAY_CI": "", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (folder / "report.xml").exists(), ran.stdout + ran.stderr
    outcomes: dict[str, tuple[str, str]] = {}
    for case in ET.parse(folder / "report.xml").iter("testcase"):
        results = [one for one in case if one.tag in {"failure", "error", "skipped"}]
        said = "".join(f"{one.get('message')} {one.text}" for one in results)
        name = str(case.get("name"))
        # A test that fails and then leaves something behind is there twice.
        outcome, before = outcomes.get(name, ("passed", ""))
        outcomes[name] = (results[0].tag if results else outcome, before + said)
    return ran.returncode, outcomes


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """Of the leaking tests, outside CI."""
    status, outcomes = _run(tmp_path_factory.mktemp("leaking"))
    assert status == 1
    return outcomes


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_leaking_test_fails(outcomes: dict[str, tuple[str, str]], name: str) -> None:
    outcome, said = outcomes[name]
    assert outcome in {"failure", "error"}
    assert EXPECTED[name] in said


def test_no_other_test_fails(outcomes: dict[str, tuple[str, str]]) -> None:
    failed = {name for name, (outcome, _) in outcomes.items() if outcome in {"failure", "error"}}
    assert failed == set(EXPECTED)
    assert outcomes["test_skipped"][0] == "skipped"
    assert outcomes["test_clean_after_all"][0] == "passed"


def test_skip_fails_in_ci(tmp_path: Path) -> None:
    status, outcomes = _run(tmp_path, QUEUERELAY_CI="1")
    assert status == 1
    outcome, said = outcomes["test_skipped"]
    assert outcome in {"failure", "error"}
    assert "nothing may be skipped in CI: " in said
    assert "no such tool" in said
    assert outcomes["test_known_bug"][0] == "skipped"
