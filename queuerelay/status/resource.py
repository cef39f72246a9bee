"""The status listener's routes as a twisted.web Resource, to be mounted anywhere.

Invariants:

1. A Host that is neither an address, nor localhost, nor one of `hosts` is refused before anything
   else: a name that some web page has bound to this address must not read what stands here.
2. Every answer says that it is not to be kept, nor guessed at, nor shown in others' frames.
3. Nothing of a request is echoed.
4. Host, path, method and credentials are judged before a body is read where the site asks `judge`,
   and once more with the body.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from queuerelay.errors import BrokerError
from queuerelay.http.head import Head
from queuerelay.http.problems import reason_phrase
from queuerelay.http.site import EarlyAnswer
from queuerelay.status.route import (
    READ,
    StatusRequest,
    StatusResponse,
    StatusRoute,
    find,
    text_answer,
)
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

    `hosts` are the names, without port, under which the resource may be asked beside addresses
    and localhost; None for any name, where the site around it sees to that.
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
        segments = _decoded(request.postpath or [])
        fields = request.requestHeaders
        ask = StatusRequest(
            method=request.method.decode("latin-1"),
            segments=tuple(segments or ()),
            query=_query(request.uri),
            headers=_fields(fields.getAllRawHeaders()),
            client=_address(request.getClientAddress()),
            root="".join(f"/{quote(one, safe='')}" for one in request.prepath or () if one) + "/",
        )
        found = self._find(ask, fields.getRawHeaders(b"host") or (), is_text=segments is not None)
        if isinstance(found, StatusResponse):
            return found
        route, ask = found
        # What only reads looks at no body.
        body = b""
        if ask.method not in READ and request.content is not None:
            body = request.content.read(MAX_BODY + 1)
        if len(body) > MAX_BODY:
            return _text(413, "content too large")
        return route.handler(replace(ask, body=body))

    def judge(self, head: Head, client: IAddress) -> EarlyAnswer | None:
        """The answer to a request whose body is to come, where the body does not matter; for a site
        that has this resource at its root.
        """
        try:
            answer = self._judged(head, client)
        except Exception:
            self._log.failure("the status listener failed on the head of a request")
            answer = _text(500, "internal error")
        if answer is None:
            return None
        body = b"" if head.method == b"HEAD" else answer.body
        return EarlyAnswer(answer.status, _answer_fields(answer), body)

    def _judged(self, head: Head, client: IAddress) -> StatusResponse | None:
        path, _, _ = head.target.partition(b"?")
        segments = _decoded([unquote_to_bytes(one) for one in path[1:].split(b"/")])
        ask = StatusRequest(
            method=head.method.decode("latin-1"),
            segments=tuple(segments or ()),
            query=_query(head.target),
            headers=_fields(head.fields),
            client=_address(client),
        )
        hosts = [value for name, (value,) in head.fields if name == b"host"]
        found = self._find(ask, hosts, is_text=segments is not None)
        if isinstance(found, StatusResponse):
            return found
        route, ask = found
        return None if route.deny is None else route.deny(ask)

    def _find(
        self, ask: StatusRequest, hosts: Sequence[bytes], *, is_text: bool
    ) -> tuple[StatusRoute, StatusRequest] | StatusResponse:
        """The route for `ask`, which gets its params; or the answer where there is none. `is_text`
        is whether its path was UTF-8.
        """
        host = hosts[0].decode("latin-1") if len(hosts) == 1 else ""
        if self._hosts is not None and not self._allowed(host):
            return _text(403, "this name is not served here")
        if not is_text:
            return _text(404, "not found")
        if not ask.segments:
            return StatusResponse(status=308, headers={"Location": ask.root})
        route, params, allowed = find(self._routes, ask.method, ask.segments)
        if route is None:
            if allowed:
                return _text(405, "method not allowed", Allow=", ".join(allowed))
            return _text(404, "not found")
        return route, replace(ask, params=params)

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
    return text_answer(status, text, headers)


def _send(request: Request, answer: StatusResponse) -> None:
    request.setResponseCode(answer.status, reason_phrase(answer.status))
    for name, value in _answer_fields(answer):
        request.setHeader(name, value)
    if request.method != b"HEAD":
        request.write(answer.body)
    request.finish()


def _answer_fields(answer: StatusResponse) -> list[tuple[bytes, bytes]]:
    fields = {**_HEADERS, "Content-Type": answer.content_type, **answer.headers}
    encoded = [(name.encode("ascii"), value.encode("utf-8")) for name, value in fields.items()]
    return [*encoded, (b"Content-Length", b"%d" % len(answer.body))]


def _address(client: object) -> str:
    """The address of `client` in ASCII without controls: some sites believe any text."""
    return ascii(str(getattr(client, "host", "") or ""))[1:-1]


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


def _fields(fields: Iterable[tuple[bytes, Sequence[bytes]]]) -> Mapping[str, str]:
    """Header fields by lower-case name, of each the first value."""
    found: dict[str, str] = {}
    for name, values in fields:
        found.setdefault(name.decode("latin-1").lower(), values[0].decode("latin-1"))
    return found
