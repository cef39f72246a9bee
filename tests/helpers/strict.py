"""An HTTP client that forgives nothing: reads exactly one response to each request."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Protocol

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2}) ([ -~]*)\r\n")
_FIELD = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ([\x21-\x7e\x80-\xff](?:[\t -~\x80-\xff]*))?\r\n"
)
_CHUNK_SIZE = re.compile(rb"(?:0|[1-9a-f][0-9a-f]{0,15})\r\n")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Reader(Protocol):
    """A file of bytes: a buffer, or a socket's."""

    def readline(self, limit: int = -1, /) -> bytes: ...
    def read(self, size: int = -1, /) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One response."""

    status: int
    headers: list[tuple[str, bytes]]
    body: bytes
    #: Of a body that came in chunks.
    chunks: tuple[bytes, ...] = ()

    def all(self, name: str) -> list[bytes]:
        """The values of a field, in order."""
        return [value for other, value in self.headers if other == name]

    def get(self, name: str) -> bytes | None:
        """The value of a field that must not be repeated."""
        values = self.all(name)
        assert len(values) < 2, f"{name} is repeated: {values}"
        return values[0] if values else None

    @property
    def closes(self) -> bool:
        """Whether it is the last on its connection."""
        return self.get("connection") == b"close"


class Malformed(AssertionError):
    """the response is not what RFC 9112 allows"""


class Broken(Malformed):
    """the connection ended before the response did"""


def read(reader: Reader, method: str = "GET", *, streamed: bool = False) -> Response:
    """Read one response to a request with `method`; `EOFError` where there is none.

    `streamed` says that it may come in chunks.
    """
    line = reader.readline(65536)
    if not line:
        raise EOFError("no response")
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        raise Malformed(f"status line {line!r}")
    status = int(found[1])
    headers: list[tuple[str, bytes]] = []
    while (line := reader.readline(65536)) != b"\r\n":
        field = _FIELD.fullmatch(line)
        if field is None:
            raise Malformed(f"field {line!r}")
        headers.append((field[1].decode("ascii").lower(), field[2] or b""))
    response = Response(status=status, headers=headers, body=b"")
    coding = response.get("transfer-encoding")
    length = response.get("content-length")
    if coding is not None:
        if not streamed:
            raise Malformed("chunked, and nobody asked for it")
        if coding != b"chunked" or length is not None or status in (204, 205, 304):
            raise Malformed(f"Transfer-Encoding {coding!r} with length {length!r} and {status}")
        if method == "HEAD":
            return response
        chunks = tuple(_chunks(reader))
        body = b"".join(chunks)
        return Response(status=status, headers=headers, body=body, chunks=chunks)
    if status in (204, 304):
        if length is not None:
            raise Malformed(f"{status} with a Content-Length")
        return response
    if method == "HEAD":
        return response
    if length is None or not length.isdigit():
        raise Malformed(f"Content-Length {length!r}")
    body = reader.read(int(length))
    if len(body) != int(length):
        raise Broken(f"{len(body)} bytes of {length!r}")
    return Response(status=status, headers=headers, body=body)


def _chunks(reader: Reader) -> Iterator[bytes]:
    """The chunks of a body (RFC 9112 7.1), without extensions and trailers."""
    while True:
        line = reader.readline(20)
        if not line.endswith(b"\n"):
            raise Broken(f"the size of a chunk: {line!r}")
        if _CHUNK_SIZE.fullmatch(line) is None:
            raise Malformed(f"the size of a chunk: {line!r}")
        size = int(line, 16)
        chunk = reader.read(size)
        end = reader.read(2)
        if len(chunk) < size or len(end) < 2:
            raise Broken(f"{len(chunk)} bytes of a chunk of {size}")
        if end != b"\r\n":
            raise Malformed(f"behind a chunk: {end!r}")
        if not size:
            return
        yield chunk


def parse(
    data: bytes, methods: Sequence[str] = ("GET",), *, streamed: bool = False
) -> list[Response]:
    """`data` as the responses to requests with `methods`: one each, and nothing else."""
    reader = BytesIO(data)
    responses = []
    for number, method in enumerate(methods, 1):
        responses.append(read(reader, method, streamed=streamed))
        if responses[-1].closes and number < len(methods):
            raise Malformed("more requests than responses")
    rest = reader.read()
    if rest:
        raise Malformed(f"bytes that nobody asked for: {rest!r}")
    return responses


def request(
    method: str = "GET",
    target: str = "/",
    *headers: tuple[str, str],
    body: bytes = b"",
    version: str = "1.1",
) -> bytes:
    """A request as bytes; with a Content-Length where there is a body and no other framing."""
    fields = [("Host", "example.org"), *headers]
    if body and not any(name.lower() == "transfer-encoding" for name, _ in headers):
        fields.append(("Content-Length", str(len(body))))
    lines = [f"{method} {target} HTTP/{version}", *(f"{name}: {text}" for name, text in fields)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(*parts: bytes) -> bytes:
    """A body in chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*parts, b""))
