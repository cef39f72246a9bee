"""``/openapi.json``: the documents and the actions of the listener, as OpenAPI 3.1 has it."""

from typing import Any, Final

from queuerelay import __version__
from queuerelay.status.actions.table import ACTIONS, PARAMETERS, Action
from queuerelay.status.json_answer import json_answer
from queuerelay.status.route import StatusRequest, StatusResponse, StatusRoute
from queuerelay.status.status import Status

_TEXT: Final = {"type": "string"}
_DONE: Final = {
    "type": "object",
    "required": ["done", "text"],
    "properties": {"done": {"type": "boolean"}, "text": _TEXT},
}
#: Statuses of actions, and what each means.
_STATUSES: Final = {
    "200": "Done",
    "201": "Submitted",
    "400": "A field is wrong",
    "401": "Credentials are needed",
    "403": "Read-only, another site's page, another name of this host, or not what they are for",
    "404": "Not there",
    "409": "It cannot be done with that",
    "413": "More than 1 MiB",
    "429": "Too many wrong credentials",
    "503": "Redis does not answer, or the queue is full",
    "504": "A node has not answered yet",
}


def routes(status: Status) -> list[StatusRoute]:
    """The route of ``/openapi.json``."""
    answer = json_answer(openapi())

    def document(ask: StatusRequest) -> StatusResponse:
        return answer

    return [StatusRoute(path="openapi.json", handler=document)]


def openapi() -> dict[str, Any]:
    """The OpenAPI document."""
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
    for action in ACTIONS:
        paths[f"/{action.path}"] = {action.method.lower(): _action(action)}
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


def _action(action: Action) -> dict[str, Any]:
    names = [part[1:-1] for part in action.path.split("/") if part.startswith("{")]
    found: dict[str, Any] = {
        "summary": action.summary,
        # What the credential has to be for (OpenAPI 3.1, Security Requirement Object).
        "security": [{"bearer": [action.scope]}, {"basic": [action.scope]}],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": PARAMETERS[name]}
            for name in names
        ],
        "responses": {status: _response(text, _DONE) for status, text in _STATUSES.items()},
    }
    if action.fields:
        schema: dict[str, Any] = {
            "type": "object",
            "properties": action.fields,
            "required": list(action.required),
        }
        if action.one_of:
            schema["oneOf"] = [{"required": [name]} for name in action.fields]
        found["requestBody"] = {
            "required": bool(action.required) or action.one_of,
            "content": {"application/json": {"schema": schema}},
        }
    return found


def _response(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}
