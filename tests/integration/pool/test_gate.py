"""Paused queues, real pools and real scripts."""

import time

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from queuerelay.broker.redis.broker import RedisBroker
from queuerelay.processes.spawner import supported
from queuerelay.wire import url
from tests.integration.pool.bench import KEYS, Bench

pytestmark = pytest.mark.skipif(not supported(), reason="no pidfd here")

DONE = 'echo "$QUEUERELAY_ID" >> "$OUT"'


@pytest_twisted.async_yield_fixture
async def bench(fresh_valkey, tmp_path):
    bench = Bench(fresh_valkey, tmp_path)
    yield bench
    await bench.stop()


@pytest_twisted.async_yield_fixture
async def operator(fresh_valkey):
    """Somebody's broker, to pause queues with."""
    broker = RedisBroker(url.parse(fresh_valkey.url), reactor=reactor)
    broker.start()
    await broker.when_up()
    yield broker
    await broker.stop()


def done(bench):
    """The messages that scripts have worked on."""
    path = bench.folder / "out"
    return path.read_text().split() if path.exists() else []


async def pool(bench, **options):
    script = bench.script(DONE)
    return await bench.pool(script, env={"OUT": str(bench.folder / "out")}, **options)


async def test_after_the_answer_to_pause_no_script_is_started(bench, operator):
    for _ in range(2):
        await pool(bench, size=2)
    for number in range(300):
        bench.job(str(number))
    await bench.until(lambda: len(done(bench)) > 10)
    assert await operator.gate.pause("q", by="test") is True
    left = bench.waiting()
    assert left
    await bench.until(lambda: not bench.inflight())
    # Pools that are started in the meantime, too; what comes later stands behind.
    late = await pool(bench, queues=("q", "other"))
    bench.job("last")
    bench.job("elsewhere", queue="other")
    await bench.until(lambda: "elsewhere" in done(bench))
    assert bench.waiting()[:-1] == left
    assert len(done(bench)) == 300 - len(left) + 1
    assert late.snapshot().resting == ""
    await bench.until(lambda: bench.pools[0][0].snapshot().resting == "all its queues are paused")
    assert await operator.gate.resume("q") is True
    await bench.idle()
    assert sorted(done(bench)) == sorted([*map(str, range(300)), "last", "elsewhere"])


async def test_what_runs_and_what_is_tried_again_waits_on_its_queue(bench, operator):
    script = bench.script(
        """
        until [ -e "$GO" ]; do sleep 0.01; done
        [ "$QUEUERELAY_ATTEMPT" -gt 1 ] || exit 75
        """
    )
    go = bench.folder / "go"
    await bench.pool(script, env={"GO": str(go)})
    bench.job("1")
    await bench.until(bench.inflight)
    await operator.gate.pause("q", by="test")
    go.touch()
    await bench.until(lambda: len(bench.waiting()) == 1)
    assert not bench.inflight()
    await operator.gate.resume("q")
    await bench.idle()
    assert bench.failed == []


async def test_an_idle_pool_of_a_paused_queue_asks_for_little(bench, operator):
    await operator.gate.pause("q", by="test")
    for number in range(10):
        bench.job(str(number) + "x" * 10_000)
    await pool(bench, size=4, queues=("high", "q"))
    # Its connections are there, and have loaded their scripts.
    await bench.until(lambda: bells(bench) == 2)
    before, began = commands(bench), time.monotonic()
    await deferLater(reactor, 2.0)
    # Two looks at the gate a second, and what it sees to anyway, with what its scripts do. One that
    # spins asks for thousands.
    assert commands(bench) - before <= 100 + 30 * (time.monotonic() - began)
    assert done(bench) == []
    assert len(bench.waiting()) == 10
    await operator.gate.resume("q")
    await bench.idle()
    assert len(done(bench)) == 10


def bells(bench):
    """Connections that look at queues already."""
    asks = ("blmove", "hexists")
    clients = bench.client.client_list()
    return sum(one["cmd"] in asks for one in clients if one["name"].startswith("queuerelay-bell"))


def commands(bench):
    """How many all of us have sent."""
    clients = bench.client.client_list()
    return sum(int(one["tot-cmds"]) for one in clients if one["name"].startswith("queuerelay"))


async def test_a_paused_queue_of_high_priority_does_not_keep_the_others_waiting(bench, operator):
    await operator.gate.pause("high", by="test")
    await pool(bench, queues=("high", "q"))
    bench.job("h", queue="high")
    for name in "abc":
        bench.job(name)
    await bench.until(lambda: len(done(bench)) == 3)
    assert bench.client.llen(KEYS.queue("high")) == 1
    await operator.gate.resume("high")
    await bench.until(lambda: done(bench) == ["a", "b", "c", "h"])
