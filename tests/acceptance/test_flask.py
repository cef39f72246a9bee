"""A Flask application answers from the queue byte for byte as it does behind gunicorn.

Each case is one request's raw bytes, sent to the relay (Redis and the WSGI worker behind it) and to
gunicorn, and the two answers must be equal: status, header fields, body.
"""

import gzip
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import quote

import pytest

from tests.acceptance import flask_app
from tests.acceptance.stage import Answer, Client, get, request, staged
from tests.helpers.redis import ValkeyServer

#: Fields that are not compared, each for its reason. Everything else is, values included.
EXCLUDED = {
    "date": "each server writes the moment of its own answer",
    "server": "each server writes its own name",
    "connection": "belongs to one connection, not to the answer (RFC 9110 7.6.1)",
    "x-request-id": "the relay adds it to every answer",
    "server-timing": "the relay adds it, and nobody else knows how long it took",
    "transfer-encoding": "framing belongs to one connection (RFC 9112 6)",
}
#: Compared where gunicorn sends it: where gunicorn sends chunks instead, the body tells.
FRAMING = "content-length"


@dataclass(frozen=True, slots=True)
class Pair:
    """The same application twice."""

    relay: int
    direct: int


@pytest.fixture(scope="module")
def pair(valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with staged(valkey, tmp_path_factory.mktemp("flask")) as stage:
        both = Pair(relay=stage.relay(), direct=stage.direct())
        # Several, so that no case may depend on what an earlier one left in a process.
        stage.worker()
        stage.worker()
        yield both


def comparable(answer: Answer) -> dict[str, list[str]]:
    """Each field with its values; repeated ones in their order."""
    fields: dict[str, list[str]] = {}
    for name, value in answer.headers:
        if name not in EXCLUDED and name != FRAMING:
            fields.setdefault(name, []).append(value)
    return fields


def assert_same(relayed: Answer, direct: Answer) -> None:
    assert relayed.status == direct.status
    assert comparable(relayed) == comparable(direct)
    assert direct.one(FRAMING) in (None, relayed.one(FRAMING))
    # Not ==, whose explanation of 5 MiB takes minutes.
    same = relayed.body == direct.body
    assert same, (relayed.body[:2000], direct.body[:2000])


def multipart(*parts: tuple[str, bytes], boundary: bytes = b"limit") -> bytes:
    """A multipart/form-data body of (Content-Disposition and more header lines, content)."""
    blocks = [
        b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary, head.encode("utf-8"), content)
        for head, content in parts
    ]
    return b"".join([*blocks, b"--%b--\r\n" % boundary])


def chunked(method: str, target: str, *chunks: bytes) -> bytes:
    """A request whose length the client did not know."""
    head = request(
        method,
        target,
        ("Transfer-Encoding", "chunked"),
        ("Content-Type", "application/octet-stream"),
    )
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


FORM = ("Content-Type", "application/x-www-form-urlencoded")
MULTIPART = ("Content-Type", "multipart/form-data; boundary=limit")
BINARY = ("Content-Type", "application/octet-stream")
JSON = ("Content-Type", "application/json")
UPLOAD = flask_app.pattern(2 * 1024 * 1024)
#: RFC 6265 lets a client send one field; HTTP/2 gateways send several.
COOKIES = (("Cookie", "a=1; b=two"), ("Cookie", 'c="q\\"x"; d='))

