"""What is collected: from this process, from other nodes, from Redis, and while it is away."""

import pytest

from queuerelay.status.collect.collector import PAGE, QUEUES
from queuerelay.status.collect.history import STEP
from queuerelay.status.collect.snapshot import Severity
from queuerelay.wire.histogram import Histogram, publish
from tests.unit.status.published import failure, job, pool


def test_a_fresh_start_is_complete_and_all_zero(stage):
    found = stage.snapshot
    assert found.redis.up
    assert found.redis.silent == 0
    assert [(node.role, node.stale, node.local) for node in found.nodes] == [("relay", False, True)]
    queue = stage.queue()
    assert (queue.depth, queue.oldest_age, queue.held, queue.configured) == (0, 0.0, 0, True)
    assert found.held_count == found.failures.total == 0
    assert found.health.severity is Severity.OK


def test_it_is_there_before_the_first_look(make_stage):
    stage = make_stage()
    stage.broker.disconnect()
    other = make_stage(clock=stage.clock)
    other.broker.disconnect()
    assert other.status.collector.snapshot.queues[0].name == "requests"


def test_held_clients_and_their_ends(stage):
    for _ in range(3):
        stage.hold()
    stage.turn(2.0)
    queue, (held,) = stage.queue(), stage.snapshot.held
    assert (queue.depth, queue.held, queue.gated) == (3, 3, 0)
    assert queue.oldest_age == pytest.approx(2.0, abs=1.1)
    assert (held.count, held.max_count) == (3, 10_000)
    assert held.bytes > 0
    assert held.oldest_age == pytest.approx(2.0, abs=1.1)
    stage.work(status=200, timing={"wait": 0.25, "run": 1.5})
    stage.work(status=404)
    stage.relay.gone(stage.hold())
    stage.turn(1.0)
    requests = stage.snapshot.requests
    assert requests.ends == {"answered": 2, "gone": 1, "expired": 0, "refused": 0, "aborted": 0}
    codes = requests.codes["requests"]
    assert (codes["2xx"], codes["4xx"], codes["gone"], codes["5xx"]) == (1, 1, 1, 0)
    queue = stage.queue()
    assert (queue.held, queue.wait.count, queue.run.count, queue.total.count) == (1, 1, 1, 2)
    assert 0.2 < queue.wait.p50 <= 0.5
    assert 1.0 < queue.run.p99 <= 2.0


def test_in_and_out_per_minute(stage):
    for _ in range(10):
        stage.hold()
    stage.turn()
    for _ in range(4):
        stage.work()
    stage.turn(1.0)
    queue = stage.queue()
    assert (queue.in_per_minute, queue.out_per_minute) == (10, 4)


def test_refusals_before_a_queue_are_counted(make_stage):
    stage = make_stage(max_held=1)
    stage.hold()
    with pytest.raises(Exception, match="too many"):
        stage.hold()
    stage.turn(1.0)
    requests = stage.snapshot.requests
    assert requests.refusals == {"held-limit": 1}
    assert requests.codes[""]["5xx"] == 1
    assert ("held-limit", stage.relay.id) in stage.reasons


def test_another_node_and_its_pools(stage):
    run = Histogram()
    run.observe(0.03)
    stage.beat(
        "p1",
        role="pool",
        loops=[["beat", 0.1, 20.0], ["reap of p", 99.0, 20.0]],
        pools=[
            pool(
                slots=[{"number": 1, "state": "running", "pid": 9, "message": "m", "age": 4.5}],
                exits=[{"at": 5.0, "message": "m", "signal": "SIGKILL", "outcome": "crash"}],
                counters={"success": 5, "crash": 1},
                durations={"requests": {"run": publish(run.durations()), "wait": [0.0]}},
            )
        ],
    )
    stage.turn(1.0)
    (found,) = stage.snapshot.pools
    assert (found.name, found.host, found.size, found.busy) == ("p", "other", 3, 1)
    assert (found.slots[0].pid, found.slots[0].age) == (9, 4.5)
    assert (found.exits[0].signal, found.exits[0].outcome) == ("SIGKILL", "crash")
    assert found.outcomes["success"] == 5
    assert found.outcomes["critical"] == 0
    assert found.run.count == 1
    queue = stage.queue()
    assert (queue.pools, queue.workers, queue.served, queue.run.count) == (("p",), 3, True, 1)
    assert stage.snapshot.jobs["p"]["crash"] == 1
    assert ("loop-stale", "p1") in stage.reasons


def test_what_cannot_be_started_is_a_reason_with_pool_and_error(stage):
    words = "1 message cannot be started: exit status 127; no_such_helper: not found"
    stage.beat("p1", role="pool", pools=[pool(unstartable=words)])
    stage.turn(1.0)
    (reason,) = stage.snapshot.health.reasons
    assert (reason.code, reason.severity) == ("cannot-start", Severity.WARNING)
    assert reason.text == f"pool p: {words}"


