"""The snapshot as JSON: ``/status.json``, ``/history.json`` and pages of ``/failures.json``.

The names are those of `snapshot`, with ``class`` for ``cls``; they are stable, and the schema
`status.schema.json` beside this file is tested against what comes out. Histograms are not in it:
they are for Prometheus.
"""

from dataclasses import asdict, fields
from typing import Any

from twisted.internet.defer import Deferred

from queuerelay.status.collect.collector import LONGEST_PAGE, PAGE
from queuerelay.status.collect.dead_letters import DeadLetters
from queuerelay.status.collect.snapshot import StatusSnapshot
from queuerelay.status.json_answer import JSON, dump, json_answer
from queuerelay.status.route import StatusRequest, StatusResponse, StatusRoute
from queuerelay.status.status import Status

#: Parts of a snapshot that have a document of their own, or none.
_LEFT_OUT = ("history", "histograms")


def routes(status: Status) -> list[StatusRoute]:
    """The routes of the JSON documents."""
    documents = _Documents(status)
    return [
        StatusRoute(path="status.json", handler=documents.status),
        StatusRoute(path="history.json", handler=documents.history),
        StatusRoute(path="failures.json", handler=documents.failures),
    ]


def status_document(snapshot: StatusSnapshot) -> dict[str, Any]:
    """The snapshot without its history."""
    document = {
        one.name: _plain(getattr(snapshot, one.name))
        for one in fields(snapshot)
        if one.name not in _LEFT_OUT
    }
    document["failures"] = failures_document(snapshot.failures)
    return document


def failures_document(failures: DeadLetters) -> dict[str, Any]:
    """A page of dead letters."""
    document = asdict(failures)
    for item in document["items"]:
        item["class"] = item.pop("cls")
    return document


def _plain(value: object) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value  # type: ignore[call-overload]


class _Documents:
    """The documents of one status room, each snapshot written once."""

    def __init__(self, status: Status) -> None:
        self._status = status
        #: By name, and whether ids are whole.
        self._written: dict[tuple[str, bool], tuple[StatusSnapshot, bytes]] = {}

    def status(self, ask: StatusRequest) -> StatusResponse:
        whole = self._status.guard.trusts(ask)
        snapshot = self._status.shown(whole=whole)
        return self._answer(("status", whole), snapshot, lambda: status_document(snapshot))

    def history(self, ask: StatusRequest) -> StatusResponse:
        snapshot = self._status.snapshot
        return self._answer(("history", True), snapshot, lambda: asdict(snapshot.history))

    def failures(self, ask: StatusRequest) -> Deferred[StatusResponse]:
        start = ask.number("start", 0, 0, 10**9)
        count = ask.number("count", PAGE, 1, LONGEST_PAGE)
        whole = self._status.guard.trusts(ask)
        page = self._status.failures(start, count, whole=whole)
        return page.addCallback(lambda page: json_answer(failures_document(page)))

    def _answer(
        self, name: tuple[str, bool], snapshot: StatusSnapshot, make: Any
    ) -> StatusResponse:
        known = self._written.get(name)
        if known is None or known[0] is not snapshot:
            known = self._written[name] = (snapshot, dump(make()))
        return StatusResponse(body=known[1], content_type=JSON)
