"""Connections that come back from everything, and say what is the matter."""

import contextlib
import socket

import pytest
from redis.exceptions import RedisError
from twisted.internet.threads import deferToThread

from queuerelay.broker.redis.broker import RedisBroker
from queuerelay.broker.redis.connection import RedisConnection
from queuerelay.broker.redis.master import Master
from queuerelay.broker.redis.outage import OutageLog
from queuerelay.errors import ConnectionDropped, NotConnected, Refused
from queuerelay.wire import url
from queuerelay.worker.link import Link, Outage
from queuerelay.worker.master import MasterFinder
from tests.helpers.ports import free_port
from tests.integration.broker.doubles import fired
from tests.unit.broker.contract import (
    KEYS,
    LONG,
    ONE,
    TWO,
    claim_one,
    eventually,
    raises,
    turns,
    within,
)


def lines(said, text):
    return [line for level, line in said if text in line]


# While Redis is away


async def test_nobody_there(broker_at, said):
    port = free_port()
    broker = broker_at(f"redis://127.0.0.1:{port}")
    broker.start()
    await eventually(lambda: said)
    # Refused at once, not queued up.
    assert fired(broker.queues.push("q", [ONE]))[0].check(NotConnected)
    await turns(0.5)
    assert len(lines(said, "no connection to Redis")) == 1
    assert lines(said, f"redis://127.0.0.1:{port}/0: ")
    assert lines(said, "refused")


async def test_it_comes_later(broker_at, own_valkey, said):
    server = own_valkey()
    server.stop()
    broker = broker_at(server.tcp_url)
    got = []
    broker.inbox.open("n", got.extend)
    broker.start()
    await eventually(lambda: said)
    server.start()
    await within(broker.when_up())
    await broker.inbox.reply("n", [b"1"])
    await eventually(lambda: got)
    assert len(lines(said, "no connection to Redis")) == 1
    await eventually(lambda: lines(said, "again after"))


async def test_it_goes_and_comes_back(broker_at, own_valkey, said, soon):
    server = own_valkey("--appendonly", "yes", "--appendfsync", "always")
    broker = broker_at(server.tcp_url)
    got, ups = [], []
    broker.inbox.open("n", got.extend, legacy=("responses", got.extend))
    broker.on_up(lambda: ups.append(1))
    broker.start()
    await within(broker.when_up())
    await broker.queues.push("q", [ONE])
    claim = await claim_one(broker, ["q"], holder="h", lease=LONG)
    for _ in range(3):
        server.kill()
        await eventually(lambda: not broker.is_up)
        assert fired(broker.queues.push("q", [TWO]))[0].check(NotConnected)
        server.start()
        await within(broker.when_up())
    assert len(ups) == 4
    assert await broker.leases.ack(claim, reply_to=KEYS.inbox("n"), reply=b"R") is True
    server.client().rpush("responses", b"old")
    await eventually(lambda: len(got) == 2)
    assert sorted(got) == [b"R", b"old"]


async def test_what_was_under_way_is_unknown(broker_at, own_valkey, soon):
    server = own_valkey()
    broker = broker_at(server.tcp_url)
    broker.start()
    await within(broker.when_up())
    server.freeze()
    pending = [broker.queues.push("q", [ONE]), broker.queues.depths(["q"])]
    pushed, looked = [fired(one) for one in pending]
    server.kill()
    await eventually(lambda: looked)
    assert looked[0].check(ConnectionDropped)
    # What became of a push the next connection tells, unless Redis has lost what it knew.
    assert pushed == []
    server.start()
    await eventually(lambda: pushed)
    assert pushed[0].check(ConnectionDropped)
    assert server.client().llen(KEYS.queue("q")) == 0