CASES: dict[str, bytes] = {
    # Pages.
    "get": request("GET", "/"),
    "head": request("HEAD", "/"),
    "options": request("OPTIONS", "/echo"),
    "empty-page": request("GET", "/empty"),
    "no-content": request("GET", "/nothing"),
    "reset-content": request("GET", "/reset"),
    "json": request("GET", "/json"),
    "stream": request("GET", "/stream"),
    "head-stream": request("HEAD", "/stream"),
    "large": request("GET", "/large"),
    "head-large": request("HEAD", "/large"),
    "headers-out": request("GET", "/headers"),
    "gzip": request("GET", "/encoded", ("Accept-Encoding", "gzip")),
    # Statuses.
    **{f"status-{code}": request("GET", f"/status/{code}") for code in (201, 299, 418, 451, 599)},
    "missing": request("GET", "/missing"),
    "missing-unicode": request("GET", "/fehlt/%C3%BC%3Cb%3E"),
    "head-missing": request("HEAD", "/missing"),
    "method-not-allowed": request("DELETE", "/"),
    "unknown-method": request("BREW", "/echo"),
    "bug": request("GET", "/boom"),
    **{f"abort-{code}": request("GET", f"/abort/{code}") for code in (400, 401, 403, 410, 503)},
    **{
        f"redirect-{code}": request("GET", f"/redirect/{code}")
        for code in (301, 302, 303, 307, 308)
    },
    "redirect-abroad": request("GET", "/abroad"),
    "redirect-slash": request("GET", "/folder?x=%C3%BC"),
    "head-redirect": request("HEAD", "/redirect/302"),
    # Downloads, conditions, ranges.
    "download": request("GET", "/download"),
    "download-named": request("GET", "/download/named"),
    "head-download": request("HEAD", "/download/named"),
    "file": request("GET", "/file"),
    "file-disk": request("GET", "/file/disk"),
    "etag-matches": request("GET", "/file", ("If-None-Match", '"other", "fixed-etag"')),
    "etag-differs": request("GET", "/file", ("If-None-Match", '"other"')),
    "etag-weak": request("GET", "/file", ("If-None-Match", 'W/"fixed-etag"')),
    "head-etag-matches": request("HEAD", "/file", ("If-None-Match", "*")),
    "not-modified-since": request(
        "GET", "/file", ("If-Modified-Since", "Sat, 29 Feb 2020 12:00:00 GMT")
    ),
    "modified-since": request(
        "GET", "/file", ("If-Modified-Since", "Sat, 29 Feb 2020 11:59:59 GMT")
    ),
    "range": request("GET", "/file", ("Range", "bytes=100-299")),
    "range-open": request("GET", "/file", ("Range", "bytes=9990-")),
    "range-suffix": request("GET", "/file", ("Range", "bytes=-7")),
    "range-unsatisfiable": request("GET", "/file", ("Range", "bytes=20000-")),
    "range-if": request("GET", "/file", ("Range", "bytes=0-9"), ("If-Range", '"fixed-etag"')),
    "range-if-not": request("GET", "/file", ("Range", "bytes=0-9"), ("If-Range", '"other"')),
    "head-range": request("HEAD", "/file", ("Range", "bytes=0-9")),
    "range-disk": request("GET", "/file/disk", ("Range", "bytes=3-40")),
    # Targets.
    "query": request("GET", "/echo?a=1&b=%C3%BC&a=2+3&c=%26%3D&d&e=&f=x;g=y;h"),
    "query-empty": request("GET", "/echo?"),
    "query-question": request("GET", "/echo?a=?&b=/x//y/../z"),
    "query-percent": request("GET", "/echo?bad=%zz&half=%C3&nul=%00&percent=%2525&space=%20"),
    "path-percent": request("GET", "/items/a%20b%2Bc+d%25e"),
    "path-slash": request("GET", "/items/a%2Fb%2f%2E%2E"),
    "path-double-slash": request("GET", "/items/a//b///c/"),
    "path-double-slash-first": request("GET", "//items//x"),
    "path-dots": request("GET", "/items/../items/./x"),
    "path-semicolon": request("GET", "/items/a;b=c,d;e?f"),
    "path-utf-8": request("GET", "/items/" + quote("Käse 世界 🙂")),
    "path-not-utf-8": request("GET", "/items/%ff%fe%80"),
    "path-colon": request("GET", "/items/http://other.example:80/x"),
    "absolute-target": request("GET", "http://shop.example:8080/items/x?y=1"),
    # Request fields.
    "fields": request(
        "GET",
        "/echo",
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) Test/1.0"),
        ("Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"),
        ("Accept-Language", "de-DE,de;q=0.9, en;q=0.5"),
        ("Referer", "https://elsewhere.example/?a=b"),
        ("Authorization", "Basic dXNlcjpww6Rzcw=="),
        ("X-FORWARDED-for", "203.0.113.7"),
        ("Cache-Control", "no-cache"),
        ("DNT", "1"),
    ),
    "fields-latin-1": request("GET", "/echo", ("X-Latin", b"caf\xe9 \xff\xa0"), ("X-Empty", "")),
    "fields-utf-8": request("GET", "/echo", ("X-Text", "Grüße 🙂".encode())),
    "fields-underscore": request("GET", "/echo", ("X_Forwarded_For", "1.2.3.4"), ("X-Y", "z")),
    "fields-space": request("GET", "/echo", ("X-Space", "  \t a  b \t "), ("x-lower", "l")),
    "field-long": request("GET", "/echo", ("X-Long", "x" * 4000)),
    "cookies": request("GET", "/cookies", COOKIES[0]),
    "cookies-utf-8": request("GET", "/cookies", ("Cookie", "k=K\u00e4se; l=%C3%BC".encode())),
    "cookies-set": request("POST", "/cookies", body=b""),
    "host-ipv6": request("GET", "/echo").replace(b"shop.example:8080", b"[2001:db8::1]:81"),
    "host-bare": request("GET", "/echo").replace(b"shop.example:8080", b"SHOP.example"),
    "accept-json": request("GET", "/missing", ("Accept", "application/json")),
    # Bodies.
    "form": request("POST", "/form", FORM, body=b"a=1&b=%C3%BC+x&a=2&c=%26&d=&e=%ff&f=\xc3\xbc"),
    "form-empty": request("POST", "/form", FORM, body=b""),
    "form-multipart": request(
        "POST",
        "/form",
        MULTIPART,
        body=multipart(
            ('Content-Disposition: form-data; name="text"', "Käse\r\n--lim".encode()),
            ('Content-Disposition: form-data; name="text"', b"again"),
            (
                'Content-Disposition: form-data; name="file"; filename="ü \\"x\\".bin"\r\n'
                "Content-Type: application/x-thing",
                flask_app.EVERYTHING,
            ),
            ('Content-Disposition: form-data; name="none"; filename=""', b""),
        ),
    ),
    "upload": request(
        "POST",
        "/form",
        MULTIPART,
        body=multipart(
            ('Content-Disposition: form-data; name="file"; filename="large.bin"', UPLOAD)
        ),
    ),
    "upload-raw": request("PUT", "/raw", BINARY, body=UPLOAD),
    "upload-chunked": chunked("POST", "/raw", b"a" * 70000, b"\x00\xff\r\n", UPLOAD[:100000]),
    "upload-chunked-text": chunked("PUT", "/raw", "Käse".encode()),
    "upload-chunked-empty": chunked("POST", "/raw"),
    **{
        f"body-{method.lower()}": request(method, "/echo", BINARY, body=flask_app.EVERYTHING)
        for method in ("POST", "PUT", "PATCH", "DELETE")
    },
    "body-get": request("GET", "/echo", ("Content-Type", "text/plain"), body=b"unusual"),
    "body-empty": request("POST", "/echo", BINARY, body=b""),
    # Not /echo: CONTENT_LENGTH is 0 from the queue, absent from gunicorn (PEP 3333: both may be).
    "body-none": request("POST", "/raw"),
    "body-delete-none": request("DELETE", "/echo"),
    "body-utf-8": request("POST", "/mirror", BINARY, body="Grüße, 世界 🙂\n".encode()),
    "body-nul": request("POST", "/mirror", BINARY, body=b"\x00a\x00"),
    "body-json": request("POST", "/json", JSON, body='{"k": ["ü", "\\ud83d\\ude42"]}'.encode()),
    "body-json-broken": request("POST", "/json", JSON, body=b'{"k": '),
    "body-json-untyped": request("POST", "/json", body=b"{}"),
    # Old clients: no chunked coding for them, and their version is told.
    "http-1.0": request("GET", "/echo", version="1.0"),
    "http-1.0-stream": request("GET", "/stream", version="1.0"),
    "http-1.0-post": request("POST", "/form", FORM, body=b"a=1", version="1.0"),
    "http-1.0-head": request("HEAD", "/", version="1.0"),
    "http-1.0-no-host": b"GET / HTTP/1.0\r\n\r\n",
}


