"""What every broker must do: one suite, for the one in memory and for the one on Redis.

A subclass has a fixture ``bench`` that gives a `Bench`.
"""

import contextlib
import math
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from queuerelay.broker.records import NODE_SILENCE, SNAPSHOT_LIFE, QueueDepth
from queuerelay.errors import BrokerError, ConnectionDropped, NotConnected, Refused
from queuerelay.wire.commands import MOST_RESULTS, REPLY_LIFE, TooLarge
from queuerelay.wire.keys import Keys

KEYS = Keys()
#: Looks at something that must come true; each waits 5 ms.
LOOKS = 4000
#: Seconds; long enough for any test.
LONG = 600.0


async def turns(seconds: float = 0.005) -> None:
    """Let the reactor go on."""
    from twisted.internet import reactor

    await deferLater(reactor, seconds)


#: Seconds in which anything must have come; no test measures them.
BOUND = 30.0


async def within(deferred: Deferred[Any]) -> Any:
    """What `deferred` fires with; fails where it does not."""
    from twisted.internet import reactor

    return await deferred.addTimeout(BOUND, reactor)


async def eventually(look: Any) -> Any:
    """What `look()`, or the Deferred it returns, gives once that is true."""
    for _ in range(LOOKS):
        found = look()
        if isinstance(found, Deferred):
            found = await within(found)
        if found:
            return found
        await turns()
    raise AssertionError("it never came true")


def message(name: str, queue_time: float | None = None) -> bytes:
    """A job of that name."""
    tail = "" if queue_time is None else f',"queue_time":{queue_time}'
    return f'{{"class":"Job","args":["{name}"]{tail}}}'.encode()


ONE, TWO, THREE = (message(name) for name in ("one", "two", "three"))


def claim_one(broker: Any, queues: list[str], *, holder: str, lease: float) -> Deferred[Any]:
    """The first message, claimed; None where there is none."""
    claimed = broker.leases.claim_many(queues, holder=holder, lease=lease, most=1)
    return claimed.addCallback(lambda claims: claims[0] if claims else None)


def snapshots(broker: Any) -> Deferred[Any]:
    """What the listed nodes have published, None for one that is silent."""
    return broker.nodes.survey().addCallback(
        lambda survey: {name: beat.snapshot for name, beat in survey.nodes.items()}
    )


class Bench:
    """A broker to test, and the back door to its Redis."""

    #: Started brokers, to be stopped.
    brokers: list[Any]

    def new(self) -> Any:
        """One more broker on the same Redis, not started."""
        raise NotImplementedError

    async def up(self, node_id: str | None = None, handler: Any = None, **options: Any) -> Any:
        """A broker that is up, with an inbox where `node_id` is given."""
        broker = self.new()
        if node_id is not None:
            broker.inbox.open(node_id, handler, **options)
        broker.start()
        await within(broker.when_up())
        return broker

    def items(self, key: str) -> list[bytes]:
        """The list of that name."""
        raise NotImplementedError

    def put(self, key: str, *items: bytes) -> None:
        """RPUSH, by somebody else."""
        raise NotImplementedError

    def taken(self, id: str) -> int | None:
        """What workers read of `Broker.tell_taken`."""
        raise NotImplementedError

    def term(self, key: str) -> float | None:
        """Seconds after which the list vanishes."""
        raise NotImplementedError

    def age(self, node_id: str, seconds: float) -> None:
        """Let the node's last beat be older by so much."""
        raise NotImplementedError

    def queues(self) -> set[str]:
        """The registered queues."""
        raise NotImplementedError

    def inflight(self, queue: str) -> list[bytes]:
        """The messages in flight."""
        raise NotImplementedError

    def lose(self) -> None:
        """Cut all connections; they are made again."""
        raise NotImplementedError

    def fill(self) -> None:
        """Be at maxmemory."""
        raise NotImplementedError

    def free(self) -> None:
        """Have memory again."""
        raise NotImplementedError


async def raises(
    error: type[BaseException], deferred: Deferred[Any], match: str | None = None
) -> None:
    """That `deferred` fails with `error`."""
    with pytest.raises(error, match=match):
        await within(deferred)


