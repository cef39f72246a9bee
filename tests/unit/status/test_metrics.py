"""What Prometheus sees: well-formed in both formats, complete, bounded; and stats.txt."""

import inspect
import re
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text

from queuerelay import errors
from queuerelay.config import Route
from queuerelay.errors import Refusal
from queuerelay.status.collect import health
from queuerelay.wire import server
from queuerelay.wire.histogram import BOUNDS
from tests.unit.status.published import pool

HOSTILE = [
    '"',
    "\\",
    "\n",
    '"} 1\nqueuerelay_evil 1\n#',
    "<script>alert(1)</script>",
    "\u2028\u2029\x00\x1b[31m",
    "{{7*7}}${x}%s%n",
    "a=b\r\nSet-Cookie: x",
]


def samples(stage, name=None, accept=""):
    """By name and labels."""
    response = stage.ask("/metrics", "GET", ("Accept", accept))
    assert response.status == 200
    text = response.body.decode()
    parse = parse_open if "openmetrics" in accept else parse_text
    return {
        (one.name, *sorted(one.labels.items())): one.value
        for family in parse(text)
        for one in family.samples
        if name in (None, one.name)
    }


def test_an_idle_start_has_every_series_at_zero(make_stage):
    stage = make_stage(routes=(Route(queue="high", path="/high/"),))
    found = samples(stage)
    for queue in ("requests", "high"):
        label = ("queue", queue)
        assert found["queuerelay_queue_depth", label] == 0
        assert found["queuerelay_queue_oldest_seconds", label] == 0
        assert found["queuerelay_requests_total", ("code", "5xx"), label] == 0
        assert found["queuerelay_request_duration_seconds_count", label] == 0
        assert found["queuerelay_queue_paused", label] == 0
    assert found["queuerelay_redis_up",] == 1
    assert found["queuerelay_dead_letters",] == 0
    assert found["queuerelay_held",] == 0
    assert found["queuerelay_nodes", ("role", "pool")] == 0
    assert found["queuerelay_nodes", ("role", "relay")] == 1
    assert found["queuerelay_refusals_total", ("reason", "queue-limit")] == 0
    assert found["queuerelay_refusals_total", ("reason", Refusal.reason)] == 0


def test_both_formats_say_the_same(stage):
    stage.hold()
    stage.turn(1.0)
    stage.work(timing={"wait": 0.1, "run": 0.2})
    stage.turn(1.0)
    text = samples(stage)
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"
    response = stage.ask("/metrics", "GET", ("Accept", accept))
    assert response.get("content-type").startswith(b"application/openmetrics-text")
    assert response.body.endswith(b"# EOF\n")
    assert samples(stage, accept=accept) == text
    assert text["queuerelay_requests_total", ("code", "2xx"), ("queue", "requests")] == 1


def test_histograms_are_cumulative(stage):
    for _ in range(4):
        stage.hold()
    stage.turn(3.0)
    for wait in (0.0005, 0.3, 0.3, 7000.0):
        stage.work(timing={"wait": wait})
    stage.turn(1.0)
    found = samples(stage, "queuerelay_request_wait_seconds_bucket")
    by_bound = {float(dict(key[1:])["le"]): value for key, value in found.items()}
    assert sorted(by_bound) == [*BOUNDS, float("inf")]
    values = [by_bound[bound] for bound in sorted(by_bound)]
    assert values == sorted(values)
    assert (by_bound[0.001], by_bound[0.2], by_bound[0.5], by_bound[5000.0]) == (1, 1, 3, 3)
    assert by_bound[float("inf")] == 4
    assert samples(stage)["queuerelay_request_wait_seconds_sum", ("queue", "requests")] == (
        pytest.approx(7000.6005)
    )


