"""node-resque reads our pools: as workers, what they run, their counters and their dead letters."""

import json
import os
from typing import Any

import pytest

from tests.acceptance.stage import Stage
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.usefixtures("node_modules")

SCRIPT = """#!/bin/sh
case $QUEUERELAY_ID in
  bad) echo "no such image" >&2; exit 3;;
  slow) while [ ! -e go ]; do sleep 0.05; done;;
esac
"""


def job(id: str) -> str:
    return json.dumps({"class": "Thumb", "args": [{"id": id}], "queue": "thumbs", "id": id})


def test_a_pool_is_a_worker_like_any_other(stage: Stage) -> None:
    script = stage.directory / "thumb.sh"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    stage.relay("--worker", str(script), "--worker-queues", "thumbs", "--workers", "1")
    stage.redis.rpush("resque:queue:thumbs", job("good"), job("bad"), job("slow"))
    eventually(lambda: stage.redis.get("resque:stat:failed") == b"1")
    eventually(lambda: b'"slow"' in (stage.redis.get(_working(stage)) or b""))

    seen = _overview(stage)
    name = f"queuerelay.{os.uname().nodename}:{stage.children[-2].process.pid}"
    assert seen["workers"] == {name: "thumbs"}
    assert "thumbs" in seen["queues"]
    working = seen["working"][name]
    assert (working["queue"], working["worker"]) == ("thumbs", name)
    assert working["payload"] == {"class": "Thumb", "args": [{"id": "slow"}]}
    assert (seen["stats"]["processed"], seen["stats"]["failed"]) == ("2", "1")
    (failed,) = seen["failed"]
    assert failed["worker"] == f"{name}:thumbs"
    assert failed["payload"] == {"class": "Thumb", "args": [{"id": "bad"}]}
    assert failed["queuerelay"]["attempts"][0]["exit"] == 3
    (stage.directory / "go").touch()
    eventually(lambda: stage.redis.get("resque:stat:processed") == b"3")
    # An idle worker is listed and works on nothing.
    eventually(lambda: not stage.redis.exists(_working(stage)))
    idle = _overview(stage)
    assert (idle["workers"], idle["working"]) == ({name: "thumbs"}, {name: "started"})


def _working(stage: Stage) -> str:
    (worker,) = stage.redis.smembers("resque:workers")
    return f"resque:worker:{worker.decode()}"


def _overview(stage: Stage) -> dict[str, Any]:
    script = stage.node("overview.mjs")
    assert script.process.wait(30) == 0, script.log
    seen: dict[str, Any] = json.loads(script.log)
    return seen
