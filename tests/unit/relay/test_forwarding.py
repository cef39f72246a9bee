"""What both fronts tell a worker about the client, and what nobody can make them tell."""

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor
from twisted.web.server import Site

from queuerelay.errors import ConfigError
from queuerelay.http.accesslog import AccessLog
from queuerelay.http.listening import BACKLOG
from queuerelay.http.proxied import ProxiedFactory
from queuerelay.relay.listeners import endpoint_from
from queuerelay.relay.resource import RelayResource
from tests.helpers.strict import request
from tests.unit.relay.stage import Connection, to

FORGED = (
    ("X-Forwarded-For", "6.6.6.6"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.example"),
    ("Forwarded", "for=6.6.6.6;proto=https;host=evil.example"),
    ("X-Real-IP", "6.6.6.6"),
    ("X_Forwarded_For", "6.6.6.6"),
    ("Connection", "host, x-forwarded-for, x-forwarded-proto, x-forwarded-host, via, close"),
)


class Embedded:
    """The relay in a plain Site."""

    def __init__(self, stage):
        resource = RelayResource(stage.relay, max_body=stage.config.max_body)
        self.site = Site(resource, reactor=stage.clock)

    def buildProtocol(self, addr):
        return self.site.buildProtocol(addr)


@pytest.fixture(params=["front", "site"])
def connect(request, make_stage):
    """A client of one of the fronts of a stage with these options."""

    def made(address=None, **options):
        stage = make_stage(**options)
        factory = stage.front if request.param == "front" else Embedded(stage)
        address = address or IPv4Address("TCP", "192.0.2.7", 4711)
        protocol = factory.buildProtocol(address)
        connection = Connection.__new__(Connection)
        connection.__init__(stage, _Reserved(protocol, address))
        stage.connections.append(connection)
        return stage, connection

    return made


class _Reserved:
    """Connects `protocol` to a wire whose other end has `address`."""

    def __init__(self, protocol, address):
        self._protocol = protocol
        self._address = address

    def makeConnection(self, wire):
        wire.peerAddr = self._address
        wire.protocol = self._protocol
        self._protocol.makeConnection(wire)

    def dataReceived(self, data):
        self._protocol.dataReceived(data)


def told(stage, queue="requests"):
    taken = stage.take(queue)
    fields = {}
    for name, value in taken["headers"]:
        if name in ("host", "via", "forwarded", "x-real-ip") or name.startswith("x-forwarded"):
            assert name not in fields, taken["headers"]
            fields[name] = value
    return taken.get("remote_addr"), taken["scheme"], fields


def about(address, scheme="http", host="example.org"):
    """What `told` gives where all agrees."""
    fields = {
        "host": host,
        "x-forwarded-for": address,
        "x-forwarded-proto": scheme,
        "x-forwarded-host": host,
        "via": "1.1 queuerelay",
    }
    if address is None:
        del fields["x-forwarded-for"]
    return address, scheme, fields


def test_nobody_is_believed_by_default(connect):
    stage, connection = connect()
    connection.send(request("GET", "/", *FORGED))
    assert told(stage) == about("192.0.2.7")


def test_a_trusted_proxy_is_believed(connect):
    stage, connection = connect(trusted_proxies=("192.0.2.0/24",))
    connection.send(
        request(
            "GET",
            "/",
            ("X-Forwarded-For", "6.6.6.6, 203.0.113.9"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "shop.example"),
            *FORGED[3:],
        )
    )
    assert told(stage) == about("203.0.113.9", "https", "shop.example")


def test_each_request_of_a_proxys_connection_has_a_client_of_its_own(connect):
    stage, connection = connect(trusted_proxies=("192.0.2.7",))
    for number in (1, 2, 3):
        connection.send(request("GET", "/", ("X-Forwarded-For", f"203.0.113.{number}")))
        taken = stage.take()
        assert taken["remote_addr"] == f"203.0.113.{number}"
        stage.reply(taken)
    connection.send(request("GET", "/"))
    assert told(stage) == about("192.0.2.7")


def test_routes_go_by_the_clients_host(connect):
    stage, connection = connect(
        trusted_proxies=("192.0.2.7",), routes=(to("shop", host="shop.example"),)
    )
    connection.send(request("GET", "/", ("X-Forwarded-Host", "shop.example")))
    assert told(stage, "shop") == about("192.0.2.7", host="shop.example")


@pytest.mark.parametrize(
    ("networks", "address"), [((), None), (("127.0.0.0/8",), None), (("unix",), "203.0.113.9")]
)
def test_unix_sockets(connect, networks, address):
    stage, connection = connect(UNIXAddress(b"/run/x"), trusted_proxies=networks)
    connection.send(request("GET", "/", ("X-Forwarded-For", "203.0.113.9")))
    assert told(stage) == about(address)


# --- Behind a PROXY line -------------------------------------------------------------------------

V2 = b"\r\n\r\n\x00\r\nQUIT\n"
#: 203.0.113.9, port 4096, to 127.0.0.1, port 80.
ADDRESSES = bytes([203, 0, 113, 9, 127, 0, 0, 1]) + b"\x10\x00\x00\x50"
LINE = b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 80\r\n"


@pytest.fixture
def proxied(make_stage):
    """A connection of the proxy 192.0.2.7, by default a trusted one."""

    def made(address=None, **options):
        stage = make_stage(**{"trusted_proxies": ("192.0.2.7",), **options})
        factory = ProxiedFactory(stage.front, trust=stage.relay.trust)
        address = address or IPv4Address("TCP", "192.0.2.7", 4711)
        connection = Connection(stage, _Reserved(factory.buildProtocol(address), address))
        stage.connections.append(connection)
        stage.turn()
        return stage, connection

    return made


@pytest.mark.parametrize(
    ("line", "address", "scheme"),
    [
        (LINE, "203.0.113.9", "http"),
        (b"PROXY TCP6 2001:DB8::9 ::1 4711 80\r\n", "2001:db8::9", "http"),
        (b"PROXY UNKNOWN\r\n", None, "http"),
        (V2 + b"\x21\x11\x00\x0c" + ADDRESSES, "203.0.113.9", "http"),
        # TLS, as haproxy's send-proxy-v2-ssl has it.
        (
            V2 + b"\x21\x11\x00\x14" + ADDRESSES + b"\x20\x00\x05\x01\x00\x00\x00\x00",
            "203.0.113.9",
            "https",
        ),
        (V2 + b"\x21\x00\x00\x00", None, "http"),
        # A check of the proxy's own (LOCAL).
        (V2 + b"\x20\x00\x00\x00", "192.0.2.7", "http"),
    ],
)
def test_the_address_of_a_proxy_line(proxied, line, address, scheme):
    for cut in (
        [line, request("GET", "/")],
        [line + request("GET", "/")],
        [bytes([byte]) for byte in line + request("GET", "/")],
    ):
        # An unknown client is not one on a Unix socket.
        stage, connection = proxied(trusted_proxies=("192.0.2.7", "unix"))
        connection.send(*cut)
        taken = stage.take()
        assert (taken.get("remote_addr"), taken["scheme"]) == (address, scheme)
        stage.reply(taken)
        # The line is that of all requests on its connection.
        fields = (("X-Forwarded-For", "6.6.6.6"),) if address != "192.0.2.7" else ()
        connection.send(request("GET", "/", *fields))
        assert told(stage) == about(address, scheme)


@pytest.mark.parametrize(
    ("networks", "address"),
    [
        (("192.0.2.7",), "203.0.113.9"),
        (("192.0.2.7", "203.0.113.0/24"), "198.51.100.1"),
    ],
)
def test_fields_are_believed_of_a_trusted_client_only(proxied, networks, address):
    stage, connection = proxied(trusted_proxies=networks)
    connection.send(LINE + request("GET", "/", ("X-Forwarded-For", "198.51.100.1")))
    assert told(stage) == about(address)


def test_proxies_on_unix_sockets(proxied):
    stage, connection = proxied(UNIXAddress(b"/run/x"), trusted_proxies=("unix",))
    connection.send(LINE + request("GET", "/"))
    assert told(stage) == about("203.0.113.9")


@pytest.mark.parametrize("networks", [(), ("203.0.113.9",), ("unix",)])
def test_who_is_no_trusted_proxy_is_disconnected(proxied, networks):
    stage, connection = proxied(trusted_proxies=networks)
    connection.send(LINE + request("GET", "/"))
    assert connection.wire.lost
    assert connection.raw == b""
    assert stage.waiting() == []


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PROXY TCP9 a b 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 x y\r\n",
        b"PROXY TCP4 evil 127.0.0.1 4711 80\r\n",
        b"PROXY TCP4 " + b"1" * 200,
        V2 + b"\x31\x11\x00\x0c" + bytes(12),
    ],
)
def test_without_a_proxy_line_a_connection_is_closed(proxied, line):
    stage, connection = proxied()
    connection.protocol.dataReceived(line)
    # What comes before it is closed is not looked at, either.
    connection.protocol.dataReceived(LINE + request("GET", "/"))
    stage.turn()
    assert stage.counter("gone") == 0
    assert connection.wire.lost
    assert connection.raw == b""
    assert stage.waiting() == []


