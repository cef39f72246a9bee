"""What a WSGI application is told and what it says are the same through the queue and without it.

The application is `fidelity_app`. It is served twice: by the relay, a real Valkey and the project's
worker; and by gunicorn, which speaks HTTP/1.1, keeps connections, and leaves the names, values and
order of header fields as they are (wsgiref does none of the three). Each case is one request's raw
bytes to both; the header section of the answer, the body, and the application's record of the
request must be equal, but for `EXCLUDED`, `OWN`, what `same_answer` says of a length, and the
reason phrase, which is always the relay's.

Statuses and methods meet in full, all else pairwise. On the same connection a second request
follows in the same write: its answer begins where the first one's ends.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import fidelity_app
from tests.acceptance.fidelity_app import BODIES, EVERYTHING, FIELDS, MEBI, TEXT
from tests.acceptance.pairwise import pairwise
from tests.acceptance.stage import Answer, Client, staged
from tests.helpers.redis import ValkeyServer

APPLICATION = "tests.acceptance.fidelity_app:application"

#: Fields that are not compared, each for its reason. Everything else is, in its place.
EXCLUDED = {
    "date": "each server writes the moment of its own answer",
    "server": "each server writes its own name",
    "connection": "belongs to one connection, not to the answer (RFC 9110 7.6.1)",
    "keep-alive": "the same",
    "transfer-encoding": "framing belongs to one connection (RFC 9112 6)",
    "x-request-id": "the relay adds it to every answer",
    "via": "the relay adds it to every answer (RFC 9110 7.6.3)",
    "server-timing": "the relay adds it where the worker has measured",
}
#: Compared where gunicorn sends it: where it sends chunks instead, the body tells.
LENGTH = "content-length"

#: Variables that are not compared, each for its reason. Everything else is.
OWN = {
    "SERVER_SOFTWARE": "each server's own name",
    "SERVER_NAME": "gunicorn tells its socket's, the worker the one in Host",
    "SERVER_PORT": "the same",
    "REMOTE_PORT": "the relay does not tell it",
    "RAW_URI": "gunicorn's REQUEST_URI",
    "REQUEST_URI": "compared with RAW_URI; the relay has put an authority in it into Host",
    "CONTENT_LENGTH": "0 and absent both mean no body (PEP 3333); see the length's test",
    "HTTP_TRANSFER_ENCODING": "gunicorn tells how the body came, the relay takes that off",
    "HTTP_CONNECTION": "belongs to one connection, not to the request (RFC 9110 7.6.1)",
    "HTTP_EXPECT": "the relay has acted upon it",
    "HTTP_X_REQUEST_ID": "the relay gives each request one",
    "HTTP_VIA": "the relay names itself (RFC 9110 7.6.3)",
    "HTTP_FORWARDED": "the relay says for whom it asks, and believes nobody else who does",
    "HTTP_X_FORWARDED_FOR": "the same",
    "HTTP_X_FORWARDED_PROTO": "the same",
    "HTTP_X_FORWARDED_HOST": "the same",
}

METHODS = (
    *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"),
    *("PROPFIND", "M-SEARCH", "get", "x"),
)
STATUSES = (
    *(200, 201, 202, 203, 204, 205, 206, 207, 226, 299, 300, 301, 302, 303, 304, 307, 308),
    *(400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417),
    *(418, 421, 422, 425, 426, 428, 429, 431, 451, 499),
    *(500, 501, 502, 503, 504, 505, 507, 511, 599),
)


@dataclass(frozen=True, slots=True)
class Pair:
    """The same application twice, and the folders with their records."""

    relay: int
    direct: int
    relay_seen: Path
    direct_seen: Path
    #: Gives each case the name of its record.
    number: Callable[[], int]


@pytest.fixture(scope="module")
def pair(valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("fidelity")
    relay_seen, direct_seen = directory / "relay", directory / "direct"
    relay_seen.mkdir()
    direct_seen.mkdir()
    with staged(valkey, directory) as stage:
        # By default gunicorn knows upper-case methods of 3 letters and more only, and has shorter
        # lines than the relay.
        options = ("--permit-unconventional-http-method", "--limit-request-line", "8190")
        direct = stage.direct(*options, application=APPLICATION, SEEN=str(direct_seen))
        relay = stage.relay()
        for _ in range(2):
            stage.worker(application=APPLICATION, SEEN=str(relay_seen))
        yield Pair(relay, direct, relay_seen, direct_seen, itertools.count().__next__)


def raw(
    method: str,
    target: bytes = b"/",
    *fields: tuple[str, bytes],
    body: bytes | None = None,
    version: bytes = b"1.1",
    host: bytes | None = b"shop.example:8080",
) -> bytes:
    """A request; Content-Length follows from the body."""
    lines = [b"%b %b HTTP/%b" % (method.encode(), target, version)]
    if host is not None:
        lines.append(b"Host: " + host)
    lines += [b"%b:%b" % (name.encode(), value) for name, value in fields]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body or b""])


def chunked(*chunks: bytes) -> bytes:
    """The body in these chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


