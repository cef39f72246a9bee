"""What nodes publish: written and read it is the same, and what others write is bounded."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.relay.held import HeldState
from queuerelay.relay.stream import Break
from queuerelay.wire import node as records
from queuerelay.wire.node import (
    BREAKS,
    ENDS,
    Node,
    PoolNode,
    RelayNode,
    Unreadable,
    decode,
    encode,
)
from queuerelay.wire.untrusted import MOST, TEXT
from tests.unit.wire.node_records import POOL, RELAY


@pytest.mark.parametrize("record", [RELAY, POOL, Node(id="n2"), Node(id="n3", role="other")])
def test_written_and_read_it_is_the_same(record):
    assert decode(encode(record), id=record.id) == record


def test_an_example_has_everything_in_it():
    def check(record):
        for one in dataclasses.fields(record):
            value = getattr(record, one.name)
            assert value != one.default or one.name in ("role", "attempt", "code"), one.name
            for inner in value if isinstance(value, tuple) else ():
                if dataclasses.is_dataclass(inner):
                    check(inner)

    check(RELAY)
    check(POOL)
    check(RELAY.queues["requests"])


def test_the_keys_are_those_of_the_first_release():
    """An older status listener reads them, and this one an older node's."""
    relay, pool = json.loads(encode(RELAY)), json.loads(encode(POOL))
    common = {"role", "id", "version", "host", "pid", "at", "skew", "uptime", "draining", "loops"}
    assert set(relay) == common | {
        *("held", "held_bytes", "streaming", "unsent_bytes", "oldest_age", "max_held"),
        *("max_held_bytes", "counters", "refusals", "queues", "gates"),
    }
    assert relay["loops"] == [["beat", 0.5, 20.0]]
    assert relay["gates"] == {"requests": {"since": 1_790_000_000.0, "by": "anna"}}
    queue = relay["queues"]["requests"]
    assert set(queue) == {"held", "gated", "taken", "codes", "total", "wait", "run"}
    assert queue["wait"] == [0.01, 0, 0, 0, 1]
    assert set(pool) == common | {"pools"}
    (one,) = pool["pools"]
    assert set(one) == {
        *("name", "queues", "size", "min", "max", "resting", "slots", "exits", "counters"),
        *("rates", "resident", "busy", "looping", "unstartable", "left", "durations"),
    }
    assert set(one["slots"][0]) == {
        *("number", "state", "pid", "message", "queue", "age", "attempt"),
    }
    assert set(one["exits"][0]) == {
        *("at", "message", "queue", "code", "signal", "run", "outcome", "stderr", "stdout"),
    }
    assert one["durations"] == {"mp3": {"wait": [0.5, *[0] * 8, 1], "run": [1.5, *[0] * 10, 1]}}


def test_what_a_node_does_not_send_reads_as_nothing():
    assert decode(b'{"role":"relay"}', id="n") == RelayNode(id="n")
    assert decode(b'{"role":"pool"}', id="n") == PoolNode(id="n")
    assert decode(b"{}", id="n") == Node(id="n")


def test_a_node_is_named_by_the_list_and_not_by_itself():
    assert decode(encode(RELAY), id="other").id == "other"


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"\xff", b"[]", b"7", b"[" * 5000),
        b'{"role":"pool","pools":[7]}',
        b'{"role":"relay","queues":{"q":7}}',
        b'{"role":"relay","queues":{"q":{"total":[1,"x"]}}}',
        b'{"role":"pool","pools":[{"durations":{"q":{"run":"x"}}}]}',
    ],
)
def test_what_is_no_record_is_unreadable(raw):
    with pytest.raises(Unreadable):
        decode(raw, id="n")


def test_texts_and_lists_of_others_are_bounded():
    long, many = "x" * 4 * TEXT, MOST + 100
    found = decode(
        json.dumps(
            {
                "role": "pool",
                "host": long,
                "loops": [[long, 1.0, 2.0]] * many,
                "pools": [{"name": long, "queues": [long] * many, "left": {long: 1}}],
            }
        ).encode(),
        id=long,
    )
    assert len(found.id) == len(found.host) == len(found.loops[0].name) == TEXT
    assert len(found.loops) == len(found.pools[0].queues) == MOST
    assert [len(name) for name in found.pools[0].left] == [TEXT]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
KEYS = sorted({one.name for kind in (RelayNode, PoolNode) for one in dataclasses.fields(kind)})


@given(st.sampled_from(["relay", "pool"]), st.dictionaries(st.sampled_from(KEYS), values))
def test_whatever_it_is_it_is_a_record_or_unreadable(role, fields):
    raw = json.dumps({**fields, "role": role}).encode()
    try:
        record = decode(raw, id="n")
    except Unreadable:
        return
    assert decode(encode(record), id="n") == record


def test_the_counters_of_a_relay_are_named_as_it_names_them():
    assert {f"aborted_{reason}" for reason in BREAKS} == {why.value for why in Break}
    assert set(ENDS) <= {state.value for state in HeldState}


def test_each_record_is_frozen():
    kinds = [
        one
        for one in vars(records).values()
        if dataclasses.is_dataclass(one) and one.__module__ == records.__name__
    ]
    assert len(kinds) >= 8
    assert all(kind.__dataclass_params__.frozen for kind in kinds)
