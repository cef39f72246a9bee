"""A queue is paused under a real relay and real workers: nothing is taken, nothing is lost."""

import json
import signal
import textwrap
import time

import pytest

from queuerelay.wire.keys import Keys
from queuerelay.wire.scripts import source
from tests.helpers import worker as workers
from tests.helpers.waiting import eventually

KEYS = Keys()
QUEUE = KEYS.queue("requests")
CONFIG = """
    [[relay.route]]
    path = "/other"
    queue = "other"
"""


def pause(server, queue="requests"):
    """As `Broker.pause` does it."""
    assert server.client().eval(source("pause"), 1, KEYS.gate, queue, '"ops"') == 1


def resume(server, queue="requests"):
    assert server.client().hdel(KEYS.gate, queue) == 1


@pytest.fixture
def scene(own_valkey, daemon, tmp_path):
    """A server that keeps its data, relays on it, and workers: ``(server, relay, worker)``."""
    (tmp_path / "relay.toml").write_text(textwrap.dedent(CONFIG))
    server = own_valkey("--appendonly", "yes", "--appendfsync", "always")
    stage = workers.Stage(server, tmp_path)

    def relay(*options):
        return daemon("--redis", server.url, "--config", "relay.toml", *options).ready()

    yield server, relay, lambda *more: stage.worker("--queues", "requests,other", *more)
    stage.remove()


def accepted(server):
    """When each request on the queue was accepted, in the order of the queue."""
    return [
        json.loads(one)["args"][0]["accepted_at"] for one in server.client().lrange(QUEUE, 0, -1)
    ]


def knows(relay, what="paused"):
    eventually(lambda: f"queue requests is {what}" in relay.log)


def test_the_whole_of_it(scene):
    """Paused, workers, relay and Redis replaced, resumed: everybody who waited is answered."""
    server, relay, worker = scene
    one, first = relay(), worker()
    assert one.get("/a").response().status == 201
    pause(server)
    knows(one)
    clients = {f"/{number}": one.get(f"/{number}") for number in range(20)}
    # Others go on.
    assert one.get("/other").response().status == 201
    first.signal(signal.SIGTERM)
    assert first.exit() == 0
    # Redis is away for longer than anybody else would wait.
    server.kill()
    assert one.get("/other/refused").response().status == 503
    server.start()
    # A relay that has never seen another state, and a worker of the new release.
    two, _ = relay(), worker()
    knows(two)
    clients |= {f"/two/{number}": two.get(f"/two/{number}") for number in range(5)}
    for each in (one, two):
        # What came before this on the same way has been decided about.
        eventually(lambda each=each: each.get("/other").response().status == 201)
    assert server.client().llen(QUEUE) == 0
    assert not any(client.readable() for client in clients.values())
    resume(server)
    for url, client in clients.items():
        response = client.response()
        assert response.status == 201
        assert response.body.startswith(url.encode())
    assert server.client().exists(KEYS.gate, QUEUE) == 0


def test_they_go_out_in_the_order_in_which_they_came(scene):
    server, relay, _ = scene
    one = relay()
    server.client().rpush(QUEUE, '{"class":"J","args":[{"accepted_at":0}]}')
    pause(server)
    knows(one)
    for number in range(600):
        one.get(f"/{number}")
    eventually(lambda: told(server, one).get("gated") == 600)
    assert accepted(server) == [0]
    resume(server)
    one.get("/last")
    eventually(lambda: server.client().llen(QUEUE) == 602)
    found = accepted(server)
    assert found == sorted(found)


def told(server, relay):
    """What the relay says of its queue."""
    redis = server.client()
    for name in redis.zrange(KEYS.nodes, 0, -1):
        found = json.loads(redis.get(KEYS.node(name.decode())) or "{}")
        if found.get("pid") == relay.process.pid:
            return found["queues"]["requests"]
    return {}


def test_after_the_answer_to_pause_nothing_is_taken(scene):
    server, _, worker = scene
    redis = server.client()
    for _ in range(2):
        worker()
    inflight = KEYS.inflight("requests")
    redis.rpush(QUEUE, *[message(f"/{number}") for number in range(500)])
    eventually(lambda: redis.llen("queuerelay:inbox:x") > 20)
    pause(server)
    left = redis.llen(QUEUE)
    assert left
    eventually(lambda: redis.hlen(inflight) == 0)
    assert redis.llen("queuerelay:inbox:x") == 500 - left
    # Those who come later obey as well, and all serve another queue.
    worker()
    redis.rpush(KEYS.queue("other"), *[message(f"/other/{number}") for number in range(20)])
    eventually(lambda: redis.llen("queuerelay:inbox:x") == 520 - left)
    assert redis.llen(QUEUE) == left
    resume(server)
    eventually(lambda: redis.llen("queuerelay:inbox:x") == 520)
    replies = [json.loads(one)["node_id"] for one in redis.lrange("queuerelay:inbox:x", 0, -1)]
    assert len({*replies}) == 520


def message(url):
    now = time.time()
    request = {
        "node_id": f"x-{url}",
        "url": url,
        "method": "GET",
        "reply_to": "queuerelay:inbox:x",
        "accepted_at": now,
        "deadline": now + 300,
    }
    return json.dumps({"class": "RequestProcessor", "args": [request]})


def test_an_idle_worker_of_a_paused_queue_asks_for_little(scene):
    server, _, worker = scene
    redis = server.client()
    pause(server)
    redis.rpush(QUEUE, message("/" + "x" * 100_000))
    worker()
    names = ("queuerelay-worker-peek", "queuerelay-worker-main", "queuerelay-worker-lease")
    eventually(lambda: {*names} <= {one["name"] for one in redis.client_list()})
    before, began = commands(redis), time.monotonic()
    time.sleep(2.0)
    # Two looks at the gate a second; the peek at the other queue, and leases, each few seconds. One
    # that spins asks for thousands.
    assert commands(redis) - before <= 60 + 10 * (time.monotonic() - began)
    resume(server)
    eventually(lambda: redis.llen("queuerelay:inbox:x") == 1)


def commands(redis):
    """How many the worker has sent."""
    clients = redis.client_list()
    return sum(int(one["tot-cmds"]) for one in clients if one["name"].startswith("queuerelay"))
