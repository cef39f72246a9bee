"""nginx and haproxy in front of the relay, with the configurations of etc/examples.

Clients come from 127.0.0.9, the proxies from 127.0.0.1, which alone is trusted: so that who is who
shows, and what a client has made up.
"""

import contextlib
import json
import os
import shutil
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance import flask_app, stage
from tests.acceptance.stage import Answer, Stage, request, staged
from tests.helpers.certificates import Authority
from tests.helpers.daemon import ROOT
from tests.helpers.ports import free_port
from tests.helpers.redis import ValkeyServer
from tests.helpers.waiting import PATIENCE

EXAMPLES = ROOT / "etc" / "examples"
CLIENT = "127.0.0.9"
UPLOAD = flask_app.pattern(3 * 1024 * 1024)
#: The relay's own answers: there is no worker for the first, and the test plays the second's.
ROUTES = """
[[relay.route]]
path = "/nobody/"
queue = "nobody"
deadline = 0.2

[[relay.route]]
path = "/played/"
queue = "played"
"""
NGINX = """
daemon off;
master_process off;
pid {directory}/{include}.pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/{include};
}}
"""


class Client(stage.Client):
    """A client that is not where the proxies are."""

    def __init__(self, port: int, *, ca: Path | None = None) -> None:
        self._socket = socket.create_connection(
            ("127.0.0.1", port), PATIENCE, source_address=(CLIENT, 0)
        )
        if ca is not None:
            context = ssl.create_default_context(cafile=ca)
            self._socket = context.wrap_socket(self._socket, server_hostname="127.0.0.1")
        self._stream = self._socket.makefile("rb")

    def line(self) -> bytes:
        """What comes next, up to a line's end."""
        return self._stream.readline()


@dataclass(frozen=True, slots=True)
class Way:
    """One way from clients to the application."""

    #: Where clients connect.
    port: int
    #: Where the proxy connects, None for a Unix socket.
    upstream: int | None
    #: Whether the proxy speaks HTTP, or passes on bytes.
    http: bool = True
    #: What a client has to trust that comes by TLS.
    ca: Path | None = None

    def client(self) -> "contextlib.closing[Client]":
        """A client that uses it."""
        return contextlib.closing(Client(self.port, ca=self.ca))


