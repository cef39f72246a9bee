"""What operators do here: a list of routes that take POST alone.

Each lets the guard decide first, does one thing, and leaves one line in the log: who, from where,
what, and what came of it. Nothing here says what a pool runs.

The answer is JSON, ``{"done": true or false, "text": ...}`` and more; for a form that a browser
sent, it is the way back to the page (303), with a word in the address that the page knows.
"""

import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from queuerelay.broker.base import Broker
from queuerelay.config import MOST_QUEUED
from queuerelay.errors import BrokerError, MessageError
from queuerelay.status.actions.form import Wrong, flag, from_json, given, number, text, texts
from queuerelay.status.actions.give_orders import Outcome, give, new_id
from queuerelay.status.guard import NO_HEADERS, Guard, Refused
from queuerelay.status.route import Answer, Ask, Route
from queuerelay.status.status import Status
from queuerelay.status.views.document import json_answer
from queuerelay.wire import exact
from queuerelay.wire.order import MOST_SLOTS, Order

#: What the page says when it is come back to; the word in its address is a key of this.
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

#: Characters of a path in the log; anybody may ask for one.
_SHOWN: Final = 300
_QUEUE: Final = re.compile(r"[^\s\x00-\x20\x7f-\x9f:,]{1,128}")
_CLASS: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_:.\\]{0,127}")


