"""The inbox reader on a real server, with everything that may come between."""

import random

import pytest

from queuerelay.broker.redis import connection, inbox
from queuerelay.errors import NotConnected
from queuerelay.wire.commands import TooLarge
from tests.integration.broker.doubles import between
from tests.unit.broker.contract import KEYS, eventually, turns

#: Connections cut under the reader.
RESETS = 300


@pytest.fixture
def at_once(monkeypatch):
    """Reconnect without a pause worth the name."""
    monkeypatch.setattr(connection, "FIRST_PAUSE", 0.001)


def first_seen(items):
    """The items without their repetitions."""
    return [*dict.fromkeys(items)]


def item(producer, number):
    """Of a size that uses up a connection soon."""
    return b"%s%d" % (producer, number) + b"." * 200


def of(producer, items):
    return [item for item in items if item.startswith(producer)]


@pytest.mark.parametrize("shared", [False, True], ids=["inbox", "legacy"])
async def test_nothing_is_lost_over_hundreds_of_resets(
    fresh_valkey, bench_on, proxy_to, at_once, shared
):
    proxy = proxy_to(fresh_valkey)
    # Entering takes 40 KiB, most of it scripts; so some connections break while they are made.
    proxy.budget = between(2_000, 80_000, seed=1)
    bench = bench_on(fresh_valkey, proxy.url)
    got = []
    broker = bench.new()
    if shared:
        broker.inbox.open("n", print, legacy=("responses", got.extend))
    else:
        broker.inbox.open("n", got.extend)
    readers, made = broker.inbox._readers, []
    for link, _ in readers:
        begin = link.on_up
        link.on_up = lambda begin=begin: (made.append(1), begin())
    broker.start()
    key = "responses" if shared else KEYS.inbox("n")
    chance, pushed = random.Random(2), {b"a": 0, b"b": 0, b"c": 0}
    for _ in range(20_000):
        for producer, count in pushed.items():
            batch = range(count, count + chance.randrange(1, 12))
            bench.put(key, *(item(producer, i) for i in batch))
            pushed[producer] = batch.stop
        await turns(0.001)
        if proxy.cuts >= RESETS:
            break
    proxy.budget = lambda: None
    total = sum(pushed.values())
    await eventually(lambda: len(set(got)) == total)
    assert proxy.cuts >= RESETS
    assert len(made) - len(readers) >= RESETS / 10
    seen = first_seen(got)
    for producer, count in pushed.items():
        assert of(producer, seen) == [item(producer, i) for i in range(count)]
    await eventually(lambda: not bench.items(key))


async def test_batches_are_bounded_in_bytes(bench, monkeypatch):
    monkeypatch.setattr(inbox, "BATCH_BYTES", 100_000)
    sizes = []
    # After many small ones that are no warning of what follows.
    small = [b"s%d" % i for i in range(600)]
    large = [b"L" * 30_000 for _ in range(40)]
    huge = [b"H" * 500_000 for _ in range(3)]
    bench.put(KEYS.inbox("n"), *small, *large, *huge, b"last")
    got = []

    def handler(items):
        sizes.append([len(item) for item in items])
        got.extend(items)

    await bench.up("n", handler)
    await eventually(lambda: got[-1:] == [b"last"])
    assert got == [*small, *large, *huge, b"last"]
    for batch in sizes:
        assert len(batch) <= inbox.BATCH
        assert sum(batch[1:]) <= 100_000
    assert max(map(len, sizes)) > 200


async def test_legacy_batches_are_bounded_in_bytes_too(bench, monkeypatch):
    monkeypatch.setattr(inbox, "BATCH_BYTES", 100_000)
    items = [b"%d" % i + b"x" * 30_000 for i in range(300)]
    bench.put("responses", *items)
    got, most = [], []

    def handler(batch):
        got.extend(batch)
        most.append(len(bench.items(KEYS.legacy_inbox("n"))))
        assert sum(map(len, batch[1:])) <= 100_000

    await bench.up("n", print, legacy=("responses", handler))
    await eventually(lambda: len(got) == 300)
    assert got == items
    # Nor does it hoard what others could take.
    assert max(most) <= inbox.BATCH + 1


async def test_two_readers_of_a_shared_list_and_resets(fresh_valkey, bench_on, proxy_to, at_once):
    proxy = proxy_to(fresh_valkey)
    proxy.budget = between(2_000, 80_000, seed=3)
    bench = bench_on(fresh_valkey, proxy.url)
    got = []
    for name in ("a", "b"):
        broker = bench.new()
        broker.inbox.open(name, print, legacy=("responses", got.extend))
        broker.start()
    pushed = 0
    while proxy.cuts < 100 and pushed < 200_000:
        bench.put("responses", *(b"%d" % i for i in range(pushed, pushed + 20)))
        pushed += 20
        await turns(0.001)
    assert proxy.cuts >= 100
    proxy.budget = lambda: None
    await eventually(lambda: len(set(got)) == pushed)


