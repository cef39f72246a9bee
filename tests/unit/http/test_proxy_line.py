"""The PROXY protocol: what proxies say, and what is nothing of the kind."""

import contextlib
import struct
from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queuerelay.http.proxy_line import LONGEST, NotProxied, ProxyLine, read_proxy_line

V2 = b"\r\n\r\n\x00\r\nQUIT\n"
V4 = bytes([203, 0, 113, 9, 127, 0, 0, 1]) + struct.pack("!HH", 4711, 80)
V6 = ip_address("2001:db8::9").packed + ip_address("::1").packed + struct.pack("!HH", 4711, 80)
UNIX = b"/run/client".ljust(108, b"\0") + b"/run/server".ljust(108, b"\0")


def v2(content, *, command=0x21, family=0x11, size=None):
    length = len(content) if size is None else size
    return V2 + bytes([command, family]) + struct.pack("!H", length) + content


def extension(type, value):
    return bytes([type]) + struct.pack("!H", len(value)) + value


def tls(flags):
    return extension(0x20, bytes([flags]) + b"\0\0\0\0" + extension(0x21, b"TLSv1.3"))


GOOD = {
    b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 80\r\n": ProxyLine("203.0.113.9", 4711),
    b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n": ProxyLine("0.0.0.0", 0),
    b"PROXY TCP6 2001:DB8:0:0::9 ::1 65535 1\r\n": ProxyLine("2001:db8::9", 65535),
    b"PROXY UNKNOWN\r\n": ProxyLine(""),
    b"PROXY UNKNOWN ffff::1 evil 1 x\r\n": ProxyLine(""),
    v2(V4): ProxyLine("203.0.113.9", 4711),
    v2(V6, family=0x21): ProxyLine("2001:db8::9", 4711),
    v2(UNIX, family=0x31): ProxyLine(""),
    v2(b"", family=0x00): ProxyLine(""),
    v2(b"whatever", family=0x00): ProxyLine(""),
    v2(b"", command=0x20, family=0x00): ProxyLine(None),
    v2(V4, command=0x20): ProxyLine(None),
    v2(b"\xff", command=0x20, family=0xFF): ProxyLine(None),
    # As haproxy's send-proxy-v2-ssl has it; and other extensions.
    v2(V4 + tls(0x01)): ProxyLine("203.0.113.9", 4711, True),
    v2(V4 + tls(0x07)): ProxyLine("203.0.113.9", 4711, True),
    v2(V4 + tls(0x06)): ProxyLine("203.0.113.9", 4711, False),
    v2(V4 + extension(0x04, b"") + tls(0x01)): ProxyLine("203.0.113.9", 4711, True),
    v2(V4 + extension(0x03, b"\0" * 4)): ProxyLine("203.0.113.9", 4711),
    v2(V4 + extension(0x20, b"")): ProxyLine("203.0.113.9", 4711),
    v2(UNIX + tls(0x01), family=0x31): ProxyLine("", 0, True),
    v2(V4 + extension(0xEA, b"x" * (LONGEST - 31))): ProxyLine("203.0.113.9", 4711),
}
BAD = [
    b"GET / HTTP/1.1\r\n",
    b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
    b"PROXY\r\n",
    b"PROXY \r\n",
    b"PROXY  UNKNOWN\r\n",
    b"PROXY UNKNOWNX\r\n",
    b"PROXY UNKNOWN\n",
    b"PROXY UNKNOWN\r\r\n",
    b"PROXY TCP4\r\n",
    b"PROXY TCP9 1.2.3.4 1.2.3.4 1 2\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
    b"PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 x\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 999999 2\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1_0 2\r\n",
    b"PROXY TCP4 1.2.3.4 evil 1 2\r\n",
    b"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3 1 2\r\n",
    b"PROXY TCP4 1.2.3.004 1.2.3.4 1 2\r\n",
    b"PROXY TCP4 ::1 ::1 1 2\r\n",
    b"PROXY TCP6 1.2.3.4 ::1 1 2\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    b"PROXY TCP6 [::1] ::1 1 2\r\n",
    b"PROXY UNKNOWN " + b"x" * 107,
    b"PROXY UNKNOWN " + b"x" * 107 + b"\r\n",
    b"\r\n\r\nGET / HTTP/1.1\r\n",
    v2(V4, command=0x31),
    v2(V4, command=0x22),
    v2(V4, command=0x01),
    v2(V4, family=0x12),
    v2(V4, family=0x01),
    v2(V4, family=0x41),
    v2(V4[:11]),
    v2(V6[:35], family=0x21),
    v2(UNIX[:215], family=0x31),
    v2(b"", size=LONGEST - 15),
    v2(b"", size=65535),
    v2(V4 + b"\x20"),
    v2(V4 + b"\x20\0"),
    v2(V4 + b"\x20\0\x05\x01"),
    v2(V4 + extension(0x04, b"") + b"\x04\0\x01"),
]


def read(data):
    """The verdict on bytes that come one by one: a line and what is left, or `NotProxied`."""
    for end in range(1, len(data) + 1):
        found = read_proxy_line(data[:end])
        if found is not None:
            return found[0], data[found[1] :]
    return None


@pytest.mark.parametrize("data", GOOD)
def test_what_proxies_say(data):
    assert read_proxy_line(data) == (GOOD[data], len(data))
    assert read_proxy_line(data + b"GET / HTTP/1.1\r\n") == (GOOD[data], len(data))
    assert read(data) == (GOOD[data], b"")


@pytest.mark.parametrize("data", BAD)
def test_what_is_nothing_of_the_kind(data):
    for read_it in (read, read_proxy_line):
        with pytest.raises(NotProxied):
            read_it(data)


@given(
    st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ", V2, V2 + b"\x21"]), st.binary()
)
@example(b"PROXY UNKNOWN", b"\r\n")
def test_it_does_not_matter_how_it_is_cut(start, rest):
    data = start + rest
    if not data:
        return

    def verdict(read_it):
        try:
            return read_it(data)
        except NotProxied:
            return NotProxied

    whole = verdict(read_proxy_line)
    piecewise = verdict(read)
    if isinstance(whole, tuple):
        line, end = whole
        assert piecewise == (line, data[end:])
        assert line.address in ("", None) or ip_address(line.address)
        assert 0 <= line.port < 65536
    else:
        assert piecewise == whole


@given(st.binary(max_size=100))
def test_nobody_is_waited_for_without_end(rest):
    for start in (b"PROXY ", V2 + b"\x21\x11"):
        with contextlib.suppress(NotProxied):
            assert read_proxy_line(start + rest + b"x" * LONGEST) is not None
