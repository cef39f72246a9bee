"""What every broker must do for pools and operators; see `contract`.

The bench is a `PoolBench`.
"""

import calendar
import hashlib
import json
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, gatherResults

from queuerelay.broker.records import QueueDepth
from queuerelay.errors import NotConnected, Refused
from queuerelay.wire.failure import encode_failure
from queuerelay.wire.message import Attempt, decode_message
from tests.unit.broker.contract import (
    KEYS,
    LONG,
    ONE,
    THREE,
    TWO,
    Bench,
    claim_one,
    eventually,
    message,
    raises,
    turns,
)

WORKER = "queuerelay.host:17:a,b"


class PoolBench(Bench):
    """The back door to what pools leave in Redis."""

    def workers(self) -> set[str]:
        """The registered workers."""
        raise NotImplementedError

    def working(self, worker_id: str) -> Any:
        """What ``resque:worker:<id>`` says, decoded; None where there is none."""
        raise NotImplementedError

    def stat(self, name: str, worker_id: str | None = None) -> int:
        """A counter of Resque's, 0 where there is none."""
        raise NotImplementedError

    def pause_all(self, value: str | None) -> None:
        """Set ``resque:pause-all-workers``."""
        raise NotImplementedError


@pytest.fixture
def only_rings(monkeypatch):
    """Let nobody be woken by the clock."""
    for module in ("redis.bell", "memory.bell"):
        monkeypatch.setattr(f"queuerelay.broker.{module}.BELL_WAIT", LONG)


def letter(name: str = "j", queue: str = "q", *, message_id: str = "", attempts: int = 0) -> bytes:
    """A dead letter of ours."""
    raw = {"class": "Job", "args": [name, {"big": 2**70}], "queue": queue, "queue_time": 1.5}
    if message_id:
        raw["id"] = message_id
    return encode_failure(
        raw=json.dumps(raw).encode(),
        queue=queue,
        worker="queuerelay.host:1:q",
        exception="ExitStatus",
        error="exit 1",
        failed_at=1790000000.0,
        attempts=[Attempt(started_at=1.0, run=1.0, error="exit 1")] * attempts,
    )


def ruby_letter(**changes: Any) -> bytes:
    """A dead letter as Ruby Resque writes it: other order, spaces, nothing of ours."""
    entry = {
        "failed_at": "2026/11/22 10:20:30 UTC",
        "payload": {"class": "Mailer", "args": ["ü", []]},
        "exception": "RuntimeError",
        "error": "boom",
        "backtrace": ["a.rb:1"],
        "worker": "web1:99:mails",
        "queue": "mails",
        **changes,
    }
    return json.dumps(entry).encode()


UNREADABLE = encode_failure(
    raw=b"not JSON",
    queue="q",
    worker="queuerelay.host:1:q",
    exception="MessageError",
    error="not JSON",
    failed_at=1790000000.0,
)


async def lost(bench: Any, broker: Any) -> None:
    """Lose all connections, and wait until `broker` has another."""
    ups: list[int] = []
    broker.on_up(lambda: ups.append(1))
    bench.lose()
    await eventually(lambda: ups)
    await broker.when_up()


