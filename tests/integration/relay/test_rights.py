"""Each role with the rights that docs/operations.md gives it: it does its whole job, and can do
nothing else. The lines are read from the page.
"""

import http.client
import json

import pytest
import redis

from queuerelay.wire.reply import decode_reply
from tests.helpers.acl import users
from tests.helpers.ports import free_port, listens
from tests.helpers.strict import read
from tests.helpers.waiting import eventually
from tests.helpers.worker import Worker

TOKEN = "0123456789abcdef"
PASSWORD = "s3cret"

APP = """
def application(environ, start_response):
    if environ["PATH_INFO"] == "/stream":
        start_response("200 OK", [])
        return iter([b"one ", b"two"])
    start_response("200 OK", [])
    return [environ["PATH_INFO"].encode()]
"""
SCRIPT = """#!/bin/sh
read -r line
case "$line" in
  *later*) [ "$QUEUERELAY_ATTEMPT" = 1 ] && exit 75 ;;
  *fail*) exit 1 ;;
esac
echo done
"""
POOL = """
[[pool]]
name = "jobs"
queues = ["jobs"]
command = ["./script"]
"""


class Place:
    """A server with the users of the page, and the programs that are these users."""

    def __init__(self, server, directory):
        self.server = server
        self.directory = directory
        self.admin = server.client()
        for name, rules in users().items():
            told = [rule.replace("PASSWORD", PASSWORD) for rule in rules]
            self.admin.execute_command("ACL", "SETUSER", name, "reset", *told)
        (directory / "app.py").write_text(APP)
        (directory / "script").write_text(SCRIPT)
        (directory / "script").chmod(0o755)
        (directory / "pool.toml").write_text(POOL)
        (directory / "credentials").write_text(f"bearer deploy {TOKEN}\n")
        (directory / "credentials").chmod(0o600)

    def url(self, name):
        return f"redis://{name}:{PASSWORD}@127.0.0.1:{self.server.port}/0"

    def client(self, name):
        return self.server.client(username=name, password=PASSWORD)

    def denied(self):
        """What was refused to whom, so far."""
        return {(one["username"], one["object"]) for one in self.admin.acl_log(1000)}


