"""A queue that was renamed in a deploy: what was in flight and delayed comes back to it."""

import json
import urllib.request

from tests.helpers.daemon import daemon
from tests.helpers.ports import free_port
from tests.helpers.waiting import eventually

__all__ = ["daemon"]

SCRIPT = """#!/bin/sh
[ "$1" = later ] && exit 75
touch started
exec sleep 600
"""

CONFIG = """
redis = "{redis}"
[[pool]]
name = "thumbnails"
queues = ["{queue}"]
command = ["{script}", "{{id}}"]
size = 2
[status]
listen = "tcp:{status}:interface=127.0.0.1"
"""


def test_messages_of_a_queue_that_was_renamed_come_back_to_it(fresh_valkey, daemon, tmp_path):
    status, config = free_port(), tmp_path / "pools.toml"
    script = tmp_path / "script.sh"
    script.write_text(SCRIPT)
    script.chmod(0o755)

    def start(queue):
        config.write_text(
            CONFIG.format(redis=fresh_valkey.url, queue=queue, script=script, status=status)
        )
        return daemon("--role", "pool,status", "--config", str(config), listen=False)

    redis = fresh_valkey.client()
    first = start("old")
    for id in ("forever", "later"):
        # By hand and not by Resque: nobody has listed the queue.
        redis.rpush("resque:queue:old", json.dumps({"class": "J", "args": [{"id": id}]}))
    eventually((tmp_path / "started").exists)
    eventually(lambda: redis.zcard("queuerelay:delayed:old") == 1)
    first.remove()
    # Their time passes.
    redis.srem("resque:queues", "old")
    for key in ("queuerelay:leases:old", "queuerelay:delayed:old"):
        for member in redis.zrange(key, 0, -1):
            redis.zadd(key, {member: 1.0})
    second = start("new")

    def shown():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{status}/status.json") as answer:
                found = json.load(answer)
        except OSError:
            return None
        queues = [one for one in found["queues"] if one["name"] == "old" and one["depth"] == 2]
        reasons = [(one["code"], one["subject"]) for one in found["health"]["reasons"]]
        return queues[0] if queues and ("no-worker", "old") in reasons else None

    queue = eventually(shown, lambda: second.log)
    assert (queue["configured"], queue["served"]) == (False, False)
    assert (queue["in_flight"], queue["delayed"]) == (0, 0)
    ids = [json.loads(one)["args"][0]["id"] for one in redis.lrange("resque:queue:old", 0, -1)]
    assert sorted(ids) == ["forever", "later"]
    with urllib.request.urlopen(f"http://127.0.0.1:{status}/") as answer:
        assert b"unserved" in answer.read()