def program(name: str) -> str:
    """Where the proxy is; Debian keeps both where only root has them on PATH."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        pytest.skip(f"needs {name}")
    return found


def example(name: str, *changes: tuple[str, str]) -> str:
    """A file of etc/examples, with the addresses of a test."""
    text = (EXAMPLES / name).read_text()
    for there, here in changes:
        assert text.count(there) == 1, there
        text = text.replace(there, here)
    return text


@pytest.fixture(scope="module")
def ways(
    valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Way]]:
    """All of them, to one relay and two workers."""
    directory = tmp_path_factory.mktemp("proxies")
    tunnels = [free_port(), free_port()]
    with staged(valkey, directory) as made:
        made.directory.joinpath("routes.toml").write_text(ROUTES)
        relay = made.relay(
            *("--config", "routes.toml", "--trusted-proxies", "127.0.0.1/32,unix"),
            *("--listen", f"unix:{directory}/http.sock"),
            *("--listen", f"haproxy:tcp:{tunnels[0]}:interface=127.0.0.1"),
            *("--listen", f"haproxy:tcp:{tunnels[1]}:interface=127.0.0.1"),
        )
        made.worker()
        made.worker()
        authority = Authority(directory, "proxies")
        ca, crt = authority.ca, authority.issue("127.0.0.1")
        direct = f"server 127.0.0.1:{relay};"
        nginx = start_nginx(made, direct)
        haproxy, tunnel, old_tunnel = start_haproxy(made, relay, tunnels)
        haproxy_tls, tunnel_tls, _ = start_haproxy(made, relay, tunnels, crt=crt)
        yield {
            "nginx": Way(nginx, relay),
            "nginx-unix": Way(start_nginx(made, f"server unix:{directory}/http.sock;"), None),
            "nginx-tls": Way(start_nginx(made, direct, crt=crt), relay, ca=ca),
            "haproxy": Way(haproxy, relay),
            "haproxy-nginx": Way(start_haproxy(made, nginx, tunnels)[0], relay),
            "haproxy-tls": Way(haproxy_tls, relay, ca=ca),
            "tunnel": Way(tunnel, tunnels[0], http=False),
            "tunnel-v1": Way(old_tunnel, tunnels[1], http=False),
            "tunnel-tls": Way(tunnel_tls, tunnels[0], http=False, ca=ca),
        }
        for child in made.children:
            assert child.process.poll() is None, child.log
        assert "Traceback" not in made.children[0].log


def start_nginx(made: Stage, server: str, *, crt: Path | None = None) -> int:
    """nginx with an upstream that says `server`; gives its port."""
    nginx = program("nginx")
    tls = "" if crt is None else f" ssl; ssl_certificate {crt}; ssl_certificate_key {crt}"

    def command(port: int) -> list[str | Path]:
        include, main = f"nginx-{port}-include.conf", made.directory / f"nginx-{port}.conf"
        text = example(
            "nginx.conf",
            ("    listen 80;\n", f"    listen 127.0.0.1:{port}{tls};\n"),
            ("    server 127.0.0.1:8000;\n", f"    {server}\n"),
        )
        made.directory.joinpath(include).write_text(text)
        head = "user root;\n" if os.geteuid() == 0 else ""
        main.write_text(head + NGINX.format(directory=made.directory, include=include))
        return [nginx, "-c", main, "-p", made.directory, "-e", "stderr"]

    return made._listening("nginx", command)


def start_haproxy(
    made: Stage, relay: int, tunnels: list[int], *, crt: Path | None = None
) -> list[int]:
    """haproxy in front of `relay`; gives the ports of its ways: HTTP, PROXY and its version 1."""
    haproxy = program("haproxy")
    tls, proxy = ("", "send-proxy-v2") if crt is None else (f" ssl crt {crt}", "send-proxy-v2-ssl")
    ports = [0, free_port(), free_port()]

    def command(port: int) -> list[str | Path]:
        ports[0] = port
        config, more = (made.directory / f"haproxy-{port}-{part}.cfg" for part in (0, 1))
        config.write_text(
            "global\n    maxconn 256\n"
            + example(
                "haproxy.cfg",
                ("    bind :80\n", f"    bind 127.0.0.1:{port}{tls}\n"),
                ("    bind :81\n", f"    bind 127.0.0.1:{ports[1]}{tls}\n"),
                ("    server relay 127.0.0.1:8000\n", f"    server relay 127.0.0.1:{relay}\n"),
                (
                    "    server relay 127.0.0.1:8001 send-proxy-v2\n",
                    f"    server relay 127.0.0.1:{tunnels[0]} {proxy}\n",
                ),
            )
        )
        # The same in the protocol's first version.
        more.write_text(
            f"listen old\n    mode tcp\n    bind 127.0.0.1:{ports[2]}\n"
            f"    server relay 127.0.0.1:{tunnels[1]} send-proxy\n"
        )
        return [haproxy, "-db", "-f", config, "-f", more]

    made._listening("haproxy", command)
    return ports


@pytest.fixture(params=["nginx", "nginx-unix", "haproxy", "haproxy-nginx", "tunnel", "tunnel-v1"])
def way(request: pytest.FixtureRequest, ways: dict[str, Way]) -> Way:
    """Each of them that is not TLS."""
    return ways[request.param]


@pytest.fixture
def client(way: Way) -> Iterator[Client]:
    """A client that uses it."""
    with way.client() as made:
        yield made


def seen(answer: Answer) -> dict[str, str]:
    """What the application says about the client."""
    assert answer.status == 200
    told: dict[str, str] = json.loads(answer.body)["environ"]
    return told


def expected(scheme: str = "http") -> dict[str, str]:
    """The same, of a client that asks for the host of `request`."""
    return {
        "REMOTE_ADDR": CLIENT,
        "wsgi.url_scheme": scheme,
        "HTTP_HOST": "shop.example:8080",
        "HTTP_X_FORWARDED_FOR": CLIENT,
        "HTTP_X_FORWARDED_PROTO": scheme,
        "HTTP_X_FORWARDED_HOST": "shop.example:8080",
        "HTTP_VIA": "1.1 queuerelay",
        **({"HTTPS": "on"} if scheme == "https" else {}),
    }


@pytest.mark.parametrize(
    ("language", "name"), [("nginx", "nginx.conf"), ("haproxy", "haproxy.cfg")]
)
def test_the_page_shows_what_is_tested(language: str, name: str) -> None:
    page = (ROOT / "docs" / "http.md").read_text("utf-8")
    shown = page.partition(f"```{language}\n")[2].partition("```")[0].splitlines()
    tested = [line.strip() for line in (EXAMPLES / name).read_text().splitlines()]
    assert len(shown) > 2
    assert [line for line in shown if line.strip() not in tested] == []


# --- Who the client is ---------------------------------------------------------------------------


def test_the_worker_sees_the_client(client: Client) -> None:
    answer = client.ask(request("GET", "/client"))
    assert seen(answer) == expected()
    assert json.loads(answer.body)["root"] == "http://shop.example:8080/"


@pytest.mark.parametrize("name", ["nginx-tls", "haproxy-tls", "tunnel-tls"])
def test_the_scheme_is_the_clients(ways: dict[str, Way], name: str) -> None:
    """TLS ends at the proxy."""
    with ways[name].client() as client:
        answer = client.ask(request("GET", "/client", ("X-Forwarded-Proto", "http")))
        assert seen(answer) == expected("https")
        assert json.loads(answer.body)["root"] == "https://shop.example:8080/"
        assert client.ask(request("POST", "/raw", body=UPLOAD[:100000])).status == 200


def test_a_client_cannot_forge_who_it_is(client: Client) -> None:
    forged = (
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Forwarded-For", "127.0.0.1, 6.6.6.6"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Port", "666"),
        ("X-Forwarded-Ssl", "on"),
        ("X-Real-IP", "6.6.6.6"),
        ("Forwarded", "for=6.6.6.6;proto=https;host=evil.example"),
        ("X_Forwarded_For", "6.6.6.6"),
        ("Connection", "keep-alive, x-forwarded-for, X-Forwarded-Proto, x-forwarded-host, host"),
    )
    assert seen(client.ask(request("GET", "/client", *forged))) == expected()


def test_a_client_cannot_take_away_what_its_proxy_adds(way: Way, client: Client) -> None:
    """X-Hop stands for any field that the proxy may have added: haproxy passes Connection on."""
    fields = (("Connection", "keep-alive, X-Hop"), ("X-Hop", "proxy's"))
    told = seen(client.ask(request("GET", "/client", *fields)))
    # In a tunnel it is the client alone that speaks HTTP (RFC 9110 7.6.1).
    assert told == {**expected(), **({"HTTP_X_HOP": "proxy's"} if way.http else {})}


def test_a_client_of_the_relay_itself_cannot_either(ways: dict[str, Way]) -> None:
    port = ways["nginx"].upstream
    assert port is not None
    with contextlib.closing(Client(port)) as client:
        forged = (("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Proto", "https"))
        assert seen(client.ask(request("GET", "/client", *forged))) == expected()


# --- Everything passes ---------------------------------------------------------------------------


def connections(port: int) -> set[str]:
    """Ends of connections to the port of this machine, as far as the kernel knows them."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return {field[1] for field in fields if field[2] == f"0100007F:{port:04X}"}


