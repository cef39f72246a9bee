"""Who the client is, where proxies stand between it and us, and what a worker is told of it.

Invariants:

1. Nothing that a peer says is believed unless the operator trusts it, and then only the fields that
   the operator says his proxies write.
2. The client is the rightmost hop that is no trusted proxy: each proxy adds the address that it
   saw at the right, so what stands further left is only that client's own word.
3. Nothing is guessed. Where a hop's address is malformed or hidden, the client has none: it never
   passes for the proxy, whose own address may have rights. Scheme and host are what the proxy says
   of the same hop, and where that is malformed, those of the connection.
4. A worker gets each of these fields once at most, and it is ours.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from queuerelay.wire.headers import request_headers
from queuerelay.wire.target import DEFAULT_PORTS, split_target

Fields = Sequence[tuple[bytes, Sequence[bytes]]]
Headers = list[tuple[str, str]]
_Address = IPv4Address | IPv6Address

#: RFC 7239; its element has everything about one hop.
FORWARDED: Final = "forwarded"
#: One value for each hop in each of them; de facto.
X_FORWARDED: Final = (
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
)
#: Stands among networks for all peers on Unix sockets.
UNIX: Final = "unix"

#: Hops that are looked at; real chains have fewer than ten.
_HOPS: Final = 64
#: Addresses about which it is remembered whether they are trusted.
_KNOWN: Final = 4096

#: IPv4, or IPv6 in brackets; RFC 7239 6 has both with a port, which may be obfuscated.
_NODE: Final = re.compile(
    r"(?:([0-9.]+)|\[([0-9A-Fa-f:.]+)\])(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?", re.ASCII
)
#: IPv6 as X-Forwarded-For has it: without brackets, and then without a port.
_BARE: Final = re.compile(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*", re.ASCII)
#: Narrower than RFC 3986 3.2.2: what a host name or an address can be.
_HOST: Final = re.compile(r"((?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+))(:[0-9]{1,5})?", re.ASCII)
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
#: RFC 7239 4: a pair, or nothing, and what separates it from the next one. White space around it
#: is more than the grammar has, and what proxies write.
_PAIR: Final = re.compile(
    r"[ \t]*(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]+)="
    r"(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]+)"
    r'|"((?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*)"))?'
    r"[ \t]*([;,]|\Z)",
    re.ASCII,
)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)

#: RFC 9110 7.6.3: the version in which we got the message, and our pseudonym.
_VIA: Final = {version: ("via", f"{version} queuerelay") for version in ("1.0", "1.1")}


class Trust:
    """Which peers are proxies of the operator's, and which fields they write.

    `networks` are texts such as ``10.0.0.0/8``, ``2001:db8::1`` or `UNIX`; `fields` either
    `FORWARDED` alone or some of `X_FORWARDED`. Raises ValueError for others.
    """

    def __init__(self, networks: Iterable[str], fields: Iterable[str]) -> None:
        networks = set(networks)
        self.unix = UNIX in networks
        parsed: list[IPv4Network | IPv6Network] = [ip_network(text) for text in networks - {UNIX}]
        self._v4 = [network for network in parsed if isinstance(network, IPv4Network)]
        self._v6 = [network for network in parsed if isinstance(network, IPv6Network)]
        self.fields = frozenset(fields)
        if FORWARDED in self.fields and len(self.fields) > 1:
            raise ValueError(f"{FORWARDED} and others: which of them would be true?")
        if not self.fields <= {FORWARDED, *X_FORWARDED}:
            raise ValueError("unknown fields")
        self._known: dict[str, tuple[str, bool]] = {}

    def peer(self, address: str, scheme: str) -> "Peer":
        """The peer of a connection; `address` is "" for a Unix socket."""
        return Peer(self, address, scheme)

    def judge(self, text: str) -> tuple[str, bool]:
        """The address of a peer in its usual form, and whether it is trusted."""
        if not text:
            return "", self.unix
        known = self._known.get(text)
        if known is None:
            try:
                address = _plain(ip_address(text))
            except ValueError:
                # Twisted believes whatever stands in a PROXY line.
                known = "", False
            else:
                known = str(address), self.trusts(address)
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[text] = known
        return known

    def trusts(self, address: _Address) -> bool:
        """Whether it is in one of the networks."""
        if isinstance(address, IPv4Address):
            return any(address in network for network in self._v4)
        return any(address in network for network in self._v6)


class Peer:
    """Who is at the other end of one connection."""

    __slots__ = ("_own", "_trust", "address", "scheme", "trusted")

    def __init__(self, trust: Trust, address: str, scheme: str) -> None:
        self._trust = trust
        #: IP address, "" where it has none.
        self.address, self.trusted = trust.judge(address)
        self.scheme = scheme
        self._own = _about(self.address, scheme)

    def forward(self, fields: Fields, url: str, http_version: str) -> tuple[Headers, str, str]:
        """What goes into the message of a request that came by this connection: the header
        fields, the client's address ("" where it has none) and scheme.

        `fields` are as for `request_headers`, `url` is the request target.
        """
        headers = request_headers(fields)
        address, scheme, own = self.address, self.scheme, self._own
        if self.trusted:
            hop = self._client(fields)
            address, scheme = hop.address, hop.scheme
            own = _about(address, scheme)
            _set_host(headers, hop)
        if url[:1] != "/":
            authority = split_target(url)[0]
            if authority:
                # It overrules the field (RFC 9112 3.2.2), whoever wrote that.
                _replace_host(headers, authority)
        headers += own
        for name, value in headers:
            if name == "host":
                if value:
                    headers.append(("x-forwarded-host", value))
                break
        headers.append(_VIA.get(http_version) or _VIA["1.1"])
        return headers, address, scheme

    def _client(self, fields: Fields) -> "_Hop":
        """The client as trusted proxies describe it."""
        said: dict[str, list[str]] = {}
        for raw, values in fields:
            name = raw.decode("latin-1").lower()
            if name in self._trust.fields:
                said.setdefault(name, []).extend(value.decode("latin-1") for value in values)
        hop = _Hop(self.address, self.scheme)
        if FORWARDED in said:
            self._by_forwarded(hop, said[FORWARDED])
        elif said:
            self._by_x_forwarded(hop, said)
        return hop

    def _by_forwarded(self, hop: "_Hop", lines: list[str]) -> None:
        elements = [element for line in lines for element in forwarded_elements(line)]
        last: dict[str, str] | None = None
        for last in reversed(elements[-_HOPS:]):
            node = _node(last.get("for", "")) if last is not None else None
            if not self._passed(hop, node):
                break
        if last:
            hop.describe(last.get("proto"), last.get("host"), None)

    def _by_x_forwarded(self, hop: "_Hop", said: dict[str, list[str]]) -> None:
        lists = {name: _members(lines) for name, lines in said.items()}
        count = 0
        for text in reversed(lists.get("x-forwarded-for", ())[-_HOPS:]):
            count += 1
            if not self._passed(hop, _node(text) or _bare(text)):
                break

        def same_hop(name: str) -> str | None:
            values = lists.get(name)
            # Many proxies replace these instead of adding to them; all that count are trusted.
            return values[-min(max(count, 1), len(values))] if values else None

        hop.describe(
            same_hop("x-forwarded-proto"),
            same_hop("x-forwarded-host"),
            same_hop("x-forwarded-port"),
        )

    def _passed(self, hop: "_Hop", node: _Address | None) -> bool:
        """Note that the request came by `node`; whether what it said before is to be believed."""
        hop.address = str(node) if node is not None else ""
        return node is not None and self._trust.trusts(node)


class _Hop:
    """One hop of a request as the next one saw it."""

    __slots__ = ("address", "host", "port", "scheme")

    def __init__(self, address: str, scheme: str) -> None:
        self.address = address
        self.scheme = scheme
        self.host: str | None = None
        self.port: str | None = None

    def describe(self, scheme: str | None, host: str | None, port: str | None) -> None:
        """Take what is well-formed of it."""
        if scheme is not None and scheme.lower() in DEFAULT_PORTS:
            self.scheme = scheme.lower()
        if host is not None and is_host(host):
            self.host = host
        if port is not None and _PORT.fullmatch(port) is not None and int(port) < 65536:
            self.port = port


def is_host(text: str) -> bool:
    """Whether `text` can be a client's Host: a name or an address, and perhaps a port."""
    found = _HOST.fullmatch(text) if len(text) < 300 else None
    return found is not None and (found[2] is None or int(found[2][1:]) < 65536)


