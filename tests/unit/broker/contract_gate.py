"""What every broker must do with paused queues; see `contract`."""

from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from queuerelay.errors import NotConnected
from tests.unit.broker.contract import (
    KEYS,
    LONG,
    ONE,
    THREE,
    TWO,
    claim_one,
    eventually,
    raises,
    turns,
)


class GateContract:
    """The suite."""

    async def test_at_first_nothing_is_paused(self, bench: Any) -> None:
        broker = await bench.up()
        assert await broker.gate.look() == {}
        assert await broker.gate.look(["q", "r"]) == {}
        assert await broker.gate.look([]) == {}
        assert await broker.gate.resume("q") is False

    async def test_who_paused_what_and_since_when(self, bench: Any) -> None:
        broker, other = await bench.up(), await bench.up()
        before = bench.now()
        assert await broker.gate.pause("q", by='Zoë "ops" <a@b>\n') is True
        await broker.gate.pause("r", by="")
        await broker.gate.pause("s", by="\ud800")
        gates = await other.gate.look()
        assert {*gates} == {"q", "r", "s"}
        assert gates["q"].by == 'Zoë "ops" <a@b>\n'
        assert gates["r"].by == ""
        assert before - 1 <= gates["q"].since <= bench.now() + 1
        assert await other.gate.look(["x", "s", "q"]) == {"q": gates["q"], "s": gates["s"]}
        assert await other.gate.look([]) == {}

    async def test_a_second_pause_changes_nothing_and_a_second_resume_finds_nothing(
        self, bench: Any
    ) -> None:
        broker = await bench.up()
        assert await broker.gate.pause("q", by="first") is True
        first = await broker.gate.look()
        assert await broker.gate.pause("q", by="second") is False
        assert await broker.gate.look() == first
        assert await broker.gate.resume("q") is True
        assert await broker.gate.resume("q") is False
        assert await broker.gate.look() == {}
        assert await broker.gate.pause("q", by="third") is True
        assert (await broker.gate.look())["q"].by == "third"

    async def test_nothing_is_claimed_from_a_paused_queue(self, bench: Any) -> None:
        broker, other = await bench.up(), await bench.up()
        await broker.queues.push("q", [ONE, TWO])
        await broker.gate.pause("q", by="test")
        for one in (broker, other):
            assert await claim_one(one, ["q"], holder="h", lease=LONG) is None
            assert await one.leases.claim_many(["q"], holder="h", lease=LONG, most=5) == []
        assert bench.items(KEYS.queue("q")) == [ONE, TWO]
        assert bench.inflight("q") == []
        await broker.gate.resume("q")
        first = await claim_one(other, ["q"], holder="h", lease=LONG)
        (second,) = await other.leases.claim_many(["q"], holder="h", lease=LONG, most=5)
        assert [first.message, second.message] == [ONE, TWO]

    async def test_paused_queues_are_left_out_and_the_others_keep_their_order(
        self, bench: Any
    ) -> None:
        broker = await bench.up()
        for queue in ("a", "b", "c", "d"):
            await broker.queues.push(queue, [f"{queue}1".encode(), f"{queue}2".encode()])
        await broker.gate.pause("a", by="test")
        await broker.gate.pause("c", by="test")
        queues = ["a", "b", "c", "d"]
        claim = await claim_one(broker, queues, holder="h", lease=LONG)
        assert (claim.queue, claim.message) == ("b", b"b1")
        claims = await broker.leases.claim_many(queues, holder="h", lease=LONG, most=2)
        assert [(one.queue, one.message) for one in claims] == [("b", b"b2"), ("d", b"d1")]
        # Each is in flight under its own token, on its own queue.
        for one in [claim, *claims]:
            assert await broker.leases.ack(one) is True
        assert [bench.inflight(queue) for queue in queues] == [[], [], [], []]
        await broker.gate.resume("c")
        claims = await broker.leases.claim_many(queues, holder="h", lease=LONG, most=9)
        assert [one.message for one in claims] == [b"c1", b"c2", b"d2"]

    async def test_after_pause_is_answered_nothing_is_taken_however_many_claim(
        self, bench: Any
    ) -> None:
        pausing, *takers = [await bench.up() for _ in range(4)]
        await pausing.queues.push("q", [b"%d" % i for i in range(300)])
        taken: list[bytes] = []

        async def take_some(broker: Any) -> None:
            for _ in range(20):
                claims = await broker.leases.claim_many(["q"], holder="h", lease=LONG, most=3)
                taken.extend(claim.message for claim in claims)

        taking = [Deferred.fromCoroutine(take_some(one)) for one in takers]
        await eventually(lambda: len(taken) >= 20)
        await pausing.gate.pause("q", by="test")
        left = bench.items(KEYS.queue("q"))
        assert left
        await gatherResults(taking)
        assert bench.items(KEYS.queue("q")) == left
        assert len(taken) == 300 - len(left)

    async def test_what_was_claimed_before_ends_as_ever(self, bench: Any) -> None:
        broker = await bench.up()
        await broker.queues.push("q", [ONE, TWO, THREE])
        one, two, three = await broker.leases.claim_many(["q"], holder="h", lease=LONG, most=3)
        await broker.gate.pause("q", by="test")
        assert await broker.leases.renew("q", [one.token], lease=LONG) == [True]
        assert await broker.leases.ack(one) is True
        assert await broker.leases.retry(two, TWO) is True
        assert await broker.delayed.delay(three, THREE, seconds=0) is True
        assert await eventually(lambda: broker.delayed.promote(["q"])) == 1
        assert bench.items(KEYS.queue("q")) == [THREE, TWO]
        assert await claim_one(broker, ["q"], holder="h", lease=LONG) is None

    async def test_it_is_remembered_over_a_lost_connection(self, bench: Any) -> None:
        broker = await bench.up()
        await broker.gate.pause("q", by="test")
        gates = await broker.gate.look()
        ups: list[int] = []
        broker.on_up(lambda: ups.append(1))
        bench.lose()
        await eventually(lambda: ups)
        await broker.when_up()
        assert await broker.gate.look() == gates

    async def test_without_a_connection(self, bench: Any) -> None:
        broker = bench.new()
        await raises(NotConnected, broker.gate.pause("q", by="test"))
        await raises(NotConnected, broker.gate.resume("q"))
        await raises(NotConnected, broker.gate.look())

    async def test_a_queue_can_be_paused_and_resumed_at_maxmemory(self, bench: Any) -> None:
        broker = await bench.up()
        bench.fill()
        assert await broker.gate.pause("q", by="test") is True
        assert {*await broker.gate.look()} == {"q"}
        assert await broker.gate.resume("q") is True
        bench.free()

    # The bell

    async def test_a_paused_queue_does_not_ring_until_it_is_resumed(
        self, bench: Any, only_rings: None
    ) -> None:
        broker, other = await bench.up(), await bench.up()
        await broker.gate.pause("q", by="test")
        bench.put(KEYS.queue("q"), ONE)
        waiting = broker.bell(["q"]).wait()
        await turns(0.3)
        assert not waiting.called
        await other.gate.resume("q")
        await eventually(lambda: waiting.called)

    async def test_a_queue_that_is_paused_while_it_is_waited_for(
        self, bench: Any, only_rings: None
    ) -> None:
        broker, other = await bench.up(), await bench.up()
        waiting = broker.bell(["q", "r"]).wait()
        await turns(0.05)
        await other.gate.pause("q", by="test")
        await other.queues.push("q", [ONE])
        await turns(0.2)
        assert not waiting.called
        await other.queues.push("r", [TWO])
        await eventually(lambda: waiting.called)

    async def test_a_paused_queue_without_messages_rings_when_it_gets_one_later(
        self, bench: Any, only_rings: None
    ) -> None:
        broker = await bench.up()
        await broker.gate.pause("q", by="test")
        waiting = broker.bell(["q"]).wait()
        await turns(0.1)
        await broker.gate.resume("q")
        await turns(0.1)
        assert not waiting.called
        await broker.queues.push("q", [ONE])
        await eventually(lambda: waiting.called)

    async def test_a_paused_queue_does_not_ring_at_maxmemory(
        self, bench: Any, only_rings: None
    ) -> None:
        broker = await bench.up()
        await broker.queues.push("q", [ONE])
        await broker.gate.pause("q", by="test")
        bench.fill()
        waiting = broker.bell(["q"]).wait()
        await turns(0.3)
        assert not waiting.called
        await broker.gate.resume("q")
        await eventually(lambda: waiting.called)
        bench.free()
