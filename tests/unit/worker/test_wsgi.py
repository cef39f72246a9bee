"""The application's side: what it gets and what becomes of what it does."""

import io
import logging
import os
import subprocess
import sys
from wsgiref.util import FileWrapper as WsgirefsOwn
from wsgiref.validate import validator

import pytest
from werkzeug.wrappers import Response
from werkzeug.wsgi import wrap_file

from queuerelay.errors import QueuerelayError
from queuerelay.wire.reply import decode_reply, encode_reply
from queuerelay.worker.stream import StreamStopped
from queuerelay.worker.wsgi import FAILED, FileWrapper, WSGIAnswer, run
from tests.unit.worker.requests import request

OK = ("200 OK", [("Content-Type", "text/plain")])


class Out:
    """A `ReplyStream` that notes what it is given."""

    def __init__(self):
        self.begun = False
        self.head = None
        self.parts = []
        #: What was streamed when the client left; None for never.
        self.leaves_after = None
        self.looks = 0

    def look(self):
        self.looks += 1

    def begin(self, status, headers, data):
        assert not self.begun
        self.begun = True
        self.head = (status, list(headers))
        self.send(data)

    def send(self, data):
        assert self.begun
        assert data
        self.parts.append(data)
        if self.leaves_after is not None and len(self.parts) >= self.leaves_after:
            raise StreamStopped("its client has left")


def answer(app, *, max_reply=1000, out=None, **fields):
    """What it answers, whether as a whole or streamed."""
    out = out or Out()
    got = run(app, request(**fields), out, queue="requests", max_reply=max_reply)
    if got is None:
        assert out.begun
        return WSGIAnswer(*out.head, b"".join(out.parts))
    return got