async def test_an_idle_reader_costs_next_to_nothing(bench):
    await bench.up("n", print, legacy=("responses", print))
    await eventually(lambda: bench.client.info("clients")["blocked_clients"] == 2)
    bench.client.config_resetstat()
    await turns(1.0)
    stats = bench.client.info("commandstats")
    ours = sum(stat["calls"] for name, stat in stats.items() if name != "cmdstat_config|resetstat")
    # One peek each 2 s and connection, and what the legacy list needs beside.
    assert ours <= 10


async def test_at_maxmemory_it_polls_and_blocks_again_later(bench, said):
    got = []
    await bench.up("n", got.extend)
    bench.put(KEYS.inbox("n"), b"0")
    await eventually(lambda: got)
    bench.fill()
    bench.client.config_resetstat()
    # The peek under way may have been accepted before; the next is not.
    await eventually(lambda: "cmdstat_evalsha" in bench.client.info("commandstats"))
    await eventually(lambda: [line for line in said if "OOM" in line[1]])
    bench.free()
    bench.put(KEYS.inbox("n"), b"1")
    await eventually(lambda: len(got) == 2)
    assert got == [b"0", b"1"]
    assert len([line for line in said if "OOM" in line[1]]) == 1


async def test_what_cannot_be_trimmed_is_handed_over_once(bench, own_valkey, bench_on, said):
    server = own_valkey()
    server.client().execute_command(
        "ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-ltrim", "-blmove"
    )
    address = f"unix://app:pw@{server.socket}"
    bench = bench_on(server, address)
    got = []
    await bench.up("n", got.extend)
    bench.put(KEYS.inbox("n"), b"1", b"2")
    await eventually(lambda: len(got) == 2)
    bench.put(KEYS.inbox("n"), b"3")
    await eventually(lambda: len(got) == 3)
    assert got == [b"1", b"2", b"3"]
    assert [line for line in said if "ltrim" in line[1]]
    server.client().execute_command("ACL", "SETUSER", "app", "+@all")
    bench.put(KEYS.inbox("n"), b"4")
    await eventually(lambda: not bench.items(KEYS.inbox("n")))
    assert got == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("forbidden", ["blmove", "client|reply"])
async def test_who_may_not_wait_or_not_unheard_reads_all_the_same(
    bench, own_valkey, bench_on, said, forbidden
):
    server = own_valkey()
    server.client().execute_command(
        "ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", f"-{forbidden}"
    )
    bench = bench_on(server, f"unix://app:pw@{server.socket}")
    got = []
    await bench.up("n", got.extend, largest=10)
    for number in (b"1", b"2", b"3"):
        bench.put(KEYS.inbox("n"), number, b"x" * 11)
        await eventually(lambda number=number: number in got)
    await eventually(lambda: not bench.items(KEYS.inbox("n")))
    assert got[::2] == [b"1", b"2", b"3"]
    assert got[1::2] == [TooLarge(11, "")] * 3
    await eventually(lambda: [line for line in said if "NOPERM" in line[1]])


async def test_a_pause_of_an_old_run_does_not_disturb_the_new_one(bench, at_once, monkeypatch):
    """Two runs on one list would trim what only one of them has handed over."""
    monkeypatch.setattr(inbox, "POLL", 0.1)
    got, runs = [], []

    def handler(items):
        runs.append([*items])
        if len(runs) == 1:
            # The run now pauses; in its pause the connection is made anew.
            bench.lose()
            raise NotConnected("not yet")
        got.extend(items)

    await bench.up("n", handler)
    chance, pushed = random.Random(4), 0
    for _ in range(200):
        batch = range(pushed, pushed + chance.randrange(1, 6))
        bench.put(KEYS.inbox("n"), *(b"%d" % i for i in batch))
        pushed = batch.stop
        await turns(0.001)
    await eventually(lambda: len(set(got)) == pushed)
    assert got == [b"%d" % i for i in range(pushed)]


async def test_a_list_of_the_wrong_type_is_told_and_mended(bench, said):
    got = []
    bench.client.set(KEYS.inbox("n"), "not a list")
    await bench.up("n", got.extend)
    await eventually(lambda: [line for line in said if "WRONGTYPE" in line[1]])
    bench.client.delete(KEYS.inbox("n"))
    bench.put(KEYS.inbox("n"), b"1")
    await eventually(lambda: got == [b"1"])


async def test_a_bug_of_ours_does_not_end_the_reading(bench, monkeypatch, logged_failures):
    got = []
    monkeypatch.setattr(inbox, "PAUSE", 0.01)
    original = inbox.InboxReader._wait
    failures = iter([ValueError("bug")])

    async def buggy(self):
        for failure in failures:
            raise failure
        return await original(self)

    monkeypatch.setattr(inbox.InboxReader, "_wait", buggy)
    await bench.up("n", got.extend)
    bench.put(KEYS.inbox("n"), b"1")
    await eventually(lambda: got == [b"1"])
    assert len(logged_failures.flush(ValueError)) == 1
