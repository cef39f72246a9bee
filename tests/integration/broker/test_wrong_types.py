"""Keys of the wrong type on a real server: nothing is lost, and the error names the key."""

import pytest
from redis.exceptions import ResponseError

from queuerelay.wire import commands
from queuerelay.wire.dead_letter import Requeue
from queuerelay.wire.keys import Keys

KEYS = Keys()
QUEUE = KEYS.queue("q")
RESULTS = f"{KEYS.results}x"
#: What each key should be, and another type that it is given.
LEASE = [
    (KEYS.inflight("q"), "list", "hash"),
    (KEYS.leases("q"), "string", "zset"),
    (KEYS.meta("q"), "zset", "hash"),
]


@pytest.fixture
def redis(fresh_valkey):
    return fresh_valkey.client()


def run(redis, call):
    name, script, *rest = call.whole()
    return call.decode(redis.execute_command(name, script, *rest))


def spoil(redis, key, kind):
    held = redis.dump(key)
    redis.delete(key)
    {"list": redis.rpush, "string": redis.set, "hash": redis.hset, "zset": redis.zadd}[kind](
        key, *{"hash": ["f", "v"], "zset": [{"m": 1}]}.get(kind, ["x"])
    )
    return held


def mend(redis, key, held):
    redis.delete(key)
    if held is not None:
        redis.restore(key, 0, held)


def claim(redis, *queues, most=4):
    tokens = [f"t{number}" for number in range(most)]
    call = commands.claim(KEYS, queues or ("q",), tokens, holder="h:1", lease=30.0)
    return [(one.queue, one.token, one.message) for one in run(redis, call)]


def refused(redis, call, key, kind, expected):
    with pytest.raises(ResponseError) as caught:
        run(redis, call)
    assert str(caught.value) == f"WRONGTYPE {key} is a {kind}, expected a {expected}"


@pytest.mark.parametrize(
    ("key", "kind", "expected"), [(KEYS.gate, "list", "hash"), (QUEUE, "hash", "list"), *LEASE]
)
def test_a_claim_takes_nothing(redis, key, kind, expected):
    redis.rpush(QUEUE, "1", "2", "3")
    held = spoil(redis, key, kind)
    call = commands.claim(KEYS, ["q"], ["a", "b"], holder="h:1", lease=30.0)
    for _ in range(2):
        refused(redis, call, key, kind, expected)
    mend(redis, key, held)
    assert redis.lrange(QUEUE, 0, -1) == [b"1", b"2", b"3"]
    assert not redis.exists(*KEYS.lease("q"))
    assert [message for _, _, message in claim(redis)] == [b"1", b"2", b"3"]


@pytest.mark.parametrize(("key", "kind", "expected"), [(QUEUE, "hash", "list"), *LEASE])
def test_other_queues_go_on(redis, key, kind, expected):
    redis.rpush(QUEUE, "1", "2")
    redis.rpush(KEYS.queue("p"), "0")
    redis.rpush(KEYS.queue("r"), "3", "4")
    held = spoil(redis, key, kind)
    assert claim(redis, "p", "q", "r") == [
        ("p", "t0", b"0"),
        ("r", "t1", b"3"),
        ("r", "t2", b"4"),
    ]
    assert redis.hgetall(KEYS.inflight("r")) == {b"t1": b"3", b"t2": b"4"}
    mend(redis, key, held)
    assert redis.lrange(QUEUE, 0, -1) == [b"1", b"2"]


ENDS = {
    "ack": commands.ack(KEYS, "q", "t0", reply_to=RESULTS, reply=b"r"),
    "fail": commands.fail(KEYS, "q", "t0", b"entry", reply_to=RESULTS, reply=b"r"),
    "retry": commands.retry(KEYS, "q", "t0", b"1"),
    "delay": commands.delay(KEYS, "q", "t0", b"1", seconds=5.0),
}
TAKERS = {
    "ack": [(RESULTS, "string", "list")],
    "fail": [(RESULTS, "string", "list"), (KEYS.failed, "hash", "list")],
    "retry": [(QUEUE, "hash", "list")],
    "delay": [(KEYS.delayed("q"), "list", "zset")],
}


@pytest.mark.parametrize(
    ("name", "key", "kind", "expected"),
    [(name, *spoiled) for name in ENDS for spoiled in (*LEASE, *TAKERS[name])],
)
def test_an_end_loses_nothing(redis, name, key, kind, expected):
    redis.rpush(QUEUE, "1")
    assert len(claim(redis)) == 1
    held = spoil(redis, key, kind)
    for _ in range(2):
        refused(redis, ENDS[name], key, kind, expected)
    mend(redis, key, held)
    assert redis.hgetall(KEYS.inflight("q")) == {b"t0": b"1"}
    assert not redis.exists(RESULTS, KEYS.failed, QUEUE, KEYS.delayed("q"))
    assert run(redis, ENDS[name]) is True
    assert run(redis, ENDS[name]) is False
    assert not redis.exists(*KEYS.lease("q"))


