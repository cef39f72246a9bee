"""A request message as the environment of a WSGI application (PEP 3333, RFC 3875 4.1).

Text in it is ISO-8859-1, one character for one byte ("native strings"), which is also how the
message carries header values and the request target.
"""

from typing import Any, Final
from urllib.parse import unquote_to_bytes

from queuerelay.wire.message import Request
from queuerelay.wire.target import native, server_of, split_target
from queuerelay.wire.variables import field_variables

#: With these an empty body is a body: CONTENT_LENGTH says 0 instead of being absent.
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


def environ_of(request: Request, *, queue: str) -> dict[str, Any]:
    """The CGI variables for `request` and our own ``queuerelay.*``; `wsgi.*` come elsewhere.

    ``queuerelay.id`` names the request in every log, ``queuerelay.queue`` is the queue that it
    came by, ``queuerelay.deadline`` is in Unix seconds by the clock of Redis: after it nobody
    waits.
    """
    authority, target = split_target(request.url)
    path, _, query = target.partition("?")
    fields = field_variables(request.headers)
    if authority is not None:
        # The host in the target overrules the field (RFC 9112 3.2.2).
        fields["HTTP_HOST"] = authority
    name, port = server_of(fields.get("HTTP_HOST", ""), request.scheme)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path.encode("latin-1")).decode("latin-1"),
        "QUERY_STRING": query,
        # Not in PEP 3333, but what applications look at that need the path undecoded.
        "REQUEST_URI": native(request.url),
        "SERVER_NAME": name,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{request.http_version}",
        "REMOTE_ADDR": request.remote_addr,
        **fields,
        "queuerelay.id": request.node_id,
        "queuerelay.queue": queue,
        "queuerelay.deadline": request.deadline,
    }
    if request.scheme == "https":
        # PEP 3333 recommends Apache's variables beside wsgi.url_scheme.
        environ["HTTPS"] = "on"
    if request.body or request.method in _WITH_BODY:
        environ["CONTENT_LENGTH"] = str(len(request.body))
    return environ
