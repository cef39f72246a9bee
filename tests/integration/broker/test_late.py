"""What was sent on a connection that was given up arrives much later: nothing happens twice."""

import contextlib

import pytest
from twisted.internet.defer import Deferred

from queuerelay.errors import ConnectionDropped, NotConnected
from queuerelay.wire.commands import FENCE_LIFE
from tests.integration.broker.doubles import between
from tests.unit.broker.contract import KEYS, ONE, TWO, eventually, raises, turns, within

THREE = b"three"


@pytest.fixture
def proxy(fresh_valkey, proxy_to, soon):
    return proxy_to(fresh_valkey)


@pytest.fixture
def broker(broker_at, proxy):
    """Not started; it reaches the server through `proxy`."""
    return broker_at(proxy.url)


@pytest.fixture
def client(fresh_valkey):
    return fresh_valkey.client()


async def test_a_push_that_comes_late_is_not_executed(broker, proxy, client):
    broker.start()
    await within(broker.when_up())
    assert await broker.queues.push("q", [ONE]) == 1
    proxy.stall()
    late = [broker.queues.push(queue, [TWO]) for queue in ("q", "q", "other")]
    await turns(0.05)
    proxy.cut_clients()
    for one in late:
        # It was not executed, and never will be: it may go out again.
        await raises(NotConnected, one)
    assert await broker.queues.push("q", [TWO]) == 2
    proxy.release()
    await eventually(lambda: proxy.late.count(b"FENCED") == 3)
    assert await broker.queues.push("q", [THREE]) == 3
    assert client.lrange(KEYS.queue("q"), 0, -1) == [ONE, TWO, THREE]
    assert client.llen(KEYS.queue("other")) == 0


async def test_a_trim_that_comes_late_takes_no_reply(broker, proxy, client):
    got, held = [], []

    def handler(items):
        got.extend(items)
        if b"9" in items and not proxy.late and len(got) == 10:
            # The trim that follows is on its way for long.
            proxy.stall()
        elif items[-1] == b"10":
            held.append(Deferred())
            return held[0]
        return None

    broker.inbox.open("n", handler)
    broker.start()
    inbox = KEYS.inbox("n")
    for first in (0, 5):
        client.rpush(inbox, *[b"%d" % n for n in range(first, first + 5)])
        await eventually(lambda: got and got[-1] == b"%d" % (first + 4))  # noqa: B023
    await turns(0.05)
    proxy.cut_clients()
    # They come once more, and are trimmed.
    await eventually(lambda: got[10:] == got[5:10] and not client.exists(inbox))
    client.rpush(inbox, b"10")
    await eventually(lambda: held)
    client.rpush(inbox, *[b"%d" % n for n in range(11, 20)])
    proxy.release()
    await eventually(lambda: b"FENCED" in proxy.late)
    held[0].callback(None)
    await eventually(lambda: got[-1] == b"19")
    assert got[15:] == [b"%d" % n for n in range(10, 20)]


async def test_pushes_over_many_lost_connections_are_told_rightly(broker, proxy, client):
    """Their bytes or their answers are cut anywhere; the list says what was executed."""
    proxy.budget = between(60_000, 75_000, seed=15)
    broker.start()
    executed = []
    for number in range(0, 1500, 3):
        await within(broker.when_up())
        batch = [(b"%d " % (number + n)).ljust(1000, b"x") for n in range(3)]
        pushes = [(one, broker.queues.push("q", [one])) for one in batch]
        for one, pushed in pushes:
            with contextlib.suppress(NotConnected):
                await within(pushed)
                executed.append(one)
    assert proxy.cuts > 20
    assert len(executed) < 1500
    assert client.lrange(KEYS.queue("q"), 0, -1) == executed
    # Only of what nobody has heard of is a note kept.
    (fence,) = client.keys(KEYS.fence("*"))
    assert client.hlen(fence) <= 4
    assert 0 < client.ttl(fence) <= FENCE_LIFE


@pytest.mark.parametrize("how", ["another address", "the same address", "without INFO"])
async def test_what_a_new_master_does_not_know_may_have_been_done(
    own_valkey, proxy_to, broker_at, soon, how
):
    """Its fence came to the replica, and the note of the last push did not."""
    options = ("--rename-command", "INFO", "") if how == "without INFO" else ()
    first = own_valkey("--repl-diskless-sync-delay", "0", *options)
    second = own_valkey(*options, "--replicaof", "127.0.0.1", str(first.port))
    proxy = proxy_to(first)
    address = proxy.url
    if how != "the same address":
        address = proxy.url.replace("/0", f",127.0.0.1:{second.port}/0")
    broker = broker_at(address)
    broker.start()
    await within(broker.when_up())
    assert await broker.queues.push("q", [ONE]) == 1
    await eventually(lambda: second.client().lrange("resque:queue:q", 0, -1) == [ONE])
    second.client().replicaof("NO", "ONE")
    proxy.mute = True
    pushing = broker.queues.push("q", [TWO])
    await eventually(lambda: first.client().llen("resque:queue:q") == 2)
    first.kill()
    proxy.mute = False
    if how == "the same address":
        proxy._target = second.port
    # Somebody may have worked on it at the old one.
    with pytest.raises(ConnectionDropped, match="another server has taken over"):
        await within(pushing)
    assert second.client().lrange("resque:queue:q", 0, -1) == [ONE]
    # From then on it is as ever.
    proxy.cut_all()
    second.client().client_kill_filter(_type="normal", skipme=True)
    await eventually(lambda: not broker.is_up)
    await within(broker.when_up())
    assert await broker.queues.push("q", [ONE]) == 2
