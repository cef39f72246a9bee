"""A small WSGI site to try queuerelay with; it needs nothing but Python.

``make run`` serves it, with a shell script beside it under ``/cgi/``. By hand:
``queuerelay-worker --chdir etc/examples sample_site:app``.
"""

import html
import json
import os
import time
from collections.abc import Callable, Iterable
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment

#: Most seconds that /slow takes.
SLOWEST = 30.0
#: Most bytes of a form.
LONGEST_FORM = 64 * 1024

Page = tuple[str, str, str]

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  :root {{ color-scheme: light dark; --line: light-dark(#d5d9e0, #3a404b); }}
  body {{ font: 1rem/1.55 system-ui, sans-serif;
         max-width: 40rem; margin: 3rem auto; padding: 0 1rem;
         color: light-dark(#1c2430, #e6e9ee); background: light-dark(#fff, #14181f); }}
  h1 {{ font-size: 1.6rem; line-height: 1.2; }}
  a {{ color: light-dark(#0b57d0, #8ab4f8); }}
  code, pre, input, button {{ font: inherit; }}
  code, pre {{ font-family: ui-monospace, monospace; font-size: .92em; }}
  pre, blockquote {{ margin: 1rem 0; padding: .8rem 1rem; border: 1px solid var(--line);
                    border-radius: .5rem; overflow-x: auto; overflow-wrap: anywhere; }}
  label {{ display: block; margin-bottom: .3rem; }}
  input, button {{ padding: .45rem .7rem; border: 1px solid var(--line); border-radius: .4rem; }}
  footer {{ margin-top: 3rem; padding-top: .8rem; border-top: 1px solid var(--line); opacity: .8; }}
</style>
<body>
{body}
<footer>Answered by worker process {pid}.</footer>
</body>
</html>
"""

_INDEX = """<h1>It works</h1>
<p>Your request went through a Redis queue to a worker, and this page came back the same way.</p>
<ul>
  <li><a href="/slow?seconds=2">A slow page</a>: the client waits, the relay does not mind.</li>
  <li><a href="/headers">What the worker got</a>, as JSON.</li>
  <li><a href="/cgi/hello?name=Ada">A shell script</a>, a process for each request.</li>
  <li><a href="/nowhere">A page that is not there</a>.</li>
</ul>
<form method="post" action="/echo">
  <label for="text">Something to send:</label>
  <input id="text" name="text" maxlength="1000" value="&lt;b&gt;Grüße&lt;/b&gt;">
  <button>Send</button>
</form>"""


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The site, as WSGI (PEP 3333) calls it."""
    path, method = environ.get("PATH_INFO", ""), environ["REQUEST_METHOD"]
    methods, page = _PAGES.get(path, ((), _not_found))
    if methods and method not in methods:
        status, kind, text = _html("405 Method Not Allowed", "<h1>Not with this method</h1>")
    else:
        status, kind, text = page(environ)
    body = text.encode("utf-8")
    headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
    if status.startswith("405"):
        headers.append(("Allow", ", ".join(methods)))
    start_response(status, headers)
    return [b"" if method == "HEAD" else body]


def _html(status: str, body: str, title: str = "queuerelay sample site") -> Page:
    page = _PAGE.format(title=title, body=body, pid=os.getpid())
    return status, "text/html; charset=utf-8", page


def _index(_: WSGIEnvironment) -> Page:
    return _html("200 OK", _INDEX)


def _not_found(_: WSGIEnvironment) -> Page:
    return _html("404 Not Found", '<h1>Not here</h1>\n<p><a href="/">To the start</a></p>')


def _slow(environ: WSGIEnvironment) -> Page:
    asked = parse_qs(environ.get("QUERY_STRING", "")).get("seconds", ["1"])[0]
    try:
        # max() first: it turns what is not a number (NaN) into 0.
        seconds = min(max(0.0, float(asked)), SLOWEST)
    except ValueError:
        return _html("400 Bad Request", "<h1>How many seconds?</h1>")
    time.sleep(seconds)
    return _html("200 OK", f"<h1>That took {seconds:g} s</h1>\n<p><a href='/'>Back</a></p>")


def _headers(environ: WSGIEnvironment) -> Page:
    seen = {name: value for name, value in sorted(environ.items()) if isinstance(value, str)}
    shown = {
        name: value
        for name, value in seen.items()
        if name.startswith(("HTTP_", "CONTENT_", "REMOTE_", "REQUEST_", "SERVER_", "QUEUERELAY_"))
        or name in {"PATH_INFO", "QUERY_STRING", "SCRIPT_NAME", "wsgi.url_scheme"}
    }
    return "200 OK", "application/json", json.dumps(shown, indent=2) + "\n"


def _echo(environ: WSGIEnvironment) -> Page:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > LONGEST_FORM:
        return _html("413 Content Too Large", "<h1>That is too much</h1>")
    form = parse_qs(environ["wsgi.input"].read(length).decode("utf-8", "replace"))
    text = html.escape(form.get("text", [""])[0])
    return _html(
        "200 OK", f"<h1>You sent</h1>\n<blockquote>{text}</blockquote>\n<p><a href='/'>Back</a></p>"
    )


_PAGES: dict[str, tuple[tuple[str, ...], Callable[[WSGIEnvironment], Page]]] = {
    "/": (("GET", "HEAD"), _index),
    "/slow": (("GET", "HEAD"), _slow),
    "/headers": ((), _headers),
    "/echo": (("POST",), _echo),
}