async def test_an_acknowledgement_under_way_outlives_its_connection(broker_at, own_valkey, soon):
    """It once looped for ever: the connection said that it was up, and every command failed."""
    server = own_valkey("--appendonly", "yes", "--appendfsync", "always")
    broker = broker_at(server.tcp_url)
    broker.start()
    await within(broker.when_up())
    await broker.queues.push("q", [ONE, TWO])
    claims = [await claim_one(broker, ["q"], holder="h", lease=LONG) for _ in range(2)]
    server.freeze()
    ends = [
        broker.leases.ack(claims[0], reply_to="r", reply=b"R"),
        broker.leases.fail(claims[1], b"F"),
    ]
    await turns(0.05)
    server.kill()
    server.start()
    assert [await end for end in ends] == [True, True]
    assert server.client().lrange("r", 0, -1) == [b"R"]
    assert server.client().lrange(KEYS.failed, 0, -1) == [b"F"]
    assert server.client().hlen(KEYS.inflight("q")) == 0


async def test_an_acknowledgement_whose_answer_is_lost_is_done_once(
    broker_at, fresh_valkey, proxy_to, soon
):
    proxy = proxy_to(fresh_valkey)
    broker = broker_at(proxy.url)
    broker.start()
    await within(broker.when_up())
    client = fresh_valkey.client()
    await broker.queues.push("q", [ONE, TWO])
    claims = [await claim_one(broker, ["q"], holder="h", lease=LONG) for _ in range(2)]
    proxy.mute = True
    ends = [
        broker.leases.ack(claims[0], reply_to="r", reply=b"R"),
        broker.leases.retry(claims[1], TWO),
    ]
    pushed = broker.queues.push("q", [ONE])
    await eventually(lambda: client.llen(KEYS.queue("q")) == 2)
    proxy.cut_all()
    proxy.mute = False
    # The next connection says what became of a push; of the others the second try does.
    assert await within(pushed) is None
    assert [await within(end) for end in ends] == [True, True]
    assert client.lrange("r", 0, -1) == [b"R"]
    assert client.lrange(KEYS.queue("q"), 0, -1) == [TWO, ONE]
    assert client.hlen(KEYS.inflight("q")) == 0


async def test_a_server_that_hangs_is_left_within_the_bound(broker_at, own_valkey, said, soon):
    server = own_valkey()
    broker = broker_at(server.tcp_url)
    got = []
    broker.inbox.open("n", got.extend)
    broker.start()
    await within(broker.when_up())
    await broker.inbox.reply("n", [b"1"])
    await eventually(lambda: got == [b"1"])
    server.freeze()
    try:
        await raises(ConnectionDropped, broker.queues.depths(["q"]), match="no answer in time")
        assert fired(broker.queues.depths(["q"]))[0].check(NotConnected)
        # The inbox's own watchdog knows that its command may block.
        await eventually(lambda: not broker.inbox._readers[0][0].is_up)
        assert lines(said, "no answer in time")
    finally:
        server.thaw()
    await within(broker.when_up())
    server.client().rpush(KEYS.inbox("n"), b"2")
    await eventually(lambda: got == [b"1", b"2"])
    await eventually(lambda: lines(said, "again after"))


async def test_a_server_that_hangs_while_it_is_entered(broker_at, own_valkey, said, soon):
    server = own_valkey()
    broker = broker_at(server.tcp_url)
    server.freeze()
    try:
        broker.start()
        await eventually(lambda: lines(said, "no answer in time"))
    finally:
        server.thaw()
    await within(broker.when_up())


# What is wrong with it, and the mending


