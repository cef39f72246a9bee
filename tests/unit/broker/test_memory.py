"""The broker in memory: the contract, with the real reactor, and its controls, with a Clock."""

import subprocess
import sys

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from queuerelay.broker.base import Broker
from queuerelay.broker.memory.inbox import POLL
from queuerelay.errors import ConnectionDropped, NotConnected, Refused
from queuerelay.testing import MemoryBroker
from tests.unit.broker.contract import KEYS, ONE, TWO, BrokerContract, claim_one, snapshots
from tests.unit.broker.memory_bench import MemoryBench, result


class TestContract(BrokerContract):
    @pytest.fixture
    def bench(self):
        from twisted.internet import reactor

        bench = MemoryBench(reactor)
        yield bench
        for broker in bench.brokers:
            pytest_twisted.blockon(broker.stop())


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def broker(clock):
    broker = MemoryBroker(clock=clock, wall_clock=lambda: 1790000000.5)
    broker.start()
    clock.advance(0)
    return broker


def test_it_is_a_broker(broker):
    # For mypy, and for the reader.
    def takes(broker: Broker) -> None:
        pass

    takes(broker)


def test_it_imports_neither_reactor_nor_txredisapi():
    code = (
        "import sys, queuerelay.testing\n"
        "print([n for n in ('twisted.internet.reactor', 'txredisapi') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_turns(clock):
    broker = MemoryBroker(clock=clock)
    ups = []
    broker.on_up(lambda: ups.append(1))
    broker.start()
    assert not broker.is_up
    clock.advance(0)
    assert broker.is_up
    assert ups == [1]
    pushed = broker.queues.push("q", [ONE])
    assert broker.messages("q") == [ONE]
    assert not pushed.called
    clock.advance(0)
    assert result(pushed) == 1
    broker.stop()
    assert clock.getDelayedCalls() == []


def test_one_advance_runs_many_steps(broker, clock):
    got = []
    broker.inbox.open("n", got.extend)

    async def flow():
        await broker.queues.push("q", [ONE, TWO])
        claim = await claim_one(broker, ["q"], holder="h", lease=1.0)
        await broker.leases.ack(claim, reply_to=KEYS.inbox("n"), reply=b"R")
        return claim

    from twisted.internet.defer import Deferred

    done = Deferred.fromCoroutine(flow())
    clock.advance(0)
    assert result(done).since == 1790000000.5
    assert got == [b"R"]


def test_disconnect_leaves_it_unknown_and_refuses_more(broker, clock):
    pushed = broker.queues.push("q", [ONE])
    beside = broker.queues.depths(["q"])
    broker.disconnect()
    assert result(beside).check(ConnectionDropped)
    outcome = []
    pushed.addBoth(outcome.append)
    assert outcome == []
    assert broker.messages("q") == [ONE]
    assert not broker.is_up
    assert result(broker.queues.push("q", [TWO])).check(NotConnected)
    up = broker.when_up()
    clock.advance(60)
    assert not up.called
    broker.reconnect()
    clock.advance(0)
    assert up.called
    assert outcome == [None]
    assert broker.is_up


def test_disconnect_before_the_start(clock):
    broker = MemoryBroker(clock=clock)
    broker.disconnect()
    broker.start()
    clock.advance(60)
    assert not broker.is_up
    broker.reconnect()
    clock.advance(0)
    assert broker.is_up


@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("forgotten", [True, False])
def test_a_push_over_which_the_connection_is_lost(broker, clock, applied, forgotten):
    ups = []
    broker.on_up(lambda: ups.append(1))
    broker.drop_next_push(applied=applied, forgotten=forgotten)
    pushed = broker.queues.push("q", [ONE])
    beside = broker.queues.depths(["q"])
    clock.advance(0)
    if forgotten:
        assert result(pushed).check(ConnectionDropped)
    elif applied:
        assert result(pushed) is None
    else:
        assert result(pushed).check(NotConnected)
    assert result(beside).check(ConnectionDropped)
    assert broker.messages("q") == ([ONE] if applied else [])
    assert ups == [1]
    pushed = broker.queues.push("q", [TWO])
    clock.advance(0)
    assert result(pushed) == len(broker.messages("q"))


def test_refuse(broker, clock):
    broker.refuse("NOPERM this user has no permissions")
    for refused in (broker.queues.push("q", [ONE]), broker.queues.depths(["q"]), snapshots(broker)):
        clock.advance(0)
        failure = result(refused)
        assert failure.check(Refused)
        assert "NOPERM" in failure.getErrorMessage()
    broker.refuse(None)
    pushed = broker.queues.push("q", [ONE])
    clock.advance(0)
    assert result(pushed) == 1


def test_leases_expire_by_the_clock(broker, clock):
    broker.queues.push("q", [ONE])
    claim = claim_one(broker, ["q"], holder="h", lease=10.0)
    clock.advance(9.9)
    reaped = broker.leases.reap("q", lease=1.0)
    clock.advance(0)
    assert result(reaped) == []
    clock.advance(0.2)
    reaped = broker.leases.reap("q", lease=1.0)
    clock.advance(0)
    (taken,) = result(reaped)
    assert taken.message == result(claim).message
    assert broker.inflight("q") == [taken]


def test_terms_run_out_by_the_clock(broker, clock):
    broker.queues.push("q", [ONE])
    claim = claim_one(broker, ["q"], holder="h", lease=10.0)
    clock.advance(0)
    broker.leases.ack(result(claim), reply_to=KEYS.inbox("gone"), reply=b"R")
    clock.advance(3599)
    assert broker.store.items(KEYS.inbox("gone")) == [b"R"]
    clock.advance(2)
    assert broker.store.items(KEYS.inbox("gone")) == []


def test_an_acknowledgement_waits_for_the_next_connection(broker, clock):
    broker.queues.push("q", [ONE])
    claim = claim_one(broker, ["q"], holder="h", lease=10.0)
    clock.advance(0)
    broker.disconnect()
    acked = []
    broker.leases.ack(result(claim)).addCallback(acked.append)
    clock.advance(5)
    assert not acked
    broker.reconnect()
    clock.advance(0)
    assert acked == [True]


def test_stop_ends_an_acknowledgement_that_waits(broker, clock):
    broker.queues.push("q", [ONE])
    claim = claim_one(broker, ["q"], holder="h", lease=10.0)
    clock.advance(0)
    broker.disconnect()
    acked = broker.leases.ack(result(claim))
    broker.stop()
    assert result(acked).check(NotConnected)
    assert clock.getDelayedCalls() == []


def test_a_batch_comes_again_when_the_connection_is_lost_under_it(broker, clock):
    got = []

    def handler(items):
        got.append([*items])
        if len(got) == 1:
            broker.disconnect()

    broker.inbox.open("n", handler)
    broker.inbox.reply("n", [b"1"]).addErrback(lambda _: None)
    clock.advance(0)
    broker.reconnect()
    clock.advance(0)
    assert got == [[b"1"], [b"1"]]
    assert broker.store.items(KEYS.inbox("n")) == []


def test_stop_while_a_batch_waits_to_come_again(broker, clock):
    def handler(items):
        raise NotConnected("not yet")

    broker.inbox.open("n", handler)
    broker.inbox.reply("n", [b"1"])
    clock.advance(0)
    assert [call.getTime() for call in clock.getDelayedCalls()] == [POLL]
    broker.stop()
    assert clock.getDelayedCalls() == []
