"""After much work of every kind, JSON, metrics, stats.txt and Redis say the same to the last one;
and what clients ask makes no series.
"""

import json
import random
import socket
import threading
from collections import Counter
from pathlib import Path

import html5lib

from queuerelay.wire.reply import encode_reply
from tests.helpers.ports import free_port
from tests.helpers.strict import read, request
from tests.helpers.waiting import PATIENCE, eventually
from tests.integration.status.place import ask as place_ask
from tests.integration.status.place import listening, metrics, stats, status, summed

REQUESTS = 10_000
JOBS = 2_000
CLIENTS = 8
#: Clients that leave without waiting.
LEAVERS = 40
#: What becomes of a job, by its number.
KINDS = {0: "critical", 1: "transient", 2: "crash"}

SCRIPT = """#!/bin/sh
case $QUEUERELAY_ID in
  critical-*) exit 1;;
  transient-*) [ "$QUEUERELAY_ATTEMPT" -gt 1 ] || exit 75;;
  crash-*) kill -9 $$;;
esac
"""

TOML = """
[[pool]]
name = "jobs"
queues = ["jobs"]
command = ["./job.sh"]
size = 4
tries = 2
"""


def work(client, stop: threading.Event) -> None:
    """Answer requests, most well and some not, until `stop`."""
    while not stop.is_set():
        raws = client.lpop("resque:queue:requests", 200)
        if not raws:
            stop.wait(0.002)
            continue
        with client.pipeline(transaction=False) as pipeline:
            for raw in raws:
                taken = json.loads(raw)["args"][0]
                number = int(taken["url"].rpartition("n=")[2])
                reply = encode_reply(
                    node_id=taken["node_id"],
                    status={0: 500, 1: 404, 2: 302}.get(number % 20, 200),
                    timing={"wait": 0.001, "run": 0.002},
                )
                if number % 500 == 3:
                    reply = json.dumps({"node_id": taken["node_id"], "status": "x"}).encode()
                pipeline.rpush(taken["reply_to"], reply)
            pipeline.execute()