def test_connections_to_the_relay_are_kept(way: Way, client: Client) -> None:
    assert client.ask(request("GET", "/say/first")).status == 200
    before = connections(way.upstream) if way.upstream is not None else set()
    for number in range(20):
        answer = client.ask(request("GET", f"/say/{number}"))
        assert json.loads(answer.body)["word"] == str(number)
    if way.upstream is not None:
        assert before
        assert connections(way.upstream) <= before


def test_uploads_in_chunks(client: Client) -> None:
    for blocks in ([b"a" * 70000, b"\x00\xff\r\n", UPLOAD[:300000]], [], [b"x"] * 300):
        head = request("PUT", "/raw", ("Transfer-Encoding", "chunked"))
        body = b"".join(b"%x\r\n%b\r\n" % (len(block), block) for block in (*blocks, b""))
        answer = client.ask(head + body)
        whole = b"".join(blocks)
        assert json.loads(answer.body) == {"method": "PUT", **flask_app.digest(whole)}


def test_large_bodies_both_ways(client: Client) -> None:
    answer = client.ask(request("POST", "/mirror", body=UPLOAD))
    same = answer.body == UPLOAD
    assert same
    same = client.ask(request("GET", "/large")).body == flask_app.LARGE
    assert same
    assert client.ask(request("GET", "/say/next")).status == 200


