"""The logs of the real daemon: bounded, as text and as JSON."""

import json
import signal
from contextlib import suppress

import pytest

from tests.helpers import daemon as harness
from tests.helpers.waiting import eventually

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def logged(monkeypatch, relay, tmp_path):
    """Starts a relay whose log is ``log`` of the test's directory."""
    command = [*harness.TWISTD[:-1], "--logfile", "log", "queuerelay"]
    monkeypatch.setattr(harness, "TWISTD", command)
    return relay


def test_both_logs_as_json(logged, worker, tmp_path):
    access = tmp_path / "access.log"
    one = logged("--log-format", "json", "--access-log", str(access))
    client = one.get("/a", ("Traceparent", TRACE), ("User-Agent", 'x"\xe9'))
    worker.serve()
    assert client.response().status == 200
    plain = one.get("/b")
    worker.serve()
    assert plain.response().status == 200
    one.signal(signal.SIGTERM)
    assert one.exit() == 0
    first, second = map(json.loads, access.read_text().splitlines())
    assert first["type"] == "access"
    assert (first["target"], first["status"], first["end"]) == ("/a", 200, "answered")
    assert (first["traceparent"], first["agent"]) == (TRACE, 'x"\\xe9')
    assert (second["target"], "traceparent" in second) == ("/b", False)
    events = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert {event["type"] for event in events} == {"log"}
    (started,) = [event for event in events if "limits:" in event["message"]]
    assert started["logger"] == "queuerelay.parts.ListeningRelay"
    assert started["fields"]["redis"].startswith("unix:///")
    # twistd's own too, from its first line to the last.
    assert events[0]["message"].startswith("twistd ")
    assert events[-1]["message"] == "Server Shut Down."
    assert (one.log, one.stderr) == ("", "")


def test_json_on_stdout(relay):
    one = relay("--log-format", "json")
    one.signal(signal.SIGTERM)
    assert one.exit() == 0
    assert all(json.loads(line)["type"] == "log" for line in one.log.splitlines())


def test_the_log_is_bounded_and_reopened(logged, tmp_path):
    one = logged("--log-max-size", "4000", "--log-keep", "2")
    log = tmp_path / "log"

    def state():
        # There is none for a moment while it is rotated.
        with suppress(FileNotFoundError):
            found = log.stat()
            return found.st_ino, found.st_size
        return None

    for _ in range(150):
        before = eventually(state)
        one.signal(signal.SIGHUP)
        eventually(lambda before=before: state() not in (None, before))
    names = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("log"))
    assert names == ["log", "log.1", "log.2"]
    assert all((tmp_path / name).stat().st_size <= 4000 for name in names)
    # Somebody else renames it.
    log.rename(tmp_path / "away")
    one.signal(signal.SIGUSR1)
    eventually(log.exists)
    one.signal(signal.SIGTERM)
    assert one.exit() == 0
    assert "Server Shut Down" in log.read_text()
    assert not (tmp_path / "log.3").exists()


def test_a_full_disk_under_both_logs_stops_nothing(monkeypatch, relay, worker, full_disk):
    command = [*harness.TWISTD[:-1], "--logfile", full_disk, "queuerelay"]
    monkeypatch.setattr(harness, "TWISTD", command)
    one = relay("--access-log", full_disk)
    for _ in range(3):
        client = one.get("/")
        worker.serve()
        assert client.response().status == 200
        one.signal(signal.SIGUSR1)
    one.signal(signal.SIGTERM)
    assert one.exit() == 0


def test_a_daemon_that_cannot_start_says_why_in_its_log(tmp_path):
    done = harness.run(
        *("--redis", "localhost", "--listen", "tcp:0", "--status", "off"),
        *("--access-log", "no/such/place"),
        cwd=tmp_path,
        command=[harness.TWISTD[0], "--pidfile=pid", "queuerelay"],
    )
    assert done.returncode == 1
    assert "wrong configuration: --access-log: got 'no/such/place'" in done.stderr
    log = (tmp_path / "twistd.log").read_text()
    assert "--access-log: got 'no/such/place', expected a writable file" in log
    assert "Traceback" not in log
    assert not (tmp_path / "pid").exists()