@pytest.fixture
def records():
    """What is logged; a list that grows."""
    found = []
    handler = logging.Handler()
    handler.emit = found.append
    logger = logging.getLogger("queuerelay")
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"method": "HEAD"},
        {"method": "POST", "body": b"a=1&b=2"},
        {"method": "OPTIONS", "url": "*"},
        {"url": "http://h:1/%ff?%ff", "scheme": "https", "headers": [], "http_version": "1.0"},
        {"headers": [("cookie", "a"), ("cookie", "b"), ("x", "\xff"), ("x", "2")]},
        {"remote_addr": "", "deadline": float("inf"), "accepted_at": 0.0},
    ],
)
def test_passes_the_validator(fields, records):
    @validator
    def app(environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH", 0)))
        start_response(*OK)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [b"got ", body]

    body = b"" if fields.get("method") == "HEAD" else b"got " + fields.get("body", b"")
    assert answer(app, **fields) == WSGIAnswer(200, [("Content-Type", "text/plain")], body)
    assert not records


def test_environ_is_of_the_request_only():
    seen = {}

    def app(environ, start_response):
        seen.update(environ)
        start_response(*OK)
        return []

    answer(app, scheme="https", body=b"line\nnext", method="POST")
    assert "PATH" in os.environ
    assert "PATH" not in seen
    assert seen["wsgi.url_scheme"] == "https"
    assert seen["wsgi.multithread"] is False
    assert seen["wsgi.multiprocess"] is True
    assert seen["wsgi.run_once"] is False
    assert seen["wsgi.version"] == (1, 0)
    assert list(seen["wsgi.input"]) == [b"line\n", b"next"]
    assert seen["wsgi.errors"] is sys.stderr


def test_headers_come_as_they_are():
    headers = [
        ("Set-Cookie", "a=1"),
        ("X-Latin", "\xe9\xff\t"),
        ("Set-Cookie", "b=2"),
        ("content-type", "x/y"),
    ]

    def app(environ, start_response):
        start_response("299 \xe9", [*headers, ("Connection", "close")])
        return [bytes(range(256))]

    got = answer(app)
    assert got == WSGIAnswer(299, headers, bytes(range(256)))
    reply = decode_reply(encode_reply(node_id="n", headers=got.headers, body=got.body))
    assert reply.headers[1] == (b"X-Latin", b"\xe9\xff")
    assert reply.body == bytes(range(256))


def test_write_callable_comes_before_the_iterable():
    def app(environ, start_response):
        write = start_response(*OK)
        write(b"one ")
        write(b"two ")
        return iter([b"three"])

    assert answer(app).body == b"one two three"


def test_file_wrapper(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100_000)

    def app(environ, start_response):
        start_response(*OK)
        wrapper = environ["wsgi.file_wrapper"](path.open("rb"))
        assert isinstance(wrapper, WsgirefsOwn)
        return wrapper

    out = Out()
    assert answer(app, max_reply=100_000, out=out).body == b"x" * 100_000
    assert len(out.parts) > 1


def test_start_response_in_the_iterable():
    def app(environ, start_response):
        start_response(*OK)
        yield b"body"

    assert answer(app).body == b"body"


class Closing:
    def __init__(self, blocks, fail=None):
        self.blocks = blocks
        self.fail = fail
        self.closed = 0

    def __iter__(self):
        for block in self.blocks:
            if isinstance(block, BaseException):
                raise block
            yield block

    def close(self):
        self.closed += 1
        if self.fail:
            raise self.fail


@pytest.mark.parametrize("blocks", [[b"x"], [], [b"x", ValueError("half-way")], ["text"]])
def test_close_is_called_once(blocks):
    result = Closing(blocks)

    def app(environ, start_response):
        start_response(*OK)
        return result

    answer(app)
    assert result.closed == 1


def test_a_failing_close_does_not_take_the_answer_back(records):
    def app(environ, start_response):
        start_response(*OK)
        return Closing([b"whole"], fail=ValueError("too late"))

    assert answer(app).body == b"whole"
    assert [record.exc_info[0] for record in records] == [ValueError]


def _exc_info_before_output(environ, start_response):
    start_response(*OK)
    yield b""
    try:
        raise ValueError("caught")
    except ValueError:
        start_response("503 Sorry", [("X", "y")], sys.exc_info())
    yield b"sorry"


def test_start_response_again_with_exc_info():
    assert answer(_exc_info_before_output) == WSGIAnswer(503, [("X", "y")], b"sorry")


def test_start_response_again_after_output_raises_the_applications_error(records):
    def app(environ, start_response):
        start_response(*OK)
        yield b"output"
        try:
            raise ValueError("mine")
        except ValueError:
            info = sys.exc_info()
        start_response("503 Sorry", [], info)

    assert answer(app) == FAILED
    assert [str(record.exc_info[1]) for record in records] == ["mine"]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("secret"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        # wsgiref would take these for a client's and say nothing.
        BrokenPipeError("secret"),
        ConnectionResetError("secret"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("late", [False, True])
def test_an_application_that_raises(error, late, records):
    def app(environ, start_response):
        if not late:
            raise error
        start_response(*OK)
        return Closing([b"half", error])

    got = answer(app, url="/here")
    assert got == FAILED
    assert b"secret" not in got.body
    (record,) = records
    assert record.levelno == logging.ERROR
    assert record.exc_info[1] is error
    assert "'/here'" in record.getMessage()


def _with(status, headers):
    def app(environ, start_response):
        start_response(status, headers)
        return [b"x"]

    return app


def _returns(result):
    def app(environ, start_response):
        start_response(*OK)
        return result

    return app


def _twice(environ, start_response):
    start_response(*OK)
    start_response(*OK)
    return [b"x"]


NONSENSE = {
    "no start_response": lambda environ, start_response: [b"x"],
    "no start_response, no body": lambda environ, start_response: [],
    "wrong signature": lambda environ: [b"x"],
    "start_response twice": _twice,
    "returns None": _returns(None),
    "returns text": _returns("text"),
    "yields text": _returns(["text"]),
    "yields bytearray": _returns([bytearray(b"x")]),
    "status is a number": _with(200, []),
    "status is bytes": _with(b"200 OK", []),
    "status with a tail": _with("200OK", []),
    "status without number": _with("OK", []),
    "status informational": _with("101 Switching", []),
    "status too high": _with("600 X", []),
    "status of other digits": _with("\u0662\u0660\u0660 OK", []),
    "status with a line break": _with("200 OK\r\nX: y", []),
    "headers a number": _with("200 OK", 1),
    "headers a text": _with("200 OK", "ab"),
    "headers a dict": _with("200 OK", {"a": "b"}),
    "headers None": _with("200 OK", None),
    "header a text": _with("200 OK", ["ab"]),
    "header of three": _with("200 OK", [("a", "b", "c")]),
    "header value a number": _with("200 OK", [("Content-Length", 1)]),
    "header value bytes": _with("200 OK", [("a", b"b")]),
    "header value with CR": _with("200 OK", [("a", "b\rSet-Cookie: x")]),
    "header value with LF": _with("200 OK", [("a", "b\n")]),
    "header value with NUL": _with("200 OK", [("a", "\0")]),
    "header value beyond latin-1": _with("200 OK", [("a", "\u20ac")]),
    "header value a lone surrogate": _with("200 OK", [("a", "\ud800")]),
    "header name with a space": _with("200 OK", [("a b", "c")]),
    "header name empty": _with("200 OK", [("", "c")]),
    "header name not ASCII": _with("200 OK", [("\xe9", "c")]),
    "body shorter than declared": _with("200 OK", [("Content-Length", "2")]),
    "write past what was declared": lambda environ, start_response: start_response(
        "200 OK", [("Content-Length", "1")]
    )(b"xy"),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_gives_500_and_one_record(name, records):
    assert answer(NONSENSE[name]) == FAILED
    (record,) = records
    assert record.exc_info is not None


def test_nonsense_is_found_without_assertions_too():
    """python -O removes wsgiref's own checks."""
    script = (
        "import sys\n"
        "from tests.unit.worker.test_wsgi import FAILED, NONSENSE, answer\n"
        "wrong = [name for name, app in NONSENSE.items() if answer(app) != FAILED]\n"
        "sys.exit(repr(wrong) if wrong else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-O", "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]


@pytest.mark.parametrize(
    "headers",
    [
        [["X-A", "1"], ["x-b", "2"]],
        (("X-A", "1"), ("x-b", "2")),
        {"X-A": "1", "x-b": "2"}.items(),
        (pair for pair in [("X-A", "1"), ("x-b", "2")]),
    ],
    ids=["lists", "tuple", "items", "generator"],
)
def test_header_fields_are_any_pairs_as_with_other_servers(headers):
    assert answer(_with("200 OK", headers)).headers == [("X-A", "1"), ("x-b", "2")]


@pytest.mark.parametrize("status", ["404", "404 ", "404 Not Found"])
def test_a_status_needs_no_reason(status):
    assert answer(_with(status, [])) == WSGIAnswer(404, [], b"x")


class Range:
    """A file that is read on past what was declared, as an old whitenoise has it."""

    def __init__(self):
        self.asked = 0
        self.closed = 0

    def __iter__(self):
        while True:
            self.asked += 1
            yield b"12345"

    def close(self):
        self.closed += 1


@pytest.mark.parametrize(
    ("max_reply", "length", "asked", "parts"),
    [
        (1000, 8, 2, []),
        # Whether it has more shows by its next block alone.
        (1000, 10, 3, []),
        (1000, 0, 1, []),
        (7, 8, 2, [b"12345", b"678"]),
        (3, 10, 3, [b"12345", b"67890"]),
    ],
)
def test_more_than_was_declared_is_not_asked_for(max_reply, length, asked, parts, records):
    result, out = Range(), Out()

    def app(environ, start_response):
        start_response("206 Partial Content", [("Content-Length", str(length))])
        return result

    got = answer(app, max_reply=max_reply, out=out)
    assert (got.status, got.body) == (206, (b"12345" * 2)[:length])
    assert [len(part) for part in out.parts] == [len(part) for part in parts]
    assert (result.asked, result.closed) == (asked, 1)
    assert records == []


def test_a_list_is_held_to_its_length_before_it_is_streamed():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "3")])
        return [b"12", b"34" * 1000]

    out = Out()
    assert answer(app, max_reply=10, out=out).body == b"123"
    assert not out.begun


@pytest.mark.parametrize(("method", "status"), [("HEAD", "200 OK"), ("GET", "304 Not Modified")])
def test_a_length_without_a_body_is_that_of_another_answer(method, status):
    def app(environ, start_response):
        start_response(status, [("Content-Length", "3")])
        return [b"12345"] if method == "HEAD" else []

    assert answer(app, method=method) == WSGIAnswer(int(status[:3]), [("Content-Length", "3")], b"")


def test_what_was_written_up_to_the_length_stays(records):
    def app(environ, start_response):
        write = start_response("200 OK", [("Content-Length", "3")])
        write(b"12")
        with pytest.raises(QueuerelayError):
            write(b"34")
        write(b"3")
        return [b"45"]

    assert answer(app).body == b"123"
    assert records == []


class Large(io.RawIOBase):
    """A file of 1 GiB that counts what is read of it."""

    SIZE = 1024**3

    def __init__(self):
        self.place = self.read_bytes = 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=0):
        self.place = offset + {0: 0, 1: self.place, 2: self.SIZE}[whence]
        return self.place

    def tell(self):
        return self.place

    def readinto(self, buffer):
        size = min(len(buffer), self.SIZE - self.place)
        buffer[:size] = bytes(size)
        self.place += size
        self.read_bytes += size
        return size


def test_the_end_of_a_large_file_is_served_without_its_beginning():
    file = Large()

    def app(environ, start_response):
        response = Response(
            wrap_file(environ, file),
            headers=[("Content-Length", str(Large.SIZE))],
            direct_passthrough=True,
        )
        response.make_conditional(environ, accept_ranges=True, complete_length=Large.SIZE)
        return response(environ, start_response)

    got = answer(app, headers=[("host", "h"), ("range", "bytes=-2048")], max_reply=10_000)
    assert (got.status, len(got.body)) == (206, 2048)
    assert ("Content-Range", f"bytes {Large.SIZE - 2048}-{Large.SIZE - 1}/{Large.SIZE}") in (
        got.headers
    )
    assert file.read_bytes < 65536


def test_a_file_that_cannot_seek_says_so():
    class Pipe:
        def read(self, size):
            return b""

    wrapper = FileWrapper(Pipe())
    assert not wrapper.seekable()
    assert not hasattr(wrapper, "close")
    assert FileWrapper(io.BytesIO(b"abc")).seekable()


LENGTH_10 = ("200 OK", [("Content-Length", "10")])


@pytest.mark.parametrize(
    ("start", "blocks", "parts"),
    [
        # A list is there as a whole, and so is what has a length.
        (OK, [b"12345", b"67890"], []),
        (OK, (b"12345", b"67890"), []),
        (LENGTH_10, Closing([b"12345", b"67890"]), []),
        # Of anything else nobody knows when it ends, or whether.
        (OK, Closing([b"12345", b"67890"]), [b"12345", b"67890"]),
        (OK, Closing([b"", b"12345", b"", b"67890"]), [b"12345", b"67890"]),
        (("200 OK", [("Content-Length", "ten")]), Closing([b"1"]), [b"1"]),
        # What is longer than --max-reply goes out in parts whatever it is.
        (OK, [b"12345", b"678901", b"2"], [b"12345678901", b"2"]),
        (OK, [b"12345678901"], [b"12345678901"]),
        (("200 OK", [("Content-Length", "11")]), Closing([b"12345678901"]), [b"12345678901"]),
    ],
)
def test_what_is_streamed(start, blocks, parts):
    def app(environ, start_response):
        start_response(*start)
        return blocks

    out = Out()
    got = answer(app, max_reply=10, out=out)
    assert out.parts == parts
    assert (got.status, got.headers) == (200, start[1])
    assert got.body == b"".join(blocks)
    assert got.body
    assert getattr(blocks, "closed", 1) == 1


def test_each_block_is_out_before_the_next_one_is_asked_for():
    out, seen = Out(), []

    def app(environ, start_response):
        start_response(*OK)
        for number in range(3):
            seen.append(len(out.parts))
            yield b"%d" % number
        seen.append(len(out.parts))

    answer(app, out=out)
    assert seen == [0, 1, 2, 3]


def test_what_is_written_is_out_at_once_and_the_list_after_it_too():
    out = Out()

    def app(environ, start_response):
        write = start_response(*OK)
        write(b"")
        assert not out.begun
        write(b"one")
        assert out.parts == [b"one"]
        return [b"two"]

    assert answer(app, out=out).body == b"onetwo"


def test_a_client_that_leaves_ends_the_iterable(records):
    result = Closing(b"%d" % number for number in range(10**9))

    def app(environ, start_response):
        start_response(*OK)
        return result

    out = Out()
    out.leaves_after = 3
    assert answer(app, out=out) == FAILED
    assert result.closed == 1
    assert out.parts == [b"0", b"1", b"2"]
    # Nobody's failure.
    assert records == []


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", "200 OK"), ("GET", "204 X"), ("GET", "304 X")]
)
def test_an_endless_answer_without_body_ends_at_its_first_block(method, status):
    result = Closing(b"%d" % number for number in range(10**9))

    def app(environ, start_response):
        start_response(status, [("X", "y")])
        return result

    out = Out()
    assert answer(app, method=method, out=out) == WSGIAnswer(int(status[:3]), [("X", "y")], b"")
    assert not out.begun
    assert result.closed == 1


