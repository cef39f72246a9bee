"""The address of Redis, as ``--redis`` takes it, in one record. No Twisted: workers use it too."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address
from typing import Final, Literal, NamedTuple
from urllib.parse import parse_qs, quote, unquote

from queuerelay.errors import ConfigError

_EXPECTED = (
    "localhost, HOST:PORT, redis://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…]/DB, rediss://…, "
    "sentinel://HOST:PORT[,HOST:PORT…]/NAME[/DB], unix:///PATH or embedded[:DIR]"
)
_EXPECTED_SENTINEL = (
    "sentinel://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…]/NAME[/DB], NAME being the master's of the "
    "Sentinels, in letters, digits, '.', '_' and '-'"
)
#: Schemes with hosts: how they are reached, their port, and whether they are Sentinels.
_SCHEMES: Final[Mapping[str, tuple[Literal["tcp", "tls"], int, bool]]] = {
    "redis": ("tcp", 6379, False),
    "rediss": ("tls", 6379, False),
    "sentinel": ("tcp", 26379, True),
    "sentinels": ("tls", 26379, True),
}
#: Most addresses in one URL: each may cost a second until the master is found.
MOST_ADDRESSES: Final = 16
#: The socket of an embedded server, inside its directory.
SOCKET_NAME = "valkey.sock"
#: Stands for a password.
_HIDDEN: Final = "***"
#: Longest path of a Unix socket that every kernel takes, in bytes (sun_path is 108 or 104).
SOCKET_PATH_BOUND = 103


class Address(NamedTuple):
    """One host and port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisUrl:
    """One Redis server and how to enter it, or several of which one is the master."""

    #: ``embedded`` is a server that this process starts; the others exist already.
    kind: Literal["tcp", "tls", "unix", "embedded"]
    host: str = "localhost"
    port: int = 6379
    #: Further addresses beside that of `host` and `port`.
    more: tuple[Address, ...] = ()
    #: Name by which Sentinels know the master; "" where the addresses are not those of Sentinels.
    service: str = ""
    #: Path of the Unix socket; for ``embedded`` the directory, "" for a temporary one.
    path: str = ""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    #: User and password of the Sentinels, where they have some.
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    db: int = 0
    #: PEM file with the certificates to trust instead of the system's, TLS only.
    ca_file: str | None = None

    @property
    def addresses(self) -> tuple[Address, ...]:
        """All addresses, in their order."""
        return (Address(self.host, self.port), *self.more)

    @property
    def several(self) -> bool:
        """Whether the master has to be found: there are more servers than one."""
        return bool(self.more or self.service)

    @property
    def server(self) -> str:
        """The place of a single server without all that is needed to enter it, for messages."""
        return str(Address(self.host, self.port)) if self.kind in ("tcp", "tls") else self.path

    def at(self, address: Address) -> "RedisUrl":
        """The server at `address` alone, entered as the master is."""
        return replace(
            self,
            host=address.host,
            port=address.port,
            more=(),
            service="",
            sentinel_username=None,
            sentinel_password=None,
        )

    def sentinel_at(self, address: Address) -> "RedisUrl":
        """The Sentinel at `address` alone, entered as Sentinels are."""
        user, password = self.sentinel_username, self.sentinel_password
        return replace(self.at(address), username=user, password=password, db=0)

    @property
    def place(self) -> str:
        """The address without users and passwords, for pages that others read."""
        hidden = replace(self, username=None, password=None)
        return replace(hidden, sentinel_username=None, sentinel_password=None).redacted

    @property
    def redacted(self) -> str:
        """The address without its passwords, for logs."""
        hidden = self
        if self.password is not None:
            hidden = replace(hidden, password=_HIDDEN)
        if self.sentinel_password is not None:
            hidden = replace(hidden, sentinel_password=_HIDDEN)
        return hidden._text()

    @property
    def whole(self) -> str:
        """The address with its passwords, as `parse` takes it: for processes of ours, no log."""
        return self._text()

    def for_redis_py(self) -> str:
        """A URL that `redis.Redis.from_url` takes, of a single server that is there already."""
        assert self.kind != "embedded", "the server is at its socket"
        assert not self.several, "the master is to be found first"
        return self._text()

    def embedded_socket(self) -> "RedisUrl":
        """The Unix socket of the embedded server in this directory."""
        return replace(self, kind="unix", path=f"{self.path.rstrip('/')}/{SOCKET_NAME}")

    def _text(self) -> str:
        if self.kind == "embedded":
            return f"embedded:{self.path}" if self.path else "embedded"
        user = quote(self.username or "", safe="")
        if self.password is not None:
            user += ":" + _quoted(self.password)
        user += "@" if user else ""
        if self.kind == "unix":
            # redis-py unquotes the path, and takes the database from the query.
            return f"unix://{user}{quote(self.path)}" + (f"?db={self.db}" if self.db else "")
        scheme = next(
            name
            for name, (kind, _, sentinel) in _SCHEMES.items()
            if (kind, sentinel) == (self.kind, bool(self.service))
        )
        query = {
            "ssl_ca_certs": self.ca_file,
            "sentinel_username": self.sentinel_username,
            "sentinel_password": self.sentinel_password,
        }
        said = "&".join(f"{name}={_quoted(value)}" for name, value in query.items() if value)
        service = f"{self.service}/" if self.service else ""
        hosts = ",".join(map(str, self.addresses))
        return f"{scheme}://{user}{hosts}/{service}{self.db}" + (f"?{said}" if said else "")


