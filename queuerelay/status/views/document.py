"""The snapshot as JSON: ``/status.json``, ``/history.json`` and pages of ``/failures.json``.

The names are those of `snapshot`, with ``class`` for ``cls``; they are stable, and the schema
`status.schema.json` beside this file is tested against what comes out. Histograms are not in it:
they are for Prometheus.
"""

from dataclasses import asdict, fields
from typing import Any

import orjson
from twisted.internet.defer import Deferred

from queuerelay.status.collect.collector import LONGEST_PAGE, PAGE
from queuerelay.status.collect.snapshot import Failures, Snapshot
from queuerelay.status.route import StatusRequest, StatusResponse, StatusRoute
from queuerelay.status.status import Status

#: Parts of a snapshot that have a document of their own, or none.
_LEFT_OUT = ("history", "histograms")
_TYPE = "application/json"


def routes(status: Status) -> list[StatusRoute]:
    """The routes of this representation."""
    documents = _Documents(status)
    return [
        StatusRoute(path="status.json", handler=documents.status),
        StatusRoute(path="history.json", handler=documents.history),
        StatusRoute(path="failures.json", handler=documents.failures),
    ]


def status_document(snapshot: Snapshot) -> dict[str, Any]:
    """The snapshot without its history."""
    document = {
        one.name: _plain(getattr(snapshot, one.name))
        for one in fields(snapshot)
        if one.name not in _LEFT_OUT
    }
    document["failures"] = failures_document(snapshot.failures)
    return document


def failures_document(failures: Failures) -> dict[str, Any]:
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
    """Writes each snapshot once, however often it is asked for."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._written: dict[str, tuple[Snapshot, bytes]] = {}

    def status(self, ask: StatusRequest) -> StatusResponse:
        snapshot = self._status.snapshot
        return self._answer("status", snapshot, lambda: status_document(snapshot))

    def history(self, ask: StatusRequest) -> StatusResponse:
        snapshot = self._status.snapshot
        return self._answer("history", snapshot, lambda: asdict(snapshot.history))

    def failures(self, ask: StatusRequest) -> Deferred[StatusResponse]:
        start = ask.number("start", 0, 0, 10**9)
        count = ask.number("count", PAGE, 1, LONGEST_PAGE)
        page = self._status.collector.failures(start, count)
        return page.addCallback(lambda page: json_answer(failures_document(page)))

    def _answer(self, name: str, snapshot: Snapshot, make: Any) -> StatusResponse:
        known = self._written.get(name)
        if known is None or known[0] is not snapshot:
            known = self._written[name] = (snapshot, _dump(make()))
        return StatusResponse(body=known[1], content_type=_TYPE)


def json_answer(value: object, status: int = 200) -> StatusResponse:
    """An answer of JSON."""
    return StatusResponse(status=status, body=_dump(value), content_type=_TYPE)


def _dump(value: object) -> bytes:
    return orjson.dumps(value, default=list, option=orjson.OPT_NON_STR_KEYS)
