"""Whoever may push messages may do no more than that: nothing is lost, and nobody else is hurt."""

import json
import random
import textwrap

import pytest

from tests.helpers.ports import free_port
from tests.helpers.waiting import eventually
from tests.integration.status.place import ask, listening

JOB = """\
#!/bin/sh
cat >/dev/null
echo >> ran
echo the words of a job
"""
PAGE = """\
#!/bin/sh
printf 'Content-Type: text/plain\\n\\nhello'
"""
POOLS = """
    [[pool]]
    name = "jobs"
    queues = ["jobs"]
    size = 2
    tries = 1
    command = ["./job", "{id}"]
    [[pool]]
    name = "site"
    queues = ["requests"]
    size = 2
    tries = 1
    command = ["./page"]
"""
#: Keys of ours, of Resque's and of a stranger's.
KEYS = [
    *("queuerelay:gate", "queuerelay:inflight:jobs", "queuerelay:leases:jobs"),
    *("queuerelay:meta:jobs", "queuerelay:delayed:jobs", "queuerelay:nodes", "queuerelay:node:x"),
    *("queuerelay:orders:x", "queuerelay:inbox:x", "queuerelay:results:", "queuerelay:results"),
    *("resque:queues", "resque:workers", "resque:queue:other", "resque:failed"),
    *("resque:stat:processed", "resque:pause-all-workers", "stranger"),
]
VALUES = [
    *(None, True, False, 0, -1, 1e308, 2**70, "", "x", "\x00", "\x1b[2J", "\ud800", "é" * 50, "-5"),
    *([], {}, [[]], {"a": 1}, ["a"] * 3, {"node_id": 1}, "queuerelay:inbox:x", "../../etc/passwd"),
]
REQUEST = {
    "node_id": "n-1",
    "url": "/",
    "method": "GET",
    "http_version": "1.1",
    "headers": [["host", "a"]],
    "body": "",
    "body_encoding": "utf-8",
    "remote_addr": "1.1.1.1",
    "scheme": "http",
    "reply_to": "queuerelay:inbox:n",
    "accepted_at": 1.0,
    "deadline": 1e10,
    "v": 1,
}


class Place:
    """A daemon with a pool for jobs and one for requests."""

    def __init__(self, tmp_path, daemon, server) -> None:
        for name, text in (("job", JOB), ("page", PAGE)):
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        (tmp_path / "pools.toml").write_text(textwrap.dedent(POOLS))
        self.redis = server.client()
        self.port = free_port()
        self.daemon = daemon(
            *("--redis", server.url, "--config", "pools.toml"),
            *("--status", f"tcp:{self.port}:interface=127.0.0.1"),
        ).ready()
        listening(self.port)
        self._ran = tmp_path / "ran"

    def push(self, queue: str, *messages: bytes) -> None:
        self.redis.rpush(f"resque:queue:{queue}", *messages)

    @property
    def ran(self) -> int:
        return self._ran.read_text().count("\n") if self._ran.exists() else 0

    @property
    def dead(self) -> int:
        return self.redis.llen("resque:failed")

    def settled(self) -> bool:
        """Whether nothing waits, and nothing is in flight or delayed."""
        return not any(
            self.redis.llen(f"resque:queue:{queue}")
            or self.redis.hlen(f"queuerelay:inflight:{queue}")
            or self.redis.zcard(f"queuerelay:delayed:{queue}")
            for queue in ("jobs", "requests")
        )

    def serves(self) -> None:
        """Clients are answered, and all is shown."""
        assert self.daemon.get("/").response().body == b"hello"
        for path in ("/", "/status.json", "/failures.json", "/metrics", "/readyz"):
            assert ask(self.port, path)[0] == 200, path


@pytest.fixture
def place(tmp_path, daemon, fresh_valkey) -> Place:
    return Place(tmp_path, daemon, fresh_valkey)


def job(**fields) -> bytes:
    return json.dumps({"class": "Job", "args": [fields]}).encode()


def test_a_job_has_us_write_to_no_key_but_a_result(place):
    before = {key: place.redis.type(key) for key in KEYS}
    place.push("jobs", *(job(id=number, reply_to=key) for number, key in enumerate(KEYS)))
    eventually(lambda: place.settled() and place.dead == len(KEYS))
    after = {key: place.redis.type(key) for key in KEYS if not key.startswith("resque:")}
    assert after == {key: kind for key, kind in before.items() if key in after}
    assert not place.redis.exists("resque:queue:other", "resque:pause-all-workers")
    place.push("jobs", job(id=1, reply_to="queuerelay:results:1"))
    eventually(lambda: place.redis.llen("queuerelay:results:1") == 1)
    assert place.redis.ttl("queuerelay:results:1") > 0
    place.serves()


def test_whatever_is_pushed_runs_or_is_a_dead_letter_and_nobody_else_notices(place):
    chance = random.Random(14)
    pushed = 0
    for queue, name, base in (
        ("requests", "RequestProcessor", REQUEST),
        ("jobs", "Job", {"id": 5, "reply_to": "queuerelay:results:2", "node_id": "q"}),
    ):
        for _ in range(120):
            first = dict(base)
            for key in chance.sample(sorted(first), chance.randint(1, min(3, len(first)))):
                first[key] = chance.choice(VALUES)
            message = {
                "class": name,
                "args": [first],
                "id": chance.choice(VALUES),
                "queue_time": chance.choice(VALUES),
                "queuerelay": chance.choice([None, {"attempts": chance.choice(VALUES)}]),
            }
            if chance.random() < 0.1:
                message[chance.choice(["class", "args"])] = chance.choice(VALUES)
            raw = bytearray(json.dumps(message).encode())
            if chance.random() < 0.1:
                raw[chance.randrange(len(raw))] = chance.randrange(256)
            place.push(queue, bytes(raw))
            pushed += 1
    for nested in (200, 1100, 5000):
        place.push("jobs", b'{"class":"Job","args":[' + b"[" * nested + b"]" * nested + b"]}")
        pushed += 1
    eventually(place.settled)
    # Requests that are well formed are answered to nobody; each of the rest is somewhere.
    assert place.dead > 100
    jobs = [json.loads(one)["queue"] for one in place.redis.lrange("resque:failed", 0, -1)]
    assert place.ran + jobs.count("jobs") >= 123
    place.serves()
