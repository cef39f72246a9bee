"""The actions themselves: what each does with a request of somebody who may act."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet.defer import Deferred

from queuerelay.broker.base import Broker
from queuerelay.config import MOST_QUEUED
from queuerelay.errors import MessageError
from queuerelay.status.actions.form import Wrong, flag, from_json, given, number, text, texts
from queuerelay.status.actions.give_orders import OrderReports, give, new_id
from queuerelay.status.collect.shortened import REST
from queuerelay.status.route import StatusRequest
from queuerelay.status.status import Status
from queuerelay.wire import exact
from queuerelay.wire.message import REQUEST_CLASS
from queuerelay.wire.names import QUEUE_NAME_EXPECTED, is_class_name, is_queue_name
from queuerelay.wire.order import MOST_SLOTS, Order

#: Lines that the page shows after an action, by the word in the page's address.
SAID: Final = {
    "paused": "The queue is paused.",
    "resumed": "The queue goes on.",
    "submitted": "The job is on its queue.",
    "retried": "Back on its queue.",
    "dropped": "Dropped.",
    "sized": "The size is changed.",
    "drained": "The pool takes no more messages.",
    "restarted": "The processes are being replaced, one by one.",
    "stopped": "The script was told to end.",
    "nothing": "Nothing to do: it was so already, or is not there any more.",
}
#: Most characters of an id.
LONGEST_ID: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionResult:
    """The result of an action, for its answer and for the page."""

    #: HTTP status.
    status: int = 200
    #: Key of `SAID`.
    word: str
    #: One line for people.
    text: str
    #: Further members of the answer.
    more: Mapping[str, Any] = field(default_factory=dict)


class Acts:
    """The actions of one status room; each takes the request and who sends it.

    Raises `Wrong`, or fails with `BrokerError`.
    """

    def __init__(self, status: Status) -> None:
        self._status = status

    @property
    def _broker(self) -> Broker:
        return self._status.broker

    # Queues

    async def pause(self, ask: StatusRequest, who: str) -> ActionResult:
        new = await self._broker.gate.pause(_queue(ask), by=who)
        return ActionResult(word="paused", text="paused" if new else "it was paused already")

    async def resume(self, ask: StatusRequest, who: str) -> ActionResult:
        was = await self._broker.gate.resume(_queue(ask))
        return ActionResult(
            word="resumed" if was else "nothing", text="resumed" if was else "it was not paused"
        )

    async def submit(self, ask: StatusRequest, who: str) -> ActionResult:
        queue, fields = _queue(ask), given(ask)
        name, args = _class_name(fields), _args(ask, fields)
        (depth,) = await self._broker.queues.depths([queue])
        if depth.length >= MOST_QUEUED:
            return ActionResult(
                status=503, word="nothing", text=f"{MOST_QUEUED} messages are on it"
            )
        id = os.urandom(16).hex()
        now = round(self._status.time(), 3)
        try:
            message = exact.dump(
                {"class": name, "args": args, "queue": queue, "id": id, "queue_time": now}
            )
        except MessageError as error:
            raise Wrong(f"args: {error}") from error
        await self._broker.queues.push(queue, [message])
        return ActionResult(status=201, word="submitted", text="submitted", more={"id": id})

    # Dead letters

    async def retry(self, ask: StatusRequest, who: str) -> ActionResult:
        return _one_letter(
            await self._broker.dead_letters.retry(_letter(ask), _mended(ask)), "retried"
        )

    async def drop(self, ask: StatusRequest, who: str) -> ActionResult:
        return _one_letter(await self._broker.dead_letters.drop(_letter(ask)), "dropped")

    async def retry_many(self, ask: StatusRequest, who: str) -> ActionResult:
        return _letters(await self._broker.dead_letters.retry_many(_which(ask)), "retried")

    async def drop_many(self, ask: StatusRequest, who: str) -> ActionResult:
        return _letters(await self._broker.dead_letters.drop_many(_which(ask)), "dropped")

    # Pools

    async def size(self, ask: StatusRequest, who: str) -> ActionResult:
        size = number(given(ask), "size", 0, MOST_SLOTS)
        return await self._pool(ask, "size", "sized", size)

    async def drain(self, ask: StatusRequest, who: str) -> ActionResult:
        return await self._pool(ask, "drain", "drained")

    async def resume_pool(self, ask: StatusRequest, who: str) -> ActionResult:
        return await self._pool(ask, "resume", "resumed")

    async def restart(self, ask: StatusRequest, who: str) -> ActionResult:
        return await self._pool(ask, "restart", "restarted")

    async def _pool(
        self, ask: StatusRequest, action: str, word: str, size: int = 0
    ) -> ActionResult:
        name, only = ask.params["pool"], text(given(ask), "node")
        pools = self._status.snapshot.pools
        nodes = [one.node for one in pools if one.name == name and only in ("", one.node)]
        if not nodes:
            return ActionResult(status=404, word="nothing", text="no such pool")
        order = Order(id=new_id(), action=action, pool=name, size=size)
        return self._told(await self._give(order, nodes), word)

    # Jobs

    async def stop(self, ask: StatusRequest, who: str) -> ActionResult:
        message = _id(ask, "that of a message")
        pools = self._status.snapshot.pools
        busy = [slot for one in pools for slot in one.slots]
        message = _whole(message, [slot.message for slot in busy if slot.message])
        nodes = [one.node for one in pools if any(slot.message == message for slot in one.slots)]
        # A snapshot is a little old, and shows only so many slots: else everybody is asked.
        nodes = nodes or [one.node for one in pools]
        if not nodes:
            return ActionResult(status=404, word="nothing", text="there are no pools")
        order = Order(id=new_id(), action="stop", message=message, kill=flag(given(ask), "kill"))
        outcome = await self._give(order, list(dict.fromkeys(nodes)))
        if not any(report.done for report in outcome.reports) and not outcome.silent:
            return ActionResult(status=404, word="nothing", text="no script works on it")
        here = [report for report in outcome.reports if report.done]
        silent = [] if here else outcome.silent
        return self._told(OrderReports(reports=here, silent=silent), "stopped")

    def _give(self, order: Order, nodes: list[str]) -> Deferred[OrderReports]:
        return give(order, nodes, broker=self._broker, clock=self._status.clock)

    def _told(self, outcome: OrderReports, word: str) -> ActionResult:
        nodes = [
            *({"node": one.node, "done": one.done, "text": one.text} for one in outcome.reports),
            *({"node": one, "done": False, "text": "no answer yet"} for one in outcome.silent),
        ]
        status = 200
        if outcome.silent:
            status = 504
        elif not all(report.done for report in outcome.reports):
            status = 409
        words = "; ".join(dict.fromkeys(str(node["text"]) for node in nodes))
        return ActionResult(status=status, word=word, text=words, more={"nodes": nodes})


def _whole(id: str, known: Sequence[str]) -> str:
    """The id of which the page has shown the beginning; `id` itself where that is none."""
    if not id.endswith(REST):
        return id
    found = {one for one in known if one.startswith(id.removesuffix(REST))}
    if len(found) > 1:
        raise Wrong("id: several begin so; expected a whole one")
    return found.pop() if found else id


def _queue(ask: StatusRequest) -> str:
    queue = ask.params["queue"]
    if not is_queue_name(queue):
        raise Wrong(f"queue: expected {QUEUE_NAME_EXPECTED}")
    return queue


def _letter(ask: StatusRequest) -> str:
    return _id(ask, "that of a dead letter or of its message")


def _id(ask: StatusRequest, expected: str) -> str:
    id = ask.params["id"]
    if len(id) > LONGEST_ID or not id.isprintable():
        raise Wrong(f"id: expected {expected}")
    return id


def _mended(ask: StatusRequest) -> dict[str, Any] | None:
    """What is to be in the place of a dead letter's own class and args."""
    fields = given(ask)
    mended: dict[str, Any] = {}
    if "class" in fields:
        mended["class"] = _class_name(fields)
    if "args" in fields:
        mended["args"] = _args(ask, fields)
    return mended or None


