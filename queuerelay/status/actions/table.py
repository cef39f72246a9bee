"""All actions in one table: where each is asked for, with what, and what does it.

Routes and the OpenAPI document are made of it. No action says what a pool runs.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from queuerelay.status.actions.acts import LONGEST_ID, ActionResult, Acts
from queuerelay.status.credentials import OPERATE, SUBMIT
from queuerelay.status.route import StatusRequest
from queuerelay.wire.names import CLASS_NAME, QUEUE_NAME
from queuerelay.wire.order import MOST_SLOTS

#: A JSON Schema.
Schema = Mapping[str, Any]


_TEXT: Final = {"type": "string"}
_NODE: Final = {"node": _TEXT}
_JOB: Final[Mapping[str, Schema]] = {
    "class": {"type": "string", "pattern": f"^{CLASS_NAME}$"},
    "args": {"type": "array", "items": {}},
}
_WHICH: Final = {
    "id": {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 1000},
    "all": {"type": "boolean", "const": True},
}
#: Schemas of the parameters, which stand in braces in a path.
PARAMETERS: Final[Mapping[str, Schema]] = {
    "queue": {"type": "string", "pattern": f"^{QUEUE_NAME}$"},
    "pool": {"type": "string", "minLength": 1},
    "id": {"type": "string", "minLength": 1, "maxLength": LONGEST_ID},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One action: its place, its parameters, and the method of `Acts` that does it."""

    method: str = "POST"
    #: The path without its first ``/``; ``{name}`` is one of `PARAMETERS`.
    path: str
    #: What the action does, in one line.
    summary: str
    act: Callable[[Acts, StatusRequest, str], Awaitable[ActionResult]]
    #: What a credential has to be for.
    scope: str = OPERATE
    #: Fields of the body.
    fields: Mapping[str, Schema] = field(default_factory=dict)
    #: Fields that must be there.
    required: tuple[str, ...] = ()
    #: Whether exactly one of the fields must be there.
    one_of: bool = False


ACTIONS: Final = (
    Action(path="queues/{queue}/pause", summary="Pause a queue", act=Acts.pause),
    Action(path="queues/{queue}/resume", summary="Let a paused queue go on", act=Acts.resume),
    Action(
        path="queues/{queue}/jobs",
        summary="Put a job on a queue",
        act=Acts.submit,
        scope=SUBMIT,
        fields=_JOB,
        required=("class",),
    ),
    Action(
        path="failed/retry",
        summary="Put dead letters back: those named, or all",
        act=Acts.retry_many,
        fields=_WHICH,
        one_of=True,
    ),
    Action(
        path="failed/drop",
        summary="Take dead letters out: those named, or all",
        act=Acts.drop_many,
        fields=_WHICH,
        one_of=True,
    ),
    Action(
        path="failed/{id}/retry",
        summary="Put a dead letter back on its queue, as it was or mended",
        act=Acts.retry,
        fields=_JOB,
    ),
    Action(path="failed/{id}/drop", summary="Take a dead letter out for good", act=Acts.drop),
    Action(
        path="pools/{pool}/size",
        summary="Change how many slots a pool has",
        act=Acts.size,
        fields={"size": {"type": "integer", "minimum": 0, "maximum": MOST_SLOTS}, **_NODE},
        required=("size",),
    ),
    Action(
        path="pools/{pool}/drain",
        summary="Let a pool take no more messages",
        act=Acts.drain,
        fields=_NODE,
    ),
    Action(
        path="pools/{pool}/resume",
        summary="Let a drained pool go on",
        act=Acts.resume_pool,
        fields=_NODE,
    ),
    Action(
        path="pools/{pool}/restart",
        summary="Replace a resident pool's processes",
        act=Acts.restart,
        fields=_NODE,
    ),
    Action(
        path="jobs/{id}/stop",
        summary="End the script of a message",
        act=Acts.stop,
        fields={"kill": {"type": "boolean"}},
    ),
)
