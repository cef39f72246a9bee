"""The address of Redis, as ``--redis`` takes it, in one record. No Twisted: workers use it too."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit

from queuerelay.errors import ConfigError

_EXPECTED = (
    "localhost, HOST:PORT, redis://[USER:PASSWORD@]HOST:PORT/DB, rediss://…, "
    "unix:///PATH or embedded[:DIR]"
)
#: The socket of an embedded server, inside its directory.
SOCKET_NAME = "valkey.sock"
#: Longest path of a Unix socket that every kernel takes, in bytes (sun_path is 108 or 104).
SOCKET_PATH_BOUND = 103


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisUrl:
    """One Redis server and how to enter it."""

    #: ``embedded`` is a server that this process starts; the others exist already.
    kind: Literal["tcp", "tls", "unix", "embedded"]
    host: str = "localhost"
    port: int = 6379
    #: Path of the Unix socket; for ``embedded`` the directory, "" for a temporary one.
    path: str = ""
    username: str | None = None
    password: str | None = None
    db: int = 0
    #: PEM file with the certificates to trust instead of the system's, TLS only.
    ca_file: str | None = None

    @property
    def place(self) -> str:
        """The address without user and password, for pages that others read."""
        return replace(self, username=None, password=None).redacted

    @property
    def redacted(self) -> str:
        """The address without its password, for logs."""
        return self._text("***" if self.password is not None else None)

    def for_redis_py(self) -> str:
        """A URL that `redis.Redis.from_url` takes.

        A worker joins an embedded server by its directory; without one there is nothing to join:
        `ConfigError`.
        """
        if self.kind != "embedded":
            return self._text(self.password)
        if not self.path:
            raise ConfigError.of("--redis", "embedded", "embedded:DIR, the relay's directory")
        return self.embedded_socket()._text(None)

    def embedded_socket(self) -> "RedisUrl":
        """The Unix socket of the embedded server in this directory."""
        return replace(self, kind="unix", path=f"{self.path.rstrip('/')}/{SOCKET_NAME}")

    def _text(self, password: str | None) -> str:
        if self.kind == "embedded":
            return f"embedded:{self.path}" if self.path else "embedded"
        user = quote(self.username or "", safe="")
        if password is not None:
            user += ":" + (password if password == "***" else quote(password, safe=""))
        user += "@" if user else ""
        if self.kind == "unix":
            # redis-py unquotes the path, and takes the database from the query.
            return f"unix://{user}{quote(self.path)}" + (f"?db={self.db}" if self.db else "")
        scheme = "rediss" if self.kind == "tls" else "redis"
        host = f"[{self.host}]" if ":" in self.host else self.host
        ca = f"?ssl_ca_certs={quote(self.ca_file, safe='')}" if self.ca_file else ""
        return f"{scheme}://{user}{host}:{self.port}/{self.db}{ca}"


def parse(text: str, *, option: str = "--redis") -> RedisUrl:
    """The server that `text` names; `ConfigError` about `option` where it names none."""
    shown = _hide_password(text)
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise ConfigError.of(option, shown, "an address without control characters")
    if text == "embedded" or text.startswith("embedded:"):
        return _embedded(text.removeprefix("embedded").removeprefix(":"), option)
    if "://" not in text:
        if not text or any(char in text for char in " /?#@"):
            raise ConfigError.of(option, shown, _EXPECTED)
        text = f"redis://{text}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        # What it complains of may be a part of the password.
        raise ConfigError.of(option, shown, f"{_EXPECTED}, special characters as %XX") from None
    query = parse_qs(parts.query, keep_blank_values=True)
    known = {"db", "ssl_ca_certs"} if parts.scheme == "rediss" else {"db"}
    unknown = set(query) - known
    if unknown or parts.fragment:
        raise ConfigError.of(option, shown, f"no {min(unknown, default='fragment')} in the URL")
    username = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password is not None else None
    databases = query.get("db", [])
    if parts.scheme == "unix":
        path = unquote(parts.path)
        if parts.hostname or not path.startswith("/") or path == "/":
            raise ConfigError.of(option, shown, "unix:///PATH with an absolute path")
        _check_socket(path, option, shown)
        return RedisUrl(
            kind="unix",
            path=path,
            username=username,
            password=password,
            db=_db(databases, option, shown),
        )
    host = parts.hostname or ""
    if parts.scheme not in ("redis", "rediss") or not host or " " in host or port == 0:
        raise ConfigError.of(option, shown, _EXPECTED)
    if parts.path.strip("/"):
        databases = [parts.path.strip("/"), *databases]
    return RedisUrl(
        kind="tls" if parts.scheme == "rediss" else "tcp",
        host=host,
        port=6379 if port is None else port,
        username=username,
        password=password,
        db=_db(databases, option, shown),
        ca_file=query.get("ssl_ca_certs", [None])[0],
    )


def _embedded(directory: str, option: str) -> RedisUrl:
    if not directory:
        return RedisUrl(kind="embedded")
    # Absolute at once: a daemon changes its directory later, and a worker has another one.
    url = RedisUrl(kind="embedded", path=os.path.abspath(directory))
    _check_socket(url.embedded_socket().path, option, directory)
    return url


def _check_socket(path: str, option: str, shown: str) -> None:
    if len(os.fsencode(path)) > SOCKET_PATH_BOUND:
        raise ConfigError.of(
            option, shown, f"a path short enough for a Unix socket ({SOCKET_PATH_BOUND} bytes)"
        )


def _db(texts: Sequence[str], option: str, shown: str) -> int:
    text = texts[0] if texts else "0"
    if len(texts) > 1 or not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise ConfigError.of(option, shown, "one database number such as /0")
    return int(text)


def _hide_password(text: str) -> str:
    """The text with its password hidden, for an error message: rather with too little left."""
    if text.startswith("embedded"):
        return text
    before, separator, rest = text.partition("://")
    scheme, rest = (before + separator, rest) if separator else ("", text)
    rest = re.sub(r"(?i)(passw[^=&]*=)[^&#]*", r"\1***", rest)
    user, at, host = rest.rpartition("@")
    if at:
        name, colon, _ = user.partition(":")
        return f"{scheme}{name}{':***' if colon else ''}@{host}"
    # The host may have been forgotten: what stands for the port and is none is perhaps a password.
    rest = re.sub(r"^(\[[^\]]*\]|[^:/\[]*):(?!\d{0,5}([/?#]|$)).*", r"\1:***", rest)
    return scheme + rest
