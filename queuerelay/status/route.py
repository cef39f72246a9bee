"""Requests to the status listener and its responses, whatever carries them.

A representation (the page, JSON, an action) is a list of `StatusRoute`s. Its handlers get a
`StatusRequest` and give a `StatusResponse`; nothing here knows of twisted.web.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from twisted.internet.defer import Deferred

#: Methods that read.
READ: Final = ("GET", "HEAD")


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRequest:
    """One request to the status listener."""

    method: str
    #: Segments of the path, decoded, one for each ``/``, from the listener's own root on:
    #: ``("queues", "mails", "pause")``.
    segments: tuple[str, ...]
    #: What the route's ``{name}`` segments stand for.
    params: Mapping[str, str] = field(default_factory=dict)
    #: The query's fields, of each the first.
    query: Mapping[str, str] = field(default_factory=dict)
    #: Header fields by lower-case name, of each the first.
    headers: Mapping[str, str] = field(default_factory=dict)
    #: The body, of at most `resource.MAX_BODY` bytes.
    body: bytes = b""
    #: Address of the client, without controls; "" where it has none.
    client: str = ""
    #: Path of the listener's root, ending in ``/``: ``/`` by itself, else as it was mounted.
    root: str = "/"

    def number(self, name: str, default: int, lowest: int, highest: int) -> int:
        """A whole number of the query, within bounds; `default` where it is none."""
        text = self.query.get(name, "")
        if not text.isascii() or not text.isdigit() or len(text) > 9:
            return default
        return min(highest, max(lowest, int(text)))


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusResponse:
    """One response of the status listener."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    #: Further fields, or others in the place of those that each answer has.
    headers: Mapping[str, str] = field(default_factory=dict)


def text_answer(
    status: int, text: str, headers: Mapping[str, str] = MappingProxyType({})
) -> StatusResponse:
    """A line for people, with its status."""
    return StatusResponse(status=status, body=f"{status}: {text}\n".encode(), headers=headers)


#: Makes an answer, now or later.
Handler = Callable[[StatusRequest], StatusResponse | Deferred[StatusResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRoute:
    """A path, its methods, and the handler that answers there."""

    #: The path without its first ``/``; ``{name}`` stands for one segment that is not empty.
    path: str
    handler: Handler
    methods: tuple[str, ...] = READ
    #: Gives the answer to a request that may not ask for it, before its body is read, and None for
    #: one that may; the handler asks again. None where anybody may.
    deny: Callable[[StatusRequest], StatusResponse | None] | None = None

    def match(self, segments: Sequence[str]) -> dict[str, str] | None:
        """The texts for the route's ``{name}`` segments, None where the path is another one."""
        parts = self.path.split("/")
        if len(parts) != len(segments):
            return None
        params = {}
        for part, segment in zip(parts, segments, strict=True):
            if part.startswith("{"):
                if not segment:
                    return None
                params[part[1:-1]] = segment
            elif part != segment:
                return None
        return params


def find(
    routes: Iterable[StatusRoute], method: str, segments: Sequence[str]
) -> tuple[StatusRoute | None, dict[str, str], tuple[str, ...]]:
    """The first route for a request, with its params; or None, and the methods that the path takes
    (none where there is no such path).
    """
    allowed: list[str] = []
    for route in routes:
        params = route.match(segments)
        if params is None:
            continue
        if method in route.methods:
            return route, params, ()
        allowed += [one for one in route.methods if one not in allowed]
    return None, {}, tuple(allowed)
