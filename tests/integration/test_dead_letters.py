"""Dead letters of real processes: without credentials, cut, bounded, whoever writes them."""

import json
import signal
import urllib.request

import pytest

from tests.helpers.daemon import Client, daemon
from tests.helpers.ports import free_port
from tests.helpers.waiting import eventually
from tests.helpers.worker import stage

__all__ = ["daemon", "stage"]

CONFIG = """
redis = "{redis}"
[relay]
listen = ["tcp:{port}:interface=127.0.0.1"]
[[relay.route]]
path = "/pool/"
queue = "scripts"
[[pool]]
name = "scripts"
queues = ["scripts"]
command = ["false"]
[status]
listen = "tcp:{status}:interface=127.0.0.1"
[failed]
max_count = 5
max_age = "10d"
max_body = 100
redact = ["X-Own"]
"""
SECRETS = (
    ("authorization", "Bearer s3cret"),
    ("cookie", "sid=s3cret"),
    ("x-api-key", "s3cret"),
    ("x-own", "s3cret"),
)
BODY = b"b" * 40_000


class Place:
    def __init__(self, stage, daemon, directory):
        self.redis = stage.redis
        self.port, self.status = free_port(), free_port()
        config = directory / "queuerelay.toml"
        config.write_text(CONFIG.format(redis=stage.server.url, port=self.port, status=self.status))
        daemon(
            *("--role", "relay,pool,status", "--config", str(config)), port=self.port, listen=False
        ).ready()
        self.clients = []

    def post(self, target):
        client = Client(self.port)
        self.clients.append(client)
        return client.send("POST", target, *SECRETS, body=BODY)

    def entries(self, number):
        found = eventually(
            lambda: (all := self.redis.lrange("resque:failed", 0, -1)) and all[number - 1 :] and all
        )
        return [json.loads(one) for one in found]

    def shown(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.status}/status.json") as answer:
            return json.load(answer)["failures"]


@pytest.fixture
def place(stage, daemon, tmp_path):
    made = Place(stage, daemon, tmp_path)
    yield made
    for client in made.clients:
        client.close()


def test_promise_6_a_dead_letter_of_a_request_is_small_and_has_no_credentials(place, stage):
    # By the pool, and by whoever finds that a worker has died.
    client = place.post("/pool/x")
    assert client.response("POST").status == 502
    worker = stage.worker("--lease", "1", "--failed-redact", "X-Own")
    place.post("/wait/for-ever")
    stage.running("/wait/for-ever")
    worker.signal(signal.SIGKILL)
    entries = place.entries(2)
    # And by a worker, of what it cannot read.
    left = json.loads(stage.redis.lindex("resque:failed", 0))["payload"]["args"][0]
    left["headers"].append(["x-token", "s3cret"])
    broken = {"class": "RequestProcessor", "args": [{**left, "reply_to": "other", "body": 7}]}
    stage.worker("--failed-redact", "X-Own")
    stage.redis.rpush("resque:queue:requests", json.dumps(broken))
    entries = place.entries(3)
    assert "s3cret" not in json.dumps(entries)
    assert {one["exception"] for one in entries} >= {"JobFailed", "MessageError"}
    for one in entries[:2]:
        (first,) = one["payload"]["args"]
        assert first["body"] == BODY[:100].decode()
        assert first["body_size"] == len(BODY)
    assert len(json.dumps(entries)) < 10_000


def test_promise_6_dead_letters_are_bounded_whoever_writes_them(place):
    ruby = {
        "failed_at": "2020/01/01 00:00:00 UTC",
        "payload": {"class": "J", "args": []},
        "exception": "E",
        "error": "e",
        "backtrace": [],
        "worker": "w:1:q",
        "queue": "q",
    }
    place.redis.rpush("resque:failed", json.dumps(ruby))
    new = {**ruby, "failed_at": "2090/01/01 00:00:00 UTC"}
    large = {**new, "payload": {"class": "J", "args": ["x" * 30_000_000]}}
    for one in (new, new, large, new, new, new, new):
        place.redis.rpush("resque:failed", json.dumps(one))
    # Eight less three; the old one is among those.
    eventually(lambda: place.shown()["dropped"] == 3)
    eventually(lambda: place.shown()["total"] == 5)
    items = place.shown()["items"]
    assert [one["class"] for one in items[:4]] == ["J"] * 4
    assert max(one["size"] for one in items) > 30_000_000 or len(items) == 4
