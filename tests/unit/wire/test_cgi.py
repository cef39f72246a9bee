"""A request as a CGI environment, and a script's output as a reply."""

import io
import re
import wsgiref.handlers

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay import __version__
from queuerelay.errors import BadRequest, ReplyError
from queuerelay.wire.cgi import HEADER_BOUND, CgiReply, cgi_environment, parse_cgi_output
from queuerelay.wire.message import Request
from queuerelay.wire.reply import decode_reply, encode_reply
from queuerelay.worker.environ import environ_of

NODE_ID = "3f9c21aa-" + "0123456789abcdef" * 2
LATIN = st.text(st.characters(min_codepoint=1, max_codepoint=255))


def request(**fields):
    return Request(
        **{
            "node_id": NODE_ID,
            "url": "/",
            "method": "GET",
            "http_version": "1.1",
            "headers": [("host", "example.org")],
            "body": b"",
            "remote_addr": "203.0.113.5",
            "scheme": "http",
            "reply_to": "queuerelay:inbox:3f9c21aa",
            "accepted_at": 1000.0,
            "deadline": 1060.0,
            **fields,
        }
    )


def env(*, script_name="", extra=None, **fields):
    return cgi_environment(request(**fields), script_name=script_name, extra=extra)


def unfit(**fields):
    with pytest.raises(BadRequest) as caught:
        env(**fields)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 300
    return text.removeprefix("the request is malformed: ")


def wrong(output):
    with pytest.raises(ReplyError) as caught:
        parse_cgi_output(output)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 300
    return text.removeprefix("a worker's reply cannot be understood: ")


# --- The environment -----------------------------------------------------------------------------


def test_plain_get():
    assert env(url="/things?x=1&y=%20") == {
        b"GATEWAY_INTERFACE": b"CGI/1.1",
        b"SERVER_SOFTWARE": b"queuerelay/" + __version__.encode(),
        b"SERVER_NAME": b"example.org",
        b"SERVER_PORT": b"80",
        b"SERVER_PROTOCOL": b"HTTP/1.1",
        b"REQUEST_METHOD": b"GET",
        b"REQUEST_URI": b"/things?x=1&y=%20",
        b"SCRIPT_NAME": b"",
        b"PATH_INFO": b"/things",
        b"QUERY_STRING": b"x=1&y=%20",
        b"REMOTE_ADDR": b"203.0.113.5",
        b"REMOTE_HOST": b"203.0.113.5",
        b"HTTP_HOST": b"example.org",
    }


def test_https_body_and_absolute_target():
    got = env(
        method="POST",
        scheme="https",
        url="https://shop.example/caf%C3%A9?%C3%A9",
        body=b"12345",
        headers=[("host", "other"), ("content-type", "text/x"), ("content-length", "999")],
    )
    assert got[b"HTTPS"] == b"on"
    assert (got[b"SERVER_NAME"], got[b"SERVER_PORT"]) == (b"shop.example", b"443")
    assert got[b"HTTP_HOST"] == b"shop.example"
    assert (got[b"CONTENT_TYPE"], got[b"CONTENT_LENGTH"]) == (b"text/x", b"5")
    assert (got[b"PATH_INFO"], got[b"QUERY_STRING"]) == (b"/caf\xc3\xa9", b"%C3%A9")
    assert not {b"HTTP_CONTENT_TYPE", b"HTTP_CONTENT_LENGTH"} & got.keys()


@pytest.mark.parametrize(
    ("script_name", "url", "expected"),
    [
        ("", "/a/b", (b"", b"/a/b")),
        ("/a", "/a/b", (b"/a", b"/b")),
        ("/a/", "/a/b", (b"/a", b"/b")),
        ("/a", "/a", (b"/a", b"")),
        ("/a", "/a?x", (b"/a", b"")),
        ("/a", "/%61/b", (b"/a", b"/b")),
        ("/a", "/ab", (b"", b"/ab")),
        ("/é", "/%C3%A9/x", (b"", "/é/x".encode())),
        ("/a", "*", (b"", b"")),
    ],
)
def test_script_name(script_name, url, expected):
    got = env(script_name=script_name, url=url)
    assert (got[b"SCRIPT_NAME"], got[b"PATH_INFO"]) == expected


