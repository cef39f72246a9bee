"""Which queue a request goes to, and how long it may wait. Pure."""

from collections.abc import Sequence
from typing import Final

from queuerelay.config import Route

#: Where a request goes: its queue, and its deadline in seconds.
Choice = tuple[str, float]


class Routes:
    """The configured routes; the first one that matches decides."""

    __slots__ = ("_default", "_routes")

    def __init__(
        self, routes: Sequence[Route], default_queue: str, default_deadline: float
    ) -> None:
        self._default: Final[Choice] = (default_queue, default_deadline)
        self._routes: Final = [_Compiled(route, default_deadline) for route in routes]

    def choose(
        self, method: str, target: str, host: str, headers: Sequence[tuple[str, str]]
    ) -> Choice:
        """Queue and deadline for one request.

        `target` is the request target in any of its forms (RFC 9112 3.2), `host` the authority
        as the client wrote it, with or without port, "" for none, and `headers` what
        `queuerelay.wire.headers.request_headers` gives.
        """
        # The common case first: this runs for every request.
        if not self._routes:
            return self._default
        path = _path(target)
        host = _host(host)
        for route in self._routes:
            if route.matches(method, path, host, headers):
                return route.choice
        return self._default


class _Compiled:
    __slots__ = ("choice", "field", "host", "method", "path", "value")

    def __init__(self, route: Route, default_deadline: float) -> None:
        deadline = default_deadline if route.deadline is None else route.deadline
        self.choice = (route.queue, deadline)
        self.path = route.path
        self.method = route.method
        self.host = None if route.host is None else _host(route.host)
        name, colon, value = (route.header or "").partition(":")
        self.field = name.strip().lower()
        self.value = value.strip() if colon else None

    def matches(
        self, method: str, path: str, host: str, headers: Sequence[tuple[str, str]]
    ) -> bool:
        return (
            (self.method is None or self.method == method)
            and (self.host is None or self.host == host)
            # A configured path has no "?", so it can match nothing of the query.
            and (self.path is None or path.startswith(self.path))
            and (not self.field or self._has_field(headers))
        )

    def _has_field(self, headers: Sequence[tuple[str, str]]) -> bool:
        return any(
            name == self.field and (self.value is None or value == self.value)
            for name, value in headers
        )


def _path(target: str) -> str:
    """The target from its path on; "" where it has none (``*``, an authority)."""
    if target.startswith("/"):
        return target
    _, separator, rest = target.partition("://")
    if not separator:
        return ""
    slash = rest.find("/")
    question = rest.find("?")
    if slash < 0 or 0 <= question < slash:
        return "/"
    return rest[slash:]


def _host(authority: str) -> str:
    """Host without port, lower-case and without the brackets of an IPv6 address."""
    host, colon, port = authority.rpartition(":")
    if not colon or not (port.isdigit() or not port) or (":" in host and host[-1] != "]"):
        host = authority
    return host.strip("[]").lower()
