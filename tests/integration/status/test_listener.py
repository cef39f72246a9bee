"""What only real sockets show of the status listener: places over TLS, proxies, slow clients."""

import os
import socket
import ssl
import time
from contextlib import ExitStack, suppress

import pytest

from queuerelay.http.connections import SURPLUS
from queuerelay.status.listener import LIMITS
from tests.helpers.certificates import Authority
from tests.helpers.ports import free_port, listens
from tests.helpers.strict import read, request
from tests.helpers.waiting import PATIENCE, eventually
from tests.integration.status.place import listening

assert LIMITS.max_connections is not None
PLACES = LIMITS.max_connections
ALL = PLACES + LIMITS.spare + SURPLUS
TOKEN = "0123456789abcdef"


@pytest.fixture
def start(daemon, fresh_valkey):
    """Starts a daemon whose status listener is there; gives it and the port."""

    def start(kind, *options, more=""):
        port = free_port()
        endpoint = f"{kind}:{port}:interface=127.0.0.1{more}"
        one = daemon("--redis", fresh_valkey.url, "--status", endpoint, *options).ready()
        eventually(lambda: listens(port))
        return one, port

    return start


@pytest.fixture
def tls(start, tmp_path):
    """A daemon whose status listener speaks TLS, and what connects to it."""
    authority = Authority(tmp_path, "authority")
    pem = authority.issue("127.0.0.1")
    one, port = start("ssl", more=f":privateKey={pem}:certKey={pem}")
    context = ssl.create_default_context(cafile=str(authority.ca))

    def connect():
        plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
        try:
            return context.wrap_socket(plain, server_hostname="127.0.0.1")
        except OSError:
            plain.close()
            raise

    return one, connect


def asked(connection, target, method="GET", *fields):
    """The answer to a request."""
    connection.sendall(request(method, target, *fields).replace(b"example.org", b"localhost"))
    return answer(connection, method)


def answer(connection, method="GET"):
    with connection.makefile("rb") as file:
        return read(file, method)


def asked_anew(connect):
    """Asks on a connection that may end at any step."""
    with connect() as connection:
        return asked(connection, "/readyz")


def ended(connection, data):
    """Whether the other side closes instead of answering."""
    try:
        connection.sendall(data + request("GET", "/readyz"))
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def files(one):
    return len(os.listdir(f"/proc/{one.process.pid}/fd"))


def test_over_tls_the_places_are_bounded_and_nothing_is_lost(tls):
    one, connect = tls
    with connect() as first:
        eventually(lambda: asked(first, "/readyz").status == 200)
        assert asked(first, "/status.json").status == 200
    before = files(one)
    with ExitStack() as clients:
        taken = [clients.enter_context(connect()) for _ in range(PLACES)]
        with connect() as probe:
            assert asked(probe, "/readyz").status == 200
        with connect() as other:
            assert asked(other, "/metrics").status == 503
        spare = [clients.enter_context(connect()) for _ in range(LIMITS.spare)]
        told = [clients.enter_context(connect()) for _ in range(SURPLUS)]
        assert {answer(connection).status for connection in told[:5]} == {503}
        for _ in range(20):
            # Who hears nothing more than a close hears it at once, and nobody stays.
            with suppress(ConnectionError, ssl.SSLError, EOFError), connect() as beyond:
                assert asked(beyond, "/readyz").status == 503
        assert asked(taken[0], "/status.json").status == 200
        assert len(spare) == LIMITS.spare
    with connect() as again:
        eventually(lambda: files(one) <= before + 1)
        assert asked(again, "/status.json").status == 200
    assert "Traceback" not in one.log
    assert "Unhandled" not in one.log


def test_slow_clients_in_every_place_do_not_keep_probes_away(start):
    _, port = start("tcp")
    listening(port)
    with ExitStack() as clients:
        slow = []
        began = time.monotonic()
        for _ in range(PLACES):
            connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
            slow.append(clients.enter_context(connection))
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        while time.monotonic() - began < LIMITS.header_time / 2:
            for connection in slow:
                connection.sendall(b"x")
            for target in ("/healthz", "/readyz"):
                with socket.create_connection(("127.0.0.1", port), PATIENCE) as probe:
                    assert asked(probe, target).status == 200
            time.sleep(1.0)
        for connection in slow:
            assert answer(connection).status == 408
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as late:
        assert asked(late, "/status.json").status == 200


@pytest.fixture
def credentials(tmp_path):
    path = tmp_path / "credentials"
    path.write_text(f"bearer deploy {TOKEN}\n")
    path.chmod(0o600)
    return ("--status-credentials", str(path))


ACT = ("/failed/retry", "POST", ("Content-Length", "0"))


def test_a_trusted_proxy_is_believed(start, credentials):
    one, port = start("haproxy:tcp", "--trusted-proxies", "127.0.0.1", *credentials)
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as proxy:
        proxy.sendall(b"PROXY TCP4 203.0.113.9 10.0.0.2 1 2\r\n")
        assert asked(proxy, *ACT).status == 401
    eventually(lambda: "action by nobody from 203.0.113.9: failed/retry: 401" in one.log)
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as proxy:
        proxy.sendall(b"PROXY TCP4 \x1b[2J\x07 10.0.0.2 1 2\r\n")
        with pytest.raises((OSError, EOFError)):
            asked(proxy, *ACT)
    assert "\x1b" not in one.log
    assert one.log.count("action by") == 1


def test_nobody_else_is_believed(start, credentials):
    one, port = start("haproxy:tcp", *credentials)
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as stranger:
        assert ended(stranger, b"PROXY TCP4 203.0.113.9 10.0.0.2 1 2\r\n")
    assert "action by" not in one.log


def test_a_form_of_a_stranger_costs_nothing(start, credentials):
    """A MiB of empty parts: answered before it is sent, and never parsed."""
    one, port = start("tcp", *credentials)
    fields = (
        ("Content-Type", "multipart/form-data; boundary=x"),
        ("Content-Length", str(LIMITS.max_body)),
    )
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as stranger:
        stranger.sendall(request("POST", "/failed/retry", *fields))
        response = answer(stranger, "POST")
        assert (response.status, response.closes) == (403, True)
    assert "action by" not in one.log
