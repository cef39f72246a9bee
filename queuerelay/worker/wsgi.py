"""Runs a WSGI application for one request and catches its answer (PEP 3333).

`wsgiref.handlers` does the protocol. What differs from a server with a socket:

1. An answer that is a list or of a declared length, up to --max-reply, is held until it is whole:
   an application that fails half-way gets a clean 500. Any other is streamed: each block goes out
   before the next one is asked for.
2. Nothing is added to the answer: date, length and framing are the relay's.
3. A declared length is the answer's: an iterable that has more is not asked on once that shows, and
   `write` past it is an error (PEP 3333, "Handling the Content-Length Header").
4. Whatever the application raises, SystemExit and broken pipes of its own among it, the worker
   lives on.
"""

import io
import logging
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from wsgiref import util
from wsgiref.handlers import BaseHandler
from wsgiref.headers import Headers
from wsgiref.types import ErrorStream, InputStream, WSGIApplication, WSGIEnvironment

from queuerelay.errors import QueuerelayError
from queuerelay.wire.headers import is_token
from queuerelay.wire.message import Request
from queuerelay.wire.reply import NO_BODY_STATUSES
from queuerelay.worker.environ import environ_of
from queuerelay.worker.stream import ReplyStream, StreamStopped

if TYPE_CHECKING:
    from _typeshed import OptExcInfo

log = logging.getLogger(__name__)

#: A status line's code, and a reason that may be missing, as with gunicorn and waitress; a worker's
#: final answer is 200 to 599.
_STATUS: Final = re.compile(r"[2-5][0-9]{2}(?: [^\r\n]*)?", re.ASCII)
#: A length that can be relied on (RFC 9110 8.6).
_LENGTH: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
#: What a field value must not have (RFC 9110 5.5), and what is no byte (PEP 3333).
_NO_VALUE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")


class NotWSGI(QueuerelayError):
    """the application did what PEP 3333 forbids"""


