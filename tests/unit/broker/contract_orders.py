"""What every broker must do with orders to nodes; see `contract`."""

from typing import Any

from queuerelay.broker.base import MOST_ORDERS
from queuerelay.errors import NotConnected
from tests.unit.broker.contract import raises


class OrdersContract:
    """The suite."""

    async def test_an_order_reaches_its_node_once_and_in_order(self, bench: Any) -> None:
        broker, other = await bench.up(), await bench.up()
        assert await other.take_orders("node") == []
        await broker.order("node", b"one")
        await broker.order("node", b"\xff two")
        await broker.order("another", b"three")
        assert await other.take_orders("node") == [b"one", b"\xff two"]
        assert await other.take_orders("node") == []
        assert await other.take_orders("another") == [b"three"]

    async def test_reports_stay_and_are_apart_by_order(self, bench: Any) -> None:
        broker, other = await bench.up(), await bench.up()
        assert await broker.reports("1") == []
        await other.report("1", b"done")
        await other.report("2", b"elsewhere")
        await other.report("1", b"done too")
        for _ in range(2):
            assert await broker.reports("1") == [b"done", b"done too"]

    async def test_a_node_that_takes_none_keeps_the_latest_only(self, bench: Any) -> None:
        broker = await bench.up()
        for number in range(MOST_ORDERS + 3):
            await broker.order("node", b"%d" % number)
        expected = [b"%d" % number for number in range(3, MOST_ORDERS + 3)]
        assert await broker.take_orders("node") == expected

    async def test_without_a_connection(self, bench: Any) -> None:
        broker = bench.new()
        for asked in (
            broker.order("node", b"one"),
            broker.take_orders("node"),
            broker.report("1", b"done"),
            broker.reports("1"),
        ):
            await raises(NotConnected, asked)