def forwarded_elements(line: str) -> list[dict[str, str] | None]:
    """The elements of one ``Forwarded`` field line, parameter names in lower case.

    None alone where the line is not what RFC 7239 4 has. Lines are read one by one, so that a
    quote which a client has left open does not swallow what a proxy adds in a line of its own.
    """
    elements: list[dict[str, str] | None] = []
    element: dict[str, str] = {}
    at = 0
    while True:
        found = _PAIR.match(line, at)
        if found is None:
            return [None]
        name, token, quoted, end = found.groups()
        if name is not None:
            name = name.lower()
            if name in element:
                return [None]
            element[name] = token if token is not None else _ESCAPED.sub(r"\1", quoted)
        if end != ";":
            if element:
                elements.append(element)
            element = {}
        if not end:
            return elements
        at = found.end()


def _about(address: str, scheme: str) -> Headers:
    """What every worker is told."""
    own = [("x-forwarded-for", address)] if address else []
    return [*own, ("x-forwarded-proto", scheme)]


def _set_host(headers: Headers, hop: _Hop) -> None:
    """Make the client's ``Host`` of the one that a proxy sent."""
    host = hop.host
    if hop.port is not None:
        if host is None:
            host = next((text for name, text in headers if name == "host"), "")
        found = _HOST.fullmatch(host)
        if found is None:
            return
        if found[2] is None and hop.port != DEFAULT_PORTS[hop.scheme]:
            host = f"{host}:{hop.port}"
    if host:
        _replace_host(headers, host)


def _replace_host(headers: Headers, host: str) -> None:
    at = next((at for at, (name, _) in enumerate(headers) if name == "host"), len(headers))
    headers[:] = [pair for pair in headers if pair[0] != "host"]
    headers.insert(at, ("host", host))


def _members(lines: list[str]) -> list[str]:
    """The members of a list over several lines; empty ones do not count (RFC 9110 5.6.1)."""
    stripped = (member.strip(" \t") for line in lines for member in line.split(","))
    return [member for member in stripped if member]


def _node(text: str) -> _Address | None:
    """The address of an RFC 7239 node; None for ``unknown``, obfuscated and malformed ones."""
    found = _NODE.fullmatch(text)
    if found is None:
        return None
    try:
        if found[1] is not None:
            return IPv4Address(found[1])
        return _plain(IPv6Address(found[2]))
    except ValueError:
        return None


def _bare(text: str) -> _Address | None:
    if _BARE.fullmatch(text) is None:
        return None
    try:
        return _plain(IPv6Address(text))
    except ValueError:
        return None


def _plain(address: _Address) -> _Address:
    """IPv4 as such, where a socket for both shows it as IPv6."""
    return getattr(address, "ipv4_mapped", None) or address