@pytest.mark.parametrize(
    ("key", "answer", "text"),
    [
        ("INFO", b"$21\r\nredis_version:6.2.0\r\n\r\n", "version 6.2.0 is too old"),
        ("INFO", b"$2\r\nok\r\n", "names no redis_version"),
        (
            "ROLE",
            b"*5\r\n$5\r\nslave\r\n$8\r\n10.1.2.3\r\n:6379\r\n$9\r\nconnected\r\n:1\r\n",
            "it is a replica of 10.1.2.3:6379, and the master is needed",
        ),
        ("ROLE", b"*2\r\n$8\r\nsentinel\r\n*0\r\n", "it is a sentinel, and a master is needed"),
        ("CLIENT", b"-NOAUTH Authentication required.\r\n", "NOAUTH Authentication required."),
        ("CLIENT", b"-LOADING Redis is loading the dataset\r\n", "LOADING Redis is loading"),
        ("CLIENT", b"-BUSY Redis is busy running a script\r\n", "BUSY Redis is busy"),
        ("CLIENT", b"-DENIED Redis is running in protected mode\r\n", "DENIED Redis is running"),
        ("SCRIPT", b"-LOADING Redis is loading the dataset\r\n", "LOADING Redis is loading"),
        ("SCRIPT", b"-NOPERM this user has no permissions\r\n", "NOPERM this user has no"),
        ("SCRIPT", b"-ERR unknown command 'SCRIPT'\r\n", "ERR unknown command"),
        ("CLIENT", b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak Redis's protocol"),
        ("INFO", b"+\xff\r\n", "names no redis_version"),
        ("ROLE", b":5\r\n", "it answers ROLE as no Redis does"),
        ("INFO", b"*0\r\n", "it answers INFO as no Redis does"),
        ("SCRIPT", b":5\r\n", "it answers SCRIPT LOAD as no Redis does"),
        (
            "INFO",
            b"$43\r\nredis_version:7.4.0\r\nredis_mode:cluster\r\n\r\n\r\n",
            "Redis 7.4.0 is in cluster mode, and a single server",
        ),
        ("EVAL", b"-CROSSSLOT Keys in request\r\n", "it is a cluster (CROSSSLOT Keys in request)"),
        ("EVAL", b"-ERR unknown command 'EVAL'\r\n", "it does not know a command"),
        ("BLMOVE", b"-ERR unknown command 'BLMOVE'\r\n", "scripts and blocking commands"),
    ],
)
async def test_a_server_that_will_not_do_and_then_does(
    broker_at, fake, said, soon, key, answer, text
):
    fake.answers[key] = answer
    broker = broker_at(fake.url)
    broker.start()
    await eventually(lambda: lines(said, text))
    # Tried again and again, and told once.
    seen = len(fake.seen)
    await eventually(lambda: len(fake.seen) > seen + 10)
    assert not broker.is_up
    assert len(lines(said, "no connection to Redis")) == 1
    del fake.answers[key]
    await within(broker.when_up())
    await eventually(lambda: lines(said, "again after"))


@pytest.mark.parametrize(
    "prefix",
    [
        *("READONLY", "LOADING", "MASTERDOWN", "NOAUTH", "UNBLOCKED"),
        *("MOVED 5 10.0.0.1:6379", "ASK 5 10.0.0.1:6379", "CROSSSLOT", "CLUSTERDOWN", "TRYAGAIN"),
    ],
)
async def test_a_server_that_becomes_unfit_is_left(broker_at, fake, said, soon, prefix):
    broker = broker_at(fake.url)
    broker.start()
    await within(broker.when_up())
    fake.answers["push"] = f"-{prefix} no more\r\n".encode()
    # It was not done, which the relay may rely on.
    await raises(NotConnected, broker.queues.push("q", [ONE]), match=prefix)
    del fake.answers["push"]
    await within(broker.when_up())
    assert await broker.queues.push("q", [ONE]) == 1
    assert lines(said, f"{prefix} no more")


@pytest.mark.parametrize("prefix", ["OOM", "MISCONF", "BUSY", "NOPERM", "NOREPLICAS", "WRONGTYPE"])
async def test_what_is_only_refused_costs_no_connection(broker_at, fake, prefix):
    broker = broker_at(fake.url)
    broker.start()
    await within(broker.when_up())
    fake.answers["push"] = f"-{prefix} no\r\n".encode()
    await raises(Refused, broker.queues.push("q", [ONE]), match=f"{prefix} no")
    assert broker.is_up
    del fake.answers["push"]
    assert await broker.queues.push("q", [ONE]) == 1


@pytest.mark.parametrize("prefix", ["MISCONF", "BUSY", "NOPERM"])
async def test_the_inbox_goes_on_when_it_is_refused_no_more(broker_at, fake, said, prefix):
    got = []
    refusal = f"-{prefix} no\r\n".encode()
    fake.answers["BLMOVE"] = fake.answers["EVALSHA"] = refusal
    broker = broker_at(fake.url)
    broker.inbox.open("n", got.extend)
    broker.start()
    await eventually(lambda: lines(said, f"{prefix} no"))
    fake.answers["EVALSHA"] = b"*1\r\n$1\r\nx\r\n"
    await eventually(lambda: got)
    assert lines(said, "no connection") == []
    # Once told is enough, of each command.
    told = lines(said, f"{prefix} no")
    assert len(told) == len(set(told)) <= 2


async def test_a_real_replica_is_refused_until_it_is_a_master(broker_at, own_valkey, said, soon):
    master = own_valkey()
    replica = own_valkey("--replicaof", "127.0.0.1", str(master.port))
    broker = broker_at(replica.tcp_url)
    broker.start()
    await eventually(lambda: lines(said, f"it is a replica of 127.0.0.1:{master.port}"))
    assert not broker.is_up
    replica.client().replicaof("NO", "ONE")
    await within(broker.when_up())
    assert await broker.queues.push("q", [ONE]) == 1


async def test_a_master_that_becomes_a_replica_is_left(broker_at, own_valkey, said, soon):
    other, server = own_valkey(), own_valkey()
    broker = broker_at(server.tcp_url)
    got = []
    broker.inbox.open("n", got.extend)
    broker.start()
    await within(broker.when_up())
    await broker.queues.push("q", [ONE])
    server.client().replicaof("127.0.0.1", other.port)
    # The server closes connections that block (UNBLOCKED), and refuses writes (READONLY).
    with contextlib.suppress(NotConnected, ConnectionDropped):
        await broker.queues.push("q", [ONE])
    await eventually(lambda: lines(said, "it is a replica of"))
    assert not broker.is_up
    server.client().replicaof("NO", "ONE")
    await within(broker.when_up())
    await eventually(lambda: broker.inbox._readers[0][0].is_up)
    server.client().rpush(KEYS.inbox("n"), b"1")
    await eventually(lambda: got == [b"1"])


# Scripts and names, when somebody meddles


async def test_script_flush(bench):
    got = []
    broker = await bench.up("n", got.extend, legacy=("responses", got.extend))
    again = []
    broker.on_up(lambda: again.append(1))
    await broker.queues.push("q", [ONE, TWO])
    for _ in range(3):
        bench.client.script_flush()
        claim = await claim_one(broker, ["q"], holder="h", lease=LONG)
        bench.client.script_flush()
        assert await broker.leases.retry(claim, claim.message) is True
        bench.client.script_flush()
        await broker.nodes.beat("n", b"{}", inbox_life=LONG)
        bench.client.script_flush()
        got.clear()
        bench.put(KEYS.inbox("n"), b"new")
        bench.put("responses", b"old")
        await eventually(lambda: sorted(got) == [b"new", b"old"])
    assert again == []


async def test_flushall_and_a_new_connection(bench, soon):
    broker = await bench.up()
    await broker.queues.push("q", [ONE])
    bench.client.flushall()
    bench.lose()
    await eventually(lambda: not broker.is_up)
    # Whoever waits for the connection pushes first of all.
    await within(broker.when_up())
    assert await broker.queues.push("q", [TWO]) == 1
    assert bench.queues() == {"q"}


async def test_flushall_under_the_inbox(bench):
    got = []
    await bench.up("n", got.extend)
    for i in range(5):
        bench.put(KEYS.inbox("n"), b"%d" % i)
        await eventually(lambda: b"%d" % i in got)  # noqa: B023
        bench.client.flushall()
    # The fence went with it: then what has been read may come again, but nothing is left out.
    assert [*dict.fromkeys(got)] == [b"%d" % i for i in range(5)]


async def test_a_message_in_flight_without_a_lease_gets_one(bench):
    """As after a Redis that was restored from half of its files."""
    broker = await bench.up()
    await broker.queues.push("q", [ONE, TWO])
    claims = [await claim_one(broker, ["q"], holder="h", lease=LONG) for _ in range(2)]
    bench.client.delete(KEYS.leases("q"))
    assert await broker.leases.reap("q", lease=0.05) == []
    # A living holder renews, a dead one's message is taken over.
    assert await broker.leases.renew("q", [claims[0].token], lease=LONG) == [True]
    (taken,) = await eventually(lambda: broker.leases.reap("q", lease=LONG))
    assert taken.message == TWO


async def test_a_lease_without_its_message_vanishes(bench):
    broker = await bench.up()
    await broker.queues.push("q", [ONE])
    await claim_one(broker, ["q"], holder="h", lease=0.01)
    bench.client.delete(KEYS.inflight("q"))
    await eventually(
        lambda: broker.leases.reap("q", lease=LONG).addCallback(
            lambda _: not bench.client.exists(KEYS.leases("q"), KEYS.meta("q"))
        )
    )


async def test_at_maxmemory_it_can_still_be_entered(bench, soon):
    got = []
    broker = await bench.up("n", got.extend)
    bench.fill()
    bench.lose()
    await eventually(lambda: not broker.is_up)
    await within(broker.when_up())
    await raises(Refused, broker.queues.push("q", [ONE]), match="OOM")
    bench.free()
    assert await broker.queues.push("q", [ONE]) == 1


async def test_client_list_names_our_connections(bench):
    await bench.up("n", print, legacy=("responses", print))
    await eventually(
        lambda: (
            {client["name"] for client in bench.client.client_list()}
            >= {"queuerelay-commands", "queuerelay-inbox", "queuerelay-legacy"}
        )
    )


# Stopping, whatever is going on


def left():
    """All that the reactor still has to do."""
    from twisted.internet import reactor

    selectables = {*reactor.getReaders(), *reactor.getWriters()} - reactor._internalReaders
    return selectables, {*reactor.getDelayedCalls()}


@pytest.fixture
def connection_to():
    """A connection alone, and what there was before it."""
    from twisted.internet import reactor

    def make(address):
        where = url.parse(address)
        outages = OutageLog(where.redacted, reactor)
        master = Master(where, keys=KEYS, reactor=reactor)
        return RedisConnection(master, name="test", reactor=reactor, outages=outages)

    return make


async def stops_clean(link, before):
    """That after `stop` nothing is left at once, and nobody waits for ever."""
    was_up = link.is_up
    waiting = [None] if was_up else fired(link.when_up())
    first, second = link.stop(), link.stop()
    if not was_up:
        # It has nobody to wait for.
        await turns(0)
        await turns(0)
        assert first.called
    await first
    await second
    sockets, calls = left()
    assert sockets <= before[0]
    assert calls <= before[1]
    assert waiting
    assert not link.is_up
    assert fired(link.call("PING"))[0].check(NotConnected)
    assert fired(link.when_up())[0].check(NotConnected)


async def test_stop_before_the_start(connection_to):
    await stops_clean(connection_to("localhost:1"), left())


async def test_stop_while_the_name_is_resolved(connection_to):
    before = left()
    link = connection_to("redis://localhost:1")
    link.start()
    await stops_clean(link, before)


async def test_stop_while_connecting(connection_to):
    with contextlib.ExitStack() as stack:
        # A full backlog lets the next one wait.
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(2):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        await turns()
        before = left()
        link = connection_to(f"redis://127.0.0.1:{full.getsockname()[1]}")
        link.start()
        await eventually(lambda: left()[0] - before[0])
        await stops_clean(link, before)


@pytest.mark.parametrize("key", ["CLIENT", "HELLO", "INFO", "ROLE", "EVAL", "SCRIPT"])
async def test_stop_while_entering(connection_to, fake, key):
    fake.answers[key] = None
    before = left()
    link = connection_to(fake.url)
    link.start()
    await eventually(lambda: any(command[0].decode() == key for command in fake.seen))
    # The other side of it is here as well.
    await stops_clean(link, ({*before[0], *left()[0]} - ours(), before[1]))


def ours():
    """Transports of our side."""
    return {one for one in left()[0] if getattr(getattr(one, "protocol", None), "lost", None)}


async def test_stop_while_waiting_for_the_next_try(connection_to, said):
    before = left()
    link = connection_to(f"redis://127.0.0.1:{free_port()}")
    link.start()
    await eventually(lambda: said)
    await stops_clean(link, before)


async def test_stop_while_up(connection_to, fresh_valkey):
    before = left()
    link = connection_to(fresh_valkey.url)
    link.start()
    await within(link.when_up())
    pending = fired(link.call("BLPOP", "nothing", 5, bound=7.0))
    await stops_clean(link, before)
    assert pending[0].check(ConnectionDropped)


async def test_stop_while_the_server_hangs(connection_to, own_valkey):
    server = own_valkey()
    before = left()
    link = connection_to(server.tcp_url)
    link.start()
    await within(link.when_up())
    server.freeze()
    try:
        # More than the sockets take.
        pending = fired(link.call("SET", "a", b"x" * 50_000_000))
        await turns()
        await stops_clean(link, before)
    finally:
        server.thaw()
    assert pending[0].check(ConnectionDropped)


async def test_stop_inside_every_callback(connection_to, fresh_valkey):
    before = left()
    link = connection_to(fresh_valkey.url)
    stopped = []
    link.on_up = lambda: stopped.append(link.stop())
    link.start()
    await eventually(lambda: stopped)
    await stopped[0]
    await stops_clean(link, before)


async def test_stop_when_the_connection_is_just_lost(connection_to, fresh_valkey):
    before = left()
    link = connection_to(fresh_valkey.url)
    link.start()
    await within(link.when_up())
    link.drop()
    assert not link.is_up
    await stops_clean(link, before)


async def test_a_broker_that_stops_with_everything_under_way(own_valkey, soon):
    from twisted.internet import reactor

    server = own_valkey()
    for hang in (False, True):
        before = left()
        broker = RedisBroker(url.parse(server.tcp_url), reactor=reactor)
        broker.inbox.open("n", print, legacy=("responses", print))
        broker.start()
        await within(broker.when_up())
        await broker.queues.push("q", [ONE])
        claim = await claim_one(broker, ["q"], holder="h", lease=LONG)
        if hang:
            server.freeze()
        pending = [
            broker.leases.ack(claim),
            broker.queues.depths(["q"]),
            broker.nodes.beat("n", b"", inbox_life=9.0),
        ]
        got = [fired(one) for one in pending]
        await within(broker.stop())
        if hang:
            server.thaw()
        assert all(got)
        sockets, calls = left()
        assert sockets <= before[0]
        assert calls <= before[1]


# Several servers


async def test_of_several_the_master_is_taken_whatever_the_others_are(
    broker_at, own_valkey, fake, said
):
    """One is not there, one does not answer, one is a replica and one the master."""
    master = own_valkey()
    replica = own_valkey("--replicaof", "127.0.0.1", str(master.port))
    frozen = own_valkey()
    frozen.freeze()
    ports = [free_port(), frozen.port, replica.port, master.port]
    broker = broker_at("redis://" + ",".join(f"127.0.0.1:{port}" for port in ports))
    broker.start()
    await within(broker.when_up())
    assert await broker.queues.push("q", [ONE]) == 1
    assert master.client().llen("resque:queue:q") == 1
    assert lines(said, f"the master is at 127.0.0.1:{master.port}")
    frozen.thaw()


async def test_none_of_several_will_do(broker_at, own_valkey, said):
    gone = free_port()
    master = own_valkey()
    replica = own_valkey("--replicaof", "127.0.0.1", str(master.port))
    broker = broker_at(f"redis://127.0.0.1:{gone},127.0.0.1:{replica.port}")
    broker.start()
    await eventually(lambda: broker.fault is not None)
    assert broker.fault.code == "redis-replica"
    (line,) = lines(said, "no connection to Redis")
    assert f"127.0.0.1:{gone}: Connection was refused" in line
    assert f"127.0.0.1:{replica.port}: it is a replica of 127.0.0.1:{master.port}" in line


async def test_all_connections_are_at_one_server(broker_at, own_valkey, said, soon):
    """When one of them finds the master elsewhere, the others follow, though theirs still works."""
    first, second = own_valkey(), own_valkey()
    second.client().replicaof("127.0.0.1", first.port)
    broker = broker_at(f"redis://127.0.0.1:{first.port},127.0.0.1:{second.port}")
    got = []
    broker.inbox.open("n", got.extend)
    broker.start()
    await within(broker.when_up())
    await eventually(lambda: broker.inbox._readers[0][0].is_up)
    # The first goes on as a master for whoever is there already, and lets nobody in any more.
    second.client().replicaof("NO", "ONE")
    first.client().config_set("requirepass", "secret")
    broker._commands.drop()
    await within(broker.when_up())
    await eventually(lambda: broker.inbox._readers[0][0].is_up)
    second.client().rpush(KEYS.inbox("n"), b"1")
    await eventually(lambda: got == [b"1"])
    assert lines(said, f"the master is at 127.0.0.1:{second.port} now")


def named(server):
    """What a Sentinel says whose master is `server`."""
    port = str(server.port).encode()
    return b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%s\r\n" % (len(port), port)


def sentinel_url(fake):
    return fake.url.replace("redis://", "sentinel://").replace("/0", "/name")


async def test_a_master_that_sentinels_have_replaced_is_left(broker_at, own_valkey, fake, said):
    """It goes on without knowing it, as one that only the Sentinels have lost."""
    first, second = own_valkey(), own_valkey()
    fake.answers["SENTINEL"] = named(first)
    broker = broker_at(sentinel_url(fake))
    got = []
    broker.inbox.open("n", got.extend)
    broker.start()
    await within(broker.when_up())
    fake.answers["SENTINEL"] = named(second)
    await eventually(lambda: lines(said, f"the master is at 127.0.0.1:{second.port}"))
    await within(broker.when_up())
    assert await broker.queues.push("q", [ONE]) == 1
    assert (first.client().llen("resque:queue:q"), second.client().llen("resque:queue:q")) == (0, 1)
    second.client().rpush(KEYS.inbox("n"), b"1")
    await eventually(lambda: got == [b"1"])
    # Without Sentinels it goes on, and says so.
    fake.answers["SENTINEL"] = b"*-1\r\n"
    await eventually(lambda: lines(said, "it knows none of that name"))
    assert broker.is_up


async def test_stop_while_sentinels_are_asked(connection_to, fake):
    fake.answers["SENTINEL"] = None
    before = left()
    link = connection_to(sentinel_url(fake))
    link.start()
    await eventually(lambda: any(command[0] == b"SENTINEL" for command in fake.seen))
    await stops_clean(link, ({*before[0], *left()[0]} - ours(), before[1]))


@pytest.mark.parametrize(
    ("command", "asked"), [("HELLO", "CLIENT, HELLO"), ("EVAL", "EVAL, BLMOVE")]
)
async def test_a_proxy_that_closes_on_what_it_does_not_know(broker_at, fake, said, command, asked):
    def close(_):
        for link in fake.links:
            link.transport.abortConnection()

    fake.answers[command] = close
    broker = broker_at(fake.url)
    broker.start()
    await eventually(lambda: lines(said, f"(it was asked {asked})"))
    master = MasterFinder(url.parse(fake.url), keys=KEYS)
    link = Link(master, role="test", outage=Outage(), timeout=5.0)
    with pytest.raises(RedisError, match=rf"\(it was asked {asked}\)"):
        await deferToThread(link.send, ("PING",))
    link.close()
