"""`make run`, without make: it answers, and after Ctrl-C nothing is left of it."""

import http.client
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.janitor import children
from tests.valkey import free_port

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


@pytest.fixture
def sample(tmp_path):
    """Starts it, and kills what is left of it at the end; gives its process and port."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "etc/run_sample.py"), "--listen",
         f"tcp:{port}:interface=127.0.0.1"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    yield process, port
    if process.poll() is None:
        process.kill()
    process.communicate()


def wait_for_page(process, port):
    end = time.monotonic() + PATIENCE
    while True:
        assert process.poll() is None, process.stdout.read().decode()
        assert time.monotonic() < end, "no page"
        try:
            status, page = get(port)
        except OSError:
            time.sleep(0.05)
            continue
        if status == 200:
            return page
        # 503 until Valkey is there.
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_answers_and_leaves_nothing_behind(sample, tmp_path, number):
    process, port = sample
    assert "It works" in wait_for_page(process, port)
    assert get(port, "/nowhere")[0] == 404
    process.send_signal(number)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output.decode()
    assert b"Traceback" not in output
    assert not list(tmp_path.iterdir())
    # Orphans would have become ours.
    assert not children(os.getpid()) & {process.pid}


def test_says_why_it_cannot_start(sample, tmp_path):
    process, port = sample
    wait_for_page(process, port)
    second = subprocess.run(
        [sys.executable, str(ROOT / "etc/run_sample.py"), "--listen",
         f"tcp:{port}:interface=127.0.0.1"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )  # fmt: skip
    assert second.returncode == 1, second.stderr
    assert "Traceback" not in second.stdout + second.stderr
    assert str(port) in second.stdout + second.stderr
    process.terminate()
    process.communicate(timeout=PATIENCE)
