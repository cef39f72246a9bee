#!/usr/bin/env python3
"""A request, in Python: any WSGI application runs under wsgiref's CGIHandler."""

import html
from collections.abc import Iterable
from urllib.parse import parse_qs
from wsgiref.handlers import CGIHandler
from wsgiref.types import StartResponse, WSGIEnvironment


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The application, as WSGI (PEP 3333) calls it."""
    match environ["REQUEST_METHOD"]:
        case "GET" | "HEAD":
            name = parse_qs(environ.get("QUERY_STRING", "")).get("name", ["world"])[0]
            start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
            return [f"<p>Hello, {html.escape(name)}, from Python.</p>\n".encode()]
        case "POST":
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            start_response("201 Created", [("Content-Type", "application/octet-stream")])
            return [body]
        case _:
            start_response(
                "405 Method Not Allowed",
                [("Allow", "GET, HEAD, POST"), ("Content-Type", "text/plain; charset=utf-8")],
            )
            return [b"Not with this method.\n"]


if __name__ == "__main__":
    CGIHandler().run(app)
