"""Whoever else writes into the same Redis: what we read of it is checked, and the rest is shown."""

import json

import pytest

from tests.helpers.ports import free_port
from tests.helpers.waiting import eventually
from tests.integration.status.place import ask, listening, status

#: What a node might say of itself.
SNAPSHOTS = [
    *("[]", "{", "null", '"x"', '{"role":1}', '{"role":"pool","pools":[[]]}', '{"role":"king"}'),
    *('{"role":"relay","queues":{"q":{"codes":{"2xx":1e300}}}}', '{"role":"relay","loops":[[1]]}'),
    *("[" * 900 + "]" * 900, json.dumps({"role": "relay", "host": "h" * 300_000})),
]
ORDERS = [
    *(b"junk", b"{}", b"[]", b"\xff", b"[" * 5000, b'{"id":"x","action":"exec","pool":"default"}'),
    json.dumps({"id": "a" * 32, "action": "size", "pool": "default", "size": 10**9}).encode(),
    json.dumps({"id": "a" * 32, "action": "stop", "pool": "default", "slot": -1}).encode(),
]


@pytest.fixture
def port(daemon, fresh_valkey):
    port = free_port()
    daemon(
        *("--redis", fresh_valkey.url, "--worker", "/bin/cat", "--workers", "2"),
        *("--status", f"tcp:{port}:interface=127.0.0.1"),
    ).ready()
    listening(port)
    eventually(lambda: status(port)["pools"])
    return port


def test_a_node_that_says_nonsense_hides_no_other(port, fresh_valkey):
    client = fresh_valkey.client()
    own = {node["id"] for node in status(port)["nodes"]}
    seconds, microseconds = client.time()
    now = seconds * 1000 + microseconds // 1000
    for number, text in enumerate(SNAPSHOTS):
        client.set(f"queuerelay:node:bad{number}", text, px=600_000)
        client.zadd("queuerelay:nodes", {f"bad{number}": now})
    seen = status(port)["at"]
    eventually(lambda: status(port)["at"] > seen + 1)
    found = status(port)
    assert own <= {node["id"] for node in found["nodes"]}
    assert [pool["name"] for pool in found["pools"]]
    for path in ("/", "/metrics", "/stats.txt", "/readyz"):
        assert ask(port, path)[0] == 200, path


def test_an_order_that_is_none_changes_nothing(port, fresh_valkey):
    client = fresh_valkey.client()
    eventually(lambda: client.zcard("queuerelay:nodes") == 2)
    (node,) = [
        node.decode()
        for node in client.zrange("queuerelay:nodes", 0, -1)
        if json.loads(client.get(b"queuerelay:node:" + node))["role"] == "pool"
    ]
    client.rpush(f"queuerelay:orders:{node}", *ORDERS)
    eventually(lambda: client.llen(f"queuerelay:orders:{node}") == 0)
    (pool,) = status(port)["pools"]
    assert (pool["name"], pool["size"]) == ("default", 2)
    # It still does what it is told.
    order = {"id": "b" * 32, "action": "size", "pool": "default", "size": 3}
    client.rpush(f"queuerelay:orders:{node}", json.dumps(order))
    eventually(lambda: status(port)["pools"][0]["size"] == 3)