def test_who_waits_with_the_proxy_line_is_not_waited_for(proxied):
    stage, connection = proxied()
    connection.send(LINE[:20])
    stage.turn(76.0)
    assert connection.wire.lost
    assert stage.waiting() == []


@pytest.mark.parametrize(
    "text", ["haproxy:", "haproxy:nope:1", "haproxy:ssl:8443", "haproxy:haproxy:tcp:1"]
)
def test_an_endpoint_that_is_none(text):
    with pytest.raises(ConfigError) as caught:
        endpoint_from(text, reactor=Clock())
    assert f"--listen: got {text!r}, expected an endpoint such as " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "backlog"),
    [
        ("tcp:0", BACKLOG),
        ("tcp:0:interface=127.0.0.1", BACKLOG),
        ("tcp6:0", BACKLOG),
        ("haproxy:tcp:port=0", BACKLOG),
        ("tcp:0:backlog=7", 7),
        ("haproxy:tcp:0:backlog=7:interface=127.0.0.1", 7),
    ],
)
def test_a_burst_of_clients_finds_a_place_in_the_queue_of_the_socket(text, backlog):
    reactor = MemoryReactor()
    endpoint_from(text, reactor=reactor).listen(Factory())
    ((_, _, given, _),) = reactor.tcpServers
    assert given == backlog


