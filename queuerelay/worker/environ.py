"""A request message as the environment of a WSGI application (PEP 3333, RFC 3875 4.1).

Text in it is ISO-8859-1, one character for one byte ("native strings"), which is also how the
message carries header values and the request target.
"""

import re
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from queuerelay.wire.message import Request

#: RFC 9112 3.2.2: a whole URI where the request target stands.
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?@]*@)?([^/?]*)(.*)", re.DOTALL)
#: Host and port (RFC 9110 7.2); an IPv6 address keeps its brackets (RFC 3875 4.1.14).
_HOST: Final = re.compile(r"(\[[^\]]*\]|[^:]*)(?::([0-9]{0,5}))?")
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
#: With these an empty body is a body: CONTENT_LENGTH says 0 instead of being absent.
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


def environ_of(request: Request, *, queue: str) -> dict[str, Any]:
    """The CGI variables for `request` and our own ``queuerelay.*``; `wsgi.*` come elsewhere.

    ``queuerelay.id`` names the request in every log, ``queuerelay.queue`` is the queue that it
    came by, ``queuerelay.deadline`` is in Unix seconds: after it nobody waits.
    """
    authority, target = _split_target(request.url)
    path, _, query = target.partition("?")
    fields = _fields(request.headers)
    if authority is not None:
        # The host in the target overrules the field (RFC 9112 3.2.2).
        fields["HTTP_HOST"] = authority
    name, port = _server(fields.get("HTTP_HOST", ""), request.scheme)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path.encode("latin-1")).decode("latin-1"),
        "QUERY_STRING": query,
        # Not in PEP 3333, but what applications look at that need the path undecoded.
        "REQUEST_URI": _native(request.url),
        "SERVER_NAME": name,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{request.http_version}",
        "REMOTE_ADDR": request.remote_addr,
        **fields,
        "queuerelay.id": request.node_id,
        "queuerelay.queue": queue,
        "queuerelay.deadline": request.deadline,
    }
    if request.body or request.method in _WITH_BODY:
        environ["CONTENT_LENGTH"] = str(len(request.body))
    return environ


def _native(text: str) -> str:
    """`text` with one character for one byte; other producers than the relay may not know."""
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8").decode("latin-1")
    return text


def _split_target(url: str) -> tuple[str | None, str]:
    """The host where the target names one, and path with query (RFC 9112 3.2)."""
    url = _native(url)
    if url == "*":
        # OPTIONS about the server as a whole has no path; REQUEST_URI keeps the asterisk.
        return None, ""
    absolute = None if url.startswith("/") else _ABSOLUTE.fullmatch(url)
    if absolute is not None:
        url = absolute[2]
    if not url.startswith("/"):
        url = f"/{url}"
    return (absolute[1] if absolute is not None else None), url


def _server(host: str, scheme: str) -> tuple[str, str]:
    """SERVER_NAME and SERVER_PORT; PEP 3333 allows neither to be empty."""
    default = _DEFAULT_PORTS.get(scheme, "80")
    found = _HOST.fullmatch(host)
    if found is None or not found[1]:
        return "localhost", default
    return found[1], found[2] or default


def _fields(headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The header fields as variables; repeated ones joined (RFC 9110 5.3, RFC 6265bis 5.8.3)."""
    fields: dict[str, str] = {}
    for field, text in headers:
        name = field.upper()
        if "_" in name or name == "CONTENT-LENGTH":
            # X_Forwarded_For would pass for X-Forwarded-For; the length is the body's own.
            continue
        name = "CONTENT_TYPE" if name == "CONTENT-TYPE" else f"HTTP_{name.replace('-', '_')}"
        value = _native(text)
        if name in fields:
            separator = "; " if name == "HTTP_COOKIE" else ","
            fields[name] += separator + value
        else:
            fields[name] = value
    return fields
