"""Orders on Redis: the contract, and that they vanish by themselves."""

import pytest
import pytest_twisted

from queuerelay.broker.records import ORDER_LIFE
from queuerelay.errors import Refused
from tests.integration.broker.bench import RedisBench
from tests.unit.broker.contract import KEYS, raises
from tests.unit.broker.contract_orders import OrdersContract


@pytest.fixture
def bench(fresh_valkey):
    bench = RedisBench(fresh_valkey)
    yield bench
    bench.free()
    for broker in bench.brokers:
        pytest_twisted.blockon(broker.stop())


class TestOrdersContract(OrdersContract):
    pass


async def test_they_vanish_by_themselves(bench):
    broker = await bench.up()
    await broker.orders.give("node", b"one")
    await broker.orders.report("1", b"done")
    for key in (KEYS.orders("node"), KEYS.reports("1")):
        assert 0 < bench.client.ttl(key) <= ORDER_LIFE


async def test_a_key_of_another_type_is_refused(bench):
    broker = await bench.up()
    bench.client.set(KEYS.orders("node"), "no list")
    await raises(Refused, broker.orders.give("node", b"one"))
    await raises(Refused, broker.orders.take("node"))
