"""The PROXY protocol, versions 1 and 2: what a proxy says first on a connection that it makes for a
client (haproxy's doc/proxy-protocol.txt).

Pure: bytes in, a `ProxyLine` out.

Invariants:

1. Nothing beyond `LONGEST` is waited for, and the verdict is the same however the bytes were cut.
2. An address is one: what is none is no PROXY protocol either.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

#: Most bytes of a line of version 1, with its end.
_LONGEST_1: Final = 107
#: Most bytes of a line of version 2; it may have 64 KiB, of which addresses are 216
#: bytes and the rest is extensions.
LONGEST: Final = 4096

_SIGNATURE_1: Final = b"PROXY "
_SIGNATURE_2: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_LINE: Final = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?"
    rb"|TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) ([0-9]{1,5}) ([0-9]{1,5}))\r\n"
)
#: Bytes of the addresses of each family; none for AF_UNSPEC, whose bytes say nothing.
_FAMILIES: Final = {0x00: 0, 0x11: 12, 0x21: 36, 0x31: 216}
#: PP2_TYPE_SSL, and the bit in it for a client that came by TLS.
_SSL: Final = 0x20
_CLIENT_SSL: Final = 0x01


class NotProxied(ValueError):
    """what a connection begins with is no PROXY protocol"""


@dataclass(frozen=True, slots=True)
class ProxyLine:
    """What a proxy says of its client."""

    #: IP address; "" where the proxy does not say it, None for a connection of the proxy's own.
    address: str | None
    #: TCP port, 0 without an address.
    port: int = 0
    #: Whether the client came by TLS.
    secure: bool = False


def read_proxy_line(data: bytes) -> tuple[ProxyLine, int] | None:
    """The line that `data` begins with, and where it ends; None while more is to come.

    Raises `NotProxied`. The checksum of version 2 is not looked at: TCP has its own.
    """
    if data.startswith(_SIGNATURE_2):
        return _binary(data)
    if data.startswith(_SIGNATURE_1):
        return _text(data)
    if _SIGNATURE_1.startswith(data) or _SIGNATURE_2.startswith(data):
        return None
    raise NotProxied("neither version 1 nor 2")


def _text(data: bytes) -> tuple[ProxyLine, int] | None:
    end = data.find(b"\n", 0, _LONGEST_1) + 1
    if not end:
        if len(data) >= _LONGEST_1:
            raise NotProxied(f"more than {_LONGEST_1} bytes in version 1")
        return None
    found = _LINE.fullmatch(data, 0, end)
    if found is None:
        raise NotProxied("a line that is none of version 1")
    if found[1] is None:
        return ProxyLine(""), end
    family = IPv4Address if found[1] == b"4" else IPv6Address
    source, target, port, other = (one.decode("ascii") for one in found.groups()[1:])
    try:
        family(target)
        address = str(family(source))
    except ValueError:
        raise NotProxied("an address that is none") from None
    if int(port) > 65535 or int(other) > 65535:
        raise NotProxied("a port that is none")
    return ProxyLine(address, int(port)), end


def _binary(data: bytes) -> tuple[ProxyLine, int] | None:
    if len(data) < 16:
        return None
    command, family = data[12], data[13]
    end = 16 + int.from_bytes(data[14:16])
    if command not in (0x20, 0x21):
        raise NotProxied("a version or command that is unknown")
    if end > LONGEST:
        raise NotProxied(f"more than {LONGEST} bytes in version 2")
    if len(data) < end:
        return None
    if command == 0x20:
        # LOCAL: a check of the proxy's own; what follows means nothing.
        return ProxyLine(None), end
    size = _FAMILIES.get(family)
    if size is None or 16 + size > end:
        raise NotProxied("a family that is unknown, or not its addresses")
    secure = family != 0x00 and _secure(data[16 + size : end])
    if family == 0x11:
        address, port = str(IPv4Address(data[16:20])), data[24:26]
    elif family == 0x21:
        address, port = str(IPv6Address(data[16:32])), data[48:50]
    else:
        address, port = "", b""
    return ProxyLine(address, int.from_bytes(port), secure), end


def _secure(extensions: bytes) -> bool:
    """Whether the extensions (type, length in two bytes, value) say that the client used TLS."""
    while extensions:
        size = int.from_bytes(extensions[1:3])
        value = extensions[3 : 3 + size]
        if len(extensions) < 3 or len(value) < size:
            raise NotProxied("an extension that is none")
        if extensions[0] == _SSL and value:
            return bool(value[0] & _CLIENT_SSL)
        extensions = extensions[3 + size :]
    return False