class FileWrapper(util.FileWrapper):
    """A file as an iterable, `wsgi.file_wrapper`. It can seek where the file can: a framework that
    answers with a range (werkzeug, for one) then reads no more than that.
    """

    def seekable(self) -> bool:
        """Whether the file can seek."""
        able = getattr(self.filelike, "seekable", None)
        return bool(able()) if able is not None else hasattr(self.filelike, "seek")

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place in the file."""
        place: int = self.filelike.seek(offset, whence)
        return place

    def tell(self) -> int:
        """The place in the file."""
        place: int = self.filelike.tell()
        return place


@dataclass(frozen=True, slots=True)
class WSGIAnswer:
    """What the application answered."""

    #: 200 to 599.
    status: int
    #: In the application's order, with repetition; values are ISO-8859-1 text.
    headers: list[tuple[str, str]]
    body: bytes


#: The answer for an application that failed: no traceback, nothing of the request.
FAILED: Final = WSGIAnswer(
    500,
    [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")],
    b"500 Internal Server Error: the application failed.\n",
)


def run(
    application: WSGIApplication,
    request: Request,
    stream: ReplyStream,
    *,
    queue: str,
    max_reply: int,
) -> WSGIAnswer | None:
    """What `application` answers to `request`, `FAILED` where it does not; None where all of it
    went out by `stream`. Never raises.

    `max_reply` is the longest body in bytes that is held. A failure is one log record with its
    traceback; one after the beginning of a stream is `FAILED` too, for the relay to break it off.
    """
    return WSGIRun(request, stream, queue=queue, max_reply=max_reply).answer(application)


class WSGIRun(BaseHandler):
    """One run of one application."""

    wsgi_multithread = False
    wsgi_multiprocess = True
    server_software = "queuerelay"
    wsgi_file_wrapper = FileWrapper
    # wsgiref's own state, which typeshed leaves out.
    environ: WSGIEnvironment
    status: str | None
    headers: Headers | None
    result: Iterable[bytes] | None

    def __init__(
        self, request: Request, stream: ReplyStream, *, queue: str, max_reply: int
    ) -> None:
        # The process's own environment (credentials!) is not part of a request.
        self.os_environ = {}
        self._request = request
        self._stream = stream
        self._queue = queue
        self._max_reply = max_reply
        self._blocks: list[bytes] = []
        self._size = 0
        self._answer: WSGIAnswer | None = None
        #: Whether more of the body is not wanted: the answer has none, or all that was declared.
        self._enough = False
        #: Whether all of a streamed answer went out.
        self._streamed = False

    def answer(self, application: WSGIApplication) -> WSGIAnswer | None:
        """Run it; instead of `BaseHandler.run`, which swallows broken connections as a client's:
        here they can only be the application's, to its database for instance.
        """
        try:
            self.setup_environ()
            self.result = application(self.environ, self.start_response)
            self.finish_response()
        except BaseException as error:
            # From close() of a whole answer, too: that answer still goes out.
            if isinstance(error, StreamStopped):
                log.debug("%s: %s", self._request.node_id, error)
            else:
                log.exception(
                    "the application failed at %s %r", self._request.method, self._request.url
                )
        return None if self._streamed else self._answer or FAILED

    # What the application calls.

    def start_response(
        self,
        status: str,
        headers: Iterable[tuple[str, str]],
        exc_info: "OptExcInfo | None" = None,
    ) -> Callable[[bytes], None]:
        """PEP 3333 start_response, which has `headers` as a list of tuples; as with other servers
        any iterable of pairs will do. Checked here because wsgiref's checks vanish under -O."""
        if exc_info and self.headers_sent and exc_info[1] is not None:
            try:
                raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # a reference to its own frame
        pairs = _checked(status, headers)
        # A server must refuse connection fields or drop them (PEP 3333); old code sends them.
        kept = [(name, value) for name, value in pairs if not util.is_hop_by_hop(name)]
        # wsgiref wants the space before the reason, too.
        super().start_response(status.ljust(4), kept, exc_info)
        return self.write

    def write(self, data: bytes) -> None:
        """PEP 3333 write(): what goes through it is sent at once, whatever the iterable has."""
        if type(data) is bytes and self._excess(data):
            raise NotWSGI("write() past the Content-Length")
        self._take(data, hold=False)

    # What becomes of it.

    def finish_response(self) -> None:
        """Take the iterable's blocks. Its close() is called whatever happens."""
        result = self.result
        assert result is not None
        try:
            hold = isinstance(result, list | tuple)
            for block in result:
                excess = self._excess(block) if type(block) is bytes else 0
                self._take(block[:-excess] if excess else block, hold=hold)
                if excess:
                    log.debug("%s: more than its Content-Length", self._request.node_id)
                    self._enough = True
                if self._enough:
                    break
            self.finish_content()
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()

    def _take(self, data: bytes, *, hold: bool) -> None:
        if type(data) is not bytes:
            raise NotWSGI(f"expected blocks of bytes, got {type(data).__name__}")
        if self.status is None or self.headers is None:
            raise NotWSGI("a block before start_response()")
        if not data:
            # An empty block does not send the headers: the status may still change. It is what an
            # application has to say that only wants to know whether its client is there.
            self._stream.look()
            return
        if self._enough:
            return
        self.headers_sent = True
        self._size += len(data)
        if self._stream.begun:
            self._stream.send(data)
        elif self._size <= self._max_reply and (hold or self._may_be_held(self.headers)):
            self._blocks.append(data)
        elif not self._has_body(self.status):
            # It may never end, and nobody is to see it.
            self._enough = True
            self._blocks.clear()
        else:
            held, self._blocks = self._blocks, []
            self._stream.begin(int(self.status[:3]), self.headers.items(), b"".join([*held, data]))

    def _excess(self, data: bytes) -> int:
        """Bytes of `data` that are more than the application has declared."""
        if self.headers is None or self.status is None or not self._has_body(self.status):
            return 0
        length = self._length(self.headers)
        return 0 if length is None else min(len(data), max(0, self._size + len(data) - length))

    def _has_body(self, status: str) -> bool:
        return self._request.method != "HEAD" and int(status[:3]) not in NO_BODY_STATUSES

    def _may_be_held(self, headers: Headers) -> bool:
        length = self._length(headers)
        return length is not None and length <= self._max_reply

    @staticmethod
    def _length(headers: Headers) -> int | None:
        """How long the application says that the answer is, None where it does not."""
        length = headers["content-length"]
        if length is None or _LENGTH.fullmatch(length) is None:
            return None
        return int(length)

    # What `BaseHandler` asks of its kind.

    def finish_content(self) -> None:
        """The answer is whole."""
        if self.status is None or self.headers is None:
            raise NotWSGI("no start_response()")
        if self._stream.begun:
            self._streamed = True
            return
        headers = self.headers.items()
        body = b"".join(self._blocks)
        length = self._length(self.headers)
        if self._request.method == "HEAD":
            # The client learns the length that GET would have (RFC 9110 8.6), and no more.
            if body and "content-length" not in self.headers:
                headers.append(("Content-Length", str(len(body))))
            body = b""
        elif length not in (None, len(body)) and int(self.status[:3]) not in NO_BODY_STATUSES:
            raise NotWSGI(f"Content-Length {length}, and a body of {len(body)} bytes")
        self._answer = WSGIAnswer(int(self.status[:3]), headers, body)

    def get_scheme(self) -> str:
        """The client's scheme: ``http`` or ``https``."""
        return self._request.scheme

    def get_stdin(self) -> InputStream:
        """The request body."""
        return io.BytesIO(self._request.body)

    def get_stderr(self) -> ErrorStream:
        """The worker's stderr, where its log goes too."""
        return sys.stderr

    def add_cgi_vars(self) -> None:
        """The request's variables."""
        self.environ.update(environ_of(self._request, queue=self._queue))

    def _write(self, data: bytes) -> None:
        raise NotImplementedError("_take() does it")

    def _flush(self) -> None:
        raise NotImplementedError("_take() does it")


def _checked(status: object, headers: object) -> list[tuple[str, str]]:
    """The header fields; `NotWSGI` unless the relay can send these and the status; better here,
    where the application's log is.
    """
    if not isinstance(status, str) or _STATUS.fullmatch(status) is None:
        raise NotWSGI(f"status: got {status!r}, expected a text such as '200 OK' (200 to 599)")
    if isinstance(headers, str | bytes | dict) or not isinstance(headers, Iterable):
        raise NotWSGI(f"headers: expected a list, got {type(headers).__name__}")
    pairs = list(headers)
    for pair in pairs:
        if not (
            isinstance(pair, tuple | list)
            and len(pair) == 2
            and isinstance(pair[0], str)
            and isinstance(pair[1], str)
        ):
            raise NotWSGI(f"headers: expected (name, value) pairs of texts, got {pair!r}")
        if not is_token(pair[0]):
            raise NotWSGI(f"headers: {pair[0]!r} is not a name (RFC 9110 5.1)")
        if _NO_VALUE.search(pair[1]) is not None:
            raise NotWSGI(f"headers: {pair[0]}: a control or non-ISO-8859-1 character in the value")
    return pairs