NEXT = raw("GET", b"/next", ("X-Answer", b" 200/plain/text"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one request on one of the servers."""

    answer: Answer
    seen: dict[str, Any]


def exchange(port: int, sent: bytes, seen: Path) -> Outcome:
    """One request, the answer, the record; the connection is good for the next one, too."""
    method = sent.split(b" ", 1)[0]
    with Client(port) as client:
        last = b" HTTP/1.0\r\n" in sent
        client.send(sent if last else sent + NEXT)
        answer = client.answer(method=method)
        record = json.loads(seen.read_bytes())
        if not last:
            following = client.answer(method=b"GET")
            assert (following.status, following.body) == (200, TEXT.encode())
    return Outcome(answer, record)


def comparable(answer: Answer) -> list[tuple[str, str]]:
    """The header section in its order, names as written; without lengths, see `same_answer`."""
    return [
        (name, value) for name, value in answer.fields if name.lower() not in {*EXCLUDED, LENGTH}
    ]


def same_answer(relayed: Answer, direct: Answer) -> None:
    """The two are equal but for what is documented above."""
    assert relayed.status == direct.status
    assert comparable(relayed) == comparable(direct)
    if relayed.status == 205:
        # RFC 9110 15.3.6: no content. gunicorn lets the application's pass.
        assert (relayed.body, relayed.one(LENGTH)) == (b"", "0")
        return
    if relayed.status not in (204, 304):
        # To 204 a length is forbidden, and to 304 the relay leaves it out (RFC 9110 8.6).
        assert direct.one(LENGTH) in (None, relayed.one(LENGTH))
    # Not ==, whose explanation of 1 MiB takes minutes.
    same = relayed.body == direct.body
    assert same, (relayed.body[:500], direct.body[:500])


def same_request(relayed: dict[str, Any], direct: dict[str, Any], *, joined: set[str]) -> None:
    """The application was told the same by both; `joined` are the variables of repeated fields."""
    one, two = relayed["told"], direct["told"]
    assert one["REQUEST_URI"] == _origin_form(two["RAW_URI"])
    one, two = _shared(one), _shared(two)
    for name in joined:
        # Between them is a comma and perhaps a blank (RFC 9110 5.3).
        assert one.pop(name).replace(", ", ",") == two.pop(name).replace(", ", ",")
    assert one == two
    assert (relayed["length"], relayed["body"]) == (direct["length"], direct["body"])


def _origin_form(target: str) -> str:
    """Without the authority, which is in Host (RFC 9112 3.2.2)."""
    return re.sub("^http://[^/?]*", "", target, flags=re.IGNORECASE)


def _shared(told: dict[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in told.items()
        if name not in OWN and not name.startswith("queuerelay.")
    }


def _repeated(sent: bytes) -> set[str]:
    lines = sent.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    names = [line.partition(b":")[0].decode().upper() for line in lines]
    return {"HTTP_" + name.replace("-", "_") for name in names if names.count(name) > 1}


def compare(pair: Pair, sent: bytes) -> Outcome:
    """Send it to both, compare; gives what came of it through the queue."""
    case = b"%d" % pair.number()
    sent = sent.replace(b"\r\n", b"\r\nX-Case: %b\r\n" % case, 1)
    name = f"{case.decode()}.json"
    direct = exchange(pair.direct, sent, pair.direct_seen / name)
    relayed = exchange(pair.relay, sent, pair.relay_seen / name)
    same_answer(relayed.answer, direct.answer)
    same_request(relayed.seen, direct.seen, joined=_repeated(sent))
    return relayed


def answer_field(status: int | str, fields: str, body: str) -> tuple[str, bytes]:
    return "X-Answer", f" {status}/{fields}/{body}".encode()


# What goes out.


KINDS = itertools.cycle(BODIES)
SECTIONS = itertools.cycle(FIELDS)


@pytest.mark.parametrize(
    ("method", "status", "fields", "body"),
    [
        pytest.param(method, status, next(SECTIONS), next(KINDS), id=f"{method}-{status}")
        for status in STATUSES
        for method in METHODS
    ],
)
def test_methods_and_statuses(pair: Pair, method: str, status: int, fields: str, body: str) -> None:
    outcome = compare(pair, raw(method, b"/", answer_field(status, fields, body)))
    assert outcome.answer.status == status
    assert outcome.seen["told"]["REQUEST_METHOD"] == method


ANSWERS = list(
    pairwise(
        {
            "fields": list(FIELDS),
            "body": list(BODIES),
            "status": ["200", "404", "503", "206", "304", "204"],
            "method": ["GET", "HEAD", "POST"],
        }
    )
)


@pytest.mark.parametrize("case", ANSWERS, ids=lambda case: "-".join(case.values()))
def test_header_sections_and_bodies(pair: Pair, case: dict[str, str]) -> None:
    asked = answer_field(case["status"], case["fields"], case["body"])
    answer = compare(pair, raw(case["method"], b"/", asked)).answer
    # Two servers may be wrong alike; this the test knows itself.
    hops = {"Connection", "Keep-Alive", "Proxy-Authenticate"}
    section = [field for field in FIELDS[case["fields"]] if field[0] not in hops]
    expected = [(name, value.strip(" \t")) for name, value in section]
    assert comparable(answer)[: len(expected)] == expected


def test_bodies_are_what_the_application_made(pair: Pair) -> None:
    made = {
        "mebi": MEBI,
        "mebi-blocks": MEBI,
        "single-bytes": EVERYTHING,
        "blocks": b"".join(fidelity_app.BLOCKS),
        "generator": b"".join(fidelity_app.BLOCKS),
        "written": b"written\nreturned\n",
    }
    for kind, body in made.items():
        answer = compare(pair, raw("GET", b"/", answer_field(200, "plain", kind))).answer
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(body).digest(), kind


@pytest.mark.parametrize("server", ["direct", "relay"])
def test_an_answer_without_its_end_is_not_taken_for_one(pair: Pair, server: str) -> None:
    """No last chunk, no second answer: only an end."""
    with Client(getattr(pair, server)) as client:
        client.send(raw("GET", b"/", answer_field(200, "plain", "broken")))
        head, _, body = client.until_end().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"transfer-encoding: chunked" in head.lower()
    assert b"3\r\none\r\n3\r\ntwo\r\n".startswith(body)


def test_an_answer_that_is_longer_than_declared_ends_there(pair: Pair) -> None:
    """PEP 3333: no more than was declared, and no error for it."""
    compared = compare(pair, raw("GET", b"/", answer_field(200, "plain", "long")))
    assert compared.answer.body == b"onet"


def test_an_answer_that_is_shorter_than_declared_is_none(pair: Pair) -> None:
    """gunicorn has sent the length already, and breaks off; the worker has not, and says 500."""
    sent = raw("GET", b"/", answer_field(200, "plain", "short"))
    with Client(pair.direct) as client:
        client.send(sent)
        client.end()
        assert client.until_end().endswith(b"\r\n\r\nonetwo")
    with Client(pair.relay) as client:
        assert client.ask(sent).status == 500
        assert client.ask(NEXT).status == 200


# What comes in.

FORM = ("Content-Type", b" application/x-www-form-urlencoded")
MULTIPART = b"".join(
    [
        b'--limit\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n--lim\r\n',
        b'--limit\r\nContent-Disposition: form-data; name="f"; filename="\xc3\xbc.bin"\r\n',
        b"Content-Type: application/x-thing\r\n\r\n" + EVERYTHING + b"\r\n--limit--\r\n",
    ]
)
CODED = ("Transfer-Encoding", b" chunked")

#: Kinds of request bodies: fields, body with a length, body without one, what arrives.
REQUEST_BODIES: dict[str, tuple[list[tuple[str, bytes]], bytes | None, bytes, bytes]] = {
    "none": ([], None, b"", b""),
    "zero": ([], b"", b"", b""),
    "text": ([("Content-Type", b" text/plain")], b"text\r\n", b"", b"text\r\n"),
    "utf-8": ([("Content-Type", b" text/plain")], TEXT.encode(), b"", TEXT.encode()),
    "everything": ([("Content-Type", b" a/b")], EVERYTHING, b"", EVERYTHING),
    "nul": ([], b"\0", b"", b"\0"),
    "mebi": ([], MEBI, b"", MEBI),
    "like-a-request": ([], NEXT, b"", NEXT),
    "form": ([FORM], b"a=1&b=%C3%BC+x&a=2&c&=&%zz", b"", b"a=1&b=%C3%BC+x&a=2&c&=&%zz"),
    "json": (
        [("Content-Type", b" application/json")],
        b'{"k":"\xc3\xbc"}',
        b"",
        b'{"k":"\xc3\xbc"}',
    ),
    "multipart": (
        [("Content-Type", b" multipart/form-data; boundary=limit")],
        *(MULTIPART, b"", MULTIPART),
    ),
    "gzip": ([("Content-Encoding", b" gzip")], b"\x1f\x8b\x08\x00", b"", b"\x1f\x8b\x08\x00"),
    "chunked": (
        [CODED],
        None,
        chunked(b"Gr\xc3\xbc", b"\xc3\x9fe\r\n0\r\n\r\n"),
        b"Gr\xc3\xbc\xc3\x9fe\r\n0\r\n\r\n",
    ),
    "chunked-empty": ([CODED], None, chunked(), b""),
    "chunked-mebi": ([CODED], None, chunked(MEBI[:70000], MEBI[70000:]), MEBI),
    "chunked-bytes": ([CODED], None, chunked(*(b"%c" % n for n in range(256))), EVERYTHING),
    "chunked-trailer": ([CODED], None, b"3\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n", b"abc"),
    "chunked-extended": ([CODED], None, b'3;a=b;c="d;e"\r\nabc\r\n000\r\n\r\n', b"abc"),
}

#: Odd header sections of requests.
REQUEST_FIELDS: dict[str, list[tuple[str, bytes]]] = {
    "none": [],
    "browser": [
        ("User-Agent", b" Mozilla/5.0 (X11; Linux x86_64) Test/1.0"),
        ("Accept", b" text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"),
        ("Accept-Language", b" de-DE,de;q=0.9, en;q=0.5"),
        ("Accept-Encoding", b" gzip, deflate, br, zstd"),
        ("Referer", b" https://elsewhere.example/?a=b"),
        ("Cookie", b' a=1; b="x y"; c=; d=\xc3\xbc'),
        ("Upgrade-Insecure-Requests", b" 1"),
    ],
    "repeated": [("X-A", b" 1"), ("X-B", b" 2"), ("x-a", b" 3, 4"), ("X-A", b" 1")],
    "empty": [("X-Empty", b""), ("X-Blank", b" \t "), ("Accept", b"")],
    "marks": [
        ("X-Marks", b' a,"b, c";d=\\"e\\" (f) <g> [h] {i} @:?=;/\\|~^`%#!'),
        ("X-P", b" %0d%0a"),
    ],
    "around": [("X-Around", b"  \t a \t b \t "), ("X-Tight", b"tight"), ("X-Right", b"r   ")],
    "utf-8": [("X-Text", " Grüße 世界 🙂".encode())],
    "high": [("X-High", b" " + bytes(range(0x80, 0x100)) + b"x")],
    "edges": [("X-Left", b" \x85a\xa0"), ("X-Right", b" a\xa0\x85")],
    "long": [("X-Long", b" " + b"l" * 7168)],
    "ninety": [(f"X-Field-{number:02}", b" %d" % number) for number in range(90)],
    "case": [
        ("x-lower", b" 1"),
        ("X-UPPER", b" 2"),
        ("aCCEPT", b" a/b"),
        ("CONTENT-type", b" x/y"),
    ],
    "names": [("!#$%&'*+.^`|~09", b" a token"), ("1", b" x"), ("X-Case-", b" y")],
    "authorization": [("Authorization", b" Basic dXNlcjpww6Rzcw=="), ("DNT", b" 1")],
    "conditions": [
        ("If-None-Match", b' W/"a", "b,c"'),
        ("If-Match", b" *"),
        ("Range", b" bytes=0-1,5-"),
    ],
    "connection": [("Connection", b" keep-alive, X-Hop")],
    "underscores": [("X_A", b" 1"), ("X-A", b" 2"), ("Content_Length", b" 9"), ("_", b" 3")],
    "rare": [("Prefer", b" respond-async"), ("Max-Forwards", b" 3"), ("Origin", b" null")],
}

REQUESTS = list(
    pairwise(
        {
            "body": list(REQUEST_BODIES),
            "fields": list(REQUEST_FIELDS),
            "method": ["POST", "PUT", "PATCH", "DELETE", "GET", "OPTIONS", "PROPFIND", "HEAD"],
        }
    )
)


def request_of(case: dict[str, str]) -> tuple[bytes, bytes]:
    """The request, and the body that arrives."""
    fields, body, tail, arrives = REQUEST_BODIES[case["body"]]
    odd = REQUEST_FIELDS[case["fields"]]
    if any(name.lower() == "content-type" for name, _ in odd):
        # Twice is another question.
        fields = [field for field in fields if field[0] != "Content-Type"]
    sent = raw(case["method"], b"/", *odd, *fields, body=body) + tail
    return sent, arrives


@pytest.mark.parametrize("case", REQUESTS, ids=lambda case: "-".join(case.values()))
def test_request_fields_and_bodies(pair: Pair, case: dict[str, str]) -> None:
    sent, arrives = request_of(case)
    seen = compare(pair, sent).seen
    assert (seen["length"], seen["body"]) == (len(arrives), hashlib.sha256(arrives).hexdigest())


@pytest.mark.parametrize("kind", REQUEST_BODIES)
def test_the_length_is_the_body_s(pair: Pair, kind: str) -> None:
    """gunicorn tells what the client wrote, the worker what is there to read."""
    sent, arrives = request_of({"method": "POST", "body": kind, "fields": "none"})
    told = compare(pair, sent).seen["told"]
    assert told["CONTENT_LENGTH"] == str(len(arrives))


@pytest.mark.parametrize("kind", REQUEST_BODIES)
def test_the_body_comes_back(pair: Pair, kind: str) -> None:
    sent, arrives = request_of({"method": "POST", "body": kind, "fields": "none"})
    sent = sent.replace(b"\r\n", b"\r\nX-Mirror: body\r\n", 1)
    assert (
        hashlib.sha256(compare(pair, sent).answer.body).digest() == hashlib.sha256(arrives).digest()
    )


# What only the relay does, and gunicorn does otherwise.


def seen_by_relay(pair: Pair, sent: bytes) -> dict[str, Any]:
    """What the application is told through the queue."""
    name = f"{pair.number()}"
    sent = sent.replace(b"\r\n", b"\r\nX-Case: %b\r\n" % name.encode(), 1)
    told: dict[str, Any] = exchange(pair.relay, sent, pair.relay_seen / f"{name}.json").seen["told"]
    return told


def test_a_header_section_that_was_taken_back_is_gone(pair: Pair) -> None:
    """PEP 3333: start_response() with exc_info replaces it; gunicorn sends both."""
    with Client(pair.relay) as client:
        answer = client.ask(raw("GET", b"/", ("X-Answer", b"500/cookies/twice")))
    assert comparable(answer) == [*FIELDS["cookies"], ("X-Second", "2")]
    assert answer.body == b"the second one"


def test_an_asterisk_is_no_path(pair: Pair) -> None:
    told = seen_by_relay(pair, raw("OPTIONS", b"*"))
    assert (told["PATH_INFO"], told["REQUEST_URI"]) == ("", "*")


def test_the_authority_of_the_target_wins(pair: Pair) -> None:
    """RFC 9112 3.2.2; gunicorn leaves HTTP_HOST as it came."""
    told = seen_by_relay(pair, raw("GET", b"http://other.example:81/a?b"))
    assert told["HTTP_HOST"] == "other.example:81"
    assert (told["PATH_INFO"], told["QUERY_STRING"]) == ("/a", "b")


def test_what_belongs_to_the_connection_is_not_told(pair: Pair) -> None:
    hop = ("Connection", b" keep-alive, X-Hop")
    fields = [
        hop,
        ("X-Hop", b"1"),
        ("TE", b"trailers"),
        ("Keep-Alive", b"timeout=5"),
        ("X-End", b"1"),
    ]
    fields += [
        ("Upgrade", b"h2c"),
        ("Proxy-Authorization", b"x"),
        ("Proxy", b"http://evil.example"),
    ]
    told = seen_by_relay(pair, raw("GET", b"/", *fields))
    assert {name for name in told if name.startswith("HTTP_")} - OWN.keys() == {
        *("HTTP_HOST", "HTTP_X_CASE", "HTTP_X_END"),
    }


# Where to.

TARGETS: dict[str, bytes] = {
    "root": b"/",
    "query": b"/a?b=1&c=%C3%BC&b=2+3&d=%26%3D&e&f=&g=x;h=y",
    "query-empty": b"/a?",
    "query-only": b"/?a",
    "query-question": b"/a?b=?&c=/x//y/../z",
    "query-marks": b"/a?[x]={y}&\"<>^`|\\'!*()",
    "query-percent": b"/a?%zz&%C3&%00&%2525&%20&%",
    "semicolon": b"/a;b=c,d;e/f;g?h",
    "percent": b"/a%20b%2Bc+d%25e",
    "percent-case": b"/%c3%BC/%C3%bc",
    "percent-slash": b"/a%2Fb%2f%2E%2E%5C",
    "percent-question": b"/a%3Fb%23c",
    "percent-nul": b"/a%00b",
    "percent-controls": b"/%01%0a%0D%7f%1f",
    "percent-bad": b"/%zz/%/%4/%%41/%G0",
    "not-utf-8": b"/%ff%fe%80%C3",
    "utf-8": b"/%E4%B8%96%F0%9F%99%82",
    "unreserved": b"/-._~!$&'()*+,=:@",
    "marks": b'/"<>[]^`{|}\\',
    "double-slash": b"/a//b///c/",
    "double-slash-first": b"//a//b",
    "triple-slash": b"///",
    "double-slash-host": b"//other.example/a",
    "dots": b"/a/../b/./c/..",
    "dots-first": b"/../../etc/passwd",
    "colon": b"/http://other.example:80/x?y",
    "at": b"/user:pass@host/",
    "long": b"/" + b"l" * 4000 + b"?" + b"q" * 2000,
    "deep": b"/a" * 500,
    "absolute": b"http://shop.example:8080/a?b",
    "absolute-case": b"HTTP://shop.example:8080/A",
    "absolute-slashes": b"http://shop.example:8080//a//b?c",
    "absolute-query": b"http://shop.example:8080/?",
    "absolute-percent": b"http://shop.example:8080/%2F%zz%ff",
    "scheme-in-query": b"/?u=http://x/",
}


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_targets(pair: Pair, target: bytes, method: str) -> None:
    body = b"x" if method == "POST" else None
    seen = compare(pair, raw(method, target, body=body)).seen
    assert seen["told"]["REQUEST_URI"] == _origin_form(target.decode())


@pytest.mark.parametrize(
    "host",
    [b"shop.example", b"SHOP.example:80", b"127.0.0.1:8000", b"[2001:db8::1]:81", b"[::1]", b"a"],
)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_hosts(pair: Pair, host: bytes, version: bytes) -> None:
    seen = compare(pair, raw("GET", b"/", host=host, version=version)).seen
    assert seen["told"]["HTTP_HOST"] == host.decode()


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_old_clients(pair: Pair, method: str, body: str) -> None:
    """HTTP/1.0 has no chunks: an unknown length ends with the connection."""
    asked = answer_field(200, "cookies", body)
    sent = raw(method, b"/a?b", asked, version=b"1.0", body=b"x" if method == "POST" else None)
    outcome = compare(pair, sent)
    assert outcome.answer.one("transfer-encoding") is None
    assert outcome.seen["told"]["SERVER_PROTOCOL"] == "HTTP/1.0"


def test_an_old_client_may_leave_out_the_host(pair: Pair) -> None:
    assert "HTTP_HOST" not in compare(pair, raw("GET", version=b"1.0", host=None)).seen["told"]


@pytest.mark.parametrize("server", ["relay", "direct"])
@pytest.mark.parametrize("body", ["text", "zero", "mebi"])
def test_an_old_client_may_keep_its_connection(pair: Pair, server: str, body: str) -> None:
    """By asking for it, where the answer's length is known (RFC 9112 9.3)."""
    keep = ("Connection", b"keep-alive")
    sent = raw("GET", b"/", keep, answer_field(200, "plain", body), version=b"1.0")
    with Client(getattr(pair, server)) as client:
        for _ in range(3):
            answer = client.ask(sent)
            assert (answer.one("connection") or "").lower() == "keep-alive"
        assert client.ask(raw("GET", b"/", version=b"1.0")).body == TEXT.encode()
        assert client.at_end()