def test_head_of_a_list_that_is_too_long_has_no_length():
    got = answer(_returns([b"x" * 6, b"y" * 6]), method="HEAD", max_reply=10)
    assert got == WSGIAnswer(200, [("Content-Type", "text/plain")], b"")


@pytest.mark.parametrize(
    ("headers", "blocks", "expected"),
    [
        ([], [b"body"], [("Content-Length", "4")]),
        ([("Content-Length", "7")], [], [("Content-Length", "7")]),
        ([("content-length", "7")], [b"body"], [("content-length", "7")]),
        # Nobody knows how long it would have been.
        ([], [], []),
    ],
)
def test_head_has_no_body_but_its_length(headers, blocks, expected):
    def app(environ, start_response):
        start_response("200 OK", headers)
        return blocks

    assert answer(app, method="HEAD") == WSGIAnswer(200, expected, b"")


def test_nothing_is_added_to_the_answer():
    def app(environ, start_response):
        start_response("204 No Content", [])
        return []

    assert answer(app) == WSGIAnswer(204, [], b"")


def test_a_reply_may_carry_its_timing():
    raw = encode_reply(node_id="n", timing={"wait": 0.25, "run": 1.5})
    assert b'"timing":{"wait":0.25,"run":1.5}' in raw
    assert decode_reply(raw).status == 200
    assert b"timing" not in encode_reply(node_id="n")


@pytest.mark.parametrize("written", [False, True])
def test_an_empty_block_looks_for_the_client(written):
    out = Out()

    def app(environ, start_response):
        write = start_response(*OK)
        if written:
            write(b"")
        yield b""
        yield b"body"
        yield b""

    assert answer(app, out=out).body == b"body"
    assert out.looks == 2 + written
