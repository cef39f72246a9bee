"""Dead letters between us and node-resque: its own, which end in 504, and ours, which it reads.

A module of its own, so that no other test's node-resque worker is on the queue.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.acceptance.stage import Stage, get, post
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.usefixtures("node_modules")

#: Of an entry in resque:failed; resque-web and node-resque read no others.
SEVEN_KEYS = {"failed_at", "payload", "exception", "error", "backtrace", "worker", "queue"}


def test_a_job_that_raises_is_a_dead_letter_and_its_client_gets_504(stage: Stage) -> None:
    port = stage.relay("--deadline", "2")
    worker = stage.node("worker.mjs", "requests").logged("ready")
    answer = get(port, "/raise?q=%C3%BC")
    # Taken and never answered; 503 would mean that nobody had begun.
    assert answer.status == 504
    assert answer.one("x-request-id") == "acceptance-1"
    (entry,) = [json.loads(raw) for raw in stage.redis.lrange("resque:failed", 0, -1)]
    assert set(entry) >= SEVEN_KEYS
    assert entry["queue"] == "requests"
    assert "the job broke: ü€🙂" in entry["error"]
    assert entry["payload"]["class"] == "RequestProcessor"
    assert entry["payload"]["args"][0]["url"] == "/raise?q=%C3%BC"
    # The worker lives on.
    assert post(port, "/text", b"next").body == b"next"
    assert worker.terminate() == 0


def test_node_resque_lists_and_retries_our_dead_letters(stage: Stage) -> None:
    """Written by fail.lua, through all three ways to it: a job that nobody knows, a message that
    nobody can read, and a request whose worker was killed and that must not run twice.
    """
    port = stage.relay()
    worker = stage.worker("--lease", "0.5")
    job = {"class": "Thumbnail", "args": [{"path": "/ü.png", "sizes": [], "n": 1.5}, None]}
    stage.redis.rpush("resque:queue:requests", json.dumps(job), b"not JSON \xff")
    eventually(lambda: stage.redis.llen("resque:failed") == 2, lambda: worker.log)
    with ThreadPoolExecutor(1) as clients:
        waiting = clients.submit(post, port, "/hold/doomed", b"once only")
        eventually((stage.directory / "doomed.pid").exists, lambda: worker.log)
        worker.kill()
        other = stage.worker("--lease", "0.5")
        assert waiting.result().status == 502
    written = stage.redis.lrange("resque:failed", 0, -1)

    script = stage.node("failed.mjs", "list")
    assert script.process.wait(30) == 0, script.log
    seen = json.loads(script.log)
    assert seen["left"] == 3
    # What node-resque makes of each is what Python makes of it.
    assert seen["failed"] == [json.loads(raw) for raw in written]
    for entry in seen["failed"]:
        assert set(entry) == SEVEN_KEYS | {"queuerelay"}
        assert entry["queue"] == "requests"
        assert isinstance(entry["backtrace"], list)
        name, pid, queues = entry["worker"].split(":")
        assert name.startswith("queuerelay.")
        assert pid.isdigit()
        assert queues == "requests"
        assert all(isinstance(entry[key], str) for key in ("failed_at", "exception", "error"))
    thumbnail, unreadable, doomed = seen["failed"]
    assert thumbnail["payload"] == {"class": job["class"], "args": job["args"]}
    assert unreadable["payload"] == {"class": "Unreadable", "args": ["not JSON \\xff"]}
    assert doomed["payload"]["class"] == "RequestProcessor"
    assert doomed["payload"]["args"][0]["body"] == "once only"

    # An operator's retry finds the entry by the text that JavaScript writes for it.
    assert other.terminate() == 0
    script = stage.node("failed.mjs", "retry")
    assert script.process.wait(30) == 0, script.log
    assert stage.redis.llen("resque:failed") == 0
    again = [json.loads(raw) for raw in stage.redis.lrange("resque:queue:requests", 0, -1)]
    assert [message["class"] for message in again] == [
        "Thumbnail",
        "Unreadable",
        "RequestProcessor",
    ]
    assert again[0]["args"] == job["args"]
