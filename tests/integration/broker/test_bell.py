"""The bell on a real server: it waits without polling, takes nothing, and cannot be stopped by what
happens to the server.
"""

import pytest
import pytest_twisted

from queuerelay.broker.redis import bell as bell_module
from queuerelay.errors import BrokerError
from tests.integration.broker.bench import RedisBench
from tests.unit.broker.contract import KEYS, LONG, ONE, TWO, eventually, turns

QUEUE = KEYS.queue("q")


@pytest.fixture
def bench(fresh_valkey):
    bench = RedisBench(fresh_valkey)
    yield bench
    bench.free()
    for broker in bench.brokers:
        pytest_twisted.blockon(broker.stop())


@pytest.fixture(autouse=True)
def only_rings(monkeypatch):
    """Nobody is woken by our clock, nor by the end of the server's wait."""
    monkeypatch.setattr(bell_module, "BELL_WAIT", LONG)
    monkeypatch.setattr(bell_module, "BLOCK", LONG)


def connections(bench):
    """The bells' connections."""
    return [one for one in bench.client.client_list() if one["name"].startswith("queuerelay-bell")]


def blocked(bench):
    return bench.client.info("clients")["blocked_clients"]


async def test_one_connection_for_each_queue_and_only_when_somebody_waits(bench):
    broker = await bench.up()
    bell = broker.bell(["a", "b", "a"])
    await turns(0.02)
    assert connections(bench) == []
    waiting = [bell.wait(), bell.wait()]
    await eventually(lambda: blocked(bench) == 2)
    assert len(connections(bench)) == 2
    bench.put(KEYS.queue("a"), ONE)
    for one in waiting:
        await one
    # The other queue's peek is left to its end.
    await eventually(lambda: blocked(bench) == 1)
    bench.put(KEYS.queue("b"), TWO)
    await eventually(lambda: blocked(bench) == 0)
    await turns(0.05)
    assert blocked(bench) == 0
    assert len(connections(bench)) == 2
    await bell.stop()
    await eventually(lambda: not connections(bench))


async def test_an_idle_bell_asks_for_nothing(bench):
    broker = await bench.up()
    waiting = broker.bell(["q"]).wait()
    await eventually(lambda: blocked(bench) == 1)
    before = bench.client.info("commandstats").get("cmdstat_llen", {"calls": 0})["calls"]
    calls = bench.client.info("stats")["total_commands_processed"]
    await turns(0.3)
    # Ours to look, and nobody else's.
    assert bench.client.info("stats")["total_commands_processed"] - calls <= 1
    bench.put(QUEUE, ONE)
    await waiting
    assert bench.client.info("commandstats").get("cmdstat_llen", {"calls": 0})["calls"] == before


async def test_a_peek_that_ends_without_a_message_is_repeated(bench, monkeypatch):
    monkeypatch.setattr(bell_module, "BLOCK", 0.05)
    broker = await bench.up()
    waiting = broker.bell(["q"]).wait()
    await turns(0.3)
    assert not waiting.called
    bench.put(QUEUE, ONE)
    await waiting


async def test_nothing_is_taken_over_many_rings_and_resets(bench):
    one, two = await bench.up(), await bench.up()
    bells = [broker.bell(["q", "r"]) for broker in (one, two)]
    got = []
    items = [b"%d" % i for i in range(200)]
    for start in range(0, 200, 10):
        waiting = [bell.wait() for bell in bells]
        if start % 3 == 0:
            bench.lose()
        bench.put(KEYS.queue("r" if start % 4 else "q"), *items[start : start + 10])
        for each in waiting:
            await each
        # All of it is still there, and in order.
        while len(got) < start + 10:
            for broker in (one, two):
                await broker.when_up()
                try:
                    claims = await broker.leases.claim_many(
                        ["q", "r"], holder="h", lease=LONG, most=3
                    )
                except BrokerError:
                    # Lost just now; a claim whose outcome is unknown is found in flight.
                    continue
                got += [claim.message for claim in claims]
        assert got == items[: start + 10]


async def test_a_server_that_went_away_and_came_back(own_valkey):
    server = own_valkey()
    bench = RedisBench(server)
    broker = await bench.up()
    try:
        waiting = broker.bell(["q"]).wait()
        await eventually(lambda: blocked(bench) == 1)
        server.kill()
        await turns(0.05)
        server.start()
        bench.put(QUEUE, ONE)
        await waiting
        assert bench.items(QUEUE) == [ONE]
    finally:
        await broker.stop()


async def test_what_is_no_list_is_asked_about_until_it_is_one(bench):
    broker = await bench.up()
    bench.client.set(QUEUE, "something else")
    waiting = broker.bell(["q", "r"]).wait()
    await turns(0.2)
    assert not waiting.called
    bench.client.delete(QUEUE)
    bench.put(QUEUE, ONE)
    await waiting


async def test_at_maxmemory_it_looks_now_and_then(bench):
    broker = await bench.up()
    bench.fill()
    waiting = broker.bell(["q"]).wait()
    looks = "cmdstat_llen"
    await eventually(lambda: looks in bench.client.info("commandstats"))
    bench.client.config_resetstat()
    await turns(1.5)
    # Each 50 ms at first, then each 500 ms.
    assert 1 <= bench.client.info("commandstats")[looks]["calls"] <= 10
    bench.free()
    bench.put(QUEUE, ONE)
    await waiting


async def test_an_error_of_ours_does_not_end_it(bench, logged_failures, monkeypatch):
    monkeypatch.setattr(bell_module, "LONGEST_POLL", 0.01)
    broker = await bench.up()
    bell = broker.bell(["q"])
    pipeline, failed = bell._peeks[0].connection.pipeline, []

    def ask_or_fail(*args, **options):
        if not failed:
            failed.append(args)
            raise ValueError("ours")
        return pipeline(*args, **options)

    monkeypatch.setattr(bell._peeks[0].connection, "pipeline", ask_or_fail)
    waiting = bell.wait()
    await eventually(lambda: blocked(bench) == 1)
    bench.put(QUEUE, ONE)
    await waiting
    assert len(logged_failures.flush(ValueError)) == 1


async def test_stop_while_it_polls(bench):
    broker = await bench.up()
    bench.client.set(QUEUE, "no list")
    bell = broker.bell(["q"])
    waiting = bell.wait()
    waiting.addErrback(lambda failure: failure.trap(BrokerError))
    await turns(0.1)
    await bell.stop()
    assert waiting.called
