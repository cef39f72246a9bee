"""Who the client is, where proxies stand between it and us, and what a worker is told of it.

Invariants:

1. Nothing that a peer says is believed unless the operator trusts it, and then only the fields that
   the operator says his proxies write.
2. The client is the rightmost hop that is no trusted proxy: each proxy adds the address that it
   saw at the right, so what stands further left is only that client's own word.
3. Nothing is guessed. Where a hop's address is malformed or hidden, the client has none: it never
   passes for the proxy, whose own address may have rights. Scheme and host are what the proxy says
   of the same hop, and where that is malformed, those of the connection.
4. A worker gets each of these fields once at most, and it is ours. Further fields that the operator
   names are as the trusted proxy wrote them; nobody else's pass.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from queuerelay.wire.headers import is_dropped, is_further, request_headers
from queuerelay.wire.proxies import FORWARDED, UNIX, X_FORWARDED
from queuerelay.wire.target import DEFAULT_PORTS, split_target

Fields = Sequence[tuple[bytes, Sequence[bytes]]]
Headers = list[tuple[str, str]]
#: Fields of a request by which a proxy says who the client is: lower-case names with their values.
Said = tuple[tuple[bytes, tuple[bytes, ...]], ...]
_Address = IPv4Address | IPv6Address

#: Hops that are looked at; real chains have fewer than ten.
_HOPS: Final = 64
#: Peers and clients that are remembered, because most come again.
_KNOWN: Final = 4096
#: Longest fields about a client, in bytes, that are remembered.
_SHORT: Final = 512

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

#: What we call ourselves in Via (RFC 9110 7.6.3): a worker must be told, a client need not be, and
#: is not.
_PSEUDONYM: Final = "queuerelay"
_VERSIONS: Final = frozenset({"1.0", "1.1"})


class Trust:
    """Which peers are proxies of the operator's, and which fields they write.

    `networks` are texts such as ``10.0.0.0/8``, ``2001:db8::1`` or `UNIX`; `fields` are `FORWARDED`
    or some of `X_FORWARDED`, not both, and any further names. Raises ValueError for others.
    """

    def __init__(self, networks: Iterable[str], fields: Iterable[str]) -> None:
        networks = set(networks)
        self.unix = UNIX in networks
        parsed: list[IPv4Network | IPv6Network] = [ip_network(text) for text in networks - {UNIX}]
        self._v4 = [network for network in parsed if isinstance(network, IPv4Network)]
        self._v6 = [network for network in parsed if isinstance(network, IPv6Network)]
        fields = set(fields)
        saying = fields & {FORWARDED, *X_FORWARDED}
        if FORWARDED in saying and len(saying) > 1:
            raise ValueError(f"{FORWARDED} and others: which of them would be true?")
        if not all(map(is_further, fields - saying)):
            raise ValueError("unknown fields")
        #: Names of the fields in which proxies say who the client is, as bytes in lower case.
        self.fields = frozenset(field.encode("ascii") for field in saying)
        #: Names of further fields that nobody else may write; and of those among them that are
        #: dropped from everybody where no operator names them.
        self.further = frozenset(fields - saying)
        self.restored = frozenset(name.encode("ascii") for name in self.further if is_dropped(name))
        self._known: dict[str, tuple[str, bool]] = {}
        self._clients: dict[tuple[object, ...], ProxiedClient] = {}

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
        """Whether `address` is in one of the networks."""
        if isinstance(address, IPv4Address):
            return any(address in network for network in self._v4)
        return any(address in network for network in self._v6)

    def client(self, peer: "Peer", said: Said, http_version: str) -> "ProxiedClient":
        """The client that a trusted `peer` names in its fields."""
        key = (peer.address, peer.scheme, http_version, *said)
        client = self._clients.get(key)
        if client is None:
            client = self._described(peer, said, http_version)
            if sum(len(value) for _, values in said for value in values) <= _SHORT:
                if len(self._clients) >= _KNOWN:
                    self._clients.clear()
                self._clients[key] = client
        return client

    def _described(self, peer: "Peer", said: Said, http_version: str) -> "ProxiedClient":
        lines: dict[str, list[str]] = {}
        for name, values in said:
            texts = (value.decode("latin-1") for value in values)
            lines.setdefault(name.decode("ascii"), []).extend(texts)
        if FORWARDED in lines:
            hop = self._by_forwarded(peer, lines[FORWARDED])
        else:
            hop = self._by_x_forwarded(peer, lines)
        return ProxiedClient(hop, http_version)

    def _by_forwarded(self, peer: "Peer", lines: list[str]) -> "_Hop":
        hop = _Hop(peer.address, peer.scheme)
        elements = [element for line in lines for element in forwarded_elements(line)]
        last: dict[str, str] | None = None
        for last in reversed(elements[-_HOPS:]):
            if not self._passed(hop, _node(last.get("for", "")) if last is not None else None):
                break
        if last:
            hop.describe(last.get("proto"), last.get("host"), None)
        return hop

    def _by_x_forwarded(self, peer: "Peer", lines: dict[str, list[str]]) -> "_Hop":
        hop = _Hop(peer.address, peer.scheme)
        lists = {name: _members(texts) for name, texts in lines.items()}
        count = 0
        for text in reversed(lists.get("x-forwarded-for", ())[-_HOPS:]):
            count += 1
            if not self._passed(hop, _node(text) or _bare(text)):
                break

        def same_hop(name: str) -> str | None:
            values = lists.get(name)
            # Many proxies replace these instead of adding to them; all that count are trusted.
            return values[-min(max(count, 1), len(values))] if values else None

        hop.describe(*(same_hop(name) for name in X_FORWARDED[1:]))
        return hop

    def _passed(self, hop: "_Hop", node: _Address | None) -> bool:
        """Note that the request came by `node`; whether what it said before is to be believed."""
        hop.address = str(node) if node is not None else ""
        return node is not None and self.trusts(node)


class Peer:
    """The other end of one connection: a client, or a proxy."""

    __slots__ = ("_own", "_trust", "address", "scheme", "trusted")

    def __init__(self, trust: Trust, address: str, scheme: str) -> None:
        self._trust = trust
        #: IP address of the peer, "" where it has none; and whether the peer is trusted.
        self.address, self.trusted = trust.judge(address)
        self.scheme = scheme
        self._own = _about(self.address, scheme, "1.1")

    def forward(self, fields: Fields, url: str, http_version: str) -> tuple[Headers, str, str]:
        """The header fields of the message for a request that came by this connection, the
        client's address ("" where it has none) and scheme.

        `fields` are as for `request_headers`, `url` is the request target.
        """
        headers = request_headers(fields, proxied=self.trusted)
        if self._trust.further:
            headers = self._with_further(headers, fields)
        address, scheme, own = self.address, self.scheme, self._own
        if self.trusted:
            client = self._client(fields, http_version)
            address, scheme, own = client.address, client.scheme, client.own
            client.set_host(headers)
        elif http_version != "1.1":
            own = _about(address, scheme, http_version)
        if url[:1] != "/":
            authority = split_target(url)[0]
            if authority:
                # It overrules the field (RFC 9112 3.2.2), whoever wrote that.
                _set_host(headers, authority)
        headers += own
        for name, value in headers:
            if name == "host":
                if value:
                    headers.append(("x-forwarded-host", value))
                break
        return headers, address, scheme

    def _with_further(self, headers: Headers, fields: Fields) -> Headers:
        """`headers` with the further fields of a trusted proxy, and without anybody else's."""
        trust = self._trust
        if not self.trusted:
            return [pair for pair in headers if pair[0] not in trust.further]
        restored = trust.restored
        return headers + [
            (name.decode("ascii"), value.decode("latin-1"))
            for raw, values in fields
            if (name := raw.lower()) in restored
            for value in values
        ]

    def client_address(self, fields: Fields) -> str:
        """The address of the client whose request has these header fields; "" for none."""
        return self._client(fields, "1.1").address if self.trusted else self.address

    def _client(self, fields: Fields, http_version: str) -> "ProxiedClient":
        written = self._trust.fields
        said = [(name, tuple(values)) for raw, values in fields if (name := raw.lower()) in written]
        return self._trust.client(self, tuple(said), http_version)