@pytest.mark.parametrize("name", CASES)
def test_the_answers_are_the_same(pair: Pair, name: str) -> None:
    sent = CASES[name]
    method = sent.split(b" ", 1)[0]
    old = b" HTTP/1.0\r\n" in sent
    with Client(pair.direct) as client:
        direct = client.ask(sent)
    with Client(pair.relay) as client:
        relayed = client.ask(sent)
        assert_same(relayed, direct)
        assert relayed.one("x-request-id") is not None
        assert relayed.one("date") is not None
        if old:
            assert relayed.one("transfer-encoding") is None
        else:
            # The framing was exact, too: the next answer begins where this one ended.
            assert client.ask(request("GET", "/say/next")).status == 200
    if method == b"HEAD" or relayed.status in (204, 304):
        assert relayed.body == b""


@pytest.mark.parametrize("target", [b"/items/K\xc3\xa4se", b"/echo?raw=\xff", b"/items/\x00"])
def test_bytes_that_no_target_has_are_refused_by_both(pair: Pair, target: bytes) -> None:
    """RFC 9112 3.2 knows ASCII only; what each server says about it is its own."""
    for port in (pair.relay, pair.direct):
        with Client(port) as client:
            assert client.ask(request("GET", target)).status == 400


def test_a_client_that_waits_for_100_continue_is_told_to_go_on(pair: Pair) -> None:
    sent = request("POST", "/raw", BINARY, ("Expect", "100-continue"), body=UPLOAD)
    head, _, body = sent.partition(b"\r\n\r\n")
    answers = []
    for port in (pair.relay, pair.direct):
        with Client(port) as client:
            client.send(head + b"\r\n\r\n")
            assert client.interim() == 100
            client.send(body)
            answers.append(client.answer(method=b"POST"))
    assert_same(*answers)
    assert json.loads(answers[0].body) == {"method": "POST", **flask_app.digest(UPLOAD)}