@pytest.mark.parametrize(("key", "kind", "expected"), LEASE)
def test_a_reaper_loses_nothing(redis, key, kind, expected):
    redis.rpush(QUEUE, "1")
    call = commands.claim(KEYS, ["q"], ["t"], holder="h:1", lease=0.0)
    assert len(run(redis, call)) == 1
    held = spoil(redis, key, kind)
    reap = commands.reap(KEYS, "q", "r.", lease=30.0, most=10)
    for _ in range(2):
        refused(redis, reap, key, kind, expected)
    mend(redis, key, held)
    assert [(one.message, one.holder) for one in run(redis, reap)] == [(b"1", "h:1")]


@pytest.mark.parametrize(
    ("key", "kind", "expected"), [(QUEUE, "hash", "list"), (KEYS.delayed("q"), "string", "zset")]
)
def test_what_is_due_waits_and_other_queues_go_on(redis, key, kind, expected):
    redis.zadd(KEYS.delayed("q"), {"t 1": 1})
    held = spoil(redis, key, kind)
    promote = commands.promote(KEYS, ["q", "r"], most=10)
    refused(redis, promote, key, kind, expected)
    redis.zadd(KEYS.delayed("r"), {"t 2": 1})
    assert run(redis, promote) == 1
    assert redis.lrange(KEYS.queue("r"), 0, -1) == [b"2"]
    mend(redis, key, held)
    assert run(redis, promote) == 1
    assert redis.lrange(QUEUE, 0, -1) == [b"1"]


def test_a_move_and_a_frame_and_a_beat(redis):
    redis.rpush("from", "1", "2")
    redis.set("to", "x")
    refused(redis, commands.move("from", "to", 10), "to", "string", "list")
    assert redis.lrange("from", 0, -1) == [b"1", b"2"]
    redis.hset(KEYS.inflight("q"), "t", "m")
    redis.rpush(KEYS.taken("n"), "x")
    frame = commands.frame(KEYS, "q", "t", KEYS.inbox("n"), "n", b"f")
    refused(redis, frame, KEYS.taken("n"), "list", "string")
    assert not redis.exists(KEYS.inbox("n"))
    redis.set(KEYS.leases("q"), "x")
    renew = commands.renew(KEYS, "q", ["t"], lease=1.0)
    refused(redis, renew, KEYS.leases("q"), "string", "zset")
    redis.set(KEYS.nodes, "x")
    beat = commands.beat(KEYS, "n", b"{}", life=1.0, inbox_life=1.0, silence=1.0)
    refused(redis, beat, KEYS.nodes, "string", "zset")


BACK = Requeue(queue="q", message=b"m")
LOOKS = {
    "pause": (commands.pause(KEYS, "q", b'"who"'), [(KEYS.gate, "list", "hash")]),
    "requeue": (
        commands.requeue(KEYS, b"entry", BACK),
        [(KEYS.failed, "hash", "list"), (QUEUE, "hash", "list"), (KEYS.queues, "list", "set")],
    ),
    "drop": (commands.requeue(KEYS, b"entry"), [(KEYS.failed, "string", "list")]),
    "bury": (
        commands.bury(KEYS, "n", silence=0.0, inbox_life=60.0, legacy="old"),
        [
            (KEYS.nodes, "hash", "zset"),
            (KEYS.legacy_inbox("n"), "hash", "list"),
            ("old", "string", "list"),
        ],
    ),
    "depth": (
        commands.depth(KEYS, "q"),
        [
            (QUEUE, "hash", "list"),
            (KEYS.delayed("q"), "list", "zset"),
            (KEYS.inflight("q"), "string", "hash"),
        ],
    ),
    "failures": (
        commands.failures(KEYS, 0, 10, newest=True, room=1000),
        [(KEYS.failed, "zset", "list")],
    ),
    "peek": (commands.peek(QUEUE, 0, 10, 1000, largest=1000), [(QUEUE, "zset", "list")]),
    "push": (
        commands.push(QUEUE, "fence", "t", 1, (), [b"m"]),
        [(QUEUE, "hash", "list"), ("fence", "list", "hash")],
    ),
    "trim": (
        commands.trim("old", "fence", "t", 1),
        [("old", "hash", "list"), ("fence", "string", "hash")],
    ),
}


@pytest.mark.parametrize(
    ("name", "key", "kind", "expected"),
    [(name, *spoiled) for name in LOOKS for spoiled in LOOKS[name][1]],
)
def test_whatever_else_looks_at_a_key_names_it_and_changes_nothing(
    redis, name, key, kind, expected
):
    redis.rpush(KEYS.failed, "entry")
    redis.zadd(KEYS.nodes, {"n": 1})
    redis.rpush(KEYS.legacy_inbox("n"), "old reply")
    redis.hset("fence", "token", "t")
    held = spoil(redis, key, kind)
    before = {one: redis.dump(one) for one in redis.scan_iter()}
    for _ in range(2):
        refused(redis, LOOKS[name][0], key, kind, expected)
    assert {one: redis.dump(one) for one in redis.scan_iter()} == before
    mend(redis, key, held)
    run(redis, LOOKS[name][0])


async def test_health_looks_at_the_inboxes_of_relays(bench):
    client, broker = bench.client, await bench.up()
    client.set(KEYS.inbox("r"), "x")
    client.rpush(KEYS.inbox("fine"), "x")
    (wrong,) = await broker.nodes.wrong_types(["q"], ["r", "fine", "gone"])
    assert (wrong.key, wrong.type, wrong.expected) == (KEYS.inbox("r"), "string", "list")