def test_a_body_that_is_too_large(way: Way) -> None:
    """Refused by its length alone, by the proxy or by the relay."""
    with way.client() as client:
        client.send(request("POST", "/raw", ("Content-Length", str(20 * 1024 * 1024))))
        assert client.answer(method=b"POST").status == 413


@pytest.mark.parametrize("target", ["/file", "/large", "/stream", "/nothing"])
def test_head(client: Client, target: str) -> None:
    head = client.ask(request("HEAD", target))
    body = client.ask(request("GET", target))
    assert head.status == body.status
    assert head.body == b""
    assert head.one("content-length") in (None, str(len(body.body)))
    if target != "/stream":
        assert head.one("content-length") == body.one("content-length")
    assert client.ask(request("GET", "/say/next")).status == 200


def test_ranges_and_conditions(client: Client) -> None:
    whole = flask_app.LARGE[:10000]
    for field, status, content, part in (
        ("bytes=100-299", 206, "bytes 100-299/10000", whole[100:300]),
        ("bytes=9990-", 206, "bytes 9990-9999/10000", whole[9990:]),
        ("bytes=-7", 206, "bytes 9993-9999/10000", whole[-7:]),
        ("bytes=20000-", 416, "bytes */10000", None),
    ):
        answer = client.ask(request("GET", "/file", ("Range", field)))
        assert (answer.status, answer.one("content-range")) == (status, content)
        assert part is None or answer.body == part
    tagged = client.ask(request("GET", "/file", ("Range", "bytes=0-9"), ("If-Range", '"other"')))
    assert (tagged.status, tagged.body) == (200, whole)
    tagged = client.ask(request("GET", "/file", ("If-None-Match", '"fixed-etag"')))
    assert (tagged.status, tagged.one("etag"), tagged.body) == (304, '"fixed-etag"', b"")


def test_errors_of_the_relay_pass(client: Client) -> None:
    answer = client.ask(request("GET", "/nobody/", ("Accept", "application/problem+json")))
    assert answer.status == 503
    assert int(answer.one("retry-after") or 0) > 0
    assert answer.one("content-type") == "application/problem+json"
    assert json.loads(answer.body)["status"] == 503
    assert client.ask(request("GET", "/abort/503")).status == 503
    assert client.ask(request("GET", "/say/next")).status == 200


def test_a_request_to_upgrade_is_an_ordinary_one(client: Client) -> None:
    """RFC 9110 7.8: a server may ignore it; there is no way for a WebSocket through a queue."""
    answer = client.ask(
        request(
            "GET",
            "/client",
            ("Connection", "Upgrade, X-Hop"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        )
    )
    assert seen(answer) == expected()
    assert answer.one("upgrade") is None
    assert client.ask(request("GET", "/say/next")).status == 200


def test_a_streamed_answer_arrives_while_it_is_made(
    way: Way, valkey: ValkeyServer, client: Client
) -> None:
    server = valkey.client()
    client.send(request("GET", "/played/"))
    found = server.blpop(["resque:queue:played"], timeout=int(PATIENCE))
    assert found is not None
    taken = json.loads(found[1])["args"][0]

    def push(**frame: object) -> None:
        server.rpush(taken["reply_to"], json.dumps({"node_id": taken["node_id"], **frame}))

    push(status=200, headers={"Content-Type": "text/event-stream"}, body="data: 1\n", more=True)
    # Nothing more is pushed before this has arrived.
    lines: list[bytes] = []
    while not lines or b"data: 1" not in lines[-1]:
        lines.append(client.line())
        assert lines[-1], lines
    assert lines[0].startswith(b"HTTP/1.1 200 ")
    push(body="data: 2\n", more=True)
    while b"data: 2" not in lines[-1]:
        lines.append(client.line())
        assert lines[-1], lines
    push(body="data: 3\n")
    while lines[-1].strip() != b"0":
        lines.append(client.line())
        assert lines[-1], lines
    assert b"data: 3\n" in b"".join(lines)
    assert client.line() == b"\r\n"
    assert client.ask(request("GET", "/say/next")).status == 200


def test_each_of_many_clients_gets_its_own_answer(way: Way) -> None:
    def ask(number: int) -> list[str]:
        with way.client() as client:
            return [
                json.loads(client.ask(request("GET", f"/say/{number}-{turn}")).body)["word"]
                for turn in range(5)
            ]

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(ask, range(30)))
    assert answers == [[f"{number}-{turn}" for turn in range(5)] for number in range(30)]