_NOTHING_MORE: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What came of an action."""

    #: HTTP status.
    status: int = 200
    #: Key of `SAID`.
    word: str
    #: One line for people.
    text: str
    #: What else the answer says.
    more: Mapping[str, Any] = field(default_factory=dict)


_Act = Callable[[Ask, str], Awaitable[Done]]


def routes(status: Status) -> list[Route]:
    """The actions, for those whom the guard of `status` lets."""
    acts, guard = _Acts(status), status.guard
    found: dict[str, _Act] = {
        "queues/{queue}/pause": acts.pause,
        "queues/{queue}/resume": acts.resume,
        "queues/{queue}/jobs": acts.submit,
        "failed/retry": acts.retry_many,
        "failed/drop": acts.drop_many,
        "failed/{id}/retry": acts.retry,
        "failed/{id}/drop": acts.drop,
        "pools/{pool}/size": acts.size,
        "pools/{pool}/drain": acts.drain,
        "pools/{pool}/resume": acts.resume_pool,
        "pools/{pool}/restart": acts.restart,
        "jobs/{id}/stop": acts.stop,
    }
    return [
        Route(path=path, handler=_Guarded(guard, act), methods=("POST",))
        for path, act in found.items()
    ]


class _Guarded:
    """One action behind the guard."""

    _log = Logger()

    def __init__(self, guard: Guard, act: _Act) -> None:
        self._guard = guard
        self._act = act

    def __call__(self, ask: Ask) -> Answer | Deferred[Answer]:
        try:
            who = self._guard.let(ask)
        except Refused as refused:
            self._audit(ask, "nobody", str(refused))
            return _answer(ask, refused.status, refused.text, headers=refused.headers)
        return Deferred.fromCoroutine(self._acted(ask, who))

    async def _acted(self, ask: Ask, who: str) -> Answer:
        try:
            done = await self._act(ask, f"{who}@{ask.client}")
        except Wrong as error:
            self._audit(ask, who, f"400 {error}")
            return _answer(ask, 400, str(error))
        except BrokerError as error:
            self._audit(ask, who, str(error))
            raise
        except CancelledError:
            # Whoever asked is told the same.
            self._audit(ask, who, "503 not finished in time, a part of it may be done")
            raise
        self._audit(ask, who, f"{done.status} {done.text}")
        if done.status < 400 and _from_page(ask):
            return Answer(status=303, headers={"Location": f"{ask.root}?said={done.word}"})
        return _answer(ask, done.status, done.text, more=done.more)

    def _audit(self, ask: Ask, who: str, outcome: str) -> None:
        self._log.info(
            "action by {who} from {client}: {action}: {outcome}",
            who=who,
            client=ask.client,
            action=ascii("/".join(ask.segments)[:_SHOWN])[1:-1],
            outcome=ascii(outcome)[1:-1],
        )


def _from_page(ask: Ask) -> bool:
    return "text/html" in ask.headers.get("accept", "")


def _answer(
    ask: Ask,
    status: int,
    text: str,
    *,
    more: Mapping[str, Any] = _NOTHING_MORE,
    headers: Mapping[str, str] = NO_HEADERS,
) -> Answer:
    if _from_page(ask):
        return Answer(status=status, body=f"{status}: {text}\n".encode(), headers=headers)
    plain = json_answer({"done": status < 400, "text": text, **more}, status)
    return replace(plain, headers=headers)


class _Acts:
    """The actions themselves; the second argument is who asks."""

    def __init__(self, status: Status) -> None:
        self._status = status

    @property
    def _broker(self) -> Broker:
        return self._status.broker

    # Queues

    async def pause(self, ask: Ask, who: str) -> Done:
        new = await self._broker.gate.pause(_queue(ask), by=who)
        return Done(word="paused", text="paused" if new else "it was paused already")

    async def resume(self, ask: Ask, who: str) -> Done:
        was = await self._broker.gate.resume(_queue(ask))
        return Done(
            word="resumed" if was else "nothing", text="resumed" if was else "it was not paused"
        )

    async def submit(self, ask: Ask, who: str) -> Done:
        queue, fields = _queue(ask), given(ask)
        name, args = text(fields, "class"), fields.get("args", [])
        if _CLASS.fullmatch(name) is None:
            raise Wrong("class: expected the name of a class, such as Mp3Job")
        if isinstance(args, list) and "x-www-form-urlencoded" in ask.headers.get(
            "content-type", ""
        ):
            args = from_json(text(fields, "args", "[]"), "args")
        if not isinstance(args, list):
            raise Wrong("args: expected a list")
        (depth,) = await self._broker.queues.depths([queue])
        if depth.length >= MOST_QUEUED:
            return Done(status=503, word="nothing", text=f"{MOST_QUEUED} messages are on it")
        id = os.urandom(16).hex()
        now = round(self._status.wall_clock(), 3)
        try:
            message = exact.dump(
                {"class": name, "args": args, "queue": queue, "id": id, "queue_time": now}
            )
        except MessageError as error:
            raise Wrong(f"args: {error}") from error
        await self._broker.queues.push(queue, [message])
        return Done(status=201, word="submitted", text="submitted", more={"id": id})

    # Dead letters

    async def retry(self, ask: Ask, who: str) -> Done:
        return _one_letter(await self._broker.dead_letters.retry(_letter(ask)), "retried")

    async def drop(self, ask: Ask, who: str) -> Done:
        return _one_letter(await self._broker.dead_letters.drop(_letter(ask)), "dropped")

    async def retry_many(self, ask: Ask, who: str) -> Done:
        return _letters(await self._broker.dead_letters.retry_many(_which(ask)), "retried")

    async def drop_many(self, ask: Ask, who: str) -> Done:
        return _letters(await self._broker.dead_letters.drop_many(_which(ask)), "dropped")

    # Pools

    async def size(self, ask: Ask, who: str) -> Done:
        size = number(given(ask), "size", 0, MOST_SLOTS)
        return await self._pool(ask, "size", "sized", size)

    async def drain(self, ask: Ask, who: str) -> Done:
        return await self._pool(ask, "drain", "drained")

    async def resume_pool(self, ask: Ask, who: str) -> Done:
        return await self._pool(ask, "resume", "resumed")

    async def restart(self, ask: Ask, who: str) -> Done:
        return await self._pool(ask, "restart", "restarted")

    async def _pool(self, ask: Ask, action: str, word: str, size: int = 0) -> Done:
        name, only = ask.params["pool"], text(given(ask), "node")
        pools = self._status.snapshot.pools
        nodes = [one.node for one in pools if one.name == name and only in ("", one.node)]
        if not nodes:
            return Done(status=404, word="nothing", text="no such pool")
        order = Order(id=new_id(), action=action, pool=name, size=size)
        return self._told(await self._give(order, nodes), word)

    # Jobs

    async def stop(self, ask: Ask, who: str) -> Done:
        message = _id(ask, "that of a message")
        pools = self._status.snapshot.pools
        nodes = [one.node for one in pools if any(slot.message == message for slot in one.slots)]
        # A snapshot is a little old, and shows only so many slots: else everybody is asked.
        nodes = nodes or [one.node for one in pools]
        if not nodes:
            return Done(status=404, word="nothing", text="there are no pools")
        order = Order(id=new_id(), action="stop", message=message, kill=flag(given(ask), "kill"))
        outcome = await self._give(order, list(dict.fromkeys(nodes)))
        if not any(report.done for report in outcome.reports) and not outcome.silent:
            return Done(status=404, word="nothing", text="no script works on it")
        here = [report for report in outcome.reports if report.done]
        silent = [] if here else outcome.silent
        return self._told(Outcome(reports=here, silent=silent), "stopped")

    def _give(self, order: Order, nodes: list[str]) -> Deferred[Outcome]:
        return give(order, nodes, broker=self._broker, clock=self._status.clock)

    def _told(self, outcome: Outcome, word: str) -> Done:
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
        return Done(status=status, word=word, text=words, more={"nodes": nodes})


def _queue(ask: Ask) -> str:
    queue = ask.params["queue"]
    if _QUEUE.fullmatch(queue) is None:
        raise Wrong("queue: expected 1 to 128 characters without ':', ',' and blanks")
    return queue


def _letter(ask: Ask) -> str:
    return _id(ask, "that of a dead letter or of its message")


def _id(ask: Ask, expected: str) -> str:
    id = ask.params["id"]
    if len(id) > 256 or not id.isprintable():
        raise Wrong(f"id: expected {expected}")
    return id


def _which(ask: Ask) -> list[str] | None:
    """The ids that are named; None for all, where that is said."""
    fields = given(ask)
    ids, all = texts(fields, "id"), flag(fields, "all")
    if bool(ids) == all:
        raise Wrong("expected either id, one or more, or all")
    return None if all else ids


def _one_letter(was: bool, word: str) -> Done:
    if was:
        return Done(word=word, text=word, more={"count": 1})
    return Done(status=404, word="nothing", text="no such dead letter, or it has no message")


def _letters(count: int, word: str) -> Done:
    return Done(word=word if count else "nothing", text=f"{count} {word}", more={"count": count})
