"""What only a real server shows: scripts that are gone, unknown outcomes, writes together."""

import json

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from queuerelay.broker.redis.broker import RedisBroker
from queuerelay.errors import BrokerError, Refused
from queuerelay.wire.scripts import source
from queuerelay.wire.url import parse
from tests.integration.broker.bench import RedisBench
from tests.unit.broker.contract import KEYS, LONG, ONE, TWO, raises, turns
from tests.unit.broker.contract_pool import WORKER, letter


@pytest.fixture
def bench(fresh_valkey):
    bench = RedisBench(fresh_valkey)
    yield bench
    bench.free()
    for broker in bench.brokers:
        pytest_twisted.blockon(broker.stop())


async def test_flushed_scripts_are_loaded_again(bench):
    broker = await bench.up()
    await broker.queues.push("q", [ONE, TWO])
    bench.put(KEYS.failed, letter())
    flush = bench.client.script_flush
    flush()
    first, second = await broker.leases.claim_many(["q"], holder="h", lease=LONG, most=2)
    flush()
    assert await broker.delayed.delay(first, ONE, seconds=0) is True
    flush()
    assert await broker.delayed.promote(["q"]) == 1
    flush()
    assert (await broker.dead_letters.page()).total == 1
    flush()
    assert await broker.dead_letters.retry_many() == 1
    flush()
    assert (await broker.queues.depths(["q"]))[0].length == 2
    assert await broker.leases.ack(second) is True


async def test_keys_as_the_protocol_names_them(bench):
    broker = await bench.up()
    await broker.queues.push("q", [ONE])
    (claim,) = await broker.leases.claim_many(["q"], holder="h", lease=LONG, most=1)
    await broker.delayed.delay(claim, ONE, seconds=30)
    ((member, due),) = bench.client.zrange("queuerelay:delayed:q", 0, -1, withscores=True)
    assert member == claim.token.encode() + b" " + ONE
    seconds, micros = bench.client.time()
    assert 0 < due - seconds * 1000 - micros // 1000 <= 30_000
    await broker.clients.mark_gone(["n-1"], life=20.0)
    assert 0 < bench.client.pttl("queuerelay:gone:n-1") <= 20_000


async def test_registration_as_resque_reads_it(bench, fresh_valkey):
    from twisted.internet import reactor

    broker = RedisBroker(parse(fresh_valkey.url), reactor=reactor)
    broker.registry._unix_time = lambda: 1790000000.0
    bench.brokers.append(broker)
    broker.start()
    await broker.when_up()
    await broker.registry.register(WORKER, ["a", "b"])
    await broker.registry.working_on(WORKER, "a", ONE)
    get = bench.client.get
    assert get(f"resque:worker:{WORKER}:started") == b"2026-09-21T14:13:20Z"
    assert json.loads(get(f"resque:worker:{WORKER}")) == {
        "queue": "a",
        "run_at": "2026-09-21T14:13:20Z",
        "worker": ":".join(WORKER.split(":")[:2]),
        "payload": {"class": "Job", "args": ["one"]},
    }
    await broker.registry.count(WORKER, processed=2, failed=1)
    assert get("resque:stat:processed") == get(f"resque:stat:processed:{WORKER}") == b"2"
    assert get("resque:stat:failed") == get(f"resque:stat:failed:{WORKER}") == b"1"
    await broker.registry.unregister(WORKER)
    assert sorted(bench.client.keys("resque:*")) == [
        b"resque:queues",
        b"resque:stat:failed",
        b"resque:stat:processed",
    ]


async def test_what_is_said_in_one_turn_is_one_write(bench, monkeypatch):
    broker = await bench.up()
    writes = []
    pipeline = broker._commands.pipeline

    def counted(*commands, **options):
        writes.append(len(commands))
        return pipeline(*commands, **options)

    monkeypatch.setattr(broker._commands, "pipeline", counted)
    broker.registry.working_on(WORKER, "a", None)
    await broker.registry.count(WORKER, processed=1)
    assert writes == [3]
    # Nothing is left to wait for.
    await turns(0.02)
    assert writes == [3]


async def test_two_operators_over_lost_connections(bench):
    """Each entry is in the list or on its queue, once, whatever is cut in between."""
    entries = [letter(f"{i}") for i in range(400)]
    bench.put(KEYS.failed, *entries)
    one, two = await bench.up(), await bench.up()

    async def retried(broker):
        while bench.items(KEYS.failed):
            try:
                await broker.when_up()
                await broker.dead_letters.retry_many()
            except BrokerError:
                pass

    from twisted.internet.defer import Deferred

    both = [Deferred.fromCoroutine(retried(broker)) for broker in (one, two)]
    for _ in range(5):
        await turns(0.01)
        bench.lose()
    await gatherResults(both)
    again = [json.loads(raw)["args"][0] for raw in bench.items(KEYS.queue("q"))]
    assert sorted(map(int, again)) == [*range(400)]


async def test_a_failed_list_of_another_kind(bench):
    broker = await bench.up()
    bench.client.set(KEYS.failed, "x")
    await raises(Refused, broker.dead_letters.page(), match="WRONGTYPE")
    await raises(
        Refused, broker.dead_letters.retry_many([letter("a"), letter("b")]), match="WRONGTYPE"
    )
    await raises(Refused, broker.dead_letters.drop_many(), match="WRONGTYPE")
    # One that goes nowhere is put nowhere, and stays.
    bench.client.delete(KEYS.failed)
    bench.put(KEYS.failed, letter())
    bench.client.set(KEYS.queue("q"), "x")
    await raises(Refused, broker.dead_letters.retry_many(), match="WRONGTYPE")
    assert bench.items(KEYS.failed) == [letter()]


async def test_what_cannot_be_put_anywhere_is_not_taken_out(bench):
    broker = await bench.up()
    await broker.queues.push("q", [ONE, TWO])
    first, second = await broker.leases.claim_many(["q"], holder="h", lease=LONG, most=2)
    bench.client.set(KEYS.queue("q"), "x")
    bench.client.set(KEYS.delayed("q"), "x")
    bench.client.set(KEYS.failed, "x")
    await raises(Refused, broker.delayed.delay(first, ONE, seconds=0), match="WRONGTYPE")
    await raises(Refused, broker.leases.retry(first, ONE), match="WRONGTYPE")
    await raises(Refused, broker.leases.fail(first, b"entry"), match="WRONGTYPE")
    assert sorted(bench.inflight("q")) == sorted([ONE, TWO])
    bench.client.delete(KEYS.delayed("q"))
    assert await broker.delayed.delay(second, TWO, seconds=0) is True
    await raises(Refused, broker.delayed.promote(["q"]), match="WRONGTYPE")
    bench.client.delete(KEYS.queue("q"))
    assert await broker.delayed.promote(["q"]) == 1
    assert bench.items(KEYS.queue("q")) == [TWO]


async def test_redis_gives_little_of_large_failures_and_loads_not_many(bench):
    large = [b"%d" % number + b"x" * 9_000_000 for number in range(3)]
    bench.client.rpush("resque:failed", *large, b"small")
    total, *found = bench.client.eval(source("failures"), 1, "resque:failed", 0, 9, 1, 10**6, 8000)
    assert total == 4
    # What is loaded ends the page, too.
    assert found == [b"small", [9_000_001, large[2][:1000], large[2][-7000:]]]