class ProxiedClient:
    """The client behind all trusted proxies; one object for many requests."""

    __slots__ = ("_host", "_port", "address", "own", "scheme")

    def __init__(self, hop: "_Hop", http_version: str) -> None:
        self.address = hop.address
        self.scheme = hop.scheme
        self.own = _about(hop.address, hop.scheme, http_version)
        self._host = hop.host
        #: Colon and port after the host's name; "" for the port of the scheme.
        self._port = ""
        if hop.port is not None and hop.port != DEFAULT_PORTS[hop.scheme]:
            self._port = f":{hop.port}"
            self._host = self._with_port(self._host)

    def set_host(self, headers: Headers) -> None:
        """Make the client's ``Host`` of the one that a proxy sent."""
        if self._host is not None:
            _set_host(headers, self._host)
        elif self._port:
            host = self._with_port(next((text for name, text in headers if name == "host"), None))
            if host is not None:
                _set_host(headers, host)

    def _with_port(self, host: str | None) -> str | None:
        found = _HOST.fullmatch(host) if host is not None else None
        return f"{host}{self._port}" if found is not None and found[2] is None else host


class _Hop:
    """One hop of a request as the next one saw it."""

    __slots__ = ("address", "host", "port", "scheme")

    def __init__(self, address: str, scheme: str) -> None:
        self.address = address
        self.scheme = scheme
        self.host: str | None = None
        self.port: str | None = None

    def describe(self, scheme: str | None, host: str | None, port: str | None) -> None:
        """Take scheme, host and port where they are well-formed."""
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


def _about(address: str, scheme: str, http_version: str) -> Headers:
    """The fields about a client that every worker gets."""
    own = [("x-forwarded-for", address)] if address else []
    # RFC 9110 7.6.3: the version in which we got the message.
    version = http_version if http_version in _VERSIONS else "1.1"
    return [*own, ("x-forwarded-proto", scheme), ("via", f"{version} {_PSEUDONYM}")]


def _set_host(headers: Headers, host: str) -> None:
    """Make `host` the only ``Host``, where the first one stands."""
    places = [place for place, (name, _) in enumerate(headers) if name == "host"]
    if not places:
        headers.append(("host", host))
        return
    headers[places[0]] = ("host", host)
    for place in reversed(places[1:]):
        del headers[place]


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
    """The address, with an IPv4 address that a socket for both shows as IPv6 made IPv4 again."""
    return getattr(address, "ipv4_mapped", None) or address
