"""`make run`, without make: it answers, and after Ctrl-C nothing is left of it."""

import http.client
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.ports import free_port
from tests.helpers.processes import alive, family

ROOT = Path(__file__).parents[2]
#: Seconds in which anything here must happen.
PATIENCE = 60.0


def get(port, path="/"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def command(port, *options):
    endpoint = f"tcp:{port}:interface=127.0.0.1"
    return [
        sys.executable,
        str(ROOT / "etc/run_sample.py"),
        "--listen",
        endpoint,
        "--status",
        "off",
        *options,
    ]


@pytest.fixture
def sample(short_dir):
    """Starts it with options, and kills what is left of it at the end; gives process and port."""
    processes = []

    def start(*options):
        port = free_port()
        process = subprocess.Popen(
            command(port, *options),
            env={**os.environ, "TMPDIR": str(short_dir), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        processes.append(process)
        return process, port

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for_page(process, port, path="/"):
    end = time.monotonic() + PATIENCE
    while True:
        assert process.poll() is None, process.stdout.read().decode()
        assert time.monotonic() < end, "no page"
        try:
            status, page = get(port, path)
        except OSError:
            time.sleep(0.05)
            continue
        if status == 200:
            return page
        # 503 until Valkey is there.
        time.sleep(0.05)


def stop(process, number=signal.SIGTERM):
    process.send_signal(number)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output.decode()
    assert b"Traceback" not in output
    return output.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_answers_and_leaves_nothing_behind(sample, short_dir, number):
    process, port = sample()
    assert "It works" in wait_for_page(process, port)
    assert get(port, "/nowhere")[0] == 404
    started = family(process.pid)
    # A server and a worker at least.
    assert len(started) >= 2
    stop(process, number)
    assert not list(short_dir.iterdir())
    assert not [pid for pid in started if alive(pid)]


def test_a_shell_script_answers_beside_the_site(sample):
    process, port = sample()
    page = wait_for_page(process, port)
    [link] = re.findall(r'href="(/cgi/[^"]*)"', page)
    status, text = get(port, link)
    assert status == 200
    assert "Hello from shell process" in text
    assert "\nSCRIPT_NAME=/cgi\n" in text
    assert "\nQUERY_STRING=name=Ada\n" in text
    # What does not begin with /cgi/ is the site's.
    assert get(port, "/cgi")[0] == 404
    stop(process)


def test_runs_as_many_workers_as_it_is_told(sample):
    process, port = sample("--workers", "3")
    end = time.monotonic() + PATIENCE
    seen = set()
    while len(seen) < 3:
        assert time.monotonic() < end, f"only {seen} answered"
        seen.update(re.findall(r"worker process (\d+)", wait_for_page(process, port)))
    assert len(seen) == 3
    stop(process)


def test_hangup_replaces_the_worker_while_the_site_stays_up(sample):
    process, port = sample()
    [before] = re.findall(r"worker process (\d+)", wait_for_page(process, port))
    process.send_signal(signal.SIGHUP)
    end = time.monotonic() + PATIENCE
    while re.findall(r"worker process (\d+)", get(port)[1]) == [before]:
        assert time.monotonic() < end, "not replaced"
    assert not alive(int(before))
    # A page in the gap between the two waited.
    assert get(port)[0] == 200
    stop(process)


def test_says_why_it_cannot_start(sample, short_dir):
    process, port = sample()
    wait_for_page(process, port)
    second = subprocess.run(
        command(port),
        env={**os.environ, "TMPDIR": str(short_dir), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert second.returncode == 1, second.stderr
    assert "Traceback" not in second.stdout + second.stderr
    assert str(port) in second.stdout + second.stderr
    stop(process)
    assert not list(short_dir.iterdir())
