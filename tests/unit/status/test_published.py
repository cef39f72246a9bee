"""Nothing that a node publishes is lost on the way to those who look."""

import dataclasses

import pytest

from queuerelay.wire.node import (
    BREAKS,
    ExitRecord,
    GateState,
    PoolNode,
    PoolState,
    QueueState,
    RelayNode,
    SlotState,
    encode,
)
from tests.unit.wire.node_records import POOL, RELAY

#: Where each field of a record stands in ``/status.json``: the table, then the key.
SHOWN = {
    RelayNode: {
        **{name: ("nodes", name) for name in ("id", "role", "version", "host", "pid")},
        "draining": ("nodes", "draining"),
        "skew": ("nodes", "skew"),
        "loops": ("nodes", "loops"),
        "held": ("held", "count"),
        "held_bytes": ("held", "bytes"),
        **{name: ("held", name) for name in ("streaming", "unsent_bytes", "oldest_age")},
        "max_held": ("held", "max_count"),
        "max_held_bytes": ("held", "max_bytes"),
        "counters": ("requests", "ends"),
        "refusals": ("requests", "refusals"),
        "queues": ("queues", "name"),
    },
    QueueState: {
        **{name: ("queues", name) for name in ("held", "gated", "wait", "run", "total")},
        "codes": ("requests", "codes"),
    },
    PoolNode: {
        **{name: ("nodes", name) for name in ("id", "role", "version", "host", "pid")},
        "draining": ("nodes", "draining"),
        "skew": ("nodes", "skew"),
        "loops": ("nodes", "loops"),
        "pools": ("pools", "name"),
    },
    PoolState: {
        **{name: ("pools", name) for name in ("name", "queues", "size", "min", "max", "resting")},
        **{name: ("pools", name) for name in ("slots", "exits", "resident", "busy", "looping")},
        "unstartable": ("pools", "unstartable"),
        "counters": ("pools", "outcomes"),
        "rates": ("pools", "per_minute"),
        "durations": ("pools", "run"),
    },
    SlotState: {one.name: ("slots", one.name) for one in dataclasses.fields(SlotState)},
    ExitRecord: {one.name: ("exits", one.name) for one in dataclasses.fields(ExitRecord)},
}
#: What is published and not shown as it is, and why.
NOT_SHOWN = {
    (RelayNode, "at"): "the age of the beat says it, by Redis' own clock",
    (PoolNode, "at"): "as of a relay",
    (RelayNode, "uptime"): "tells the ledger whether what a new node has counted is new",
    (PoolNode, "uptime"): "as of a relay",
    (RelayNode, "gates"): "the gates themselves are read from Redis; a relay follows within 1 s",
    (QueueState, "taken"): "a part of in_per_minute",
    (PoolState, "left"): "a part of out_per_minute",
    (GateState, "since"): "as gates",
    (GateState, "by"): "as gates",
}


@pytest.mark.parametrize("record", [*SHOWN, GateState])
def test_every_published_field_is_shown_or_said_not_to_be(record):
    known = SHOWN.get(record, {}).keys() | {name for kind, name in NOT_SHOWN if kind is record}
    assert known == {one.name for one in dataclasses.fields(record)}


@pytest.fixture
def shown(stage):
    """``/status.json`` with two more nodes, by table and key what they say."""
    stage.broker.nodes.beat("r9", encode(dataclasses.replace(RELAY, id="r9")), inbox_life=60.0)
    stage.broker.nodes.beat("p9", encode(dataclasses.replace(POOL, id="p9")), inbox_life=60.0)
    stage.turn(1.0)
    return stage.json("/status.json")


def row(found, table, id):
    if table == "requests":
        return found["requests"]
    if table in ("slots", "exits"):
        return row(found, "pools", id)[table][0]
    key = {"nodes": "id", "queues": "name"}.get(table, "node")
    (one,) = [one for one in found[table] if one[key] == id]
    return one


def test_what_a_relay_publishes_is_shown(shown):
    for field, (table, key) in SHOWN[RelayNode].items():
        if field in ("id", "role", "version", "host", "pid", "draining") or table == "held":
            value = {"id": "r9"}.get(field, getattr(RELAY, field))
            assert row(shown, table, "r9")[key] == value, field
    (loop,) = row(shown, "nodes", "r9")["loops"]
    assert (loop["name"], loop["stale"]) == ("beat", False)
    requests = shown["requests"]
    assert requests["ends"]["answered"] == 4
    assert requests["broken_off"] == {**dict.fromkeys(BREAKS, 0), "behind": 1}
    assert not any(name.startswith("aborted") for name in requests["replies"])
    assert requests["refusals"] == {"held-limit": 2}
    assert requests["codes"]["requests"]["2xx"] == 5
    assert requests["codes"][""]["4xx"] == 1
    queue = row(shown, "queues", "requests")
    assert (queue["held"], queue["gated"]) == (3, 1)


def test_durations_are_shown_of_what_came_since_the_listener_looks(stage):
    young = dataclasses.replace(RELAY, id="r9", uptime=0.5)
    stage.broker.nodes.beat("r9", encode(young), inbox_life=60.0)
    stage.broker.nodes.beat("p9", encode(dataclasses.replace(POOL, uptime=0.5)), inbox_life=60.0)
    stage.turn(1.0)
    found = stage.json("/status.json")
    queue, pool = row(found, "queues", "requests"), row(found, "pools", "p9")
    assert [queue[name]["count"] for name in ("wait", "run", "total")] == [1, 1, 2]
    assert [pool[name]["count"] for name in ("wait", "run")] == [1, 1]


def test_what_a_pool_publishes_is_shown(shown):
    (pool,) = POOL.pools
    for field, (table, key) in SHOWN[PoolState].items():
        if field in ("slots", "exits", "durations"):
            continue
        value = getattr(pool, field)
        if field == "rates":
            value = {outcome: 60 * rate for outcome, rate in value.items()}
        if field == "counters":
            value = {**dict.fromkeys(row(shown, table, "p9")[key], 0), **value}
        value = list(value) if isinstance(value, tuple) else value
        assert row(shown, table, "p9")[key] == value, field
    for record, table in ((pool.slots[0], "slots"), (pool.exits[0], "exits")):
        assert row(shown, table, "p9") == dataclasses.asdict(record)


def test_streams_are_in_the_metrics(shown, stage):
    lines = stage.ask("/metrics").body.decode().splitlines()
    assert "queuerelay_streaming 2.0" in lines
    assert "queuerelay_unsent_bytes 4096.0" in lines
    broken = [line for line in lines if line.startswith("queuerelay_answers_broken_off_total{")]
    assert len(broken) == len(BREAKS)
    assert 'queuerelay_answers_broken_off_total{reason="behind"} 1.0' in broken


def test_streams_are_on_the_page(shown, stage):
    page = stage.ask("/").body.decode()
    assert 'data-label="Streaming">2<' in page
    assert 'data-label="Unsent">4.0 KiB<' in page
    assert "<b>1</b> broken off: behind" in page