def address_of(answer: object) -> Address | None:
    """The master that a Sentinel names (``SENTINEL GET-MASTER-ADDR-BY-NAME``); None where it knows
    none of that name.
    """
    match answer:
        case [bytes(host), bytes(port)] if host and port.isdigit() and 0 < int(port) < 65536:
            return Address(host.decode("utf-8", "replace"), int(port))
    return None


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
    # RFC 3986, appendix B; `urlsplit` takes no list of hosts.
    parts = re.fullmatch(r"([^:/?#]+)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?", text)
    scheme = parts[1].lower() if parts else ""
    if parts is None or scheme not in (*_SCHEMES, "unix"):
        raise ConfigError.of(option, shown, _EXPECTED)
    query = parse_qs((parts[4] or "").replace("+", "%2B"), keep_blank_values=True)
    unknown = set(query) - _known(scheme)
    if unknown or parts[5]:
        raise ConfigError.of(option, shown, f"no {min(unknown, default='fragment')} in the URL")
    user, _, hosts = parts[2].rpartition("@")
    name, colon, password = user.partition(":")
    if "," in name or ("," in user and "@" in user):
        raise ConfigError.of(
            option, shown, "user and password once, before the first address, with ',' as %2C"
        )
    url = RedisUrl(
        kind="unix",
        username=unquote(name) or None,
        password=unquote(password) if colon else None,
    )
    databases = query.get("db", [])
    if scheme == "unix":
        path = unquote(parts[3])
        if hosts or not path.startswith("/") or path == "/":
            raise ConfigError.of(option, shown, "unix:///PATH with an absolute path")
        _check_socket(path, option, shown)
        return replace(url, path=path, db=_db(databases, option, shown))
    kind, port, sentinel = _SCHEMES[scheme]
    first, *more = _addresses(hosts, port, option, shown)
    service, path = "", parts[3].strip("/")
    if sentinel:
        service, _, path = parts[3].removeprefix("/").partition("/")
        path = path.strip("/")
        if not re.fullmatch(r"[A-Za-z0-9._-]+", service):
            raise ConfigError.of(option, shown, _EXPECTED_SENTINEL)
    if path:
        databases = [path, *databases]
    return replace(
        url,
        kind=kind,
        host=first.host,
        port=first.port,
        more=tuple(more),
        service=service,
        sentinel_username=_one(query, "sentinel_username", option, shown),
        sentinel_password=_one(query, "sentinel_password", option, shown),
        db=_db(databases, option, shown),
        ca_file=_one(query, "ssl_ca_certs", option, shown),
    )


def _known(scheme: str) -> set[str]:
    """What the query of a URL may say."""
    known = {"db"}
    if scheme in ("rediss", "sentinels"):
        known.add("ssl_ca_certs")
    if scheme.startswith("sentinel"):
        known |= {"sentinel_username", "sentinel_password"}
    return known


def _one(query: Mapping[str, Sequence[str]], name: str, option: str, shown: str) -> str | None:
    values = query.get(name, [])
    if len(values) > 1:
        raise ConfigError.of(option, shown, f"one {name}")
    return values[0] if values else None


def _addresses(hosts: str, port: int, option: str, shown: str) -> list[Address]:
    """The hosts of a URL, each once; `port` for those that say none."""
    found: dict[Address, None] = {}
    for text in hosts.split(","):
        match = re.fullmatch(r"(?:\[([^\[\]]*)\]|([^\[\]:]*))(?::([0-9]{0,5}))?", text)
        host = (match[1] or match[2] or "").lower() if match else ""
        number = int(match[3] or port) if match else 0
        if match is None or not host or not 0 < number < 65536 or not _is_host(match[1], host):
            raise ConfigError.of(option, shown, f"{_EXPECTED}, special characters as %XX")
        found[Address(host, number)] = None
    if len(found) > MOST_ADDRESSES:
        raise ConfigError.of(option, shown, f"at most {MOST_ADDRESSES} addresses")
    return list(found)


def _is_host(bracketed: str | None, host: str) -> bool:
    if bracketed is None:
        return not re.search(r"[\s@%\\]", host)
    try:
        IPv6Address(bracketed)
    except ValueError:
        return False
    return True


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


def _quoted(value: str) -> str:
    return value if value == _HIDDEN else quote(value, safe="")
