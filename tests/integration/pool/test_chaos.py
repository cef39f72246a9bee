"""Pools that are killed or frozen: a short run of the benchmark that does it for long."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from queuerelay.processes.spawner import supported
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.skipif(not supported(), reason="no pidfd here")

ROOT = Path(__file__).parents[3]
CHAOS = ROOT / "benchmarks" / "pool_chaos.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
PATIENCE = 60.0


def run(*options: str) -> dict[str, Any]:
    result = subprocess.run(
        [sys.executable, str(CHAOS), *options],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.stdout, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_pools_that_are_killed_lose_nothing():
    result = run("--jobs", "240", "--kills", "4", "--size", "2")
    assert result["finished"]
    assert result["lost"] == result["failed"] == 0
    # What a killed pool had running runs again, at most all of it.
    assert result["run_again"] <= 4 * 2


def test_a_pool_at_work_does_not_grow():
    result = run("--steady", "--jobs", "1000")
    assert result["finished"]
    assert result["zombies"] == 0
    assert result["leaked_descriptors"] == 0
    assert result["grown_bytes"] < 4 * 1024**2
    # By 2 GB of output.
    assert result["flood_bytes"] < 5 * 1024**2


@pytest.fixture
def host(fresh_valkey: Any) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts processes with one pool each."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [
                *(sys.executable, str(CHAOS), "--host", fresh_valkey.url, "--size", "1"),
                *("--number", str(len(processes)), *command),
            ],
            env=ENVIRONMENT,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_a_pool_that_is_frozen_for_twice_its_lease_corrupts_nothing(host, fresh_valkey, tmp_path):
    ledger = tmp_path / "ledger"
    script = 'echo "begin $QUEUERELAY_ATTEMPT" >> "$0"; sleep 3; echo end >> "$0"; echo done'
    client = fresh_valkey.client()

    def lines() -> list[str]:
        return ledger.read_text().splitlines() if ledger.exists() else []

    first = host("/bin/sh", "-c", script, str(ledger))
    message = {"class": "J", "args": [{"n": 1, "reply_to": "queuerelay:results:x"}], "id": "1"}
    client.rpush("resque:queue:chaos", json.dumps(message))
    eventually(lambda: lines() == ["begin 1"], seconds=PATIENCE)
    first.send_signal(signal.SIGSTOP)
    host("/bin/sh", "-c", script, str(ledger))
    # Its own script has ended meanwhile, and the other pool has begun again.
    eventually(lambda: "begin 2" in lines() and "end" in lines(), seconds=PATIENCE)
    first.send_signal(signal.SIGCONT)
    eventually(lambda: client.llen("queuerelay:results:x"), seconds=PATIENCE)
    eventually(lambda: not client.hlen("queuerelay:inflight:chaos"), seconds=PATIENCE)
    assert sorted(lines()) == ["begin 1", "begin 2", "end", "end"]
    assert client.llen("queuerelay:results:x") == 1
    assert client.llen("resque:failed") == client.llen("resque:queue:chaos") == 0
