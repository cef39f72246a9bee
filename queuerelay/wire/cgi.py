"""CGI/1.1 (RFC 3875): a request as a script's environment, a script's output as a reply.

Invariants:

1. Everything in the environment is bytes, exactly as the client sent them; no NUL in it, and no
   name that a client could choose beyond ``HTTP_`` with letters, digits and ``_``.
2. What leaves `parse_cgi_output` can be sent: no control character, no framing of the script's
   own, no reason phrase (the rules are those of `queuerelay.wire.headers`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from queuerelay import __version__
from queuerelay.errors import BadRequest, ReplyError
from queuerelay.wire.headers import reply_headers
from queuerelay.wire.message import Request
from queuerelay.wire.target import native, server_of, split_target
from queuerelay.wire.variables import field_variables

#: Longest header block of a script's output with the empty line after it, in bytes.
HEADER_BOUND: Final = 32 * 1024
#: Longest variable with its name, in bytes: Linux refuses a longer one to `execve` (E2BIG).
VARIABLE_BOUND: Final = 128 * 1024 - 2
#: Largest environment, in bytes: with argv it must stay below a quarter of the stack's limit
#: (execve(2)), which is 2 MiB for the usual 8.
ENVIRONMENT_BOUND: Final = 1024 * 1024

#: Methods with which an empty body is a body: CONTENT_LENGTH says 0 instead of being absent.
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
#: Names that survive as variables: with ``=`` one would write a variable of its own.
_VARIABLE: Final = re.compile(r"[A-Za-z0-9-]+", re.ASCII)

#: The first empty line; a line ends with LF, and CR LF is accepted for it (RFC 3875 7.2).
_EMPTY_LINE: Final = re.compile(rb"(?:\A|\n)\r?\n")
#: Value of ``Status``, RFC 3875 6.3.3: three digits, and perhaps a reason.
_STATUS: Final = re.compile(r"([0-9]{3})(?: .*)?", re.ASCII)
#: CGI fields (RFC 3875 6.3): an answer has at least one of them, and none twice.
_CGI_FIELDS: Final = frozenset({"content-type", "location", "status"})
_DEFAULT_TYPE: Final = ("Content-Type", "text/plain; charset=utf-8")


def cgi_environment(
    request: Request, *, script_name: str = "", extra: Mapping[bytes, bytes] | None = None
) -> dict[bytes, bytes]:
    """The meta-variables for `request` (RFC 3875 4.1), with REQUEST_URI and HTTPS, which are not
    in the RFC, but which scripts look at.

    `script_name` is the beginning of the path that stands for the script (SCRIPT_NAME); the rest
    is PATH_INFO. A path that does not begin with it is PATH_INFO as a whole. `extra` wins over
    everything; php-cgi wants ``SCRIPT_FILENAME`` and ``REDIRECT_STATUS=200`` in it.

    ``Authorization`` becomes a variable, although RFC 3875 4.1.18 advises against it: the relay
    authenticates nobody, the script is the application.

    Raises `BadRequest` for what no environment can carry: a NUL (``/%00`` is one), or a value of
    128 KiB. It is the client's fault, so it is for 400 and no entry in ``resque:failed``.
    """
    authority, target = split_target(request.url)
    raw_path, _, query = target.partition("?")
    path = unquote_to_bytes(raw_path.encode("latin-1")).decode("latin-1")
    name = native(script_name).rstrip("/")
    if name and not (path == name or path.startswith(f"{name}/")):
        name = ""
    fields = field_variables(
        field for field in request.headers if _VARIABLE.fullmatch(field[0]) is not None
    )
    if authority is not None:
        # The host in the target overrules the field (RFC 9112 3.2.2).
        fields["HTTP_HOST"] = authority
    server, port = server_of(fields.get("HTTP_HOST", ""), request.scheme)
    variables = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_SOFTWARE": f"queuerelay/{__version__}",
        "SERVER_NAME": server,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{native(request.http_version)}",
        "REQUEST_METHOD": request.method,
        "REQUEST_URI": native(request.url),
        "SCRIPT_NAME": name,
        "PATH_INFO": path[len(name) :],
        "QUERY_STRING": query,
        "REMOTE_ADDR": native(request.remote_addr),
        # No name is looked up; the address may stand for it (RFC 3875 4.1.9).
        "REMOTE_HOST": native(request.remote_addr),
        **fields,
    }
    if request.scheme == "https":
        variables["HTTPS"] = "on"
    if request.body or request.method in _WITH_BODY:
        variables["CONTENT_LENGTH"] = str(len(request.body))
    environment = {key.encode("ascii"): text.encode("latin-1") for key, text in variables.items()}
    environment.update(extra or {})
    for key, value in environment.items():
        shown = key[:64].decode("latin-1")
        if b"\0" in value:
            raise BadRequest(f"{shown}: a NUL cannot be passed to a script")
        if len(key) + len(value) > VARIABLE_BOUND:
            raise BadRequest(f"{shown}: {len(value)} bytes are too many for a script")
    if sum(len(key) + len(value) for key, value in environment.items()) > ENVIRONMENT_BOUND:
        raise BadRequest(
            f"the header fields are more than the {ENVIRONMENT_BOUND} bytes for a script"
        )
    return environment


# --- The way back --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CgiReply:
    """A script's answer, checked; the fields are those that `encode_reply` takes."""

    #: HTTP status, 200 to 599.
    status: int
    #: Pairs ``(name, ISO-8859-1 value)``, names as the script wrote them. Of the script's framing
    #: only Content-Length is in it, as the script gave it: the relay uses it for the answer to HEAD
    #: and nothing else.
    headers: Sequence[tuple[str, str]]
    body: bytes
    #: Content-Length, None where the script gave none.
    declared: int | None = None