def test_what_came_is_what_was_sent(pair: Pair) -> None:
    """Two servers may be wrong alike; these the test knows itself."""
    assert get(pair.relay, "/large").body == flask_app.LARGE
    assert get(pair.relay, "/download").body == flask_app.EVERYTHING
    assert gzip.decompress(get(pair.relay, "/encoded").body) == b"compressed " * 1000
    with Client(pair.relay) as client:
        upload = json.loads(client.ask(CASES["upload"]).body)
        assert upload["files"]["file"][0] == {
            "name": "large.bin",
            "type": None,
            **flask_app.digest(UPLOAD),
        }
        cookies = client.ask(CASES["cookies-set"]).all("set-cookie")
        assert [one.partition("=")[0] for one in cookies] == ["plain", "full", "strict", "old"]
        echoed = json.loads(client.ask(CASES["fields"]).body)
        assert echoed["environ"]["REMOTE_ADDR"] == "127.0.0.1"
        assert echoed["environ"]["wsgi.url_scheme"] == "http"
        assert echoed["url"] == "http://shop.example:8080/echo"
        named = client.ask(CASES["download-named"]).one("content-disposition")
        assert named is not None
        name = quote('Überblick "€" naïve.bin')
        assert f"filename*=UTF-8''{name}" in named


def test_repeated_cookie_fields_arrive_joined_as_cookies_are(pair: Pair) -> None:
    """Not compared: gunicorn joins them with a comma, which makes one cookie of two.

    RFC 9113 8.2.3 and RFC 6265bis 5.8.3 want a semicolon.
    """
    with Client(pair.relay) as client:
        answer = client.ask(request("GET", "/cookies", *COOKIES))
    assert json.loads(answer.body) == {"a": "1", "b": "two", "c": 'q"x', "d": ""}


def test_repeated_fields_arrive_as_one_list(pair: Pair) -> None:
    """gunicorn joins them without the blank that RFC 9110 5.3 has after each comma."""
    sent = request("GET", "/echo", ("X-Multi", "one"), ("Accept", "a/b"), ("X-Multi", "two, three"))
    joined = []
    for port in (pair.relay, pair.direct):
        with Client(port) as client:
            joined.append(json.loads(client.ask(sent).body)["environ"]["HTTP_X_MULTI"])
    assert joined == ["one, two, three", "one,two, three"]


def test_many_clients_at_once_each_get_their_own_answers(pair: Pair) -> None:
    names = [name for name in CASES if "HTTP/1.0" not in CASES[name].decode("latin-1")]
    expected = {}
    for name in names:
        with Client(pair.direct) as client:
            expected[name] = client.ask(CASES[name])

    def visit(number: int) -> int:
        # Each client begins elsewhere, so that different requests are under way at a time.
        shift = number * 7 % len(names)
        with Client(pair.relay) as client:
            for name in [*names[shift:], *names[:shift]]:
                assert_same(client.ask(CASES[name]), expected[name])
                word = f"{number}-{name}"
                said = client.ask(request("GET", f"/say/{word}"))
                assert json.loads(said.body)["word"] == word
        return number

    with ThreadPoolExecutor(8) as clients:
        assert list(clients.map(visit, range(8))) == list(range(8))


def test_nothing_is_left_in_redis(pair: Pair, valkey: ValkeyServer) -> None:
    """After all of the above: no message on the queue, none in flight, no failure."""
    redis = valkey.client()
    assert get(pair.relay, "/").status == 200
    assert redis.llen("resque:queue:requests") == 0
    assert redis.llen("resque:failed") == 0
    # A worker acknowledges with the reply, so there is nothing to wait for.
    assert redis.hlen("queuerelay:inflight:requests") == 0
