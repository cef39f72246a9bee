"""Message to WSGI environment."""

import pytest

from queuerelay.worker.environ import environ_of
from tests.unit.worker.requests import NODE_ID, request


def env(**fields):
    return environ_of(request(**fields), queue="requests")


def test_plain_get():
    assert env(url="/things?x=1&y=%20") == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/things",
        "QUERY_STRING": "x=1&y=%20",
        "REQUEST_URI": "/things?x=1&y=%20",
        "SERVER_NAME": "example.org",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "203.0.113.5",
        "HTTP_HOST": "example.org",
        "queuerelay.id": NODE_ID,
        "queuerelay.queue": "requests",
        "queuerelay.deadline": 1060.0,
    }


@pytest.mark.parametrize(
    ("url", "path", "query"),
    [
        ("/", "/", ""),
        ("/?", "/", ""),
        ("/a?b?c", "/a", "b?c"),
        ("//evil.example/x", "//evil.example/x", ""),
        # Percent-decoded to bytes, one character each (PEP 3333).
        ("/caf%C3%A9", "/caf\xc3\xa9", ""),
        ("/%ff%00%2F", "/\xff\x00/", ""),
        ("/100%", "/100%", ""),
        ("/%zz", "/%zz", ""),
        ("/raw\xe9", "/raw\xe9", ""),
        # Another producer's text beyond ISO-8859-1 goes as its UTF-8 bytes.
        ("/\u20ac?\u20ac", "/\xe2\x82\xac", "\xe2\x82\xac"),
        ("*", "", ""),
        ("no-slash?x", "/no-slash", "x"),
        ("http://other.example", "/", ""),
        ("http://other.example?x", "/", "x"),
        ("HTTPS://u:p@other.example:81/p?http://x/", "/p", "http://x/"),
    ],
)
def test_target(url, path, query):
    environ = env(url=url)
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == (path, query)


def test_absolute_target_overrules_host():
    environ = env(url="http://u@other.example:81/p")
    assert environ["HTTP_HOST"] == "other.example:81"
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("other.example", "81")


@pytest.mark.parametrize(
    ("headers", "scheme", "name", "port"),
    [
        ([("host", "h:8000")], "http", "h", "8000"),
        ([("host", "h")], "https", "h", "443"),
        ([("host", "h:")], "http", "h", "80"),
        ([("host", "[::1]:8000")], "http", "[::1]", "8000"),
        ([("host", "[::1]")], "https", "[::1]", "443"),
        ([("host", "")], "http", "localhost", "80"),
        ([("host", "::::")], "http", "localhost", "80"),
        ([], "http", "localhost", "80"),
        ([], "gopher", "localhost", "80"),
    ],
)
def test_server(headers, scheme, name, port):
    environ = env(headers=headers, scheme=scheme)
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == (name, port)


def test_headers():
    environ = env(
        method="POST",
        body=b"12345",
        headers=[
            ("content-type", "text/plain"),
            ("content-length", "999"),
            ("x-one", "a"),
            ("cookie", "a=1"),
            ("X-One", "b, c"),
            ("cookie", "b=2"),
            ("x-latin", "\xe9\xff"),
            ("x-far", "\u20ac"),
            ("x_one", "smuggled"),
        ],
    )
    assert environ["CONTENT_TYPE"] == "text/plain"
    assert environ["CONTENT_LENGTH"] == "5"
    assert environ["HTTP_X_ONE"] == "a, b, c"
    assert environ["HTTP_COOKIE"] == "a=1; b=2"
    assert environ["HTTP_X_LATIN"] == "\xe9\xff"
    assert environ["HTTP_X_FAR"] == "\xe2\x82\xac"
    assert not {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"} & set(environ)


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [("GET", b"", None), ("GET", b"x", "1"), ("POST", b"", "0"), ("PUT", b"", "0")],
)
def test_content_length(method, body, length):
    assert env(method=method, body=body).get("CONTENT_LENGTH") == length
