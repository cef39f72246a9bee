"""Orders to pools, wherever they run, and the wait for what becomes of them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from queuerelay.broker.base import Broker
from queuerelay.errors import MessageError
from queuerelay.wire.order import Order, Report, decode_report, encode_order

#: Seconds that nodes have to report; they look for orders twice a second.
PATIENCE: Final = 4.0
#: Seconds between two looks for reports.
_LOOK: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderReports:
    """The reports on an order, and the nodes that have sent none."""

    #: One report for each node that has sent one.
    reports: Sequence[Report]
    #: Nodes that have sent no report.
    silent: Sequence[str]


def new_id() -> str:
    """A name for an order."""
    return os.urandom(16).hex()


def give(
    order: Order, nodes: Sequence[str], *, broker: Broker, clock: IReactorTime
) -> Deferred[OrderReports]:
    """Give `order` to `nodes`; fires when all have reported, or after `PATIENCE` seconds.

    Fails with `BrokerError` where Redis does not take it.
    """
    return Deferred.fromCoroutine(_given(order, nodes, broker, clock))


async def _given(
    order: Order, nodes: Sequence[str], broker: Broker, clock: IReactorTime
) -> OrderReports:
    raw, until = encode_order(order), clock.seconds() + PATIENCE
    for node in nodes:
        await broker.orders.give(node, raw)
    while True:
        reports = _decoded(await broker.orders.reports(order.id))
        silent = [node for node in nodes if node not in {report.node for report in reports}]
        if not silent or clock.seconds() >= until:
            return OrderReports(reports=reports, silent=silent)
        await deferLater(clock, _LOOK)


def _decoded(raws: Sequence[bytes]) -> list[Report]:
    reports = []
    for raw in raws:
        try:
            reports.append(decode_report(raw))
        except MessageError:
            # Not of a node of ours.
            continue
    return reports