def parse_cgi_output(output: bytes) -> CgiReply:
    """The reply in what a script printed (RFC 3875 6).

    ``Status`` is 200 by default, and 302 with a ``Location``. A ``Location`` that is a local path
    goes to the client as it is, instead of being served within (RFC 3875 6.2.2): the pool has no
    routes to follow it, and the client ends at the same place. Where a body has no
    ``Content-Type`` it is ``text/plain``, as in every other reply.

    Raises `ReplyError` that says what is wrong.
    """
    end = _EMPTY_LINE.search(output, 0, HEADER_BOUND)
    if end is None:
        if len(output) > HEADER_BOUND:
            raise ReplyError(f"no empty line in the first {HEADER_BOUND} bytes of the output")
        raise ReplyError(
            "no output" if not output else "no header block: no empty line in the output"
        )
    fields = _lines(output[: end.start()])
    cgi = {name.lower(): value for name, value in fields if name.lower() in _CGI_FIELDS}
    if not cgi:
        raise ReplyError("the header block has neither Content-Type nor Location nor Status")
    kept, declared = reply_headers([[name, value] for name, value in fields])
    headers = [
        (name.decode("ascii"), value.decode("latin-1"))
        for name, value in kept
        # Extensions of CGI that we do not know (RFC 3875 6.3.5).
        if name.lower() != b"status" and not name.lower().startswith(b"x-cgi-")
    ]
    if declared is not None:
        headers.append(("Content-Length", str(declared)))
    body = output[end.end() :]
    if body and "content-type" not in cgi:
        headers.append(_DEFAULT_TYPE)
    return CgiReply(status=_status(cgi), headers=headers, body=body, declared=declared)


def _lines(block: bytes) -> list[tuple[str, str]]:
    """The fields of a header block, names as they stand there."""
    fields: list[tuple[str, str]] = []
    seen: set[str] = set()
    for number, line in enumerate(block.split(b"\n") if block else (), 1):
        text = line.removesuffix(b"\r").decode("latin-1")
        name, colon, value = text.partition(":")
        # A line that begins with a blank would continue the one before it, which CGI does not
        # have (RFC 3875 6.3); like a blank before the colon it makes a name that is no token.
        if not colon:
            raise ReplyError(f"header line {number}: got {text[:64]!r}, expected 'Name: value'")
        lowered = name.lower()
        if lowered in _CGI_FIELDS:
            if lowered in seen:
                raise ReplyError(f"{name} stands twice (RFC 3875 6.3)")
            seen.add(lowered)
            if not value.strip(" \t"):
                raise ReplyError(f"{name} is empty")
        fields.append((name, value.strip(" \t")))
    return fields


def _status(cgi: Mapping[str, str]) -> int:
    text = cgi.get("status")
    if text is None:
        return 302 if "location" in cgi else 200
    found = _STATUS.fullmatch(text)
    status = int(found[1]) if found is not None else 0
    if not 200 <= status <= 599:
        raise ReplyError(f"Status: got {text[:64]!r}, expected a number from 200 to 599")
    return status
