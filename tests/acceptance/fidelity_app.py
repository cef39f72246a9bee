"""A bare WSGI application that says what its client asks it to, and writes down what it was told.

No framework, so nothing puts in order what is odd. ``X-Answer: 404/cookies/generator`` asks for a
status, a header section and a kind of body; ``X-Case: NAME`` names the record of the request, which
is complete before the answer begins.
"""

import gzip
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

Fields = list[tuple[str, str]]

#: Where the records go.
SEEN = Path(os.environ.get("SEEN", "."))

EVERYTHING = bytes(range(256))
#: Bytes that are wrong where a block is missing, doubled or out of order.
MEBI = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(1 << 15))
TEXT = "Grüße, 世界 🙂\r\n"
BLOCKS = [b"one\n", "zwei ü\n".encode(), EVERYTHING, b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"]

#: Header sections of answers.
FIELDS: dict[str, Fields] = {
    "none": [],
    "plain": [("Content-Type", "text/plain; charset=utf-8")],
    "cookies": [
        ("Set-Cookie", "a=1; Path=/"),
        ("Content-Type", "text/html"),
        ("Set-Cookie", 'b="x, y"; Expires=Sat, 29 Feb 2020 12:00:00 GMT; HttpOnly'),
        ("set-cookie", "c="),
    ],
    "repeated": [
        ("X-Multi", "one"),
        ("Link", "</a.css>; rel=preload"),
        ("X-Multi", "two, three"),
        ("Link", "</b.css>; rel=preload"),
        ("X-Multi", "one"),
        ("Vary", "Accept"),
        ("Vary", "Accept-Encoding"),
    ],
    "empty": [("X-Empty", ""), ("Content-Type", "text/plain"), ("X-Blank", " \t ")],
    "marks": [
        ("X-Marks", 'a,"b, c";d=\\"e\\" (comment) <f> [g] {h} @ : ? = ; / \\ | ~ ^ ` % # !'),
        ("X-Percent", "%0d%0aSet-Cookie:%20x=y %zz %"),
        ("X-Colon", ": : :"),
    ],
    "tabs": [("X-Tab", "a\tb\t\tc"), ("X-Spaces", "a  b   c")],
    "around": [("X-Around", "  \t around \t "), ("X-Left", " left"), ("X-Right", "right ")],
    "utf-8": [("X-Text", "Grüße 世界 🙂".encode().decode("latin-1"))],
    "latin-1": [("X-Latin", "café ÿ\xa0x"), ("X-High", "".join(map(chr, range(0xA0, 0x100))))],
    "c1": [("X-C1", "".join(map(chr, range(0x80, 0xA0))) + "x"), ("X-Edge", "\x85a\xa0")],
    "long": [("X-Long", "l" * 7168)],
    "ninety": [(f"X-Field-{number:02}", f"value {number}") for number in range(90)],
    "case": [
        ("content-TYPE", "text/x-odd"),
        ("x-lower", "1"),
        ("X-UPPER", "2"),
        ("ETag", '"e"'),
        ("WWW-Authenticate", 'Basic realm="a"'),
        ("www-authenticate", 'Bearer realm="b"'),
    ],
    "names": [("!#$%&'*+-.^_`|~09", "a token"), ("X_Under", "score"), ("x", "1"), ("1", "x")],
    "caching": [
        ("ETag", 'W/"weak, with \\"comma"'),
        ("Last-Modified", "Sat, 29 Feb 2020 12:00:00 GMT"),
        ("Cache-Control", 'private="set-cookie", max-age=0'),
        ("Age", "0"),
        ("Expires", "0"),
        ("Content-Language", "de, en"),
        ("Content-Location", "/ü".encode().decode("latin-1")),
    ],
    "ranges": [
        ("Content-Type", "multipart/byteranges; boundary=limit"),
        ("Content-Range", "bytes 0-9/*"),
    ],
    "location": [("Location", "/a b/%C3%BC?x=1&y=%zz#frag"), ("Retry-After", "120")],
    # PEP 3333 forbids an application the first three; servers drop them.
    "hop-by-hop": [
        ("Connection", "close, X-Kept"),
        ("Keep-Alive", "timeout=1"),
        ("Proxy-Authenticate", "Basic"),
        ("X-Kept", "1"),
        ("Content-Type", "text/plain"),
    ],
    "policy": [
        ("Content-Security-Policy", "default-src 'self'; img-src *"),
        ("Strict-Transport-Security", "max-age=63072000; includeSubDomains"),
        ("Access-Control-Allow-Origin", "*"),
        ("Content-Disposition", "attachment; filename*=UTF-8''%C3%BC.bin"),
        ("Accept-Ranges", "none"),
        ("Allow", "GET, HEAD"),
    ],
}

Start = Callable[..., Callable[[bytes], object]]
Say = Callable[..., Callable[[bytes], object]]
Environ = dict[str, Any]


def _declared(data: bytes, *fields: tuple[str, str]) -> Callable[[Say, Environ], Iterable[bytes]]:
    def say(start: Say, environ: Environ) -> Iterable[bytes]:
        start(("Content-Length", str(len(data))), *fields)
        return [data]

    return say


def _undeclared(*blocks: bytes) -> Callable[[Say, Environ], Iterable[bytes]]:
    def say(start: Say, environ: Environ) -> Iterable[bytes]:
        start()
        return list(blocks)

    return say


def _streamed(*blocks: bytes) -> Callable[[Say, Environ], Iterable[bytes]]:
    """No list, so a server cannot know that this is all."""

    def say(start: Say, environ: Environ) -> Iterable[bytes]:
        start()
        return iter(blocks)

    return say


def _generator(start: Say, environ: Environ) -> Iterable[bytes]:
    start()
    return (block for block in BLOCKS)


def _late(start: Say, environ: Environ) -> Iterator[bytes]:
    """start_response() is not called before the first block is asked for."""
    start()
    yield from BLOCKS


def _counted(start: Say, environ: Environ) -> Iterable[bytes]:
    start(("Content-Length", str(len(b"".join(BLOCKS)))))
    return iter(BLOCKS)


def _written(start: Say, environ: Environ) -> Iterable[bytes]:
    write = start()
    write(b"written\n")
    write(b"")
    return [b"returned\n"]


class _Closed:
    """An iterable with a close(), which the server must call."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self._file.read(1000), b"")

    def close(self) -> None:
        """Release the file."""
        self._file.close()


def _file(start: Say, environ: Environ) -> Iterable[bytes]:
    start()
    file = Path(__file__).open("rb")  # noqa: SIM115 - closed by the server (PEP 3333)
    if "wsgi.file_wrapper" in environ:
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file, 1000)
        return wrapped
    return _Closed(file)


def _twice(start: Say, environ: Environ) -> Iterable[bytes]:
    """The first header section is taken back, as PEP 3333 allows before the first block."""
    start(("X-Taken-Back", "1"))
    try:
        raise ValueError("changed its mind")
    except ValueError as error:
        start(("X-Second", "2"), error=error)
    return [b"the second one"]


def _closed(start: Say, environ: Environ) -> Iterable[bytes]:
    start()
    return _Closed(io.BytesIO(MEBI[:3500]))


#: Kinds of bodies. Gives the blocks, having called `start` with more fields.
BODIES: dict[str, Callable[[Say, Environ], Iterable[bytes]]] = {
    "text": _declared(TEXT.encode()),
    "nothing": _undeclared(),
    "nothing-streamed": _streamed(),
    "zero": _declared(b""),
    "latin": _declared("Grüße\xa0\x85".encode("latin-1")),
    "binary": _declared(EVERYTHING),
    "mebi": _declared(MEBI),
    "mebi-blocks": _streamed(*(MEBI[at : at + 50000] for at in range(0, len(MEBI), 50000))),
    "gzip": _declared(gzip.compress(MEBI[:5000], mtime=0), ("Content-Encoding", "gzip")),
    "one-block": _undeclared(TEXT.encode()),
    "blocks": _undeclared(*BLOCKS),
    "empty-blocks": _streamed(b"", b"a", b"", b"", b"b", b""),
    "single-bytes": _streamed(*(EVERYTHING[at : at + 1] for at in range(256))),
    "generator": _generator,
    "late": _late,
    "counted": _counted,
    "written": _written,
    "closed": _closed,
    "file": _file,
}


def _broken(start: Say, environ: Environ) -> Iterator[bytes]:
    start()
    yield b"one"
    yield b"two"
    raise RuntimeError("in the middle")


def _short(start: Say, environ: Environ) -> Iterable[bytes]:
    """Less than it has declared."""
    start(("Content-Length", "7"))
    return iter([b"one", b"two"])


def _long(start: Say, environ: Environ) -> Iterable[bytes]:
    """More than it has declared."""
    start(("Content-Length", "4"))
    return iter([b"one", b"two", b"three"])


#: Not compared as the others are, each in its own test.
ODD = {"twice": _twice, "broken": _broken, "short": _short, "long": _long}


def application(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """PEP 3333."""
    body = environ["wsgi.input"].read()
    _write_down(environ, body)
    status, fields, kind = environ.get("HTTP_X_ANSWER", "200/plain/text").split("/")

    def start(*more: tuple[str, str], error: Exception | None = None) -> Callable[[bytes], object]:
        info = (type(error), error, error.__traceback__) if error is not None else None
        return start_response(f"{status} As You Like It", [*FIELDS[fields], *more], info)

    if environ.get("HTTP_X_MIRROR") == "body":
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return [body]
    return (ODD.get(kind) or BODIES[kind])(start, environ)


def _write_down(environ: Environ, body: bytes) -> None:
    case = environ.get("HTTP_X_CASE")
    if case is None:
        return
    told = {name: value for name, value in environ.items() if isinstance(value, str)}
    seen = {"told": told, "length": len(body), "body": hashlib.sha256(body).hexdigest()}
    path = SEEN / f"{case}.json"
    path.with_suffix(".part").write_text(json.dumps(seen))
    # Never found half-written.
    path.with_suffix(".part").rename(path)