def test_header_fields():
    got = env(
        headers=[
            ("x-one", "a"),
            ("X-One", "b, c"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-latin", "\xe9\xff"),
            ("x-far", "\u20ac"),
            ("authorization", "Basic eA=="),
        ]
    )
    assert got[b"HTTP_X_ONE"] == b"a, b, c"
    assert got[b"HTTP_COOKIE"] == b"a=1; b=2"
    assert got[b"HTTP_X_LATIN"] == b"\xe9\xff"
    assert got[b"HTTP_X_FAR"] == "\u20ac".encode()
    assert got[b"HTTP_AUTHORIZATION"] == b"Basic eA=="


@pytest.mark.parametrize(
    "name", ["proxy", "Proxy", "PROXY", "x_one", "x=y", "x.y", "x y", "", "é", "x\ny", "x%%"]
)
def test_names_that_never_become_variables(name):
    assert env(headers=[(name, "evil")]) == env(headers=[])


def test_extra_wins():
    extra = {b"SCRIPT_FILENAME": b"/srv/a.php", b"REDIRECT_STATUS": b"200", b"SERVER_NAME": b"x"}
    got = env(extra=extra)
    assert got.items() >= extra.items()


@pytest.mark.parametrize(
    ("fields", "variable"),
    [
        ({"url": "/a%00b"}, "PATH_INFO"),
        ({"url": "/?\0"}, "REQUEST_URI"),
        ({"headers": [("x-one", "a\0b")]}, "HTTP_X_ONE"),
        ({"remote_addr": "\0"}, "REMOTE_ADDR"),
        ({"http_version": "1.1\0"}, "SERVER_PROTOCOL"),
    ],
)
def test_nul_is_the_clients_fault(fields, variable):
    assert unfit(**fields) == f"{variable}: a NUL cannot be passed to a script"


def test_what_execve_refuses_is_refused_first():
    assert env(headers=[("x", "a" * 131_000)])[b"HTTP_X"] == b"a" * 131_000
    assert unfit(headers=[("x", "a" * 131_072)]) == "HTTP_X: 131072 bytes are too many for a script"
    many = [(f"x-{number}", "a" * 131_000) for number in range(9)]
    assert "more than the 1048576 bytes" in unfit(headers=many)


@given(
    url=LATIN.map("/".__add__),
    headers=st.lists(st.tuples(st.text("aZ1-", min_size=1) | LATIN, LATIN)),
    body=st.binary(),
    scheme=st.sampled_from(["http", "https", "gopher"]),
    method=st.sampled_from(["GET", "POST", "DELETE"]),
)
def test_any_request_gives_an_environment_that_can_be_passed(url, headers, body, scheme, method):
    asked = request(url=url, headers=headers, body=body, scheme=scheme, method=method)
    try:
        got = cgi_environment(asked)
    except BadRequest:
        assert "%00" in url
        return
    for name, value in got.items():
        assert re.fullmatch(rb"[A-Z0-9_]+", name)
        assert b"\0" not in value
    # A script sees the same as a WSGI application.
    wsgi = environ_of(asked, queue="q")
    for name, value in got.items():
        if name.decode() in wsgi:
            assert value.decode("latin-1") == wsgi[name.decode()]
    plain = environ_of(
        request(url=url, headers=[], body=body, scheme=scheme, method=method), queue="q"
    )
    assert {name.encode() for name in plain if name.isupper()} <= got.keys()


# --- The output ----------------------------------------------------------------------------------


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_document(newline):
    output = newline.join([b"Content-Type: text/html", b"X-A:b ", b"", b"\n<p>\r\n\0"])
    assert parse_cgi_output(output) == CgiReply(
        status=200,
        headers=[("Content-Type", "text/html"), ("X-A", "b")],
        body=b"\n<p>\r\n\0",
    )


@pytest.mark.parametrize(
    "output",
    [
        b"Content-Type: a/b\r\nX: y\n\r\nbody",
        b"Content-Type: a/b\nX: y\r\n\nbody",
        b"Content-Type: a/b\nX: y\n\nbody",
    ],
)
def test_mixed_line_ends(output):
    got = parse_cgi_output(output)
    assert (got.headers, got.body) == ([("Content-Type", "a/b"), ("X", "y")], b"body")


@pytest.mark.parametrize(
    ("output", "status", "headers", "body"),
    [
        (b"Status: 404 Not Found\n\n", 404, [], b""),
        (b"status:404\n\n", 404, [], b""),
        (b"Status: 500 \n\n", 500, [], b""),
        (b"Location: /other\n\n", 302, [("Location", "/other")], b""),
        (b"Location: http://x/\nStatus: 301 Moved\n\n", 301, [("Location", "http://x/")], b""),
        (
            b"Location: http://x/\nContent-Type: a/b\n\nthere",
            302,
            [("Location", "http://x/"), ("Content-Type", "a/b")],
            b"there",
        ),
        # A body always has a type, so that no browser guesses one.
        (
            b"Status: 404\n\nno",
            404,
            [("Content-Type", "text/plain; charset=utf-8")],
            b"no",
        ),
        (
            b"Content-Type: a/b\nSet-Cookie: a\nSet-Cookie: b\n\n",
            200,
            [("Content-Type", "a/b"), ("Set-Cookie", "a"), ("Set-Cookie", "b")],
            b"",
        ),
        # Bytes are kept; framing, connection and unknown CGI extensions are not the script's.
        (
            b"Content-Type: a/b\nX: \xff\xc3\xa9\nTransfer-Encoding: chunked\nConnection: x-gone\n"
            b"X-Gone: 1\nX-CGI-Magic: 1\nProxy-Status: 1\nX-Empty:\n\n",
            200,
            [("Content-Type", "a/b"), ("X", "\xff\xc3\xa9"), ("X-Empty", "")],
            b"",
        ),
        # For the answer to HEAD.
        (
            b"Content-Type: a/b\nContent-Length: 12\n\n",
            200,
            [("Content-Type", "a/b"), ("Content-Length", "12")],
            b"",
        ),
    ],
)
def test_answers(output, status, headers, body):
    declared = dict(headers).get("Content-Length")
    assert parse_cgi_output(output) == CgiReply(
        status=status,
        headers=headers,
        body=body,
        declared=None if declared is None else int(declared),
    )


@pytest.mark.parametrize(
    ("output", "why"),
    [
        (b"", "no output"),
        (b"hello\n", "no header block: no empty line in the output"),
        (b"Content-Type: text/html", "no header block: no empty line in the output"),
        (b"Content-Type: text/html\n", "no header block: no empty line in the output"),
        (b"Content-Type: text/html\n\r", "no header block: no empty line in the output"),
        (b"\n", "the header block has neither Content-Type nor Location nor Status"),
        (b"\r\n<p>", "the header block has neither Content-Type nor Location nor Status"),
        (b"X: y\n\n", "the header block has neither Content-Type nor Location nor Status"),
        (b"<p>hello\n\n", "header line 1: got '<p>hello', expected 'Name: value'"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\n",
            "header line 1: got 'HTTP/1.1 200 OK', expected 'Name: value'",
        ),
        (b"Content-Type: a/b\nX\n\n", "header line 2: got 'X', expected 'Name: value'"),
        (b"Content-Type: a/b\n : x\n\n", "header name ' ' is not a token (RFC 9110 5.1)"),
        (b"Content-Type: a/b\n x: y\n\n", "header name ' x' is not a token (RFC 9110 5.1)"),
        (b"Content-Type : a/b\nStatus: 200\n\n", "header name 'Content-Type ' is not a token"),
        (b"Content-Type: a/b\n: x\n\n", "header name '' is not a token (RFC 9110 5.1)"),
        (b"Content-Type: a/b\rX: y\n\n", "header 'Content-Type' has a control character"),
        (b"Content-Type: a/b\r\r\n\n", "header 'Content-Type' has a control character"),
        (b"Content-Type: a/b\nX: \x1b[0m\n\n", "header 'X' has a control character"),
        (b"Content-Type: a/b\nX: a\0\n\n", "header 'X' has a control character"),
        (b"Status: 200 OK\rX: y\n\n", "header 'Status' has a control character"),
        (b"Content-Type:\n\n", "Content-Type is empty"),
        (b"Location: \n\n", "Location is empty"),
        (b"Status: 200\nstatus: 200\n\n", "status stands twice (RFC 3875 6.3)"),
        (b"Status: 99\n\n", "Status: got '99', expected a number from 200 to 599"),
        (b"Status: 101 Switch\n\n", "Status: got '101 Switch', expected a number from 200"),
        (b"Status: 600\n\n", "Status: got '600', expected"),
        (b"Status: 2000\n\n", "Status: got '2000', expected"),
        (b"Status: OK\n\n", "Status: got 'OK', expected"),
        (b"Status: \xb2\xb2\xb2\n\n", "Status: got '²²²', expected"),
        (
            b"Content-Type: a/b\nX: " + b"y" * HEADER_BOUND + b"\n\n",
            "no empty line in the first 32768 bytes of the output",
        ),
        (b"y" * 10_000_000, "no empty line in the first 32768 bytes of the output"),
    ],
)
def test_refused_output(output, why):
    assert wrong(output).startswith(why)


def test_header_block_at_the_bound():
    block = b"Content-Type: a/b\nX: "
    block += b"y" * (HEADER_BOUND - 4 - len(block))
    assert parse_cgi_output(block + b"\r\n\r\nbody").body == b"body"
    assert "no empty line" in wrong(block + b"y\r\n\r\nbody")


@given(
    st.binary()
    | st.lists(
        st.sampled_from(
            b"Content-Type|Status|Location|X|200|a|\0|: |:| |\r|\n|\r\n|\n\n".split(b"|")
        )
    ).map(b"".join)
)
def test_any_output_is_refused_or_can_be_sent(output):
    try:
        got = parse_cgi_output(output)
    except ReplyError:
        wrong(output)
        return
    raw = encode_reply(node_id=NODE_ID, status=got.status, headers=got.headers, body=got.body)
    reply = decode_reply(raw)
    assert (reply.status, reply.body) == (got.status, got.body)
    assert output.endswith(got.body)


def test_the_standard_librarys_cgi_handler_answers_unchanged():
    asked = request(method="POST", url="/a?b=c", body=b"four")
    environ = {
        name.decode(): value.decode("latin-1") for name, value in cgi_environment(asked).items()
    }

    def application(environ, start_response):
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        start_response(
            "201 Created", [("Content-Type", "text/x"), ("X-Path", environ["PATH_INFO"])]
        )
        return [body, environ["wsgi.url_scheme"].encode()]

    output, errors = io.BytesIO(), io.StringIO()
    handler = wsgiref.handlers.BaseCGIHandler(io.BytesIO(asked.body), output, errors, environ)
    handler.run(application)
    assert errors.getvalue() == ""
    got = parse_cgi_output(output.getvalue())
    assert (got.status, got.body) == (201, b"fourhttp")
    assert ("X-Path", "/a") in got.headers
