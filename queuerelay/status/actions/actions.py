"""The actions as routes that take POST alone: each lets the guard decide first, does one thing, and
leaves one line in the log: who, from where, what, and what came of it. Those that the guard does
not let are few lines, however many they are.

The answer is JSON, ``{"done": true or false, "text": ...}`` and more; for a form that a browser
sent, it is the way back to the page (303), with a word in the address that the page knows.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from queuerelay.errors import BrokerError
from queuerelay.status.actions.acts import ActionResult, Acts
from queuerelay.status.actions.form import Wrong
from queuerelay.status.actions.table import ACTIONS
from queuerelay.status.denial_log import path_of
from queuerelay.status.guard import NO_HEADERS, Denied
from queuerelay.status.json_answer import json_answer
from queuerelay.status.route import StatusRequest, StatusResponse, StatusRoute, text_answer
from queuerelay.status.status import Status

_NOTHING_MORE: Final[Mapping[str, Any]] = MappingProxyType({})

_Act = Callable[[StatusRequest, str], Awaitable[ActionResult]]


def routes(status: Status) -> list[StatusRoute]:
    """The actions, for those whom the guard of `status` lets."""
    acts = Acts(status)
    found = []
    for action in ACTIONS:
        guarded = _Guarded(status, action.scope, partial(action.act, acts))
        found.append(
            StatusRoute(
                path=action.path, handler=guarded, methods=(action.method,), deny=guarded.deny
            )
        )
    return found


class _Guarded:
    """One action behind the guard."""

    _log = Logger()

    def __init__(self, status: Status, scope: str, act: _Act) -> None:
        self._guard = status.guard
        self._denials = status.denials
        self._scope = scope
        self._act = act

    def __call__(self, ask: StatusRequest) -> StatusResponse | Deferred[StatusResponse]:
        who = self._who(ask)
        if isinstance(who, StatusResponse):
            return who
        return Deferred.fromCoroutine(self._acted(ask, who))

    def deny(self, ask: StatusRequest) -> StatusResponse | None:
        """The answer to a request that may not act; None for one that may."""
        who = self._who(ask)
        return who if isinstance(who, StatusResponse) else None

    def _who(self, ask: StatusRequest) -> str | StatusResponse:
        try:
            return self._guard.let(ask, self._scope)
        except Denied as denied:
            self._denials.add(ask, str(denied))
            return _answer(ask, denied.status, denied.text, headers=denied.headers)

    async def _acted(self, ask: StatusRequest, who: str) -> StatusResponse:
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
            return StatusResponse(status=303, headers={"Location": f"{ask.root}?said={done.word}"})
        return _answer(ask, done.status, done.text, more=done.more)

    def _audit(self, ask: StatusRequest, who: str, outcome: str) -> None:
        self._log.info(
            "action by {who} from {client}: {action}: {outcome}",
            who=who,
            client=ask.client,
            action=path_of(ask),
            outcome=ascii(outcome)[1:-1],
        )


def _from_page(ask: StatusRequest) -> bool:
    return "text/html" in ask.headers.get("accept", "")


def _answer(
    ask: StatusRequest,
    status: int,
    text: str,
    *,
    more: Mapping[str, Any] = _NOTHING_MORE,
    headers: Mapping[str, str] = NO_HEADERS,
) -> StatusResponse:
    if _from_page(ask):
        return text_answer(status, text, headers)
    plain = json_answer({"done": status < 400, "text": text, **more}, status)
    return replace(plain, headers=headers)