def ask(port: int, first: int, got: Counter) -> None:
    """Ask for one share of the requests, no two alike, and count the answers."""
    dice = random.Random(first)
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        file = connection.makefile("rb")
        numbers = range(first, REQUESTS, CLIENTS)
        for start in range(0, len(numbers), 50):
            for number in numbers[start : start + 50]:
                path = f"/{dice.randbytes(8).hex()}/x?n={number}"
                raw = request(f"M{dice.randrange(10**9)}", path)
                host = f"h{number}.example".encode()
                connection.sendall(raw.replace(b"example.org", host))
                got[read(file).status // 100] += 1


def leave(port: int, number: int) -> None:
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.sendall(request("GET", f"/?n={number}"))


def test_numbers_agree_to_the_last_one(daemon, fresh_valkey, tmp_path: Path) -> None:
    client = fresh_valkey.client()
    script = tmp_path / "job.sh"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    (tmp_path / "pools.toml").write_text(TOML)
    port = free_port()
    listen = f"tcp:{port}:interface=127.0.0.1"
    relay = daemon("--redis", fresh_valkey.url, "--status", listen).ready()
    # On another host, for all that the status listener knows.
    daemon("--redis", fresh_valkey.url, "--config", "pools.toml", "--role", "pool")
    listening(port)
    eventually(lambda: summed(metrics(port), "queuerelay_pool_size") == 4)
    before = metrics(port)

    messages = []
    for number in range(JOBS):
        name = f"{KINDS.get(number % 50, 'fine')}-{number}"
        message = {"class": "Job", "args": [{}], "queue": "jobs", "id": name}
        messages.append(json.dumps({**message, "queue_time": 1.7e9}))
    client.sadd("resque:queues", "jobs")
    client.rpush("resque:queue:jobs", *messages)

    stop, got = threading.Event(), Counter()
    # Those that leave find no worker yet.
    for number in range(LEAVERS):
        leave(relay.port, number)
    eventually(lambda: summed(metrics(port), "queuerelay_requests_total", code="gone") == LEAVERS)
    threads = [threading.Thread(target=work, args=(fresh_valkey.client(), stop))]
    counters = [Counter() for _ in range(CLIENTS)]
    threads += [
        threading.Thread(target=ask, args=(relay.port, first, counters[first]))
        for first in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads[1:]:
            thread.join(60)
    finally:
        stop.set()
        threads[0].join(10)
    for one in counters:
        got.update(one)
    assert sum(got.values()) == REQUESTS

    failing = JOBS // 50 * 2
    attempts = JOBS + JOBS // 50 * 2
    eventually(lambda: int(client.get("resque:stat:processed") or 0) == attempts, 60)
    eventually(lambda: int(client.get("resque:stat:failed") or 0) == failing)
    # Each second a look, and each two seconds a beat of the other process.
    eventually(lambda: sum(status(port)["jobs"]["jobs"].values()) == attempts)
    eventually(lambda: status(port)["resque"]["processed"] == attempts)
    eventually(
        lambda: sum(status(port)["requests"]["codes"]["requests"].values()) == REQUESTS + LEAVERS
    )

    shown, series, lines = status(port), metrics(port), stats(port)
    # Requests.
    codes = shown["requests"]["codes"]["requests"]
    assert codes["gone"] == LEAVERS
    assert {int(code[0]): number for code, number in codes.items() if code[0].isdigit()} == {
        digit: got[digit] for digit in (2, 3, 4, 5)
    }
    assert got[5] == REQUESTS // 20 + REQUESTS // 500
    assert shown["requests"]["ends"] == {
        "answered": REQUESTS - REQUESTS // 500,
        "refused": REQUESTS // 500,
        "gone": LEAVERS,
        "expired": 0,
        "aborted": 0,
    }
    assert shown["requests"]["refusals"] == {"bad-reply": REQUESTS // 500}
    for code, number in codes.items():
        name = "queuerelay_requests_total"
        assert summed(series, name, code=code, queue="requests") == number
    assert summed(series, "queuerelay_request_duration_seconds_count") == REQUESTS
    timed = REQUESTS - REQUESTS // 500
    assert summed(series, "queuerelay_request_wait_seconds_count") == timed
    # Jobs.
    outcomes = {
        "success": JOBS - failing,
        "critical": JOBS // 50,
        "transient": JOBS // 50,
        "crash": 2 * JOBS // 50,
    }
    found = {name: number for name, number in shown["jobs"]["jobs"].items() if number}
    assert found == outcomes
    for outcome, number in outcomes.items():
        assert summed(series, "queuerelay_jobs_total", outcome=outcome) == number
    assert summed(series, "queuerelay_job_run_seconds_count") == attempts
    assert summed(series, "queuerelay_job_wait_seconds_count") == JOBS
    # Redis, and all that tell of it.
    assert client.llen("resque:failed") == failing
    assert shown["failures"]["total"] == shown["resque"]["failed"] == failing
    assert series["queuerelay_dead_letters"] == failing
    assert lines["resque.failed"] == failing
    assert lines["resque.processed"] == attempts == shown["resque"]["processed"]
    assert summed(series, "queuerelay_resque_jobs_total", outcome="processed") == attempts
    for queue in ("requests", "jobs"):
        assert client.llen(f"resque:queue:{queue}") == lines[f"queues.{queue}"] == 0
        assert summed(series, "queuerelay_queue_depth", queue=queue) == 0
    assert lines["resque.pending"] == series["queuerelay_held"] == 0
    assert lines["resque.workers"] == client.scard("resque:workers") == 1
    # The page, as it is read.
    code, document = place_ask(port, "/")
    assert code == 200
    tree = html5lib.parse(document, namespaceHTMLElements=False)
    text = " ".join(" ".join(tree.itertext()).split())
    ends = shown["requests"]["ends"]
    for name, number in ends.items():
        assert f"{number:,} {name}" in text, name
    assert f"Resque processed {attempts:,}" in text
    assert f"Resque failed {failing:,}" in text
    assert f"Dead letters {failing:,}" in text
    # Ten thousand paths, methods and hosts later there are the same series, but for the queue whose
    # waits and runs there were none of before.
    new = {name.partition("{")[0] for name in series.keys() - before.keys()}
    assert not before.keys() - series.keys()
    assert not new, new
