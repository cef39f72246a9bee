"""What every broker must do with orders to nodes; see `contract`."""

from typing import Any

from queuerelay.broker.records import MOST_ORDERS
from queuerelay.errors import NotConnected
from tests.unit.broker.contract import raises


class OrdersContract:
    """The suite."""

    async def test_an_order_reaches_its_node_once_and_in_order(self, bench: Any) -> None:
        broker, other = await bench.up(), await bench.up()
        assert await other.orders.take("node") == []
        await broker.orders.give("node", b"one")
        await broker.orders.give("node", b"\xff two")
        await broker.orders.give("another", b"three")
        assert await other.orders.take("node") == [b"one", b"\xff two"]
        assert await other.orders.take("node") == []
        assert await other.orders.take("another") == [b"three"]

    async def test_reports_stay_and_are_apart_by_order(self, bench: Any) -> None:
        broker, other = await bench.up(), await bench.up()
        assert await broker.orders.reports("1") == []
        await other.orders.report("1", b"done")
        await other.orders.report("2", b"elsewhere")
        await other.orders.report("1", b"done too")
        for _ in range(2):
            assert await broker.orders.reports("1") == [b"done", b"done too"]

    async def test_a_node_that_takes_none_keeps_the_latest_only(self, bench: Any) -> None:
        broker = await bench.up()
        for number in range(MOST_ORDERS + 3):
            await broker.orders.give("node", b"%d" % number)
        expected = [b"%d" % number for number in range(3, MOST_ORDERS + 3)]
        assert await broker.orders.take("node") == expected

    async def test_without_a_connection(self, bench: Any) -> None:
        broker = bench.new()
        for asked in (
            broker.orders.give("node", b"one"),
            broker.orders.take("node"),
            broker.orders.report("1", b"done"),
            broker.orders.reports("1"),
        ):
            await raises(NotConnected, asked)
