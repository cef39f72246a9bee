"""Requests as bytes, each with what RFC 9112 and RFC 9110 make of it.

Written from the RFCs, and from the classes of bugs that other parsers are known for: numbers by
``int()``, white space stripped that is none, fields joined or picked where they disagree, line ends
that are none, bytes behind the last chunk, what is wrong behind what is right.
"""

from dataclasses import dataclass, field

from queuerelay.http.head import EMPTY_LINES, HeadLimits

#: What stands behind each case: never seen where the case is refused, the next request otherwise.
NEXT = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"

#: So that what is too large can be cut at every byte.
SMALL = HeadLimits(max_line=64, max_header=160, max_fields=4)


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that was accepted."""

    method: str
    target: str
    body: bytes = b""
    version: str = "1.1"
    #: Fields that it must have, among others; a value of None for one that it must not have.
    fields: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """One case."""

    name: str
    data: bytes
    #: The status of the refusal; None for what is accepted, 0 for what is not complete.
    status: int | None
    seen: tuple[Seen, ...] = ()
    limits: HeadLimits | None = None
    max_body: int = 1000
    #: Whether the connection ends with the last answer.
    closes: bool = False


CASES: list[Case] = []


def _bad(status: int, name: str, data: bytes, *seen: Seen, **how) -> None:
    CASES.append(Case(name, data, status, seen, **how))


def _ok(name: str, data: bytes, *seen: Seen, **how) -> None:
    CASES.append(Case(name, data, None, seen or (Seen("GET", "/"),), **how))


def _get(*lines: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    """A head with these lines behind ``Host``."""
    return b"\r\n".join([line, *([host] if host else []), *lines, b"", b""])


def _post(*lines: bytes, body: bytes = b"") -> bytes:
    return _get(*lines, line=b"POST / HTTP/1.1") + body


def _chunks(body: bytes, *lines: bytes) -> bytes:
    return _post(b"Transfer-Encoding: chunked", *lines, body=body)


POST = Seen("POST", "/")
ABC = Seen("POST", "/", b"abc")

# --- The request line (RFC 9112 3) ---------------------------------------------------------------

for method in (b"GET", b"HEAD", b"DELETE", b"PATCH", b"get", b"X-Y.z!", b"M" * 40, b"0"):
    _ok(f"method {method!r}", _get(line=method + b" / HTTP/1.1"), Seen(method.decode(), "/"))
for target in (
    *(b"/", b"/a/b?c=d", b"//a//b", b"/%00%0d%0a", b"/%zz", b"/?", b"/a?b?c", b"/:@!$&'()*+,;="),
    *(b'/"<>\\^`{|}[]', b"/http://b/", b"/a b".replace(b" ", b"+"), b"/." * 20, b"/*"),
):
    _ok(f"target {target!r}", _get(line=b"GET %b HTTP/1.1" % target), Seen("GET", target.decode()))
for name, line in {
    "nothing but a method": b"GET",
    "no version, as HTTP/0.9": b"GET /",
    "no target": b"GET HTTP/1.1",
    "an empty target": b"GET  HTTP/1.1",
    "two blanks before the target": b"GET  / HTTP/1.1",
    "two blanks before the version": b"GET /  HTTP/1.1",
    "a blank before the method": b" GET / HTTP/1.1",
    "a blank behind the version": b"GET / HTTP/1.1 ",
    "a tab behind the version": b"GET / HTTP/1.1\t",
    "a tab for a blank": b"GET\t/ HTTP/1.1",
    "a vertical tab for a blank": b"GET /\x0bHTTP/1.1",
    "a form feed for a blank": b"GET /\x0cHTTP/1.1",
    "a blank in the target": b"GET /a b HTTP/1.1",
    "NUL in the target": b"GET /\x00 HTTP/1.1",
    "DEL in the target": b"GET /\x7f HTTP/1.1",
    "0x80 in the target": b"GET /\x80 HTTP/1.1",
    "NEL in the target": b"GET /\x85 HTTP/1.1",
    "a no-break space in the target": b"GET /\xa0 HTTP/1.1",
    "UTF-8 in the target": b"GET /\xc3\xa9 HTTP/1.1",
    "0xff in the target": b"GET /\xff HTTP/1.1",
    "a bare CR in the target": b"GET /\rb HTTP/1.1",
    "a fragment": b"GET /a#b HTTP/1.1",
    "a delimiter in the method": b"G@T / HTTP/1.1",
    "a colon in the method": b"GET: / HTTP/1.1",
    "0xff in the method": b"G\xffT / HTTP/1.1",
    "NUL before the method": b"\x00GET / HTTP/1.1",
    "a quoted method": b'"GET" / HTTP/1.1',
    "a version in lower case": b"GET / http/1.1",
    "another protocol": b"GET / HTTPS/1.1",
    "a version of three digits": b"GET / HTTP/1.11",
    "a version of five digits": b"GET / HTTP/00001.1",
    "a version without a minor one": b"GET / HTTP/1",
    "a version with a comma": b"GET / HTTP/1,1",
    "a version with a sign": b"GET / HTTP/+1.1",
    "a version in other digits": b"GET / HTTP/1.\xb2",
    "a blank within the version": b"GET / HTTP/ 1.1",
    "a version and more": b"GET / HTTP/1.1 X",
    "TLS on a plain port": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}.items():
    _bad(400, name, _get(line=line))
for version in (b"0.9", b"1.2", b"1.9", b"2.0", b"3.0", b"9.9", b"0.0"):
    _bad(505, f"version {version!r}", _get(line=b"GET / HTTP/" + version))
_bad(400, "the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00")
_bad(400, "HTTP/0.9", b"GET /\r\n")
_bad(400, "a bare LF behind the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n")
_bad(400, "bare LFs everywhere", b"GET / HTTP/1.1\nHost: a\n\n")
_bad(400, "CR CR LF", b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n")

for count in (1, 2, EMPTY_LINES):
    _ok(f"{count} empty lines before", b"\r\n" * count + _get())
_bad(400, "too many empty lines before", b"\r\n" * (EMPTY_LINES + 1) + _get())
_bad(400, "a bare LF before", b"\n" + _get())
_bad(400, "a bare CR before", b"\r" + _get())
_bad(400, "a blank line with a blank before", b" \r\n" + _get())
_ok("an empty line between", _get() + b"\r\n" + _get(), Seen("GET", "/"), Seen("GET", "/"))

# --- Targets in other forms, and the host (RFC 9112 3.2) -----------------------------------------

for target, path, host in (
    (b"http://b/c?d", "/c?d", "b"),
    (b"http://b", "/", "b"),
    (b"http://b?c", "/?c", "b"),
    (b"HTTP://B/c", "/c", "B"),
    (b"https://b:8443/", "/", "b:8443"),
    (b"http://b:/", "/", "b:"),
    (b"http://[::1]:80/c", "/c", "[::1]:80"),
    (b"http://b/http://c/", "/http://c/", "b"),
    (b"http://b//c", "//c", "b"),
    (b"http://b/?http://c@d", "/?http://c@d", "b"),
):
    _ok(
        f"absolute {target!r}",
        _get(line=b"GET %b HTTP/1.1" % target),
        Seen("GET", path, fields={"host": host}),
    )
_ok(
    "absolute, HTTP/1.0, no Host",
    _get(line=b"GET http://b/ HTTP/1.0", host=b""),
    Seen("GET", "/", version="1.0", fields={"host": "b"}),
    closes=True,
)
_bad(400, "absolute, no Host", _get(line=b"GET http://b/ HTTP/1.1", host=b""))
_bad(400, "absolute, a bad Host", _get(line=b"GET http://b/ HTTP/1.1", host=b"Host: a b"))
_bad(400, "absolute, two Hosts", _get(b"Host: b", line=b"GET http://b/ HTTP/1.1"))
for target in (
    *(
        b"http:///a",
        b"http://",
        b"http://a@b/",
        b"http://a:b@c/",
        b"http://b:x/",
        b"http://b:99999/",
    ),
    *(b"http://[/", b"http://[::1/", b"http:/b/", b"http:b", b"ftp://b/", b"file:///etc/passwd"),
    *(b"b", b"b:80", b"b/c", b"?a", b"*", b"*/", b"javascript:x", b"://b/", b"1http://b/", b"\\b"),
    *(b"http://b\\@c/", b"http://b|c/", b"http://b,c d/".replace(b" ", b"<"), b"http://b%zz/"),
):
    _bad(400, f"GET {target!r}", _get(line=b"GET %b HTTP/1.1" % target))
_ok("OPTIONS *", _get(line=b"OPTIONS * HTTP/1.1"), Seen("OPTIONS", "*"))
_ok(
    "OPTIONS absolute",
    _get(line=b"OPTIONS http://b HTTP/1.1"),
    Seen("OPTIONS", "*", fields={"host": "b"}),
)
_ok("OPTIONS absolute, a path", _get(line=b"OPTIONS http://b/ HTTP/1.1"), Seen("OPTIONS", "/"))
_ok("OPTIONS absolute, a query", _get(line=b"OPTIONS http://b?c HTTP/1.1"), Seen("OPTIONS", "/?c"))
_bad(400, "POST *", _get(line=b"POST * HTTP/1.1"))
_bad(400, "options *", _get(line=b"options * HTTP/1.1"))

for host in (
    *(b"a", b"a.b", b"A-b.C", b"a:80", b"a:", b"a:0", b"a:65535", b"127.0.0.1", b"[::1]", b"a_b"),
    *(b"[::ffff:1.2.3.4]:8080", b"xn--bcher-kva.example", b"a%41", b"a.", b"a:00080", b"~!$&'()*+"),
):
    _ok(
        f"Host: {host!r}",
        _get(host=b"Host: " + host),
        Seen("GET", "/", fields={"host": host.decode()}),
    )
for host in (
    *(
        b"",
        b" ",
        b"a b",
        b"a,b",
        b"a, b",
        b"a/b",
        b"a@b",
        b"a?b",
        b"a#b",
        b"a\\b",
        b"a\tb",
        b"\xc3\xa9",
    ),
    *(
        b"a:b",
        b"a:80:80",
        b"a:-1",
        b"a:+80",
        b"a:65536",
        b"a:000000000080",
        b"a:8 0",
        b"a\xa0",
        b":80",
    ),
    *(
        b"[::1",
        b"::1",
        b"[::1]a",
        b"[::1]]",
        b"[]",
        b"[g]",
        b"a%4",
        b"<a>",
        b'"a"',
        b"a\x85",
        b"a:8\xb2",
    ),
    *(b"http://a", b"[::1%25eth0]"),
):
    # A list is no host, but a comma may stand in a registered name.
    if host == b"a,b":
        _ok("Host: with a comma", _get(host=b"Host: a,b"))
    else:
        _bad(400, f"Host: {host!r}", _get(host=b"Host: " + host))
_bad(400, "no Host", _get(host=b""))
_bad(400, "two Hosts", _get(b"Host: b"))
_bad(400, "the same Host twice", _get(b"Host: a"))
_bad(400, "two Hosts in different case", _get(b"hOST: a"))
_bad(400, "an empty and a good Host", _get(b"Host: a", host=b"Host:"))
_ok("Host without white space", _get(host=b"Host:a"))
_ok(
    "Host with white space around",
    _get(host=b"host: \t a \t "),
    Seen("GET", "/", fields={"host": "a"}),
)
_ok(
    "HTTP/1.0 without Host", b"GET / HTTP/1.0\r\n\r\n", Seen("GET", "/", version="1.0"), closes=True
)
_ok(
    "HTTP/1.0 with Host", _get(line=b"GET / HTTP/1.0"), Seen("GET", "/", version="1.0"), closes=True
)
_bad(400, "HTTP/1.0 with a bad Host", _get(line=b"GET / HTTP/1.0", host=b"Host: a b"))
_bad(400, "HTTP/1.0 with two Hosts", _get(b"Host: a", line=b"GET / HTTP/1.0"))

# --- Methods that are not relayed ----------------------------------------------------------------

_bad(501, "CONNECT", _get(line=b"CONNECT a:443 HTTP/1.1"))
_bad(501, "CONNECT /", _get(line=b"CONNECT / HTTP/1.1"))
_bad(501, "CONNECT with a body", _get(b"Content-Length: 3", line=b"CONNECT a:1 HTTP/1.1") + b"abc")
_bad(400, "CONNECT without Host", _get(line=b"CONNECT a:443 HTTP/1.1", host=b""))
_bad(405, "TRACE", _get(line=b"TRACE / HTTP/1.1"))
_bad(405, "TRACE with a body", _get(b"Content-Length: 3", line=b"TRACE / HTTP/1.1") + b"abc")
_ok("trace is another method", _get(line=b"trace / HTTP/1.1"), Seen("trace", "/"))

# --- Fields (RFC 9112 5, RFC 9110 5) -------------------------------------------------------------

for name, value in (
    (b"X", b""),
    (b"X", b" "),
    (b"X", b"a"),
    (b"X", b" a b "),
    (b"X", b"\ta\t"),
    (b"X", b"a\tb"),
    (b"X", b"\x80\xff"),
    (b"X", b"\xa0a\x85"),
    (b"X", b":a:"),
    (b"x!#$%&'*+-.^`|~", b"1"),
    (b"X", b'a\\b"c'),
    (b"0", b"0"),
    (b"X", b"a  b"),
    (b"X", b"=?utf-8?q?=C3?="),
):
    expected = value.strip(b" \t").decode("latin-1")
    _ok(
        f"field {name!r}: {value!r}",
        _get(name + b":" + value),
        Seen("GET", "/", fields={name.lower().decode(): expected}),
    )
for name, line in {
    "a field without colon": b"X",
    "a field of nothing but a colon": b":",
    "an empty name": b": a",
    "a blank before the colon": b"X : a",
    "a tab before the colon": b"X\t: a",
    "a blank within the name": b"X Y: a",
    "a folded field": b"X: a\r\n b",
    "a field folded by a tab": b"X: a\r\n\tb",
    "a folded field of blanks": b"X: a\r\n \r\nY: b",
    "a blank before a name": b" X: a",
    "a tab before a name": b"\tX: a",
    "a no-break space before a name": b"\xa0X: a",
    "a no-break space behind a name": b"X\xa0: a",
    "NEL behind a name": b"X\x85: a",
    "NUL in a name": b"X\x00: a",
    "CR in a name": b"X\r: a",
    "0xff in a name": b"\xff: a",
    "a delimiter in a name": b"X(Y): a",
    "a slash in a name": b"X/Y: a",
    "a quoted name": b'"X": a',
    "a comma in a name": b"X,Y: a",
    "a semicolon in a name": b"X;Y: a",
    "an at sign in a name": b"X@Y: a",
    "brackets in a name": b"X[0]: a",
    "braces in a name": b"{X}: a",
    "an equals sign in a name": b"X=Y: a",
    "NUL in a value": b"X: a\x00b",
    "a bare CR in a value": b"X: a\rb",
    "a CR at the end of a value": b"X: a\r",
    "a bare LF in a value": b"X: a\nb: c",
    "a bare LF behind a value": b"X: a\n",
    "DEL in a value": b"X: a\x7f",
    "a vertical tab in a value": b"X: a\x0bb",
    "a vertical tab around a value": b"X: \x0ba\x0b",
    "a form feed in a value": b"X: \x0ca",
    "BEL in a value": b"X: \x07",
    "ESC in a value": b"X: \x1b[31m",
    "0x01 in a value": b"X: \x01",
    "0x1f in a value": b"X: \x1f",
    "a wrong field behind a right one": b"X: a\r\nY",
    "a right field behind a wrong one": b"Y\r\nX: a",
}.items():
    _bad(400, name, _get(line))
_bad(400, "a folded Host", _get(host=b"Host:\r\n a"))
_bad(400, "a request line that is folded", b"GET /\r\n HTTP/1.1\r\nHost: a\r\n\r\n")
_bad(400, "a field before Host that is folded", _get(b" X: a", host=b"Host: a"))
_bad(400, "a blank first line of the fields", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n")
_bad(400, "a wrong field, and no end", b"GET / HTTP/1.1\r\nX : a\r\n")
_ok("the same name twice", _get(b"X: a", b"x: b"))
_ok("a name with _", _get(b"X_Y: a"), Seen("GET", "/", fields={"x_y": None, "x-y": None}))
for lines in (
    (b"GET / HTTP/1.1",),
    (b"GET / HTTP/1.1", b"Host: a"),
    (b"GET / HTTP/1.1", b"Host: a", b"X: b"),
):
    _bad(0, f"not complete after {len(lines)}", b"\r\n".join(lines) + b"\r\n")
_bad(0, "half a request line", b"GET / HT")
_bad(0, "nothing but empty lines", b"\r\n\r\n")
_bad(0, "a head without its last LF", _get()[:-1])

# --- Sizes ---------------------------------------------------------------------------------------

_line = b"GET /%b HTTP/1.1"
_small = {"limits": SMALL}
_ok(
    "the longest request line",
    _get(line=_line % (b"a" * 50)),
    Seen("GET", "/" + "a" * 50),
    **_small,
)
_bad(414, "a request line too long", _get(line=_line % (b"a" * 51)), **_small)
_bad(414, "a request line much too long", _get(line=_line % (b"a" * 300)), **_small)
_bad(414, "a request line without end", b"GET /" + b"a" * 400, **_small)
_bad(414, "a request line too long and wrong", _get(line=_line % (b"\x00" * 51)), **_small)
_ok("the longest field", _get(b"X: " + b"a" * 61), **_small)
_bad(431, "a field too long", _get(b"X: " + b"a" * 62), **_small)
_bad(431, "a field without end", _get()[:-2] + b"X: " + b"a" * 400, **_small)
_bad(431, "a field too long and wrong", _get(b"X: " + b"\x00" * 62), **_small)
_bad(400, "a wrong field, then one too long", _get(b"X : a", b"X: " + b"a" * 62), **_small)
_bad(431, "a field too long, then a wrong one", _get(b"X: " + b"a" * 62, b"X : a"), **_small)
# The lines with their ends have 16, 10, 66, 66 and 2 bytes.
_ok("the largest head", _get(*[b"X: " + b"a" * 61] * 2, host=b"Host: aa"), **_small)
_bad(431, "a head too large", _get(*[b"X: " + b"a" * 61] * 2, host=b"Host: aaa"), **_small)
_bad(431, "a head much too large", _get(*[b"X: " + b"a" * 50] * 3), **_small)
_ok("the most fields", _get(b"A: 1", b"B: 2", b"C: 3"), **_small)
_bad(431, "too many fields", _get(b"A: 1", b"B: 2", b"C: 3", b"D: 4"), **_small)
_bad(431, "too many fields, the last one wrong", _get(b"A: 1", b"B: 2", b"C: 3", b"D"), **_small)
_bad(400, "too many fields, an earlier one wrong", _get(b"A", b"B: 2", b"C: 3", b"D: 4"), **_small)

# --- Content-Length (RFC 9112 6.2, RFC 9110 8.6) -------------------------------------------------

for text in (b"3", b" 3 ", b"\t3", b"03", b"000000000000000003"):
    _ok(f"length {text!r}", _post(b"Content-Length:" + text, body=b"abc"), ABC)
_ok("length 0", _post(b"Content-Length: 0"), POST)
_ok("no length", _post(), POST)
_ok("a body of GET", _get(b"Content-Length: 3") + b"abc", Seen("GET", "/", b"abc"))
_ok(
    "a body of DELETE",
    _get(b"Content-Length: 3", line=b"DELETE / HTTP/1.1") + b"abc",
    Seen("DELETE", "/", b"abc"),
)
_ok(
    "a body like a request",
    _post(b"Content-Length: %d" % len(NEXT), body=NEXT),
    Seen("POST", "/", NEXT),
)
_ok(
    "a body of CR LF", _post(b"Content-Length: 4", body=b"\r\n\r\n"), Seen("POST", "/", b"\r\n\r\n")
)
_ok(
    "a length in HTTP/1.0",
    _get(b"Content-Length: 3", line=b"POST / HTTP/1.0") + b"abc",
    Seen("POST", "/", b"abc", version="1.0"),
    closes=True,
)
for text in (
    *(b"", b" ", b"+3", b"-3", b"-0", b"3.0", b"3e0", b"0x3", b"0b11", b"0o3", b"3a", b"a", b"3 3"),
    *(b"3,", b",3", b"3,3", b"3, 3", b"3,4", b"3;a", b'"3"', b"3_0", b"_3", b"\xb3", b"\xc2\xb3"),
    *(
        b"\xa03",
        b"3\xa0",
        b"\x853",
        b"3\x85",
        b"\x0b3",
        b"3\x0c",
        b"3\x00",
        b"\x1c3",
        b"3\r",
        b"NaN",
    ),
    *(
        b"9" * 19,
        b"0" * 19,
        b"9" * 5000,
        b"0" * 5000 + b"3",
        b"18446744073709551619",
        b"\xef\xbc\x93",
    ),
):
    _bad(400, f"length {text[:24]!r} ({len(text)})", _post(b"Content-Length: " + text, body=b"abc"))
_bad(400, "two lengths", _post(b"Content-Length: 3", b"Content-Length: 4", body=b"abc"))
_bad(400, "the same length twice", _post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"))
_bad(
    400,
    "an empty length and a good one",
    _post(b"Content-Length:", b"content-length: 3", body=b"abc"),
)
_bad(
    400,
    "a good length and an empty one",
    _post(b"Content-Length: 3", b"Content-Length:", body=b"abc"),
)
_bad(400, "a length and one with a blank", _post(b"Content-Length: 3", b"Content-Length : 0"))
_ok("a length with _", _post(b"Content_Length: 3"), POST)
_bad(413, "a length too large", _post(b"Content-Length: 1001"))
_bad(413, "a length of 18 digits", _post(b"Content-Length: " + b"9" * 18))
_bad(
    413,
    "a length too large, and an expectation",
    _post(b"Content-Length: 1001", b"Expect: 100-continue"),
)
_ok(
    "the largest length",
    _post(b"Content-Length: 10", body=b"x" * 10),
    Seen("POST", "/", b"x" * 10),
    max_body=10,
)
_bad(0, "half a body", _post(b"Content-Length: 3", body=b"ab"))

# --- Transfer-Encoding (RFC 9112 6.1, 6.3, 7) ----------------------------------------------------

for text in (b"chunked", b"Chunked", b"CHUNKED", b" \tchunked\t "):
    _ok(f"coding {text!r}", _post(b"Transfer-Encoding:" + text, body=b"3\r\nabc\r\n0\r\n\r\n"), ABC)
for text in (
    *(
        b"",
        b" ",
        b",chunked",
        b"chunked,",
        b", chunked",
        b"chunked;a=b",
        b"chunked; ",
        b"chunked a",
    ),
    *(
        b"identity",
        b"identity, chunked",
        b"chunked, identity",
        b"chunked, chunked",
        b"chunked, gzip",
    ),
    *(b"chunked\x0b", b"\x0bchunked", b"chunked\xa0", b"\x85chunked", b'"chunked"', b"(chunked)"),
    *(b"chunked\x00", b"chu\tnked", b"=chunked", b"gzip,,chunked", b"chunked, gzip, chunked", b"@"),
):
    _bad(400, f"coding {text!r}", _chunks(b"0\r\n\r\n").replace(b": chunked", b": " + text))
for text in (
    b"gzip",
    b"gzip, chunked",
    b"deflate",
    b"xchunked",
    b"chunkedx",
    b"x;a=b, chunked",
    b"br",
    b"cow",
    b"chunke",
    b"nothing",
    b"x-gzip , chunked",
):
    _bad(501, f"coding {text!r}", _chunks(b"0\r\n\r\n").replace(b": chunked", b": " + text))
_bad(400, "chunked in two fields", _chunks(b"0\r\n\r\n", b"Transfer-Encoding: chunked"))
_bad(
    400, "chunked and identity in two fields", _chunks(b"0\r\n\r\n", b"Transfer-Encoding: identity")
)
_bad(400, "chunked and an empty field", _chunks(b"0\r\n\r\n", b"Transfer-Encoding:"))
_bad(400, "chunked and a length", _chunks(b"3\r\nabc\r\n0\r\n\r\n", b"Content-Length: 3"))
_bad(
    400,
    "a length and chunked",
    _post(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=b"abc"),
)
_bad(400, "chunked and a length of 0", _chunks(b"0\r\n\r\n", b"Content-Length: 0"))
_bad(
    400,
    "identity and a length",
    _post(b"Content-Length: 3", b"Transfer-Encoding: identity", body=b"abc"),
)
_bad(
    400,
    "an unknown coding and a length",
    _post(b"Content-Length: 3", b"Transfer-Encoding: x", body=b"abc"),
)
_bad(
    400,
    "chunked in HTTP/1.0",
    _get(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0") + b"0\r\n\r\n",
)
_bad(400, "an unknown coding in HTTP/1.0", _get(b"Transfer-Encoding: x", line=b"POST / HTTP/1.0"))
_bad(
    400,
    "a coding with a blank before its colon",
    _post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n"),
)
_bad(400, "a folded coding", _post(b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n"))
_ok("a coding with _ is none", _post(b"Transfer_Encoding: chunked"), POST)
_ok("TE is about the answer", _get(b"TE: trailers, gzip"), Seen("GET", "/", fields={"te": None}))

# --- Chunks (RFC 9112 7.1) -----------------------------------------------------------------------

LAST = b"0\r\n\r\n"
for name, body, content in (
    ("no chunk", LAST, b""),
    ("a chunk", b"3\r\nabc\r\n" + LAST, b"abc"),
    ("three chunks", b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n" + LAST, b"abc"),
    ("a size in capitals", b"A\r\n0123456789\r\n" + LAST, b"0123456789"),
    ("a size in small letters", b"a\r\n0123456789\r\n" + LAST, b"0123456789"),
    ("a size with leading zeros", b"0000000000000003\r\nabc\r\n" + LAST, b"abc"),
    ("a last chunk of zeros", b"3\r\nabc\r\n0000\r\n\r\n", b"abc"),
    ("an extension", b"3;a\r\nabc\r\n" + LAST, b"abc"),
    ("an extension with a value", b"3;a=b\r\nabc\r\n" + LAST, b"abc"),
    ("an extension in quotes", b'3;a="b;\\"c"\r\nabc\r\n' + LAST, b"abc"),
    ("extensions with white space", b"3 ; a = b\t;c\r\nabc\r\n" + LAST, b"abc"),
    ("an extension of the last chunk", b"3\r\nabc\r\n0;a=b\r\n\r\n", b"abc"),
    ("a trailer", b"3\r\nabc\r\n0\r\nX: a\r\n\r\n", b"abc"),
    ("trailers", b"3\r\nabc\r\n0\r\nX: a\r\nY:b\r\n\r\n", b"abc"),
    ("a trailer about the framing", b"3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n", b"abc"),
    ("CR LF as content", b"4\r\n\r\n\r\n\r\n" + LAST, b"\r\n\r\n"),
    ("a last chunk as content", b"5\r\n0\r\n\r\n\r\n" + LAST, b"0\r\n\r\n"),
):
    _ok(f"chunks: {name}", _chunks(body), Seen("POST", "/", content))
for name, body in {
    "no size": b"\r\nabc\r\n",
    "an empty size with an extension": b";a\r\n\r\n",
    "0x before a size": b"0x3\r\nabc\r\n",
    "a plus before a size": b"+3\r\nabc\r\n",
    "a minus before a size": b"-3\r\nabc\r\n",
    "a size of -0": b"-0\r\n\r\n",
    "an underscore within a size": b"1_0\r\n0123456789012345\r\n",
    "a blank before a size": b" 3\r\nabc\r\n",
    "a blank behind a size": b"3 \r\nabc\r\n",
    "a tab behind a size": b"3\t\r\nabc\r\n",
    "a vertical tab behind a size": b"3\x0b\r\nabc\r\n",
    "a form feed before a size": b"\x0c3\r\nabc\r\n",
    "a no-break space behind a size": b"3\xa0\r\nabc\r\n",
    "NEL behind a size": b"3\x85\r\nabc\r\n",
    "NUL behind a size": b"3\x00\r\nabc\r\n",
    "a bare LF behind a size": b"3\nabc\r\n",
    "a bare CR behind a size": b"3\rabc\r\n",
    "CR CR LF behind a size": b"3\r\r\nabc\r\n",
    "a letter behind a size": b"3g\r\nabc\r\n",
    "h behind a size": b"3h\r\nabc\r\n",
    "a decimal point": b"3.0\r\nabc\r\n",
    "an exponent that is none": b"3,3\r\nabc\r\n",
    "other digits": b"\xb3\r\nabc\r\n",
    "a size of 17 digits": b"00000000000000003\r\nabc\r\n",
    "a size that wraps 64 bits": b"10000000000000003\r\nabc\r\n",
    "content longer than its size": b"3\r\nabcd\r\n",
    "content shorter than its size": b"3\r\nab\r\n0\r\n\r\n",
    "a bare LF behind content": b"3\r\nabc\n0\r\n\r\n",
    "a bare CR behind content": b"3\r\nabc\r0\r\n\r\n",
    "no line end behind content": b"3\r\nabc0\r\n\r\n",
    "an empty extension": b"3;\r\nabc\r\n",
    "an extension without a name": b"3;=b\r\nabc\r\n",
    "an extension with a bare LF": b"3;a\nabc\r\n0\r\n\r\n",
    "an extension with a bare CR": b"3;a\rb\r\nabc\r\n",
    "an extension with NUL": b"3;a=\x00\r\nabc\r\n",
    "an extension with a LF in quotes": b'3;a="\n"\r\nabc\r\n',
    "an extension with open quotes": b'3;a="b\r\nabc\r\n',
    "an extension of two words": b"3;a b\r\nabc\r\n",
    "a comma for a semicolon": b"3,a=b\r\nabc\r\n",
    "a size line without end": b"3;" + b"a" * 1100,
    "a trailer without colon": b"0\r\nX\r\n\r\n",
    "a trailer with a blank before its colon": b"0\r\nX : a\r\n\r\n",
    "a folded trailer": b"0\r\nX: a\r\n b\r\n\r\n",
    "a trailer with NUL": b"0\r\nX: \x00\r\n\r\n",
    "a trailer with a bare LF": b"0\r\nX: a\n\r\n",
    "a bare LF at the end": b"0\r\n\n",
    "a bare LF behind the last chunk": b"0\n\r\n",
    "a request for a trailer": b"0\r\nGET / HTTP/1.1\r\n\r\n",
    "a wrong chunk behind a right one": b"3\r\nabc\r\nx\r\n",
    "half an exploit of LF": b"2;\nxx\r\n0\r\n\r\n",
}.items():
    _bad(400, f"chunks: {name}", _chunks(body))
_bad(413, "chunks: one too large", _chunks(b"b\r\n" + b"x" * 11), max_body=10)
_bad(
    413, "chunks: together too large", _chunks(b"6\r\nxxxxxx\r\n5\r\nxxxxx\r\n" + LAST), max_body=10
)
_bad(413, "chunks: a size of 16 digits", _chunks(b"ffffffffffffffff\r\n"))
_ok(
    "chunks: just the limit",
    _chunks(b"6\r\nxxxxxx\r\n4\r\nxxxx\r\n" + LAST),
    Seen("POST", "/", b"x" * 10),
    max_body=10,
)
_bad(413, "chunks: too large, then wrong", _chunks(b"b\r\nx"), max_body=10)
_bad(400, "chunks: wrong, then too large", _chunks(b"1\r\nxx\r\nb\r\n"), max_body=10)
_bad(431, "chunks: a trailer too long", _chunks(b"0\r\nX: " + b"a" * 62 + b"\r\n\r\n"), **_small)
_ok(
    "chunks: the longest trailer",
    _chunks(b"0\r\nX: " + b"a" * 61 + b"\r\n\r\n"),
    POST,
    **_small,
)
_ok(
    "chunks: the longest size",
    _chunks(b"0;" + b"a" * 1022 + b"\r\n\r\n"),
    POST,
)
_bad(431, "chunks: a trailer without end", _chunks(b"0\r\nX: " + b"a" * 300), **_small)
_bad(
    431,
    "chunks: trailers too large",
    _chunks(b"0\r\n" + (b"X: " + b"a" * 50 + b"\r\n") * 3),
    **_small,
)
_bad(431, "chunks: too many trailers", _chunks(b"0\r\n" + b"X:\r\n" * 5 + b"\r\n"), **_small)
_bad(0, "chunks: not complete", _chunks(b"3\r\nabc\r\n"))
_bad(0, "chunks: no end of the trailers", _chunks(b"0\r\nX: a\r\n"))

# --- Expect (RFC 9110 10.1.1) --------------------------------------------------------------------

_ok("an expectation", _post(b"Content-Length: 3", b"Expect: 100-continue", body=b"abc"), ABC)
_ok(
    "an expectation in capitals",
    _post(b"Content-Length: 3", b"EXPECT: 100-Continue", body=b"abc"),
    ABC,
)
_ok(
    "an expectation twice",
    _post(b"Content-Length: 3", b"Expect: 100-continue, 100-continue", body=b"abc"),
    ABC,
)
_ok("an expectation without a body", _get(b"Expect: 100-continue"))
_ok(
    "an expectation of HTTP/1.0",
    _get(b"Content-Length: 3", b"Expect: 100-continue", line=b"POST / HTTP/1.0") + b"abc",
    Seen("POST", "/", b"abc", version="1.0"),
    closes=True,
)
for text in (b"200-ok", b"100-continue, x", b"x", b"100", b"", b"100-continue;a=b", b"meow"):
    _bad(417, f"Expect: {text!r}", _post(b"Content-Length: 3", b"Expect: " + text, body=b"abc"))
_bad(400, "an expectation and a wrong length", _post(b"Content-Length: x", b"Expect: 100-continue"))

# --- Connections (RFC 9112 9) --------------------------------------------------------------------

for text in (
    b"close",
    b"Close",
    b"keep-alive, close",
    b"close,close",
    b" , close",
    b"x,\tclose\t,y",
):
    _ok(f"Connection: {text!r}", _get(b"Connection: " + text), closes=True)
for text in (b"keep-alive", b"", b"x", b"closed", b"close-not", b"upgrade"):
    _ok(f"Connection: {text!r}", _get(b"Connection: " + text))
_ok(
    "Connection: close in a second field", _get(b"Connection: x", b"Connection: close"), closes=True
)
_ok(
    "Connection names a field",
    _get(b"Connection: x", b"X: a"),
    Seen("GET", "/", fields={"x": None}),
)
_ok(
    "HTTP/1.0 keep-alive",
    _get(b"Connection: Keep-Alive", line=b"GET / HTTP/1.0"),
    Seen("GET", "/", version="1.0"),
)
_ok(
    "HTTP/1.0 keep-alive, close",
    _get(b"Connection: keep-alive, close", line=b"GET / HTTP/1.0"),
    Seen("GET", "/", version="1.0"),
    closes=True,
)
_ok(
    "an upgrade that is not done",
    _get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),
    Seen("GET", "/", fields={"upgrade": None}),
)
_ok("pipelined", _get() * 3, *[Seen("GET", "/")] * 3)
_ok(
    "pipelined with bodies",
    _post(b"Content-Length: 3", body=b"abc") + _chunks(b"1\r\na\r\n" + LAST),
    ABC,
    Seen("POST", "/", b"a"),
)
_bad(400, "right, then wrong", _get() + b"nonsense\r\n\r\n", Seen("GET", "/"))
_bad(
    400,
    "a body longer than its length",
    _post(b"Content-Length: 3", body=b"abcd") + b"\r\n\r\n",
    ABC,
)
_bad(501, "right, then CONNECT", _get() + _get(line=b"CONNECT a:1 HTTP/1.1"), Seen("GET", "/"))
_bad(400, "bytes behind the last chunk", _chunks(LAST + b"x\r\n\r\n"), Seen("POST", "/"))
_bad(400, "a second last chunk", _chunks(LAST + LAST), Seen("POST", "/"))
_ok("an empty line behind a body", _post(b"Content-Length: 3", body=b"abc\r\n"), ABC)