def test_a_silent_node_is_stale_and_its_counters_stay(stage):
    stage.beat("p1", role="pool", pools=[pool(counters={"success": 5})])
    stage.turn(1.0)
    assert stage.queue().served
    stage.turn(8.0)
    assert ("node-stale", "p1") in stage.reasons
    stage.turn(5.0)
    # What it published has gone, and it is on the list still.
    (node,) = [node for node in stage.snapshot.nodes if node.id == "p1"]
    assert node.stale
    assert node.beat_age == pytest.approx(14.0, abs=1.5)
    assert not stage.queue().served
    stage.turn(30.0)
    assert [node.id for node in stage.snapshot.nodes] == [stage.relay.id]
    assert stage.snapshot.jobs["p"]["success"] == 5


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"[]",
        b"7",
        b'{"role":"pool","pools":[7]}',
        b'{"role":"relay","queues":{"q":7}}',
        b'{"role":"relay","queues":{"q":{"total":[1,"x"]}}}',
        b'{"role":"pool","pools":[{"name":"p","queues":["q"],"durations":{"q":{"run":"x"}}}]}',
    ],
)
def test_what_cannot_be_read_is_a_stale_node_and_nobody_elses_trouble(stage, raw, log_lines):
    stage.broker.nodes.beat("bad", raw, inbox_life=60.0)
    stage.turn(2.0)
    (node,) = [node for node in stage.snapshot.nodes if node.id == "bad"]
    assert node.stale
    assert stage.snapshot.redis.up
    assert len([line for line in log_lines() if "cannot be read" in line]) == 1


@pytest.mark.parametrize("value", [None, -1, 2**70, 1.5, "x", [], {}, True, float("1e300")])
def test_wrong_values_read_as_nothing(stage, value):
    stage.beat(
        "odd",
        role="relay",
        held=value,
        counters={"answered": value},
        refusals=value,
        loops=[value, [value, value, value]],
        queues={"requests": {"held": value, "codes": {"2xx": value}}},
    )
    stage.beat("odd2", role="pool", pools=[pool(size=value, slots=[{"age": value}], rates=value)])
    stage.turn(1.0)
    assert stage.snapshot.redis.up
    assert {"odd", "odd2"} <= {node.id for node in stage.snapshot.nodes}
    assert stage.ask("/status.json").status == stage.ask("/metrics").status == 200


def test_texts_of_others_are_bounded(stage):
    long = "x" * 100_000
    stage.beat(
        long,
        role=long,
        host=long,
        version=long,
        loops=[[long, 1.0, 2.0]],
        pools=[pool(name=long, queues=[long], resting=long, exits=[{"stderr": long}])],
    )
    stage.turn(1.0)
    assert len(stage.ask("/status.json").body) < 20_000


def test_queues_of_others_are_shown_and_bounded(stage):
    for number in range(QUEUES + 50):
        stage.broker.queues.push(f"other-{number:04}", [job("x", 1.0)])
    stage.turn(1.0)
    found = stage.snapshot
    assert len(found.queues) == QUEUES
    assert found.queues_left_out == 51
    assert found.queues[0].name == "requests"
    assert not found.queues[1].configured
    assert found.queues[1].depth == 1


def test_a_queue_that_nobody_works_on(stage):
    stage.hold()
    stage.turn(1.0)
    assert ("no-worker", "requests") in stage.reasons
    stage.other().registry.register("ruby:1:*", ["requests"])
    stage.turn(1.0)
    assert (stage.queue().workers, stage.queue().served) == (1, True)
    assert stage.reasons == []


def test_a_paused_queue(stage):
    stage.broker.gate.pause("requests", by="me")
    stage.turn(1.5)
    stage.hold()
    stage.turn(3.0)
    queue = stage.queue()
    assert queue.gate is not None
    assert queue.gate.by == "me"
    assert ("paused", "requests") in stage.reasons
    assert "no-worker" not in [code for code, _ in stage.reasons]
    assert (queue.held, queue.gated, queue.depth) == (1, 1, 0)


def test_a_paused_queue_that_nobody_has_used_yet(stage):
    stage.broker.gate.pause("later", by="me")
    stage.turn(1.0)
    assert stage.queue("later").gate.by == "me"
    assert ("paused", "later") in stage.reasons


def test_dead_letters_come_by_page_newest_first_without_arguments(stage):
    stage.broker.store.append("resque:failed", [failure(number) for number in range(70)])
    stage.turn(1.0)
    found = stage.snapshot.failures
    assert (found.total, len(found.items)) == (70, PAGE)
    assert (found.items[0].message, found.items[0].index, found.items[0].cls) == ("m69", 69, "Job")
    assert "canary" not in repr(stage.snapshot)
    page = stage.json("/failures.json?start=60&count=50")
    assert [item["message"] for item in page["items"]] == [f"m{n}" for n in range(9, -1, -1)]
    assert page["items"][0]["class"] == "Job"
    assert len(stage.json("/failures.json?count=999999")["items"]) == 50
    assert len(stage.json("/failures.json?count=-1&start=x")["items"]) == PAGE


