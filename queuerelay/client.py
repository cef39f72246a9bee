"""A client of the status listener, for programs and for the command line; without Twisted.

Paths and answers are those of `docs/status.md`.
"""

import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlsplit

_PORTS: Final = {"http": 80, "https": 443}
#: Most bytes of an answer.
_LARGEST: Final = 64 * 1024 * 1024
_PART: Final = 1024 * 1024


class ApiError(Exception):
    """The listener did not do what was asked; its text is one line for people."""


class Unreachable(ApiError):
    """It does not answer, or not as it should."""


class NotDone(ApiError):
    """It said no; `status` is the HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Client:
    """Asks the listener at `url`, such as ``http://127.0.0.1:8080``, each time anew.

    `token` is a bearer token, which actions need; `timeout` is in seconds, for each answer.
    Raises `ValueError` for a URL that is none, and every method raises `ApiError`.
    """

    def __init__(self, url: str, *, token: str = "", timeout: float = 10.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname or not _is_name(parts.hostname):
            raise ValueError(f"got {url!r}, expected a URL such as http://127.0.0.1:8080")
        if not _is_visible(parts.path):
            raise ValueError(f"got {url!r}, expected a path of visible ASCII characters")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(f"got {url!r}, expected a URL without user, query and fragment")
        if not _is_visible(token):
            raise ValueError("the token has characters that no token has")
        self._url = url
        # With a port: http.client takes the end of an IPv6 address for one.
        self._scheme, self._host = parts.scheme, parts.hostname
        self._port = parts.port or _PORTS[parts.scheme]
        self._root = parts.path.rstrip("/")
        self._token = token
        self._timeout = timeout

    # Reading

    def status(self) -> dict[str, Any]:
        """The whole status, as ``/status.json`` has it."""
        return self._get("status.json")

    def failures(self, start: int = 0, count: int = 20) -> dict[str, Any]:
        """`count` dead letters from the `start`-th on, the newest first."""
        return self._get(f"failures.json?start={start}&count={count}")

    def find(self, ids: Sequence[str], *, shown: int) -> dict[str, dict[str, Any]]:
        """The dead letters of these ids, their own or their messages', or of beginnings of `shown`
        characters. Raises `NotDone` where one is missing.
        """
        found: dict[str, dict[str, Any]] = {}
        missing, start = set(ids), 0
        while missing:
            page = self.failures(start, 50)
            for one in page["items"]:
                for name in missing.intersection((one["id"], one["message"], one["id"][:shown])):
                    found[name] = one
                    missing.discard(name)
            start += len(page["items"])
            if not page["items"] or start >= page["total"]:
                break
        if missing:
            raise NotDone(404, f"no such dead letter: {min(missing)}")
        return found

    # Actions

    def pause(self, queue: str) -> dict[str, Any]:
        """Pause a queue."""
        return self._post("queues", queue, "pause")

    def resume(self, queue: str) -> dict[str, Any]:
        """Let a queue go on."""
        return self._post("queues", queue, "resume")

    def submit(self, queue: str, cls: str, args: Sequence[Any] = ()) -> dict[str, Any]:
        """Put a job on a queue."""
        return self._post("queues", queue, "jobs", fields={"class": cls, "args": list(args)})

    def retry(self, ids: Sequence[str] | None) -> dict[str, Any]:
        """Put dead letters back on their queues, None for all."""
        return self._letters("retry", ids)

    def mend(self, id: str, mended: Mapping[str, Any]) -> dict[str, Any]:
        """Put a dead letter back, with another ``class`` or other ``args`` than it had."""
        return self._post("failed", id, "retry", fields=mended)

    def drop(self, ids: Sequence[str] | None) -> dict[str, Any]:
        """Take dead letters out for good, None for all."""
        return self._letters("drop", ids)

    def _letters(self, action: str, ids: Sequence[str] | None) -> dict[str, Any]:
        if ids is not None and len(ids) == 1:
            return self._post("failed", ids[0], action)
        fields = {"all": True} if ids is None else {"id": list(ids)}
        return self._post("failed", action, fields=fields)

    def scale(self, pool: str, size: int, *, node: str = "") -> dict[str, Any]:
        """Change how many slots a pool has, on one node or on all that have it."""
        return self._post("pools", pool, "size", fields={"size": size, "node": node})

    def drain(self, pool: str, *, off: bool = False, node: str = "") -> dict[str, Any]:
        """Let a pool take no more messages, or let it take messages again."""
        return self._post("pools", pool, "resume" if off else "drain", fields={"node": node})

    def restart(self, pool: str, *, node: str = "") -> dict[str, Any]:
        """Replace the processes of a resident pool, one by one."""
        return self._post("pools", pool, "restart", fields={"node": node})

    def stop(self, message: str, *, kill: bool = False) -> dict[str, Any]:
        """End the script that works on a message."""
        return self._post("jobs", message, "stop", fields={"kill": kill})

    # The way there

    def _get(self, path: str) -> dict[str, Any]:
        return self._ask("GET", path, None)

    def _post(self, *path: str, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
        try:
            asked = "/".join(quote(one, safe="") for one in path)
            body = json.dumps(fields or {}, allow_nan=False).encode()
        except (ValueError, RecursionError) as error:
            raise NotDone(400, f"that cannot be sent: {error}") from error
        return self._ask("POST", asked, body)

    def _ask(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        kind = (
            http.client.HTTPSConnection if self._scheme == "https" else http.client.HTTPConnection
        )
        until = time.monotonic() + self._timeout
        connection = kind(self._host, self._port, timeout=self._timeout)
        try:
            connection.request(method, f"{self._root}/{path}", body, headers)
            answer = connection.getresponse()
            status, content = answer.status, _read(answer, until)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"cannot reach {self._url}: {_reason(error)}") from error
        finally:
            connection.close()
        return _understood(status, content, self._url)


def _is_visible(text: str) -> bool:
    return all(0x21 <= ord(char) < 0x7F for char in text)


def _is_name(host: str) -> bool:
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def _read(answer: http.client.HTTPResponse, until: float) -> bytes:
    """The content, or a little more than `_LARGEST`; a socket bounds each of its parts alone."""
    content = bytearray()
    while len(content) <= _LARGEST and (part := answer.read1(_PART)):
        content += part
        if time.monotonic() > until:
            raise TimeoutError
    return bytes(content)


def _understood(status: int, content: bytes, url: str) -> dict[str, Any]:
    try:
        value = json.loads(content) if len(content) <= _LARGEST else None
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and status < 400:
        return value
    text = value.get("text") if isinstance(value, dict) else None
    if not isinstance(text, str):
        text = content[:200].decode("utf-8", "replace").strip().partition("\n")[0]
        text = text.removeprefix(f"{status}: ")
    if status >= 500:
        raise Unreachable(f"{url} answers {status}: {text}")
    if status >= 400:
        raise NotDone(status, text)
    raise Unreachable(f"{url} is no status listener of queuerelay: it answers {status}")


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError | socket.timeout):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message or "its certificate is not valid"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