def test_a_pool_on_two_hosts_is_added_up(stage):
    for id in ("p1", "p2"):
        stage.beat(id, role="pool", pools=[pool(counters={"success": 5, "crash": 1})])
    stage.turn(1.0)
    found = samples(stage)
    assert found["queuerelay_jobs_total", ("outcome", "success"), ("pool", "p")] == 10
    assert found["queuerelay_jobs_total", ("outcome", "critical"), ("pool", "p")] == 0
    assert found["queuerelay_pool_size", ("pool", "p")] == 6
    assert found["queuerelay_queue_workers", ("queue", "requests")] == 6
    stage.turn(60.0)
    left = samples(stage)
    assert left["queuerelay_jobs_total", ("outcome", "success"), ("pool", "p")] == 10
    assert left["queuerelay_pool_size", ("pool", "p")] == 0


def test_redis_away(stage):
    stage.broker.disconnect()
    stage.turn(2.0)
    assert samples(stage)["queuerelay_redis_up",] == 0
    assert samples(stage)["queuerelay_health",] == 2


def test_what_clients_ask_makes_no_series(stage):
    before = samples(stage).keys()
    for number in range(100):
        held = stage.hold(
            method=f"M{number}", url=f"/{number}", headers=[("host", f"h{number}.example")]
        )
        stage.relay.gone(held)
        stage.turn()
    stage.turn(1.0)
    assert samples(stage).keys() == before


@pytest.mark.parametrize("text", HOSTILE)
def test_foreign_names_stay_inside_of_their_labels(stage, text):
    stage.broker.queues.push(text, [b"x"])
    stage.beat("h", role="pool", host=text, pools=[pool(name=text, queues=[text], resting=text)])
    stage.turn(1.0)
    for accept in ("", "application/openmetrics-text"):
        found = samples(stage, accept=accept)
        assert not any("evil" in key[0] for key in found)
        depths = samples(stage, "queuerelay_queue_depth", accept)
        queues = {dict(key[1:])["queue"] for key in depths}
        assert len(queues) == 2
        if accept == "":
            assert queues == {"requests", text}
    lines = stage.ask("/stats.txt").body.decode().splitlines()
    assert len(lines) == 7
    assert all(re.fullmatch(r"[^=\x00-\x1f]+=\d+", line) for line in lines), lines
    assert stage.json("/status.json")["queues"][1]["name"] in ("requests", text)


def test_stats_as_resque_web_writes_them(stage):
    for _ in range(3):
        stage.hold()
    stage.broker.queues.push("mails", [b"{}", b"{}"])
    other = stage.other()
    other.registry.register("ruby:1:mails", ["mails"])
    other.registry.count(processed=12, failed=2)
    other.registry.working_on("ruby:1:mails", "mails", b"{}")
    stage.broker.store.append("resque:failed", [b"{}"] * 4)
    stage.turn(1.0)
    assert stage.ask("/stats.txt").body.decode() == (
        "resque.pending=5\n"
        "resque.processed+=12\n"
        "resque.failed+=4\n"
        "resque.workers=1\n"
        "resque.working=1\n"
        "queues.requests=3\n"
        "queues.mails=2\n"
    )


def test_every_metric_is_in_the_documentation(stage):
    stage.beat("p", role="pool", pools=[pool()])
    stage.turn(1.0)
    documentation = (Path(__file__).parents[3] / "docs" / "status.md").read_text()
    for family in parse_text(stage.ask("/metrics").body.decode()):
        total = "_total" if family.type == "counter" else ""
        name = family.name.removeprefix("queuerelay")
        assert f"{name}{total}`" in documentation, family.name


def test_reasons_are_counted_by_code(stage):
    assert samples(stage)["queuerelay_health_reasons", ("code", "redis-down")] == 0
    stage.broker.disconnect()
    stage.turn(1.0)
    assert samples(stage)["queuerelay_health_reasons", ("code", "redis-down")] == 1


def test_every_reason_has_its_series():
    """What health may say, by its own text, is counted from the start."""
    modules = (health, server, errors)
    said = set()
    for module in modules:
        text = inspect.getsource(module)
        said |= set(
            re.findall(
                r'(?:_warn|_alarm|code=|code: str = )\(?\s*"([a-z]+(?:-[a-z]+)+|paused)"', text
            )
        )
    assert {"redis-down", "redis-cluster", "redis-unusable", "paused"} <= said
    assert said <= {*health.REASONS}