def _class_name(fields: Mapping[str, Any]) -> str:
    name = text(fields, "class")
    if not is_class_name(name):
        raise Wrong("class: expected the name of a class, such as Mp3Job")
    if name == REQUEST_CLASS:
        # Whoever made it up would say where it came from, and who sent it.
        raise Wrong(f"class: got {name}, which relays alone submit; expected that of a job")
    return name


def _args(ask: StatusRequest, fields: Mapping[str, Any]) -> list[Any]:
    args = fields.get("args", [])
    form = "x-www-form-urlencoded" in ask.headers.get("content-type", "")
    if isinstance(args, list) and form:
        args = from_json(text(fields, "args", "[]"), "args")
    if not isinstance(args, list):
        raise Wrong("args: expected a list")
    return args


def _which(ask: StatusRequest) -> list[str] | None:
    """The ids of the dead letters; None for all of them."""
    fields = given(ask)
    ids, all = texts(fields, "id"), flag(fields, "all")
    if bool(ids) == all:
        raise Wrong("expected either id, one or more, or all")
    return None if all else ids


def _one_letter(was: bool, word: str) -> ActionResult:
    if was:
        return ActionResult(word=word, text=word, more={"count": 1})
    return ActionResult(
        status=404, word="nothing", text="no such dead letter, or it has no message"
    )


def _letters(count: int, word: str) -> ActionResult:
    return ActionResult(
        word=word if count else "nothing", text=f"{count} {word}", more={"count": count}
    )
