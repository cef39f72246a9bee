"""Paused queues on Redis: the contract, what is in the hash, and what waiting for them costs."""

import json
import time

import pytest
import pytest_twisted

from queuerelay.broker.records import Gate
from queuerelay.broker.redis import bell as bell_module
from queuerelay.broker.redis.gate import decode_gate
from queuerelay.errors import Refused
from tests.integration.broker.bench import RedisBench
from tests.unit.broker import contract_pool
from tests.unit.broker.contract import KEYS, LONG, ONE, TWO, claim_one, raises, turns
from tests.unit.broker.contract_gate import GateContract

only_rings = contract_pool.only_rings


class Bench(RedisBench):
    def now(self):
        seconds, microseconds = self.client.time()
        return seconds + microseconds / 1e6


@pytest.fixture
def bench(fresh_valkey):
    bench = Bench(fresh_valkey)
    yield bench
    bench.free()
    for broker in bench.brokers:
        pytest_twisted.blockon(broker.stop())


class TestGateContract(GateContract):
    pass


async def test_what_is_in_redis(bench):
    broker = await bench.up()
    await broker.gate.pause("q", by='a"ü')
    ((queue, value),) = bench.client.hgetall("queuerelay:gate").items()
    assert queue == b"q"
    found = json.loads(value)
    assert {*found} == {"since", "by"}
    assert found["by"] == 'a"ü'
    assert bench.now() - 60 < found["since"] <= bench.now()
    await broker.gate.resume("q")
    assert bench.client.exists("queuerelay:gate") == 0


@pytest.mark.parametrize(
    ("value", "gate"),
    [
        (b'{"since":1790000000.5,"by":"me"}', Gate(since=1790000000.5, by="me")),
        (b'{"since":7,"by":"me","until":9,"ramp":{"a":[1]}}', Gate(since=7.0, by="me")),
        (b"", Gate(since=0.0, by="")),
        (b"1", Gate(since=0.0, by="")),
        (b"\xff", Gate(since=0.0, by="")),
        (b'["since"]', Gate(since=0.0, by="")),
        (b'{"since":"7","by":7}', Gate(since=0.0, by="")),
        (b'{"since":true,"by":null}', Gate(since=0.0, by="")),
        (b'{"since":-1}', Gate(since=0.0, by="")),
        (b'{"since":1e999}', Gate(since=0.0, by="")),
        (b'{"since":1%b}' % (b"0" * 400), Gate(since=0.0, by="")),
        (b'{"by":"\\ud800"}', Gate(since=0.0, by="")),
        (b'{"by":"%b"}' % (b"x" * 999), Gate(since=0.0, by="x" * 200)),
    ],
)
async def test_what_anybody_wrote_there_pauses_the_queue(bench, value, gate):
    broker = await bench.up()
    bench.client.hset(KEYS.gate, "q", value)
    bench.put(KEYS.queue("q"), ONE)
    assert await claim_one(broker, ["q"], holder="h", lease=LONG) is None
    assert await broker.gate.look() == await broker.gate.look(["q"]) == {"q": gate}
    assert decode_gate(value) == gate


async def test_what_is_no_hash_stops_everything_and_changes_nothing(bench):
    broker = await bench.up()
    bench.client.set(KEYS.gate, "something else")
    bench.put(KEYS.queue("q"), ONE)
    for asked in (
        claim_one(broker, ["q"], holder="h", lease=LONG),
        broker.leases.claim_many(["q"], holder="h", lease=LONG, most=2),
        broker.gate.pause("q", by="test"),
        broker.gate.resume("q"),
        broker.gate.look(),
        broker.gate.look(["q"]),
    ):
        await raises(Refused, asked, "WRONGTYPE")
    assert bench.items(KEYS.queue("q")) == [ONE]


async def test_it_outlives_the_server(own_valkey):
    server = own_valkey("--appendonly", "yes", "--appendfsync", "always")
    bench = RedisBench(server)
    broker = await bench.up()
    try:
        await broker.queues.push("q", [ONE])
        await broker.gate.pause("q", by="test")
        gates = await broker.gate.look()
        server.kill()
        server.start()
        after = await bench.up()
        assert await after.gate.look() == gates
        assert await claim_one(after, ["q"], holder="h", lease=LONG) is None
    finally:
        for one in bench.brokers:
            await one.stop()


async def test_waiting_for_a_paused_queue_costs_two_small_commands_a_second(
    bench, only_rings, monkeypatch
):
    monkeypatch.setattr(bell_module, "GATE_POLL", 0.1)
    broker = await bench.up()
    bench.put(KEYS.queue("q"), b"x" * 1_000_000)
    await broker.gate.pause("q", by="test")
    bench.client.config_resetstat()
    waiting = broker.bell(["q"]).wait()
    began = time.monotonic()
    await turns(1.0)
    calls = bench.client.info("commandstats")
    asked = calls["cmdstat_hexists"]["calls"]
    # Some, and no more than the time allows, however long this machine took.
    assert 3 <= asked <= 4 + (time.monotonic() - began) / 0.1
    # The message itself was seen once, not each time.
    assert calls["cmdstat_blmove"]["calls"] == 1
    assert not waiting.called
    await broker.gate.resume("q")
    await waiting


async def test_a_gate_that_cannot_be_read_does_not_silence_the_bell(bench, only_rings, said):
    broker = await bench.up()
    bench.client.set(KEYS.gate, "something else")
    waiting = broker.bell(["q"]).wait()
    bench.put(KEYS.queue("q"), TWO)
    await waiting


async def test_a_paused_queue_over_a_lost_connection(bench, only_rings):
    broker = await bench.up()
    bench.put(KEYS.queue("q"), ONE)
    await broker.gate.pause("q", by="test")
    waiting = broker.bell(["q"]).wait()
    await turns(0.1)
    bench.lose()
    await turns(0.7)
    assert not waiting.called
    bench.client.delete(KEYS.gate)
    await waiting
