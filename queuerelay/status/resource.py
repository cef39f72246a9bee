"""The status listener's routes as a twisted.web Resource, to be mounted anywhere.

Invariants:

1. A Host that is neither an address, nor localhost, nor one of `hosts` is refused before anything
   else: a name that some web page has bound to this address must not read what stands here.
2. Every answer says that it is not to be kept, nor guessed at, nor shown in others' frames.
3. Nothing of a request is echoed.
"""

import re
from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import parse_qsl, quote

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from queuerelay.errors import BrokerError
from queuerelay.status.route import READ, StatusRequest, StatusResponse, StatusRoute, find
from queuerelay.status.routes import routes
from queuerelay.status.status import Status

#: Longest body of a request, bytes.
MAX_BODY: Final = 1024 * 1024
#: Seconds that an answer may take.
BOUND: Final = 15.0

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
#: An address, or localhost, each with or without a port: no DNS leads a browser astray to those.
_ADDRESS: Final = re.compile(
    r"(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-f:.]+\]|localhost)(:\d{1,5})?", re.ASCII | re.IGNORECASE
)
_PORT: Final = re.compile(r":\d{1,5}\Z", re.ASCII)


class StatusResource(Resource):
    """Answers for `status` at its own place and below.

    `hosts` are the names, without port, under which it may be asked beside addresses and
    localhost; None for any name, where the site around it sees to that.
    """

    isLeaf = True
    _log = Logger()

    def __init__(self, status: Status, *, hosts: Collection[str] | None = ()) -> None:
        super().__init__()
        self._routes: list[StatusRoute] = routes(status)
        self._hosts = None if hosts is None else {host.lower() for host in hosts}
        self._clock: IReactorTime = status.clock

    def render(self, request: Request) -> int:
        """Answer now or later."""
        answering: Deferred[StatusResponse] = Deferred.fromCoroutine(self._answered(request))
        answering.addTimeout(BOUND, self._clock)
        answering.addErrback(self._failed)
        left: list[object] = []
        request.notifyFinish().addErrback(lambda failure: left.append(failure.trap(Exception)))
        answering.addCallback(lambda answer: None if left else _send(request, answer))
        answering.addErrback(self._unsent)
        return NOT_DONE_YET

    async def _answered(self, request: Request) -> StatusResponse:
        answer = self._answer(request)
        return await answer if isinstance(answer, Deferred) else answer

    def _answer(self, request: Request) -> StatusResponse | Deferred[StatusResponse]:
        hosts = request.requestHeaders.getRawHeaders(b"host") or []
        host = hosts[0].decode("latin-1") if len(hosts) == 1 else ""
        if self._hosts is not None and not self._allowed(host):
            return _text(403, "this name is not served here")
        segments = _decoded(request.postpath or [])
        if segments is None:
            return _text(404, "not found")
        root = "".join(f"/{quote(one, safe='')}" for one in request.prepath or () if one) + "/"
        if not segments:
            return StatusResponse(status=308, headers={"Location": root})
        method = request.method.decode("latin-1")
        route, params, allowed = find(self._routes, method, segments)
        if route is None:
            if allowed:
                return _text(405, "method not allowed", Allow=", ".join(allowed))
            return _text(404, "not found")
        # What only reads looks at no body.
        body = b"" if method in READ or request.content is None else request.content.read()
        if len(body) > MAX_BODY:
            return _text(413, "content too large")
        return route.handler(
            StatusRequest(
                method=method,
                segments=tuple(segments),
                params=params,
                query=_query(request.uri),
                headers=_fields(request),
                body=body,
                client=str(getattr(request.getClientAddress(), "host", "") or ""),
                root=root,
            )
        )

    def _allowed(self, host: str) -> bool:
        assert self._hosts is not None
        return _ADDRESS.fullmatch(host) is not None or _PORT.sub("", host).lower() in self._hosts

    def _failed(self, failure: Failure) -> StatusResponse:
        if failure.check(BrokerError):
            return _text(503, "Redis does not answer", **{"Retry-After": "5"})
        if failure.check(TimeoutError):
            return _text(503, "no answer in time", **{"Retry-After": "5"})
        self._log.failure("the status listener failed on a request", failure)
        return _text(500, "internal error")

    def _unsent(self, failure: Failure) -> None:
        if not failure.check(ConnectionLost):
            self._log.failure("an answer of the status listener could not be sent", failure)


def _text(status: int, text: str, **headers: str) -> StatusResponse:
    return StatusResponse(status=status, body=f"{status}: {text}\n".encode(), headers=headers)


def _send(request: Request, answer: StatusResponse) -> None:
    request.setResponseCode(answer.status, RESPONSES.get(answer.status, b"Status"))
    fields = {**_HEADERS, "Content-Type": answer.content_type, **answer.headers}
    for name, value in fields.items():
        request.setHeader(name, value)
    request.setHeader(b"content-length", b"%d" % len(answer.body))
    if request.method != b"HEAD":
        request.write(answer.body)
    request.finish()


def _decoded(segments: list[bytes]) -> list[str] | None:
    try:
        return [one.decode("utf-8") for one in segments]
    except UnicodeDecodeError:
        return None


def _query(uri: bytes) -> Mapping[str, str]:
    text = uri.partition(b"?")[2].decode("latin-1")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=50)
    except ValueError:
        return {}
    return dict(reversed(pairs))


def _fields(request: Request) -> Mapping[str, str]:
    return {
        name.decode("latin-1").lower(): values[0].decode("latin-1")
        for name, values in request.requestHeaders.getAllRawHeaders()
    }
