"""Pages for a browser, beside everything that `flask_app` has."""

import struct
import zlib
from typing import Any

from flask import Response, redirect, request

from tests.acceptance.flask_app import app

application = app

#: Images on one page; a browser opens at most 6 connections to a server.
IMAGES = 24

PAGE = """<!doctype html>
<html lang="de"><head><meta charset="utf-8"><title>{title}</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="/site/style.css">
</head><body>{body}</body></html>
"""

FORMS = """
<form id="plain" method="post" action="/form">
<input name="text" value="Grüße &amp; 世界 🙂"><input name="text" value="a=b+c">
<textarea name="lines">one
two</textarea><input name="empty"><button name="button" value="pressed">Send</button></form>
<form id="multipart" method="post" action="/form" enctype="multipart/form-data">
<input name="text" value="Grüße"><input type="file" name="file" multiple>
<button>Send</button></form>
<form id="login" method="post" action="/site/login"><input name="name" value="Käthe"></form>
"""


def page(title: str, body: str) -> str:
    """A page that asks for nothing but its own style sheet."""
    return PAGE.format(title=title, body=body)


@app.get("/site/")
def site() -> str:
    """Images, a script, a style sheet."""
    images = "".join(f'<img src="/site/image/{number}.png" alt="">' for number in range(IMAGES))
    return page("Käse", f"<h1>Grüße</h1>{images}<script src='/site/script.js'></script>")


@app.get("/site/forms")
def forms() -> str:
    """Forms to send."""
    return page("Forms", FORMS)


@app.get("/site/style.css")
def style() -> Response:
    """To be asked about again at each use."""
    response = Response("h1 { color: rgb(1, 2, 3) }", content_type="text/css")
    response.set_etag("style")
    response.cache_control.no_cache = True
    return response.make_conditional(request)


@app.get("/site/script.js")
def script() -> Response:
    """Says that it has run."""
    return Response("window.ran = 'schön'", content_type="text/javascript; charset=utf-8")


@app.get("/site/image/<int:number>.png")
def image(number: int) -> Response:
    """As wide as its number plus one says, of one colour."""
    width = number + 1
    rows = (b"\0" + bytes((number, 99, 200)) * width) * 4
    header = struct.pack(">IIBBBBB", width, 4, 8, 2, 0, 0, 0)
    blocks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    body = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in blocks
    )
    response = Response(body, content_type="image/png")
    response.cache_control.no_store = True
    return response


@app.post("/site/login")
def login() -> Any:
    """Cookies, and a redirection to the page that shows them."""
    response = redirect("/site/me", 303)
    response.set_cookie("session", "secret", httponly=True, samesite="Lax")
    response.set_cookie("name", request.form["name"].encode().hex())
    response.set_cookie("elsewhere", "1", path="/nowhere/")
    return response


@app.get("/site/me")
def me() -> str:
    """Who the cookies say it is."""
    name = bytes.fromhex(request.cookies["name"]).decode()
    return page("Me", f"<p>{name}, {','.join(sorted(request.cookies))}</p>")