@pytest.mark.parametrize(
    ("more", "backlog"), [("", BACKLOG), (":mode=660", BACKLOG), (":backlog=7", 7)]
)
def test_a_burst_on_a_unix_socket_too(tmp_path, more, backlog):
    reactor = MemoryReactor()
    endpoint_from(f"unix:{tmp_path}/s{more}", reactor=reactor).listen(Factory())
    ((path, _, given, *_),) = reactor.unixServers
    assert (path, given) == (f"{tmp_path}/s", backlog)


def test_the_access_log_has_the_client(make_stage, tmp_path):
    path = tmp_path / "access.log"
    log = AccessLog(str(path), wall_clock=lambda: 0.0)
    log.open()
    stage = make_stage(access_log=log, trusted_proxies=("192.168.1.1",))
    connection = stage.connect()
    for hop in ("203.0.113.9", "2001:DB8::9", "unknown"):
        connection.send(request("GET", "/", ("X-Forwarded-For", hop)))
        stage.reply(stage.take())
    connection.send(
        request("POST", "/", ("X-Forwarded-For", "203.0.113.10"), ("Content-Length", "9" * 18))
    )
    # Nothing is known of who does not speak HTTP.
    stage.connect().send(b"\0\r\n\r\n")
    stage.turn(5.0)
    log.close()
    assert [line.split(" ", 1)[0] for line in path.read_text().splitlines()] == [
        "203.0.113.9",
        "2001:db8::9",
        "-",
        "203.0.113.10",
        "192.168.1.1",
    ]