class BrokerContract:
    """The suite."""

    # Life

    async def test_before_the_start_nothing_is_sent(self, bench):
        broker = bench.new()
        assert not broker.is_up
        await raises(NotConnected, broker.queues.push("q", [ONE]))
        assert bench.items(KEYS.queue("q")) == []

    async def test_it_comes_up_later_and_says_so(self, bench):
        broker = bench.new()
        ups = []
        broker.on_up(lambda: ups.append(broker.is_up))
        waiting, cancelled = broker.when_up(), broker.when_up()
        cancelled.addErrback(lambda _: None)
        cancelled.cancel()
        broker.start()
        assert not waiting.called
        await waiting
        assert broker.is_up
        await within(broker.when_up())
        assert ups == [True]

    async def test_a_failing_on_up_keeps_nobody_else_from_theirs(self, bench, logged_failures):
        broker = bench.new()
        ups = []
        broker.on_up(lambda: 1 / 0)
        broker.on_up(lambda: ups.append(1))
        broker.start()
        await within(broker.when_up())
        await eventually(lambda: ups)
        assert len(logged_failures.flush(ZeroDivisionError)) == 1

    async def test_a_lost_connection_is_made_again(self, bench):
        broker = await bench.up()
        ups = []
        broker.on_up(lambda: ups.append(1))
        bench.lose()
        await eventually(lambda: ups)
        await within(broker.when_up())
        assert await broker.queues.push("q", [ONE]) == 1

    async def test_stop(self, bench):
        broker = await bench.up("n", lambda items: None, legacy=("old", lambda items: None))
        await within(broker.stop())
        assert not broker.is_up
        await raises(NotConnected, broker.when_up())
        await raises(NotConnected, broker.queues.push("q", [ONE]))

    async def test_stop_before_it_was_up(self, bench):
        broker = bench.new()
        waiting = broker.when_up()
        broker.start()
        stopped = broker.stop()
        await raises(NotConnected, waiting)
        await stopped
        assert not broker.is_up

    async def test_stop_fails_what_is_under_way(self, bench):
        broker = await bench.up()
        claim = await self.claimed(broker, ONE)
        pending = [broker.queues.depths(["q"]), broker.leases.ack(claim)]
        stopped = broker.stop()
        for one in pending:
            # Answered before the connection was closed, or failed: never left hanging.
            with contextlib.suppress(BrokerError):
                await one
        await stopped

    async def test_commands_are_answered_later_not_at_once(self, bench):
        broker = await bench.up()
        pushed = broker.queues.push("q", [ONE])
        assert not pushed.called
        assert await pushed == 1

    # Queues

    async def test_push_appends_in_order_and_gives_the_length(self, bench):
        broker = await bench.up()
        assert await broker.queues.push("q", [ONE, TWO]) == 2
        assert await broker.queues.push("q", [THREE]) == 3
        assert bench.items(KEYS.queue("q")) == [ONE, TWO, THREE]

    async def test_pushes_of_one_turn_keep_their_order(self, bench):
        broker = await bench.up()
        lengths = await gatherResults([broker.queues.push("q", [b"%d" % i]) for i in range(20)])
        assert lengths == [*range(1, 21)]
        assert bench.items(KEYS.queue("q")) == [b"%d" % i for i in range(20)]

    async def test_push_registers_the_queue(self, bench):
        broker = await bench.up()
        await broker.queues.push("a", [ONE])
        await broker.queues.push("b.high", [ONE])
        assert bench.queues() == {"a", "b.high"}

    async def test_push_takes_any_bytes(self, bench):
        broker = await bench.up()
        odd = [b"", b"007", b"\x00\xff\r\n$-1\r\n", b"1.50", b"x" * 100_000]
        await broker.queues.push("q", odd)
        claims = [await claim_one(broker, ["q"], holder="h", lease=LONG) for _ in odd]
        assert [claim.message for claim in claims] == odd

    async def test_push_of_nothing_is_refused(self, bench):
        broker = await bench.up()
        await raises(Refused, broker.queues.push("q", []))

    async def test_take_off(self, bench):
        broker = await bench.up()
        await broker.queues.push("q", [ONE, TWO, THREE])
        assert await broker.queues.take_off("q", [TWO, b"other"]) == [True, False]
        assert await broker.queues.take_off("q", [TWO]) == [False]
        assert bench.items(KEYS.queue("q")) == [ONE, THREE]

    @pytest.mark.parametrize(
        ("newest", "left"), [(False, [TWO, ONE, THREE]), (True, [ONE, TWO, THREE])]
    )
    async def test_take_off_removes_one_of_equals(self, bench, newest, left):
        broker = await bench.up()
        await broker.queues.push("q", [ONE, TWO, ONE, THREE])
        assert await broker.queues.take_off("q", [ONE], newest=newest) == [True]
        assert bench.items(KEYS.queue("q")) == left

    async def test_take_off_more_than_one_batch(self, bench):
        broker = await bench.up()
        all_ = [b"%d" % i for i in range(250)]
        await broker.queues.push("q", all_)
        assert await broker.queues.take_off("q", [*all_, b"no"], newest=True) == [True] * 250 + [
            False
        ]
        assert bench.items(KEYS.queue("q")) == []

    async def test_take_off_nothing(self, bench):
        broker = await bench.up()
        assert await broker.queues.take_off("q", []) == []
        assert await broker.queues.take_off("q", [ONE]) == [False]

    async def test_what_was_claimed_cannot_be_taken_off(self, bench):
        broker = await bench.up()
        await self.claimed(broker, ONE)
        assert await broker.queues.take_off("q", [ONE]) == [False]

    async def test_depths(self, bench):
        broker = await bench.up()
        await broker.queues.push("a", [message("x", 1790000000.123), message("y", 1790000009.5)])
        await broker.queues.push("b", [ONE])
        assert await broker.queues.depths(["a", "none", "b"]) == [
            QueueDepth(length=2, oldest_at=1790000000.123),
            QueueDepth(length=0, oldest_at=None),
            QueueDepth(length=1, oldest_at=None),
        ]
        assert await broker.queues.depths([]) == []
        assert len(bench.items(KEYS.queue("a"))) == 2

    async def test_a_survey_of_nothing(self, bench):
        broker = await bench.up()
        found = await broker.nodes.survey()
        assert found.version
        assert 0 <= found.latency < 60
        assert (found.nodes, found.queues, found.workers) == ({}, [], [])
        assert (found.processed, found.failed, found.dead_letters, found.paused) == (0, 0, 0, False)

    async def test_a_survey_of_everybody(self, bench):
        broker = await bench.up()
        await broker.queues.push("b", [ONE])
        await broker.queues.push("a", [ONE])
        await broker.nodes.beat("n1", b"{}", inbox_life=LONG)
        await broker.nodes.beat("n2", b"[]", inbox_life=LONG)
        await broker.registry.register("queuerelay.h:1:a", ["a"])
        await broker.registry.register("queuerelay.h:2:b", ["b"])
        await broker.registry.working_on("queuerelay.h:1:a", "a", ONE)
        await broker.registry.count("queuerelay.h:1:a", processed=5, failed=2)
        claim = await claim_one(broker, ["a"], holder="h", lease=LONG)
        await broker.leases.fail(claim, b"{}")
        found = await broker.nodes.survey()
        assert {name: node.snapshot for name, node in found.nodes.items()} == {
            "n1": b"{}",
            "n2": b"[]",
        }
        assert all(0 <= node.age < 60 for node in found.nodes.values())
        assert {"a", "b"} >= set(found.queues) >= {"b"}
        assert found.workers == ["queuerelay.h:1:a", "queuerelay.h:2:b"]
        assert (found.workers_total, found.working) == (2, 1)
        assert (found.processed, found.failed, found.dead_letters) == (5, 2, 1)

    @pytest.mark.parametrize(
        ("tail", "oldest_at"),
        [
            ('"queue_time": 5}', 5.0),
            ('"queue_time":5.25}', 5.25),
            ('"queue_time":1.2.3}', None),
            ('"queue_time":.}', None),
            ('"queue_time":-5}', None),
            ('"queue_time":"5"}', None),
            ('"queue_time":5} ', None),
            ('"queue_time":5,"x":1}', None),
        ],
    )
    async def test_the_oldest_says_when_or_not(self, bench, tail, oldest_at):
        broker = await bench.up()
        await broker.queues.push("q", [("{" + "x" * 100 + tail).encode(), message("y", 9)])
        assert await broker.queues.depths(["q"]) == [QueueDepth(length=2, oldest_at=oldest_at)]

    # The inbox

    async def test_replies_come_in_order(self, bench):
        got = []
        broker = await bench.up("n", got.extend)
        assert await broker.inbox.reply("n", [b"1", b"2"]) >= 1
        await broker.inbox.reply("n", [b"3"])
        bench.put(KEYS.inbox("n"), b"4")
        await eventually(lambda: len(got) == 4)
        assert got == [b"1", b"2", b"3", b"4"]
        await eventually(lambda: not bench.items(KEYS.inbox("n")))

    async def test_replies_that_were_there_before(self, bench):
        bench.put(KEYS.inbox("n"), *(b"%d" % i for i in range(600)))
        got, batches = [], []

        def handler(items):
            got.extend(items)
            batches.append(len(items))

        await bench.up("n", handler)
        await eventually(lambda: len(got) >= 600)
        assert got == [b"%d" % i for i in range(600)]
        assert max(batches) <= 256

    async def test_a_reply_that_is_too_large_is_named_and_not_given(self, bench):
        got = []
        id = "0a1b2c3d-" + "0" * 32
        named = b'"node_id" : "%b"' % id.encode()
        filler = b'"x":"' + b"x" * 3000 + b'",'
        large = [
            b"{%b,%b}" % (named, filler),
            b"{%b%b}" % (filler, named),
            b"{%b%b,%b}" % (filler, named, filler),
            b"x" * 1001,
        ]
        options = {"largest": 1000, "legacy": ("responses", got.extend)}
        broker = await bench.up("n", got.extend, **options)
        bench.put(KEYS.inbox("n"), b"1" * 1000, *large, b"2")
        await eventually(lambda: len(got) == 6)
        sizes = [TooLarge(len(one), id) for one in large[:3]]
        assert got == [b"1" * 1000, *sizes, TooLarge(1001, ""), b"2"]
        await eventually(lambda: not bench.items(KEYS.inbox("n")))
        # Alone, as nearly always.
        await broker.inbox.reply("n", [large[0]])
        await eventually(lambda: len(got) == 7)
        bench.put("responses", large[1], b"3")
        await eventually(lambda: len(got) == 9)
        assert got[6:] == [sizes[0], sizes[1], b"3"]

    async def test_each_inbox_has_its_own(self, bench):
        got = {"a": [], "b": []}
        one = await bench.up("a", got["a"].extend)
        await bench.up("b", got["b"].extend)
        await one.inbox.reply("b", [b"for b"])
        await one.inbox.reply("a", [b"for a"])
        await eventually(lambda: got["a"] and got["b"])
        assert got == {"a": [b"for a"], "b": [b"for b"]}

    async def test_a_handler_that_fails_loses_its_batch_only(self, bench, logged_failures):
        got = []

        def handler(items):
            got.extend(items)
            if items[0] == b"bad":
                raise ValueError("bad")

        broker = await bench.up("n", handler)
        await broker.inbox.reply("n", [b"bad"])
        await eventually(lambda: got)
        await broker.inbox.reply("n", [b"good"])
        await eventually(lambda: len(got) == 2)
        assert got == [b"bad", b"good"]
        assert len(logged_failures.flush(ValueError)) == 1

    async def test_a_handler_may_take_its_time(self, bench):
        got, gates = [], []

        def handler(items):
            got.extend(items)
            gates.append(Deferred())
            return gates[-1]

        broker = await bench.up("n", handler)
        await broker.inbox.reply("n", [b"1"])
        await eventually(lambda: gates)
        await broker.inbox.reply("n", [b"2"])
        await broker.queues.depths(["q"])
        # Both are still in the list, and nobody was called again.
        assert bench.items(KEYS.inbox("n")) == [b"1", b"2"]
        assert got == [b"1"]
        gates[0].callback(None)
        await eventually(lambda: len(got) == 2)
        gates[1].callback(None)
        await eventually(lambda: not bench.items(KEYS.inbox("n")))
        assert got == [b"1", b"2"]

    async def test_a_handler_that_could_not_pass_them_on_gets_them_again(self, bench):
        got = []

        def handler(items):
            got.append([*items])
            if len(got) < 3:
                raise NotConnected("not yet")

        broker = await bench.up("n", handler)
        await broker.inbox.reply("n", [b"1"])
        await eventually(lambda: not bench.items(KEYS.inbox("n")))
        assert got == [[b"1"]] * 3

    async def test_what_was_not_finished_comes_again_on_the_next_connection(self, bench):
        got, gates = [], []

        def handler(items):
            got.append([*items])
            gates.append(Deferred())
            return gates[-1]

        broker = await bench.up("n", handler)
        await broker.inbox.reply("n", [b"1"])
        await eventually(lambda: gates)
        bench.lose()
        await eventually(lambda: len(gates) == 2)
        # The first one ends late; that must not count for the second.
        gates[0].callback(None)
        await within(broker.when_up())
        await broker.queues.depths(["q"])
        assert bench.items(KEYS.inbox("n")) == [b"1"]
        gates[1].callback(None)
        await eventually(lambda: not bench.items(KEYS.inbox("n")))
        assert got == [[b"1"], [b"1"]]

    async def test_a_handler_may_stop_the_broker(self, bench):
        stopped = []
        broker = await bench.up("n", lambda items: stopped.append(broker.stop()))
        bench.put(KEYS.inbox("n"), b"1")
        await eventually(lambda: stopped)
        await stopped[0]
        # Not acknowledged any more, so it is kept.
        assert bench.items(KEYS.inbox("n")) == [b"1"]

    # The legacy list

    async def test_old_replies_are_read_as_well(self, bench):
        new, old = [], []
        broker = await bench.up("n", new.extend, legacy=("responses", old.extend))
        bench.put("responses", b"1", b"2")
        await eventually(lambda: len(old) == 2)
        bench.put("responses", b"3")
        await broker.inbox.reply("n", [b"new"])
        await eventually(lambda: len(old) == 3 and new)
        assert (old, new) == ([b"1", b"2", b"3"], [b"new"])
        await eventually(lambda: not bench.items(KEYS.legacy_inbox("n")))
        assert bench.items("responses") == []

    async def test_many_old_replies_come_in_order(self, bench):
        old = []
        items = [b"%d" % i for i in range(1000)]
        bench.put("responses", *items)
        await bench.up("n", print, legacy=("responses", old.extend))
        await eventually(lambda: len(old) >= 1000)
        assert old == items

    async def test_two_share_the_old_replies_and_lose_none(self, bench):
        got = []
        await bench.up("a", print, legacy=("responses", got.extend))
        await bench.up("b", print, legacy=("responses", got.extend))
        items = [b"%d" % i for i in range(2000)]
        for start in range(0, 2000, 50):
            bench.put("responses", *items[start : start + 50])
            await turns(0)
        await eventually(lambda: len(got) >= 2000)
        assert sorted(got) == sorted(items)

    async def test_one_that_leaves_gives_the_old_replies_back(self, bench):
        hung = Deferred()
        one = await bench.up("a", print, legacy=("responses", lambda items: hung))
        await one.nodes.beat("a", b"{}", inbox_life=LONG)
        bench.put("responses", b"1", b"2")
        await eventually(lambda: bench.items(KEYS.legacy_inbox("a")) == [b"1", b"2"])
        bench.put("responses", b"3")
        await one.nodes.leave("a")
        assert bench.items("responses") == [b"1", b"2", b"3"]
        assert bench.items(KEYS.legacy_inbox("a")) == []

    async def test_what_a_dead_one_had_taken_goes_back(self, bench):
        old = []
        broker = await bench.up("n", print, legacy=("responses", old.extend))
        # It never beat, or was buried by one without a legacy list.
        bench.put(KEYS.legacy_inbox("unlisted"), b"1", b"2")
        await broker.nodes.beat("dead", b"{}", inbox_life=LONG)
        bench.put(KEYS.legacy_inbox("dead"), b"3", b"4")
        bench.age("dead", NODE_SILENCE + 1)
        await eventually(
            lambda: broker.nodes.beat("n", b"{}", inbox_life=LONG).addCallback(
                lambda _: len(old) >= 4
            )
        )
        assert sorted(old) == [b"1", b"2", b"3", b"4"]
        assert old.index(b"3") < old.index(b"4")
        assert bench.items(KEYS.legacy_inbox("dead")) == []

    async def test_one_without_a_legacy_list_leaves_them_alone(self, bench):
        broker = await bench.up()
        await broker.nodes.beat("dead", b"{}", inbox_life=LONG)
        bench.put(KEYS.legacy_inbox("dead"), b"1")
        bench.age("dead", NODE_SILENCE + 1)
        await broker.nodes.beat("n", b"{}", inbox_life=LONG)
        assert bench.items(KEYS.legacy_inbox("dead")) == [b"1"]
        assert bench.term(KEYS.legacy_inbox("dead")) is None

    # Nodes

    async def test_nodes_and_their_snapshots(self, bench):
        broker = await bench.up()
        assert await snapshots(broker) == {}
        await broker.nodes.beat("a", b'{"x":1}', inbox_life=LONG)
        await broker.nodes.beat("b", b"{}", inbox_life=LONG)
        await broker.nodes.beat("a", b'{"x":2}', inbox_life=LONG)
        assert await snapshots(broker) == {"a": b'{"x":2}', "b": b"{}"}

    async def test_a_silent_node_loses_its_snapshot_first(self, bench):
        broker = await bench.up()
        await broker.nodes.beat("a", b"{}", inbox_life=LONG)
        bench.age("a", SNAPSHOT_LIFE + 1)
        await broker.nodes.beat("b", b"{}", inbox_life=LONG)
        assert await snapshots(broker) == {"a": None, "b": b"{}"}

    async def test_a_silent_node_is_buried_and_its_inbox_gets_a_term(self, bench):
        broker = await bench.up()
        await broker.nodes.beat("a", b"{}", inbox_life=LONG)
        await broker.inbox.reply("a", [b"late"])
        bench.age("a", NODE_SILENCE + 1)
        await broker.nodes.beat("b", b"{}", inbox_life=77.0)
        assert await snapshots(broker) == {"b": b"{}"}
        assert bench.items(KEYS.inbox("a")) == [b"late"]
        assert 0 < bench.term(KEYS.inbox("a")) <= 77

    async def test_a_node_that_speaks_again_is_listed_again(self, bench):
        broker = await bench.up()
        await broker.nodes.beat("a", b"1", inbox_life=LONG)
        bench.age("a", NODE_SILENCE + 1)
        await broker.nodes.beat("a", b"2", inbox_life=LONG)
        assert await snapshots(broker) == {"a": b"2"}

    async def test_a_beat_keeps_the_inbox(self, bench):
        broker = await bench.up()
        await broker.inbox.reply("a", [b"1"])
        await broker.nodes.beat("a", b"{}", inbox_life=50.0)
        assert 0 < bench.term(KEYS.inbox("a")) <= 50
        await broker.nodes.beat("a", b"{}", inbox_life=500.0)
        assert 50 < bench.term(KEYS.inbox("a")) <= 500

    async def test_an_inbox_of_nobody_gets_a_term(self, bench):
        broker = await bench.up()
        await broker.nodes.beat("listed", b"{}", inbox_life=99.0)
        bench.put(KEYS.inbox("nobody"), b"1")
        bench.put(KEYS.inbox("listed"), b"1")
        await eventually(
            lambda: broker.nodes.beat("other", b"{}", inbox_life=99.0).addCallback(
                lambda _: bench.term(KEYS.inbox("nobody"))
            )
        )
        assert 0 < bench.term(KEYS.inbox("nobody")) <= 99
        assert bench.term(KEYS.inbox("listed")) is None

    async def test_leave(self, bench):
        broker = await bench.up()
        await broker.nodes.beat("a", b"{}", inbox_life=LONG)
        await broker.nodes.beat("b", b"{}", inbox_life=LONG)
        await broker.inbox.reply("a", [b"1"])
        await broker.nodes.leave("a")
        assert await snapshots(broker) == {"b": b"{}"}
        assert bench.items(KEYS.inbox("a")) == []
        await broker.nodes.leave("a")

    # Leases

    async def claimed(self, broker, *messages, lease=LONG, queue="q"):
        """The first of `messages`, pushed and claimed."""
        await broker.queues.push(queue, messages)
        claim = await claim_one(broker, [queue], holder="host:1", lease=lease)
        assert claim is not None
        return claim

    async def expired(self, broker, claim):
        """`claim` as a reaper takes it over when its lease is over."""
        taken = await eventually(lambda: broker.leases.reap(claim.queue, lease=LONG))
        assert len(taken) == 1
        return taken[0]

    async def test_claim_from_nothing(self, bench):
        broker = await bench.up()
        assert await claim_one(broker, ["q", "r"], holder="h", lease=LONG) is None
        assert await claim_one(broker, [], holder="h", lease=LONG) is None

    async def test_claim_says_what_and_whose(self, bench):
        broker = await bench.up()
        claim = await self.claimed(broker, ONE, TWO)
        assert (claim.queue, claim.message, claim.holder) == ("q", ONE, "host:1")
        assert claim.token
        assert math.isfinite(claim.since)
        assert bench.items(KEYS.queue("q")) == [TWO]
        assert bench.inflight("q") == [ONE]

    async def test_claims_in_the_order_of_priority(self, bench):
        broker = await bench.up()
        await broker.queues.push("low", [b"l1", b"l2"])
        await broker.queues.push("high", [b"h1", b"h2"])
        order = ["high", "middle", "low"]
        claims = [await claim_one(broker, order, holder="h", lease=LONG) for _ in range(5)]
        assert claims.pop() is None
        assert [(one.queue, one.message) for one in claims] == [
            ("high", b"h1"),
            ("high", b"h2"),
            ("low", b"l1"),
            ("low", b"l2"),
        ]
        assert len({one.token for one in claims}) == 4

    async def test_ack(self, bench):
        broker = await bench.up()
        claim = await self.claimed(broker, ONE)
        assert await broker.leases.ack(claim) is True
        assert bench.inflight("q") == []
        assert bench.items(KEYS.queue("q")) == []

    async def test_ack_sends_the_reply_once(self, bench):
        broker = await bench.up()
        claim = await self.claimed(broker, ONE)
        assert await broker.leases.ack(claim, reply_to=KEYS.inbox("n"), reply=b"R") is True
        assert await broker.leases.ack(claim, reply_to=KEYS.inbox("n"), reply=b"R") is False
        assert bench.items(KEYS.inbox("n")) == [b"R"]

    async def test_what_takes_replies_has_a_term_and_a_jobs_list_is_bounded(self, bench):
        broker = await bench.up()
        first = await self.claimed(broker, ONE)
        await broker.leases.ack(first, reply_to=KEYS.inbox("n"), reply=b"R")
        assert 0 < bench.term(KEYS.inbox("n")) <= REPLY_LIFE
        second = await self.claimed(broker, ONE)
        results = f"{KEYS.results}mine"
        await broker.leases.ack(second, reply_to=results, reply=b"R")
        assert bench.items(results) == [b"R"]
        assert 0 < bench.term(results) <= REPLY_LIFE
        pushed = [broker.queues.push("q", [b"%d" % number]) for number in range(MOST_RESULTS + 1)]
        await gatherResults(pushed)
        claims = await broker.leases.claim_many(
            ["q"], holder="h:1", lease=30.0, most=MOST_RESULTS + 1
        )
        *acked, last = claims
        for claim in acked:
            await broker.leases.ack(claim, reply_to=results, reply=claim.message)
        await broker.leases.fail(last, b"entry", reply_to=results, reply=last.message)
        kept = bench.items(results)
        assert kept == [claim.message for claim in claims[-MOST_RESULTS:]]

    async def test_a_reply_does_not_prolong_the_term_of_an_inbox(self, bench):
        broker = await bench.up()
        await broker.inbox.reply("n", [b"1"])
        await broker.nodes.beat("n", b"{}", inbox_life=50.0)
        claim = await self.claimed(broker, ONE)
        await broker.leases.ack(claim, reply_to=KEYS.inbox("n"), reply=b"R")
        assert bench.term(KEYS.inbox("n")) <= 50

    async def test_retry_puts_it_at_the_head(self, bench):
        broker = await bench.up()
        claim = await self.claimed(broker, ONE, TWO)
        assert await broker.leases.retry(claim, b"one again") is True
        assert bench.items(KEYS.queue("q")) == [b"one again", TWO]
        assert bench.inflight("q") == []
        assert await broker.leases.retry(claim, b"one again") is False
        assert bench.items(KEYS.queue("q")) == [b"one again", TWO]

    async def test_fail_appends_the_entry(self, bench):
        broker = await bench.up()
        claim = await self.claimed(broker, ONE)
        assert await broker.leases.fail(claim, b"entry") is True
        assert await broker.leases.fail(claim, b"entry") is False
        other = await self.claimed(broker, TWO)
        await broker.leases.fail(other, b"second")
        assert bench.items(KEYS.failed) == [b"entry", b"second"]
        assert bench.inflight("q") == []
        assert bench.term(KEYS.failed) is None

    async def test_fail_sends_the_reply_with_it(self, bench):
        broker = await bench.up()
        claim = await self.claimed(broker, ONE)
        assert (
            await broker.leases.fail(claim, b"entry", reply_to=KEYS.inbox("n"), reply=b"R") is True
        )
        assert (
            await broker.leases.fail(claim, b"entry", reply_to=KEYS.inbox("n"), reply=b"R") is False
        )
        assert bench.items(KEYS.failed) == [b"entry"]
        assert bench.items(KEYS.inbox("n")) == [b"R"]
        assert 0 < bench.term(KEYS.inbox("n")) <= REPLY_LIFE

    async def test_renew(self, bench):
        broker = await bench.up()
        first = await self.claimed(broker, ONE, TWO)
        second = await claim_one(broker, ["q"], holder="h", lease=LONG)
        await broker.leases.ack(first)
        held = await broker.leases.renew("q", [first.token, second.token, "none"], lease=LONG)
        assert held == [False, True, False]
        assert await broker.leases.renew("q", [], lease=LONG) == []
        assert await broker.leases.renew("empty", ["none"], lease=LONG) == [False]

    async def test_a_lease_that_was_renewed_does_not_expire(self, bench):
        broker = await bench.up()
        await broker.queues.push("q", [ONE, TWO])
        first = await claim_one(broker, ["q"], holder="h", lease=0.02)
        second = await claim_one(broker, ["q"], holder="h", lease=0.02)
        assert await broker.leases.renew("q", [first.token], lease=LONG) == [True]
        taken = await self.expired(broker, second)
        assert taken.message == TWO
        assert await broker.leases.reap("q", lease=LONG) == []
        assert await broker.leases.ack(first) is True

    async def test_reap_finds_nothing_that_is_held(self, bench):
        broker = await bench.up()
        await self.claimed(broker, ONE)
        assert await broker.leases.reap("q", lease=LONG) == []
        assert await broker.leases.reap("empty", lease=LONG) == []

    async def test_reap_takes_over_under_a_new_token(self, bench):
        broker = await bench.up()
        claim = await self.claimed(broker, ONE, lease=0.01)
        taken = await self.expired(broker, claim)
        assert (taken.queue, taken.message, taken.holder) == ("q", ONE, "host:1")
        assert taken.since == claim.since
        assert taken.token != claim.token
        # The old holder has lost it in every respect.
        assert await broker.leases.renew("q", [claim.token], lease=LONG) == [False]
        assert await broker.leases.ack(claim, reply_to=KEYS.inbox("n"), reply=b"R") is False
        assert await broker.leases.retry(claim, ONE) is False
        assert await broker.leases.fail(claim, b"entry") is False
        assert bench.items(KEYS.inbox("n")) == []
        assert bench.items(KEYS.queue("q")) == []
        assert bench.items(KEYS.failed) == []
        # The reaper has it, and nobody else gets it.
        assert await broker.leases.reap("q", lease=LONG) == []
        assert bench.inflight("q") == [ONE]
        assert await broker.leases.ack(taken) is True
        assert bench.inflight("q") == []

    async def test_a_dead_reaper_is_reaped_too(self, bench):
        broker = await bench.up()
        await self.claimed(broker, ONE, lease=0.01)
        first = (await eventually(lambda: broker.leases.reap("q", lease=0.01)))[0]
        second = (await eventually(lambda: broker.leases.reap("q", lease=LONG)))[0]
        assert second.token != first.token
        assert second.message == ONE

    async def test_reap_takes_so_many_at_most(self, bench):
        broker = await bench.up()
        await broker.queues.push("q", [b"%d" % i for i in range(5)])
        for _ in range(5):
            await claim_one(broker, ["q"], holder="h", lease=0.01)
        taken = []
        for expected in (2, 2, 1):
            found = await eventually(lambda: broker.leases.reap("q", lease=LONG, most=2))
            while len(found) < expected:
                found += await eventually(
                    lambda: broker.leases.reap("q", lease=LONG, most=2 - len(found))  # noqa: B023
                )
            assert len(found) == expected
            taken += found
        assert sorted(one.message for one in taken) == [b"%d" % i for i in range(5)]
        assert len({one.token for one in taken}) == 5
        assert await broker.leases.reap("q", lease=LONG) == []

    async def test_two_reapers_share(self, bench):
        one, two = await bench.up(), await bench.up()
        await one.queues.push("q", [b"%d" % i for i in range(40)])
        for _ in range(40):
            await claim_one(one, ["q"], holder="h", lease=0.01)
        taken = []
        while len(taken) < 40:
            both = [broker.leases.reap("q", lease=LONG, most=7) for broker in (one, two)]
            for found in await gatherResults(both):
                taken += found
            await turns()
        assert sorted(claim.message for claim in taken) == sorted(b"%d" % i for i in range(40))

    async def test_two_workers_get_different_messages(self, bench):
        one, two = await bench.up(), await bench.up()
        await one.queues.push("q", [b"%d" % i for i in range(40)])
        claims = await gatherResults(
            [
                claim_one(broker, ["q"], holder="h", lease=LONG)
                for broker in (one, two)
                for _ in range(20)
            ]
        )
        assert sorted(claim.message for claim in claims) == sorted(b"%d" % i for i in range(40))

    async def test_ending_a_claim_outlives_a_lost_connection(self, bench):
        broker = await bench.up()
        claim = await self.claimed(broker, ONE)
        acked = broker.leases.ack(claim, reply_to=KEYS.inbox("n"), reply=b"R")
        bench.lose()
        # Whether the first try took effect or not: it is done, and once.
        assert await acked is True
        assert bench.items(KEYS.inbox("n")) == [b"R"]
        assert bench.inflight("q") == []

    # What is refused

    async def test_at_maxmemory(self, bench):
        got = []
        broker = await bench.up("n", got.extend, legacy=("responses", got.extend))
        await broker.queues.push("q", [ONE, TWO, THREE])
        await broker.inbox.reply("n", [b"0"])
        bench.fill()
        await raises(Refused, broker.queues.push("q", [ONE]), match="OOM")
        await raises(Refused, broker.queues.push("new", [ONE]), match="OOM")
        await raises(Refused, broker.inbox.reply("n", [b"1"]), match="OOM")
        assert (await broker.queues.depths(["q"]))[0].length == 3
        claims = [await claim_one(broker, ["q"], holder="h", lease=LONG) for _ in range(3)]
        assert await broker.leases.renew("q", [claims[0].token], lease=LONG) == [True]
        assert await broker.leases.ack(claims[0], reply_to=KEYS.inbox("n"), reply=b"R1")
        assert await broker.leases.fail(claims[1], b"F", reply_to=KEYS.inbox("n"), reply=b"R2")
        assert await broker.leases.retry(claims[2], THREE)
        assert await broker.queues.take_off("q", [THREE]) == [True]
        await broker.nodes.beat("n", b"{}", inbox_life=LONG)
        assert await snapshots(broker) == {"n": b"{}"}
        await eventually(lambda: len(got) >= 3)
        await eventually(lambda: not bench.items(KEYS.inbox("n")))
        assert got == [b"0", b"R1", b"R2"]
        assert broker.is_up
        bench.free()
        assert await broker.queues.push("q", [ONE]) == 1
        await broker.inbox.reply("n", [b"3"])
        await eventually(lambda: b"3" in got)

    async def test_errors_are_told_apart(self, bench):
        broker = bench.new()
        for one in (NotConnected, Refused, ConnectionDropped):
            assert issubclass(one, BrokerError)
        await raises(NotConnected, snapshots(broker))
        await raises(NotConnected, broker.nodes.leave("n"))
        await raises(NotConnected, claim_one(broker, ["q"], holder="h", lease=1.0))
        await raises(NotConnected, broker.nodes.beat("n", b"", inbox_life=1.0))
        await raises(NotConnected, broker.queues.take_off("q", [ONE]))
        await raises(NotConnected, broker.queues.depths(["q"]))
        await raises(NotConnected, broker.nodes.survey())
        await raises(NotConnected, broker.leases.reap("q", lease=1.0))
        await raises(NotConnected, broker.leases.renew("q", ["t"], lease=1.0))
        await raises(NotConnected, broker.inbox.reply("n", [b"1"]))