def test_new_dead_letters_are_a_reason_to_look(stage):
    stage.turn(10 * STEP)
    stage.broker.store.append("resque:failed", [failure(1)])
    stage.turn(1.0)
    assert ("dead-letters", "") in stage.reasons
    stage.turn(62 * STEP)
    assert ("dead-letters", "") not in stage.reasons


@pytest.mark.parametrize("raw", [b"", b"\xff", b"[]", b"{}", b'{"payload":7,"queuerelay":[]}'])
def test_entries_that_are_none_are_shown_as_far_as_they_go(stage, raw):
    stage.broker.store.append("resque:failed", [raw])
    stage.turn(1.0)
    (item,) = stage.json("/status.json")["failures"]["items"]
    assert item["error"] == ""


def test_redis_away_and_back(stage):
    stage.hold()
    stage.turn(1.0)
    stage.broker.disconnect()
    stage.turn(20.0)
    found = stage.snapshot
    assert not found.redis.up
    assert found.redis.silent == pytest.approx(20.0, abs=1.5)
    assert ("redis-down", "redis://localhost:6379/0") in stage.reasons
    # What was last known, and what this process knows of itself.
    assert stage.queue().depth == 1
    assert found.held_count == 1
    assert [(node.local, node.stale) for node in found.nodes] == [(True, False)]
    assert stage.ask("/failures.json").status == 503
    stage.broker.reconnect()
    stage.turn(2.0)
    assert stage.snapshot.redis.up
    assert "redis-down" not in [code for code, _ in stage.reasons]


def test_other_nodes_age_while_redis_is_away(stage):
    stage.beat("p1", role="pool", pools=[pool()])
    stage.turn(1.0)
    stage.broker.disconnect()
    stage.turn(20.0)
    (node,) = [node for node in stage.snapshot.nodes if node.id == "p1"]
    assert node.stale
    assert node.beat_age > 19


def test_asking_costs_redis_nothing(stage):
    asked = []
    stage.broker.nodes.survey = lambda: asked.append(1)
    for path in ("/status.json", "/history.json", "/metrics", "/stats.txt", "/healthz", "/readyz"):
        for _ in range(5):
            assert stage.ask(path).status == 200
    assert asked == []


def test_a_point_of_history_each_ten_seconds(stage):
    stage.hold()
    stage.turn(35.0)
    found = stage.json("/history.json")
    assert found["step"] == 10.0
    assert 3 <= len(found["times"]) <= 5
    assert found["overall"]["held"][-1] == 1
    assert found["queues"]["requests"]["depth"][-1] == 1
    assert len(found["failed"]) == len(found["times"])


def test_a_status_room_without_a_relay(make_stage):
    stage = make_stage(alone=True)
    # The relay of the stage is another process to it, and beats.
    stage.turn(2.0)
    assert [(node.role, node.local) for node in stage.snapshot.nodes] == [("relay", False)]
    stage.hold()
    stage.turn(3.0)
    assert stage.snapshot.held_count == 1
    assert stage.ask("/healthz/deep").status == 501


@pytest.mark.parametrize(
    ("skew", "text"),
    [(1.5, "1.5 s ahead of"), (-300.0, "300.0 s behind"), (0.9, None), (None, None), ("x", None)],
)
def test_a_host_whose_clock_is_off_is_named_once(stage, skew, text):
    stage.beat("p1", role="pool", skew=skew, pools=[pool()])
    stage.beat("p2", role="pool", skew=skew, pools=[pool()])
    stage.turn(1.0)
    reasons = [one for one in stage.snapshot.health.reasons if one.code == "clock-skew"]
    if text is None:
        assert reasons == []
    else:
        (reason,) = reasons
        assert (reason.subject, reason.severity) == ("other", "warning")
        assert text in reason.text


def test_a_queue_that_nobody_is_configured_for_any_more(make_stage):
    stage = make_stage()
    other = stage.other()
    for name in ("a", "b"):
        other.queues.push(name, [b"{}"])
    stage.turn(0.1)
    claims = other.leases.claim_many(["b"], holder="h", lease=5.0, most=1)
    stage.turn(0.1)
    other.delayed.delay(claims.result[0], b"{}", seconds=3600.0)
    stage.turn(6.0)
    # Before "a": something is unsettled there.
    assert [queue.name for queue in stage.snapshot.queues] == ["requests", "b", "a"]
    queue = stage.snapshot.queues[1]
    assert (queue.configured, queue.served, queue.delayed) == (False, False, 1)
    assert ("no-worker", "b") in stage.reasons
