"""``/openapi.json``: what the listener answers, as OpenAPI 3.1 says such things."""

from typing import Any, Final

from queuerelay import __version__
from queuerelay.status.route import StatusRequest, StatusResponse, StatusRoute
from queuerelay.status.status import Status
from queuerelay.status.views.document import json_answer
from queuerelay.wire.order import MOST_SLOTS

_TEXT: Final = {"type": "string"}
_IDS: Final = {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 1000}
_ALL: Final = {"type": "boolean", "const": True}

#: Of what stands in braces in a path.
_PARAMS: Final = {
    "queue": {"type": "string", "pattern": r"^[^\s\x00-\x20\x7f-\x9f:,]{1,128}$"},
    "pool": {"type": "string", "minLength": 1},
    "id": {"type": "string", "minLength": 1, "maxLength": 256},
}

#: Path, what it does, and the fields of its body with those that must be there.
_ACTIONS: Final[tuple[tuple[str, str, dict[str, Any], tuple[str, ...]], ...]] = (
    ("/queues/{queue}/pause", "Pause a queue", {}, ()),
    ("/queues/{queue}/resume", "Let a paused queue go on", {}, ()),
    (
        "/queues/{queue}/jobs",
        "Put a job on a queue",
        {
            "class": {"type": "string", "pattern": r"^[A-Za-z_][A-Za-z0-9_:.\\]{0,127}$"},
            "args": {"type": "array", "items": {}},
        },
        ("class",),
    ),
    ("/failed/retry", "Put dead letters back: those named, or all", {"id": _IDS, "all": _ALL}, ()),
    ("/failed/drop", "Take dead letters out: those named, or all", {"id": _IDS, "all": _ALL}, ()),
    ("/failed/{id}/retry", "Put a dead letter back on its queue", {}, ()),
    ("/failed/{id}/drop", "Take a dead letter out for good", {}, ()),
    (
        "/pools/{pool}/size",
        "Change how many slots a pool has",
        {"size": {"type": "integer", "minimum": 0, "maximum": MOST_SLOTS}, "node": _TEXT},
        ("size",),
    ),
    ("/pools/{pool}/drain", "Let a pool take no more messages", {"node": _TEXT}, ()),
    ("/pools/{pool}/resume", "Let a drained pool go on", {"node": _TEXT}, ()),
    ("/pools/{pool}/restart", "Replace a resident pool's processes", {"node": _TEXT}, ()),
    ("/jobs/{id}/stop", "End the script of a message", {"kill": {"type": "boolean"}}, ()),
)

_DONE: Final = {
    "type": "object",
    "required": ["done", "text"],
    "properties": {"done": {"type": "boolean"}, "text": _TEXT},
}
#: Statuses of actions, and what they say.
_STATUSES: Final = {
    "200": "Done",
    "201": "Submitted",
    "400": "A field is wrong",
    "401": "Credentials are needed",
    "403": "Read-only, another site's page, or another name of this host",
    "404": "Not there",
    "409": "It cannot be done with that",
    "413": "More than 1 MiB",
    "429": "Too many wrong credentials",
    "503": "Redis does not answer, or the queue is full",
    "504": "A node has not answered yet",
}


def routes(status: Status) -> list[StatusRoute]:
    """The route of this representation."""
    answer = json_answer(openapi())

    def document(ask: StatusRequest) -> StatusResponse:
        return answer

    return [StatusRoute(path="openapi.json", handler=document)]


def openapi() -> dict[str, Any]:
    """The document."""
    paths: dict[str, Any] = {
        "/status.json": {"get": _read("Everything, as of the last second")},
        "/history.json": {"get": _read("The last hour")},
        "/failures.json": {
            "get": {
                **_read("A page of dead letters, the newest first", {"503": "No Redis"}),
                "parameters": [
                    _query("start", {"type": "integer", "minimum": 0}),
                    _query("count", {"type": "integer", "minimum": 1, "maximum": 50}),
                ],
            }
        },
    }
    for path, summary, fields, required in _ACTIONS:
        paths[path] = {"post": _action(path, summary, fields, required)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "queuerelay, status listener", "version": __version__},
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
            }
        },
    }


def _read(summary: str, others: dict[str, str] | None = None) -> dict[str, Any]:
    found = {"200": _response("What there is", {"type": "object"})}
    found.update({status: {"description": text} for status, text in (others or {}).items()})
    found["403"] = {"description": _STATUSES["403"]}
    return {"summary": summary, "responses": found}


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema}


def _action(
    path: str, summary: str, fields: dict[str, Any], required: tuple[str, ...]
) -> dict[str, Any]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    found: dict[str, Any] = {
        "summary": summary,
        "security": [{"bearer": []}, {"basic": []}],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": _PARAMS[name]}
            for name in names
        ],
        "responses": {status: _response(text, _DONE) for status, text in _STATUSES.items()},
    }
    if fields:
        schema: dict[str, Any] = {
            "type": "object",
            "properties": fields,
            "required": list(required),
        }
        if "all" in fields:
            schema["oneOf"] = [{"required": [name]} for name in fields]
        found["requestBody"] = {
            "required": bool(required) or "all" in fields,
            "content": {"application/json": {"schema": schema}},
        }
    return found


def _response(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}