def post(port, path, fields=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(
            *("POST", path, json.dumps(fields or {})),
            {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        )
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def up(port):
    return listens(port) and json.loads(get(port, "/status.json")[1])["redis"]["up"]


def reasons(port):
    return {one["code"] for one in json.loads(get(port, "/status.json")[1])["health"]["reasons"]}


@pytest.fixture
def place(own_valkey, tmp_path):
    return Place(own_valkey(), tmp_path)


def test_each_does_its_whole_job(place, daemon, tmp_path):
    admin = place.admin
    shown, acted = free_port(), free_port()
    relay = daemon("--redis", place.url("relay"), "--role", "relay")
    pool, *_ = (
        daemon("--redis", place.url(user), "--role", role, *options, listen=False)
        for user, role, *options in (
            ("pool", "pool", "--config", "pool.toml"),
            ("status", "status", "--status", f"tcp:{shown}:interface=127.0.0.1"),
            (
                *("operator", "status", "--status", f"tcp:{acted}:interface=127.0.0.1"),
                *("--status-credentials", "credentials"),
            ),
        )
    )
    # Old nodes, and what they have left, are for the relay and the pool.
    admin.zadd("queuerelay:nodes", {"dead": 1})
    admin.rpush("queuerelay:inbox:dead2", "x")
    relay.ready()
    eventually(lambda: admin.zscore("queuerelay:nodes", "dead") is None)
    # A client that leaves before anybody has its request, and one that leaves while somebody does.
    leaving = relay.get("/leaving")
    eventually(lambda: admin.llen("resque:queue:requests") == 1)
    leaving.close()
    eventually(lambda: admin.llen("resque:queue:requests") == 0)
    leaving = relay.get("/leaving")
    eventually(lambda: admin.lpop("resque:queue:requests"))
    leaving.close()
    eventually(lambda: admin.keys("queuerelay:gone:*"))
    # Worker and relay.
    worker = Worker(tmp_path, place.url("worker")).ready()
    try:
        answer = relay.get("/answered").response()
        assert (answer.status, answer.body) == (200, b"/answered")
        streamed = read(relay.get("/stream")._file, streamed=True)
        assert streamed.body == b"one two"
        # Producer and pool.
        producer = place.client("producer")
        for what in ("done", "later", "fail"):
            reply_to = f"queuerelay:results:{what}"
            job = {"class": "Job", "args": [{"what": what, "reply_to": reply_to, "node_id": what}]}
            producer.sadd("resque:queues", "jobs")
            producer.rpush("resque:queue:jobs", json.dumps(job))
        for what, status in (("done", 200), ("later", 200), ("fail", 502)):
            _, reply = producer.blpop([f"queuerelay:results:{what}"], 30)
            assert decode_reply(reply).status == status
        # Those who look, and those who act.
        for port in (shown, acted):
            eventually(lambda port=port: up(port))
            assert get(port, "/")[0] == 200
            assert b"Job" in get(port, "/failures.json")[1]
            assert get(port, "/readyz")[0] == 200
            assert "redis-permission" not in reasons(port)
        eventually(lambda: json.loads(get(acted, "/status.json")[1])["pools"])
        entry, *_ = json.loads(get(acted, "/failures.json")[1])["items"]
        for path, fields in (
            ("/queues/jobs/pause", None),
            ("/queues/jobs/resume", None),
            ("/queues/jobs/jobs", {"class": "Job", "args": [{"what": "fail"}]}),
            (f"/failed/{entry['id']}/retry", None),
            ("/pools/jobs/size", {"size": 2}),
        ):
            status, body = post(acted, path, fields)
            assert status in (200, 201), (path, body)
        eventually(lambda: admin.llen("resque:failed") >= 2)
        assert post(acted, "/failed/drop", {"all": True})[0] == 200
        assert admin.llen("resque:failed") == 0
        # Leaving.
        for one in (relay, pool):
            one.signal(15)
            assert one.exit() == 0
        worker.signal(15)
        assert worker.exit() == 0
    finally:
        worker.remove()
    assert admin.smembers("resque:workers") == set()
    assert admin.zcard("queuerelay:nodes") == 0
    assert place.denied() == set()


@pytest.mark.parametrize(
    ("name", "command"),
    [
        *((name, ("SET", "other", "1")) for name in users()),
        *((name, ("FLUSHALL",)) for name in users()),
        *((name, ("CONFIG", "GET", "*")) for name in users()),
        *((name, ("KEYS", "*")) for name in users()),
        ("producer", ("LPOP", "resque:queue:requests")),
        ("producer", ("RPUSH", "queuerelay:results:x", "1")),
        ("producer", ("RPUSH", "queuerelay:inbox:x", "1")),
        ("producer", ("HSET", "queuerelay:gate", "q", "1")),
        ("producer", ("EVAL", "return 1", "0")),
        ("worker", ("SADD", "resque:queues", "x")),
        ("worker", ("RPUSH", "queuerelay:orders:x", "1")),
        ("worker", ("SET", "queuerelay:node:x", "1")),
        ("pool", ("SET", "responses", "1")),
        ("relay", ("SADD", "resque:workers", "x")),
        ("relay", ("GET", "resque:stat:failed")),
        ("status", ("RPUSH", "resque:queue:requests", "1")),
        ("status", ("HDEL", "queuerelay:gate", "q")),
        ("status", ("DEL", "resque:failed")),
        ("status", ("EVAL", "return redis.call('DEL', KEYS[1])", "1", "resque:failed")),
        ("operator", ("LPOP", "resque:queue:requests")),
        ("operator", ("DEL", "resque:failed")),
        ("daemon", ("RPUSH", "responses", "1")),
    ],
)
def test_nobody_can_do_what_is_outside(shared_place, name, command):
    with pytest.raises(redis.ResponseError, match=r"permission"):
        shared_place.client(name).execute_command(*command)


@pytest.fixture(scope="module")
def shared_place(tmp_path_factory, valkey):
    place = Place(valkey, tmp_path_factory.mktemp("place"))
    yield place
    for name in users():
        place.admin.execute_command("ACL", "DELUSER", name)


@pytest.mark.parametrize("less", ["+hset", "~queuerelay:meta:*"])
def test_a_worker_says_what_it_lacks(place, tmp_path, less):
    rules = [rule for rule in users()["worker"] if rule != less]
    place.admin.execute_command("ACL", "SETUSER", "worker", "reset", *rules, f">{PASSWORD}")
    place.admin.rpush("resque:queue:requests", "x")
    worker = Worker(tmp_path, place.url("worker")).ready()
    try:
        eventually(lambda: "(script claim queuerelay:gate resque:queue:requests" in worker.log)
        (line,) = [one for one in worker.log.splitlines() if "script claim" in one]
        assert "queuerelay:meta:requests); docs/operations.md, Users of Redis, has the" in line
        assert worker.process.poll() is None
        # Nothing is lost to it, and nothing left when it may.
        assert place.admin.llen("resque:queue:requests") == 1
        place.admin.execute_command("ACL", "SETUSER", "worker", less)
        eventually(lambda: place.admin.llen("resque:failed") == 1)
    finally:
        worker.remove()
