"""A Flask application with what web applications do; one process serves it directly, another
from the queue, and both must answer alike.
"""

import hashlib
import io
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, jsonify, redirect, request, send_file, url_for

application = app = Flask(__name__)
app.json.sort_keys = True

EVERYTHING = bytes(range(256))
LONG_AGO = datetime(2020, 2, 29, 12, 0, 0, tzinfo=UTC)
ANY = ["GET", "POST", "PUT", "PATCH", "DELETE"]
#: Which release of the application this process runs.
RELEASE = os.environ.get("RELEASE", "1")
#: Seconds that `/hold` waits at most.
BOUND = 60.0


def pattern(size: int) -> bytes:
    """Bytes that are wrong where a block is missing, doubled or out of order."""
    blocks = (hashlib.sha256(b"%d" % number).digest() for number in range(size // 32 + 1))
    return b"".join(blocks)[:size]


LARGE = pattern(5 * 1024 * 1024)


def digest(data: bytes) -> dict[str, Any]:
    """What is left of an upload in an answer."""
    return {"length": len(data), "sha256": hashlib.sha256(data).hexdigest()}


# Pages, errors, redirects.


@app.get("/")
def index() -> str:
    """HTML that is not ASCII."""
    return "<!doctype html><title>Käse</title><p>Grüße, 世界 🙂"


@app.get("/nothing")
def nothing() -> tuple[str, int]:
    """No content."""
    return "", 204


@app.get("/empty")
def empty() -> str:
    """A page without a byte."""
    return ""


@app.get("/reset")
def reset() -> tuple[str, int]:
    """205 has no content either, but a length."""
    return "", 205


@app.get("/json")
def json_() -> Response:
    """JSON, not ASCII."""
    return jsonify({"numbers": [1, 2.5, -3e300], "text": "naïve €", "nothing": None, "list": []})


@app.get("/status/<int:code>")
def status(code: int) -> Response:
    """Whatever status; the reason is the application's own."""
    return Response(f"status {code}", status=f"{code} As You Like It")


@app.get("/redirect/<int:code>")
def redirected(code: int) -> Any:
    """A redirection within the application."""
    return redirect(url_for("item", path="neu/ü x", q="a&b"), code)


@app.get("/abroad")
def abroad() -> Any:
    """A redirection elsewhere."""
    return redirect("https://elsewhere.example/?q=%C3%BC")


@app.get("/folder/")
def folder() -> str:
    """Flask redirects here from /folder."""
    return "folder"


@app.get("/boom")
def boom() -> str:
    """A bug."""
    raise RuntimeError("a bug in the application")


@app.get("/abort/<int:code>")
def aborted(code: int) -> None:
    """An error page of the framework's own."""
    abort(code)


@app.errorhandler(404)
def not_found(error: Exception) -> tuple[str, int, dict[str, str]]:
    """An error page of the application's own."""
    return f"<h1>Nicht gefunden: {request.path}</h1>", 404, {"X-Handled-By": "404"}


@app.errorhandler(405)
def not_allowed(error: Any) -> Response:
    """Keeps Allow."""
    response = error.get_response()
    response.data = b"not allowed"
    return response


@app.errorhandler(500)
def failed(error: Exception) -> tuple[str, int]:
    """An error page after a bug."""
    return "<h1>Oje</h1>", 500


# What came in.


@app.route("/echo", methods=ANY)
@app.route("/items/<path:path>", methods=ANY, endpoint="item")
def echo(path: str = "") -> Response:
    """What the application is told about the request, by server and by framework.

    Left out, because the two differ by nature: SERVER_NAME and SERVER_PORT (each its own socket;
    the client's view is HTTP_HOST), SERVER_SOFTWARE, REMOTE_PORT, and `wsgi.*` but the scheme. And
    what a relay sets anew for the worker, with that by which anybody may have forged it.
    """
    names = ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "CONTENT_TYPE")
    names += ("CONTENT_LENGTH", "SERVER_PROTOCOL", "REMOTE_ADDR", "wsgi.url_scheme")
    environ = request.environ
    told = {name: environ[name] for name in names if name in environ}
    told.update({name: value for name, value in environ.items() if name.startswith("HTTP_")})
    for name in [name for name in told if name.startswith("HTTP_X_FORWARDED_")]:
        del told[name]
    told.pop("HTTP_VIA", None)
    return jsonify(
        {
            "environ": told,
            "path": path,
            "url": request.url,
            "args": request.args.to_dict(flat=False),
            "agent": request.user_agent.string,
            "languages": list(request.accept_languages.values()),
            "body": request.get_data().decode("latin-1"),
        }
    )


@app.route("/client", methods=ANY)
def client() -> Response:
    """Who the client is, by everything that applications look at."""
    environ = request.environ
    names = ("REMOTE_ADDR", "wsgi.url_scheme", "HTTPS", "HTTP_HOST", "HTTP_VIA", "HTTP_UPGRADE")
    names += ("HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_CONNECTION", "HTTP_X_HOP")
    told = {name: environ[name] for name in names if name in environ}
    told.update({name: text for name, text in environ.items() if "X_FORWARDED" in name})
    return jsonify({"environ": told, "root": request.url_root})


@app.post("/form")
def form() -> Response:
    """Fields and files of a form."""
    files = {
        name: [
            {"name": one.filename, "type": one.content_type, **digest(one.read())} for one in many
        ]
        for name, many in request.files.lists()
    }
    return jsonify({"form": request.form.to_dict(flat=False), "files": files})


@app.route("/raw", methods=ANY)
def raw() -> Response:
    """The body as it is."""
    return jsonify({"method": request.method, **digest(request.get_data())})


@app.route("/mirror", methods=ANY)
def mirror() -> Response:
    """The body back again."""
    return Response(request.get_data(), content_type="application/octet-stream")


@app.post("/json")
def json_in() -> Response:
    """JSON in, JSON out."""
    return jsonify({"got": request.get_json()})


@app.get("/cookies")
def cookies() -> Response:
    """The client's cookies."""
    return jsonify(request.cookies)


@app.post("/cookies")
def set_cookies() -> Response:
    """Several cookies, one of them deleted."""
    response = Response("set")
    response.set_cookie("plain", "1")
    response.set_cookie("full", "Käse; 100%", expires=LONG_AGO, path="/shop", httponly=True)
    response.set_cookie("strict", "x", secure=True, samesite="Strict", domain="shop.example")
    response.delete_cookie("old")
    return response


# What goes out.


@app.get("/download")
def download() -> Response:
    """Every byte there is."""
    return Response(EVERYTHING, content_type="application/octet-stream")


@app.get("/download/named")
def named() -> Response:
    """A file with a name that is not ASCII (RFC 8187)."""
    name = 'Überblick "€" naïve.bin'
    return send_file(
        io.BytesIO(EVERYTHING), "application/x-thing", as_attachment=True, download_name=name
    )


@app.get("/file")
def file() -> Response:
    """A file with ETag and Last-Modified, by range if asked."""
    response = send_file(
        io.BytesIO(LARGE[:10000]),
        "application/octet-stream",
        etag="fixed-etag",
        last_modified=LONG_AGO,
    )
    # Not `max_age`: that also says Expires, by the clock.
    response.cache_control.max_age = 3600
    return response


@app.get("/file/disk")
def file_on_disk() -> Response:
    """A file of the disk, through `wsgi.file_wrapper`."""
    return send_file(__file__)


@app.get("/large")
def large() -> Response:
    """5 MiB."""
    return Response(LARGE, content_type="application/octet-stream")


@app.get("/stream")
def stream() -> Response:
    """A page that is made while it is sent, with empty blocks in it."""

    def rows() -> Any:
        for number in range(100):
            yield f"row {number} ü\n"
            yield ""

    return Response(rows(), content_type="text/plain; charset=utf-8")


@app.get("/headers")
def headers() -> Response:
    """Repeated, empty and ISO-8859-1 header fields."""
    response = Response("headers")
    response.headers.add("X-Multi", "one")
    response.headers.add("Link", "</a.css>; rel=preload")
    response.headers.add("X-Multi", "two, three")
    response.headers.add("Link", "</b.css>; rel=preload")
    response.headers.add("X-Latin", "café ÿ\xa0")
    response.headers.add("X-Empty", "")
    response.headers.add("x-lower", "lower")
    response.headers.add("X-Tab", "a\tb")
    response.headers.add("WWW-Authenticate", 'Basic realm="a"')
    response.headers.add("WWW-Authenticate", 'Bearer realm="b"')
    return response


@app.get("/encoded")
def encoded() -> Response:
    """A coding of the content, which is the application's business."""
    import gzip

    return Response(
        gzip.compress(b"compressed " * 1000, mtime=0),
        headers={"Content-Encoding": "gzip", "Vary": "Accept-Encoding"},
    )


# What the tests steer.


@app.route("/say/<word>", methods=["GET", "POST"])
def say(word: str) -> Response:
    """The word and the release, so that each client knows its own answer."""
    return jsonify({"word": word, "release": RELEASE})


@app.route("/hold/<name>", methods=["GET", "POST"])
def hold(name: str) -> Response:
    """Says which process has it (file NAME.pid), and answers once there is a file NAME.go."""
    Path(f"{name}.pid.part").write_text(str(os.getpid()))
    Path(f"{name}.pid.part").rename(f"{name}.pid")
    if not _told_to_go(name):
        abort(503)
    return jsonify({"held": name, "release": RELEASE})


@app.get("/events/<name>")
def events(name: str) -> Response:
    """Server-sent events: the second one comes once there is a file NAME.go."""

    def said() -> Iterator[str]:
        yield "retry: 60000\nid: 1\ndata: first ü\n\n"
        if _told_to_go(name):
            yield "id: 2\nevent: named\ndata: second\ndata: line\n\n"

    return Response(said(), content_type="text/event-stream")


def _told_to_go(name: str) -> bool:
    end = time.monotonic() + BOUND
    while not Path(f"{name}.go").exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