class PoolContract:
    """The suite."""

    async def claimed(self, broker, *messages, queue="q", lease=LONG):
        """All of `messages`, pushed and claimed."""
        await broker.queues.push(queue, messages)
        claims = await broker.leases.claim_many(
            [queue], holder="host:1", lease=lease, most=len(messages)
        )
        assert [claim.message for claim in claims] == [*messages]
        return claims

    # Many claims

    async def test_claim_many_from_nothing(self, bench):
        broker = await bench.up()
        assert await broker.leases.claim_many(["q", "r"], holder="h", lease=LONG, most=5) == []
        assert await broker.leases.claim_many([], holder="h", lease=LONG, most=5) == []

    async def test_claim_many_takes_in_order_and_no_more_than_so_many(self, bench):
        broker = await bench.up()
        await broker.queues.push("low", [b"l1", b"l2", b"l3"])
        await broker.queues.push("high", [b"h1", b"h2"])
        order = ["high", "middle", "low"]
        claims = await broker.leases.claim_many(order, holder="host:1", lease=LONG, most=4)
        assert [(one.queue, one.message) for one in claims] == [
            ("high", b"h1"),
            ("high", b"h2"),
            ("low", b"l1"),
            ("low", b"l2"),
        ]
        assert len({one.token for one in claims}) == 4
        assert {one.holder for one in claims} == {"host:1"}
        assert bench.items(KEYS.queue("low")) == [b"l3"]
        assert sorted(bench.inflight("high") + bench.inflight("low")) == [
            b"h1",
            b"h2",
            b"l1",
            b"l2",
        ]
        assert await broker.leases.claim_many(order, holder="h", lease=LONG, most=0) == []
        assert len(await broker.leases.claim_many(order, holder="h", lease=LONG, most=9)) == 1

    async def test_each_of_many_claims_is_its_own(self, bench):
        broker = await bench.up()
        first, second, third = await self.claimed(broker, ONE, TWO, THREE)
        assert await broker.leases.ack(second) is True
        assert await broker.leases.retry(third, THREE) is True
        assert await broker.leases.renew("q", [first.token, second.token], lease=LONG) == [
            True,
            False,
        ]
        assert bench.inflight("q") == [ONE]
        assert bench.items(KEYS.queue("q")) == [THREE]

    async def test_leases_of_many_expire(self, bench):
        broker = await bench.up()
        claims = await self.claimed(broker, ONE, TWO, lease=0.01)
        taken = []
        while len(taken) < 2:
            taken += await eventually(lambda: broker.leases.reap("q", lease=LONG))
        assert sorted(one.message for one in taken) == sorted([ONE, TWO])
        assert {one.since for one in taken} == {one.since for one in claims}
        assert {one.holder for one in taken} == {"host:1"}

    async def test_leases_that_have_expired_just_now_may_be_left(self, bench):
        broker = await bench.up()
        await self.claimed(broker, ONE, lease=0.01)
        await self.claimed(broker, TWO, lease=0.01, queue="r")
        await eventually(lambda: broker.leases.reap("r", lease=LONG))
        assert await broker.leases.reap("q", lease=LONG, overdue=LONG) == []
        (claim,) = await eventually(lambda: broker.leases.reap("q", lease=LONG, overdue=0.02))
        assert claim.message == ONE

    async def test_queues_with_messages_in_flight_or_delayed(self, bench):
        broker = await bench.up()
        assert await broker.nodes.unsettled() == []
        (one,) = await self.claimed(broker, ONE, queue="in flight")
        (two,) = await self.claimed(broker, TWO, queue="later")
        await broker.queues.push("waits", [THREE])
        await broker.delayed.delay(two, TWO, seconds=LONG)
        assert await broker.nodes.unsettled() == ["in flight", "later"]
        await broker.leases.ack(one)
        assert await broker.nodes.unsettled() == ["later"]

    async def test_two_pools_get_different_messages(self, bench):
        one, two = await bench.up(), await bench.up()
        await one.queues.push("q", [b"%d" % i for i in range(100)])
        batches = await gatherResults(
            [
                broker.leases.claim_many(["q"], holder="h", lease=LONG, most=7)
                for _ in range(8)
                for broker in (one, two)
            ]
        )
        got = [claim.message for batch in batches for claim in batch]
        assert sorted(got) == sorted(b"%d" % i for i in range(100))

    # Delayed messages

    async def test_delay_keeps_it_until_it_is_due(self, bench):
        broker = await bench.up()
        (claim,) = await self.claimed(broker, ONE)
        assert await broker.delayed.delay(claim, b"one again", seconds=LONG) is True
        assert bench.inflight("q") == []
        assert bench.items(KEYS.queue("q")) == []
        assert await broker.queues.depths(["q"]) == [QueueDepth(length=0, delayed=1)]
        assert await broker.delayed.promote(["q"]) == 0
        assert await broker.leases.renew("q", [claim.token], lease=LONG) == [False]
        assert await broker.leases.reap("q", lease=LONG) == []

    async def test_promote_puts_it_at_the_head(self, bench):
        broker = await bench.up()
        (claim,) = await self.claimed(broker, ONE)
        await broker.queues.push("q", [TWO])
        odd = b"\x00 one \xff again "
        await broker.delayed.delay(claim, odd, seconds=0.01)
        assert await eventually(lambda: broker.delayed.promote(["q"])) == 1
        assert bench.items(KEYS.queue("q")) == [odd, TWO]
        assert await broker.queues.depths(["q"]) == [QueueDepth(length=2)]
        assert await broker.delayed.promote(["q"]) == 0

    async def test_delay_without_the_claim_changes_nothing(self, bench):
        broker = await bench.up()
        (claim,) = await self.claimed(broker, ONE)
        assert await broker.delayed.delay(claim, ONE, seconds=0) is True
        assert await broker.delayed.delay(claim, ONE, seconds=0) is False
        assert await broker.delayed.promote(["q"]) == 1
        assert bench.items(KEYS.queue("q")) == [ONE]

    async def test_equal_messages_are_delayed_each(self, bench):
        broker = await bench.up()
        for claim in await self.claimed(broker, ONE, ONE, ONE):
            await broker.delayed.delay(claim, ONE, seconds=0)
        assert (await broker.queues.depths(["q"]))[0].delayed == 3
        assert await eventually(lambda: broker.delayed.promote(["q"])) == 3
        assert bench.items(KEYS.queue("q")) == [ONE] * 3

    async def test_a_message_that_was_taken_over_may_be_delayed_too(self, bench):
        broker = await bench.up()
        await self.claimed(broker, ONE, lease=0.01)
        (taken,) = await eventually(lambda: broker.leases.reap("q", lease=LONG))
        assert await broker.delayed.delay(taken, ONE, seconds=0) is True
        assert await eventually(lambda: broker.delayed.promote(["q"])) == 1
        assert bench.items(KEYS.queue("q")) == [ONE]

    async def test_the_one_due_first_is_foremost(self, bench):
        broker = await bench.up()
        claims = await self.claimed(broker, ONE, TWO, THREE)
        for claim, seconds in zip(claims, (0.06, 0.02, 0.04), strict=True):
            await broker.delayed.delay(claim, claim.message, seconds=seconds)
        await turns(0.1)
        assert await broker.delayed.promote(["q"]) == 3
        assert bench.items(KEYS.queue("q")) == [TWO, THREE, ONE]

    async def test_promote_moves_so_many_at_most_in_all(self, bench):
        broker = await bench.up()
        for queue in ("a", "b"):
            for claim in await self.claimed(broker, ONE, TWO, THREE, queue=queue):
                await broker.delayed.delay(claim, claim.message, seconds=0)
        await turns()
        assert await broker.delayed.promote(["a", "b"], most=2) == 2
        assert await broker.delayed.promote(["a", "none", "b"], most=2) == 2
        assert [(one.length, one.delayed) for one in await broker.queues.depths(["a", "b"])] == [
            (3, 0),
            (1, 2),
        ]
        assert await broker.delayed.promote(["b"]) == 2
        assert await broker.delayed.promote([]) == 0

    async def test_two_promoters_share(self, bench):
        one, two = await bench.up(), await bench.up()
        items = [b"%d" % i for i in range(60)]
        for claim in await self.claimed(one, *items):
            await one.delayed.delay(claim, claim.message, seconds=0)
        await turns()
        moved = await gatherResults(
            [broker.delayed.promote(["q"], most=5) for _ in range(7) for broker in (one, two)]
        )
        assert sum(moved) == 60
        assert sorted(bench.items(KEYS.queue("q"))) == sorted(items)

    async def test_delay_outlives_a_lost_connection(self, bench):
        broker = await bench.up()
        (claim,) = await self.claimed(broker, ONE)
        delayed = broker.delayed.delay(claim, ONE, seconds=0)
        await lost(bench, broker)
        assert await delayed is True
        assert await eventually(lambda: broker.delayed.promote(["q"])) == 1
        assert bench.items(KEYS.queue("q")) == [ONE]
        assert bench.inflight("q") == []

    async def test_depths_tell_of_all_three(self, bench):
        broker = await bench.up()
        first, _, _ = await self.claimed(broker, ONE, TWO, THREE)
        await broker.delayed.delay(first, ONE, seconds=LONG)
        await broker.queues.push("q", [message("x", 1790000000.5)])
        assert await broker.queues.depths(["q"]) == [
            QueueDepth(length=1, oldest_at=1790000000.5, delayed=1, inflight=2)
        ]

    # Bells

    async def test_a_bell_rings_for_what_is_there_and_takes_nothing(self, bench, only_rings):
        broker = await bench.up()
        await broker.queues.push("b", [ONE, TWO])
        bell = broker.bell(["a", "b"])
        for _ in range(3):
            assert await bell.wait() is None
        assert bench.items(KEYS.queue("b")) == [ONE, TWO]

    async def test_a_bell_rings_for_what_comes(self, bench, only_rings):
        broker = await bench.up()
        bell = broker.bell(["a", "b"])
        for queue in ("a", "b", "a"):
            waiting = bell.wait()
            await broker.queues.push("other", [ONE])
            await turns(0.02)
            assert not waiting.called
            bench.put(KEYS.queue(queue), TWO)
            await waiting
            assert (await claim_one(broker, [queue], holder="h", lease=LONG)).message == TWO

    async def test_a_bell_rings_for_what_comes_back(self, bench, only_rings):
        broker = await bench.up()
        first, second, third = await self.claimed(broker, ONE, TWO, THREE)
        bell = broker.bell(["q"])
        waiting = bell.wait()
        await broker.leases.retry(first, ONE)
        await waiting
        await claim_one(broker, ["q"], holder="h", lease=LONG)
        waiting = bell.wait()
        await broker.delayed.delay(second, TWO, seconds=0)
        await turns(0.02)
        assert not waiting.called
        await broker.delayed.promote(["q"])
        await waiting
        await claim_one(broker, ["q"], holder="h", lease=LONG)
        waiting = bell.wait()
        await broker.leases.fail(third, letter())
        await broker.dead_letters.retry_many()
        await waiting

    async def test_all_who_wait_hear_it(self, bench, only_rings):
        broker = await bench.up()
        bell = broker.bell(["q"])
        waiting = [bell.wait() for _ in range(5)]
        waiting[2].addErrback(lambda failure: failure.trap(CancelledError))
        waiting[2].cancel()
        other = (await bench.up()).bell(["q", "q"])
        waiting.append(other.wait())
        await broker.queues.push("q", [ONE])
        await gatherResults(waiting)
        assert bench.items(KEYS.queue("q")) == [ONE]

    async def test_one_who_hears_it_may_cancel_another(self, bench, only_rings):
        broker = await bench.up()
        bell = broker.bell(["q"])
        first, second = bell.wait(), bell.wait()
        second.addErrback(lambda failure: failure.trap(CancelledError))
        first.addCallback(lambda _: second.cancel())
        await broker.queues.push("q", [ONE])
        await first
        assert second.called

    async def test_a_bell_tells_after_a_while_in_any_case(self, bench, monkeypatch):
        for module in ("redis.bell", "memory.bell"):
            monkeypatch.setattr(f"queuerelay.broker.{module}.BELL_WAIT", 0.05)
        broker = await bench.up()
        await broker.bell(["q"]).wait()
        # Without any Redis as well.
        await bench.new().bell(["q"]).wait()

    async def test_a_bell_outlives_lost_connections(self, bench, only_rings):
        broker = await bench.up()
        bell = broker.bell(["a", "b"])
        for i in range(5):
            waiting = bell.wait()
            await turns(0.01)
            await lost(bench, broker)
            bench.put(KEYS.queue("b" if i % 2 else "a"), ONE)
            await waiting
            await claim_one(broker, ["a", "b"], holder="h", lease=LONG)

    async def test_a_bell_rings_at_maxmemory(self, bench, only_rings):
        broker = await bench.up()
        (claim,) = await self.claimed(broker, ONE)
        bell = broker.bell(["q"])
        bench.fill()
        waiting = bell.wait()
        await turns(0.1)
        assert not waiting.called
        assert await broker.leases.retry(claim, ONE)
        await waiting
        assert bench.items(KEYS.queue("q")) == [ONE]
        await bell.wait()
        await claim_one(broker, ["q"], holder="h", lease=LONG)
        waiting = bell.wait()
        bench.free()
        await broker.queues.push("q", [TWO])
        await waiting

    async def test_a_stopped_bell(self, bench, only_rings):
        broker = await bench.up()
        bell = broker.bell(["q"])
        waiting = [bell.wait() for _ in range(2)]
        stopped = bell.stop()
        for one in waiting:
            await raises(NotConnected, one)
        await stopped
        await bell.stop()
        await raises(NotConnected, bell.wait())
        # One that nobody ever waited for.
        await broker.bell(["q"]).stop()

    async def test_the_broker_stops_its_bells(self, bench, only_rings):
        broker = await bench.up()
        bell = broker.bell(["q"])
        waiting = bell.wait()
        await turns(0.02)
        await broker.stop()
        await raises(NotConnected, waiting)
        await raises(NotConnected, bell.wait())
        await raises(NotConnected, broker.bell(["q"]).wait())

    # Dead letters

    async def test_no_failures(self, bench):
        broker = await bench.up()
        page = await broker.dead_letters.page()
        assert (page.total, [*page.items]) == (0, [])
        assert await broker.dead_letters.retry("no such id") is False
        assert await broker.dead_letters.drop(b"no such entry") is False
        assert await broker.dead_letters.retry_many() == 0
        assert await broker.dead_letters.drop_many([]) == 0

    async def test_pages_of_failures(self, bench):
        broker = await bench.up()
        entries = [letter(f"{i}") for i in range(60)]
        bench.put(KEYS.failed, *entries)

        async def page(**options):
            found = await broker.dead_letters.page(**options)
            assert found.total == 60
            assert [entries[one.index] for one in found.items] == [one.raw for one in found.items]
            return [one.index for one in found.items]

        assert await page() == [*range(59, 9, -1)]
        assert await page(newest=False) == [*range(50)]
        assert await page(start=50) == [*range(9, -1, -1)]
        assert await page(start=50, newest=False) == [*range(50, 60)]
        assert await page(start=17, count=20) == [*range(42, 22, -1)]
        assert await page(start=17, count=20, newest=False) == [*range(17, 37)]
        assert await page(start=-5, count=2) == [59, 58]
        assert await page(start=60) == []
        assert await page(count=0) == []
        assert await page(count=-1) == []

    async def test_large_failures_end_a_page_early(self, bench, monkeypatch):
        for module in ("redis.dead_letters", "memory.dead_letters"):
            monkeypatch.setattr(f"queuerelay.broker.{module}.PAGE_BYTES", 100)
        broker = await bench.up()
        bench.put(KEYS.failed, b"x" * 500, *(b"y" * 30 for _ in range(5)), b"z" * 500)
        seen = []
        while (page := await broker.dead_letters.page(start=len(seen))).items:
            seen += [one.index for one in page.items]
            assert len(page.items) <= 3
        assert seen == [*range(6, -1, -1)]

    async def test_of_large_failures_a_page_has_a_part(self, bench):
        broker = await bench.up()
        large = [letter(f"{i}" + "x" * 70_000, message_id=f"n-{i}") for i in range(5)]
        bench.put(KEYS.failed, *large, letter("small"))
        page = await broker.dead_letters.page()
        assert [one.size for one in page.items] == [len(letter("small")), *map(len, large)]
        for number, one in enumerate(reversed(page.items[1:])):
            assert one.raw is None
            assert (one.message_id, one.entry["error"]) == (f"n-{number}", "exit 1")
            assert "args" not in one.entry["payload"]
        # Named all the same.
        ids = [one.id for one in page.items]
        assert await broker.dead_letters.drop(ids[1]) is True
        assert await broker.dead_letters.retry_many([ids[3], "n-0"]) == 2
        assert bench.items(KEYS.failed) == [large[1], large[3], letter("small")]
        again = [json.loads(one)["id"] for one in bench.items(KEYS.queue("q"))]
        assert again == ["n-2", "n-0"]

    async def test_the_oldest_failures_go_where_they_are_too_many(self, bench):
        broker = await bench.up()
        entries = [letter(f"{i}") for i in range(20)]
        bench.put(KEYS.failed, *entries)
        bounds = {"max_count": 20, "max_bytes": 10**9, "before": 0.0}
        assert await broker.dead_letters.prune(**bounds) == 0
        assert await broker.dead_letters.prune(**{**bounds, "max_count": 12}) == 8
        assert bench.items(KEYS.failed) == entries[8:]
        assert (await broker.nodes.survey()).dropped == 8
        # Bytes are as the store counts them; the newest one stays.
        assert 0 < await broker.dead_letters.prune(**{**bounds, "max_bytes": 2500}) < 11
        left = bench.items(KEYS.failed)
        assert left == entries[-len(left) :]
        assert await broker.dead_letters.prune(**{**bounds, "max_bytes": 1}) == len(left) - 1
        assert bench.items(KEYS.failed) == entries[-1:]
        assert (await broker.nodes.survey()).dropped == 19

    async def test_old_failures_go(self, bench):
        broker = await bench.up()
        old, new = ruby_letter(), ruby_letter(failed_at="2026/11/23 10:20:30 UTC")
        bench.put(KEYS.failed, old, b"not JSON", old, new, old, b"not JSON")
        before = calendar.timegm((2026, 11, 23, 10, 20, 30))
        bounds = {"max_count": 99, "max_bytes": 10**9}
        assert await broker.dead_letters.prune(**bounds, before=before) == 3
        assert bench.items(KEYS.failed) == [new, old, b"not JSON"]
        assert await broker.dead_letters.prune(**bounds, before=before + 1.0) == 2
        assert bench.items(KEYS.failed) == [b"not JSON"]

    async def test_what_a_failure_says(self, bench):
        broker = await bench.up()
        mine, ruby, broken, strange = (
            letter(message_id="n-1", attempts=3),
            ruby_letter(),
            b"\xff{",
            b"[1]",
        )
        bench.put(KEYS.failed, mine, ruby, broken, strange)
        page = await broker.dead_letters.page(newest=False)
        assert [one.raw for one in page.items] == [mine, ruby, broken, strange]
        for one in page.items:
            assert one.id == hashlib.sha1(one.raw).hexdigest()
        assert page.items[0].entry == json.loads(mine)
        assert page.items[0].message_id == "n-1"
        assert page.items[1].entry["worker"] == "web1:99:mails"
        assert page.items[1].message_id == ""
        assert page.items[2].entry is page.items[3].entry is None

    async def test_retry_a_failure_mended(self, bench):
        broker = await bench.up()
        entry = letter("x", "mails", message_id="n-1")
        bench.put(KEYS.failed, entry)
        assert await broker.dead_letters.retry("n-1", {"class": "Other", "args": [7]}) is True
        assert bench.items(KEYS.failed) == []
        (again,) = map(json.loads, bench.items(KEYS.queue("mails")))
        assert (again["class"], again["args"], again["id"]) == ("Other", [7], "n-1")

    @pytest.mark.parametrize("how", ["id", "message", "bytes"])
    async def test_retry_a_failure(self, bench, how):
        broker = await bench.up()
        entry = letter("x", "mails", message_id="n-1", attempts=3)
        which = {"id": hashlib.sha1(entry).hexdigest(), "message": "n-1", "bytes": entry}[how]
        bench.put(KEYS.failed, letter("before"), entry, letter("after"))
        bench.put(KEYS.queue("mails"), ONE)
        assert await broker.dead_letters.retry(which) is True
        assert await broker.dead_letters.retry(which) is False
        assert bench.items(KEYS.failed) == [letter("before"), letter("after")]
        first, again = bench.items(KEYS.queue("mails"))
        assert first == ONE
        assert json.loads(again) == {
            "class": "Job",
            "args": ["x", {"big": 2**70}],
            "queue": "mails",
            "id": "n-1",
        }
        assert decode_message(again).attempts == ()
        assert bench.queues() == {"mails"}

    async def test_retry_a_failure_of_ruby_resque(self, bench):
        broker = await bench.up()
        # One that resque-web has retried already: that is for the operator to know.
        for entry in (ruby_letter(), ruby_letter(retried_at="2026/11/22 10:21:00")):
            bench.put(KEYS.failed, entry)
            (found,) = (await broker.dead_letters.page()).items
            assert await broker.dead_letters.retry(found.id) is True
            assert bench.items(KEYS.failed) == []
            (claim,) = await broker.leases.claim_many(["mails"], holder="h", lease=LONG, most=9)
            assert json.loads(claim.message) == {
                "class": "Mailer",
                "args": ["ü", []],
                "queue": "mails",
            }

    async def test_what_cannot_be_retried_stays(self, bench):
        broker = await bench.up()
        entries = [
            UNREADABLE,
            b"not JSON",
            ruby_letter(queue=None),
            ruby_letter(payload={"class": "X"}),
            ruby_letter(payload={"class": "RequestProcessor", "args": [{}]}),
        ]
        bench.put(KEYS.failed, *entries)
        for entry in entries:
            assert await broker.dead_letters.retry(entry) is False
        assert await broker.dead_letters.retry_many(entries) == 0
        assert await broker.dead_letters.retry_many() == 0
        assert bench.items(KEYS.failed) == entries
        for entry in entries:
            assert await broker.dead_letters.drop(entry) is True
        assert bench.items(KEYS.failed) == []

    async def test_equal_failures_go_one_by_one(self, bench):
        broker = await bench.up()
        bench.put(KEYS.failed, *[letter()] * 3)
        (name,) = {one.id for one in (await broker.dead_letters.page()).items}
        assert await broker.dead_letters.retry(name) is True
        assert len(bench.items(KEYS.failed)) == 2
        assert await broker.dead_letters.retry_many([name, name, name]) == 2
        assert len(bench.items(KEYS.queue("q"))) == 3

    async def test_of_a_message_that_failed_twice_the_newest_is_meant(self, bench):
        broker = await bench.up()
        old, new = letter("old", message_id="n-1"), letter("new", message_id="n-1")
        bench.put(KEYS.failed, old, new)
        assert await broker.dead_letters.drop("n-1") is True
        assert bench.items(KEYS.failed) == [old]

    async def test_drop_a_failure(self, bench):
        broker = await bench.up()
        bench.put(KEYS.failed, letter("a"), letter("b", message_id="n-1"))
        assert await broker.dead_letters.drop("n-1") is True
        assert await broker.dead_letters.drop("n-1") is False
        assert bench.items(KEYS.failed) == [letter("a")]
        assert bench.items(KEYS.queue("q")) == []

    async def test_some_far_from_the_end(self, bench):
        broker = await bench.up()
        entries = [letter(f"{i}") for i in range(350)]
        bench.put(KEYS.failed, *entries)
        names = [hashlib.sha1(entries[i]).hexdigest() for i in (0, 5, 171, 349)]
        assert await broker.dead_letters.retry_many([*names[:2], "unknown", entries[7]]) == 3
        assert await broker.dead_letters.drop_many(names[1:]) == 2
        left = [entry for i, entry in enumerate(entries) if i not in (0, 5, 7, 171, 349)]
        assert bench.items(KEYS.failed) == left
        assert [json.loads(one)["args"][0] for one in bench.items(KEYS.queue("q"))] == [
            "0",
            "5",
            "7",
        ]

    async def test_retry_all(self, bench):
        broker = await bench.up()
        left, entries = [], []
        for i in range(250):
            entries.append(letter(f"{i}"))
            if i % 50 == 7:
                left.append(
                    [UNREADABLE, ruby_letter(retried_at="2026/11/22 10:21:00")][i // 50 % 2]
                )
                entries.append(left[-1])
        bench.put(KEYS.failed, *entries)
        assert await broker.dead_letters.retry_many() == 250
        assert bench.items(KEYS.failed) == left
        again = [json.loads(one)["args"][0] for one in bench.items(KEYS.queue("q"))]
        assert again == [f"{i}" for i in range(250)]
        assert await broker.dead_letters.retry_many() == 0

    async def test_drop_all(self, bench):
        broker = await bench.up()
        bench.put(KEYS.failed, *(letter(f"{i}") for i in range(250)), UNREADABLE, b"x")
        assert await broker.dead_letters.drop_many() == 252
        assert bench.items(KEYS.failed) == []
        assert bench.items(KEYS.queue("q")) == []

    async def test_two_operators_retry_each_once(self, bench):
        one, two = await bench.up(), await bench.up()
        entries = [letter(f"{i}") for i in range(230)]
        bench.put(KEYS.failed, *entries, UNREADABLE)
        counts = await gatherResults(
            [broker.dead_letters.retry_many() for broker in (one, two)]
            + [
                one.dead_letters.retry_many(entries[50:90]),
                two.dead_letters.retry_many(entries[:20]),
            ]
        )
        assert sum(counts) == 230
        assert bench.items(KEYS.failed) == [UNREADABLE]
        again = sorted(int(json.loads(raw)["args"][0]) for raw in bench.items(KEYS.queue("q")))
        assert again == [*range(230)]

    async def test_two_operators_want_the_same(self, bench):
        one, two = await bench.up(), await bench.up()
        entries = [letter(f"{i}") for i in range(20)]
        bench.put(KEYS.failed, *entries)
        pairs = [
            await gatherResults([one.dead_letters.retry(entry), two.dead_letters.retry(entry)])
            for entry in entries
        ]
        assert [sorted(pair) for pair in pairs] == [[False, True]] * 20
        assert len(bench.items(KEYS.queue("q"))) == 20

    # Clients that have left

    async def test_clients_that_have_left(self, bench):
        broker, other = await bench.up(), await bench.up()
        await broker.clients.mark_gone(["a", "b"], life=LONG)
        await broker.clients.mark_gone(["short"], life=0.02)
        assert await other.clients.which_gone(["a", "x", "b"]) == {"a", "b"}
        await eventually(
            lambda: other.clients.which_gone(["a", "short"]).addCallback(lambda gone: gone == {"a"})
        )
        assert await other.clients.which_gone([]) == set()
        await broker.clients.mark_gone([], life=LONG)

    async def test_how_much_a_client_has_taken(self, bench):
        broker = await bench.up()
        await broker.clients.tell_taken({"a": 5, "b": 2**40}, life=LONG)
        await broker.clients.tell_taken({"a": 7}, life=LONG)
        assert (bench.taken("a"), bench.taken("b"), bench.taken("c")) == (7, 2**40, None)
        await broker.clients.tell_taken({}, life=LONG)

    # Registration

    async def test_register(self, bench):
        broker = await bench.up()
        await broker.registry.register(WORKER, ["a", "b"])
        await broker.registry.register("queuerelay.other:1:a", ["a"])
        assert bench.workers() == {WORKER, "queuerelay.other:1:a"}
        assert bench.queues() == {"a", "b"}
        await broker.registry.working_on(WORKER, "a", ONE)
        await broker.registry.count(WORKER, processed=1, failed=1)
        await broker.registry.unregister(WORKER)
        assert bench.workers() == {"queuerelay.other:1:a"}
        assert bench.working(WORKER) is None
        assert bench.stat("processed", WORKER) == bench.stat("failed", WORKER) == 0
        assert bench.stat("processed") == bench.stat("failed") == 1
        await broker.registry.unregister("unknown")

    async def test_working_on(self, bench):
        broker = await bench.up()
        await broker.registry.working_on(WORKER, "a", message("x", 9))
        working = bench.working(WORKER)
        assert working.pop("run_at").endswith("Z")
        assert WORKER.startswith(working.pop("worker") + ":")
        assert working == {"queue": "a", "payload": {"class": "Job", "args": ["x"]}}
        await broker.registry.working_on(WORKER, "b", TWO)
        assert bench.working(WORKER)["queue"] == "b"
        await broker.registry.working_on(WORKER, "b", b"not JSON")
        assert bench.working(WORKER)["payload"] == {"class": "Unreadable", "args": []}
        await broker.registry.working_on(WORKER, "b", None)
        assert bench.working(WORKER) is None

    async def test_counters(self, bench):
        broker, other = await bench.up(), await bench.up()
        for _ in range(3):
            broker.registry.count(WORKER, processed=1)
        await broker.registry.count(WORKER, processed=1, failed=1)
        await other.registry.count(processed=10)
        await other.registry.count()
        assert bench.stat("processed") == 14
        assert bench.stat("failed") == 1
        assert bench.stat("processed", WORKER) == 4
        assert bench.stat("failed", WORKER) == 1

    async def test_what_was_said_last_counts(self, bench):
        broker = await bench.up()
        broker.registry.working_on(WORKER, "a", ONE)
        broker.registry.working_on(WORKER, "a", None)
        await broker.registry.working_on(WORKER, "b", TWO)
        assert bench.working(WORKER)["queue"] == "b"

    async def test_registration_never_fails(self, bench):
        broker = bench.new()
        assert await broker.registry.register(WORKER, ["a"]) is None
        assert await broker.registry.working_on(WORKER, "a", ONE) is None
        assert await broker.registry.count(processed=1) is None
        broker.start()
        await broker.when_up()
        bench.fill()
        assert await broker.registry.working_on(WORKER, "a", ONE) is None
        bench.free()
        said = broker.registry.count(processed=1)
        bench.lose()
        assert await said is None
        await broker.when_up()
        last = broker.registry.unregister(WORKER)
        await broker.stop()
        assert await last is None

    async def test_what_is_said_before_the_end_is_sent(self, bench):
        broker = await bench.up()
        await broker.registry.register(WORKER, ["a"])
        broker.registry.unregister(WORKER)
        await broker.stop()
        await eventually(lambda: not bench.workers())

    async def test_all_paused(self, bench):
        broker = await bench.up()
        assert await broker.registry.all_paused() is False
        bench.pause_all("true")
        assert await broker.registry.all_paused() is True
        bench.pause_all("false")
        assert await broker.registry.all_paused() is False
        bench.pause_all(None)
        assert await broker.registry.all_paused() is False

    # What is refused

    async def test_pools_at_maxmemory(self, bench):
        broker = await bench.up()
        await broker.queues.push("q", [ONE, TWO])
        bench.put(KEYS.failed, letter("a"), letter("b"))
        bench.fill()
        claims = await broker.leases.claim_many(["q"], holder="h", lease=LONG, most=2)
        assert await broker.delayed.delay(claims[0], ONE, seconds=0) is True
        assert await eventually(lambda: broker.delayed.promote(["q"])) == 1
        assert (await broker.queues.depths(["q"]))[0] == QueueDepth(length=1, inflight=1)
        assert (await broker.dead_letters.page()).total == 2
        assert await broker.dead_letters.retry(letter("a")) is True
        assert await broker.dead_letters.drop_many() == 1
        assert await broker.clients.which_gone(["a"]) == set()
        await raises(Refused, broker.clients.mark_gone(["a"], life=LONG), match="OOM")

    async def test_without_a_connection(self, bench):
        broker = bench.new()
        for asked in (
            broker.leases.claim_many(["q"], holder="h", lease=1.0, most=1),
            broker.delayed.promote(["q"]),
            broker.dead_letters.page(),
            broker.dead_letters.retry("x"),
            broker.dead_letters.retry(letter()),
            broker.dead_letters.drop(letter()),
            broker.dead_letters.retry_many(),
            broker.dead_letters.drop_many(),
            broker.clients.mark_gone(["x"], life=1.0),
            broker.clients.which_gone(["x"]),
            broker.clients.tell_taken({"x": 1}, life=1.0),
            broker.registry.all_paused(),
        ):
            await raises(NotConnected, asked)
