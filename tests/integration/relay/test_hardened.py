"""What only real sockets show: early answers, TLS, open files, many slow clients at once."""

import os
import resource
import socket
import ssl
import time
from contextlib import suppress

import pytest

from queuerelay.http.connections import SURPLUS
from tests.helpers.certificates import Authority
from tests.helpers.daemon import Client
from tests.helpers.ports import free_port, listens
from tests.helpers.strict import read, request
from tests.helpers.waiting import PATIENCE, eventually

LARGE = 4 * 1024 * 1024


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "authority")


def tls(authority, port, *protocols):
    """A connection over TLS."""
    context = ssl.create_default_context(cafile=str(authority.ca))
    if protocols:
        context.set_alpn_protocols(list(protocols))
    plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
    # An end that TLS was not told of is an error, as it might be anybody's.
    return context.wrap_socket(plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False)


@pytest.fixture
def secure(relay, authority):
    """Starts a daemon that also listens for TLS; gives it and its port."""

    def start(*options):
        port = free_port()
        pem = authority.issue("127.0.0.1")
        one = relay(
            "--listen",
            f"ssl:{port}:privateKey={pem}:certKey={pem}:interface=127.0.0.1",
            *options,
        )
        eventually(lambda: listens(port))
        return one, port

    return start


def admitted(one, worker):
    """A client whose request is held, after as many tries as it takes."""

    def attempt():
        client = one.get("/admitted")
        eventually(lambda: client.readable() or worker.waiting())
        if worker.waiting():
            return client
        client.close()
        return None

    return eventually(attempt)


def upload(connection, head, size=LARGE):
    """Send `head` and as much of a body as the other side takes, then read the answer."""
    part = b"x" * 65536
    connection.sendall(head)
    sent = 0
    while sent < size:
        # A client that does not look for an answer before it has sent all.
        connection.sendall(part)
        sent += len(part)
    with connection.makefile("rb") as file:
        response = read(file, "POST")
        assert file.read(1) == b""
    return response


@pytest.mark.parametrize("endpoint", ["tcp", "unix", "ssl"])
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([("Content-Length", str(LARGE))], 413),
        ([("Transfer-Encoding", "chunked")], 400),
        ([("Content-Length", str(LARGE)), ("Expect", "x")], 417),
    ],
)
def test_an_early_answer_reaches_a_client_that_still_uploads(
    secure, authority, tmp_path, endpoint, fields, status
):
    # Its path may be too long for a socket's.
    path = os.path.relpath(tmp_path / "s")
    one, port = secure("--max-body", "100000", "--listen", f"unix:{tmp_path / 's'}")
    if endpoint == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        eventually(lambda: connection.connect_ex(path) == 0)
    elif endpoint == "ssl":
        connection = tls(authority, port)
    else:
        connection = socket.create_connection(("127.0.0.1", one.port), PATIENCE)
    with connection:
        response = upload(connection, request("POST", "/", *fields))
        assert (response.status, response.closes) == (status, True)


def test_tls_speaks_http_1_1_and_says_so(secure, authority, worker):
    _, port = secure()
    for offered in (["h2", "http/1.1"], ["http/1.1"]):
        with tls(authority, port, *offered) as connection:
            assert connection.selected_alpn_protocol() == "http/1.1"
            connection.sendall(request("GET", "/secure"))
            taken = worker.serve()
            assert taken["scheme"] == "https"
            assert read(connection.makefile("rb")).body == b"/secure"
    with tls(authority, port) as connection:
        assert connection.selected_alpn_protocol() is None


def test_beyond_the_limit_clients_are_refused_over_tls_too(secure, authority, worker):
    one, port = secure("--max-connections", "1")
    eventually(lambda: "max-connections 1 connections" in one.log)
    # While the connection that looked whether it listens is still counted, nobody gets in.
    served = admitted(one, worker)
    worker.serve()
    assert served.response().status == 200
    for _ in range(5):
        with tls(authority, port) as connection:
            response = read(connection.makefile("rb"))
            assert (response.status, response.closes) == (503, True)
    silent = [socket.socket() for _ in range(SURPLUS + 5)]
    try:
        for connection in silent:
            connection.connect(("127.0.0.1", port))
        with tls(authority, port) as connection:
            assert read(connection.makefile("rb")).status == 503
    finally:
        for connection in silent:
            connection.close()
    served.send("GET", "/served")
    worker.serve()
    assert served.response().status == 200


def test_without_open_files_clients_wait_and_nobody_suffers(relay, worker):
    one = relay("--max-connections", "100000")
    eventually(lambda: "max-connections 100000 connections" in one.log)
    served = one.connect().send("GET", "/one")
    worker.serve()
    assert served.response().status == 200
    used = len(os.listdir(f"/proc/{one.process.pid}/fd"))
    resource.prlimit(one.process.pid, resource.RLIMIT_NOFILE, (used + 8, used + 8))
    many = [Client(one.port) for _ in range(40)]
    served.send("GET", "/two")
    worker.serve()
    assert served.response().body == b"/two"
    for client in many:
        client.close()
    # The relay may not have seen yet that they are gone.
    again = admitted(one, worker)
    worker.serve()
    assert again.response().status == 200


# Promise 6
def test_promise_6_slow_clients_are_sent_away_and_good_ones_served(relay, worker):
    one = relay("--header-time", "1", "--body-time", "1")
    head = request("POST", "/", ("Content-Length", "100000"))
    slow = [one.connect().send_raw(data) for data in [b"GET / HT", head + b"x"] * 40]
    good = one.connect()
    served = 0
    end = time.monotonic() + PATIENCE
    while not all(client.readable() for client in slow):
        assert time.monotonic() < end
        for client in slow:
            if not client.readable():
                # It may be answered just now.
                client.send_raw(b"x")
        good.send("GET", f"/{served}")
        worker.serve()
        assert good.response().body == b"/%d" % served
        served += 1
    for client in slow:
        response = client.response("POST")
        assert (response.status, response.closes) == (408, True)
    assert served


@pytest.mark.parametrize("trusted", ["127.0.0.1", "10.0.0.0/8"])
def test_further_fields_are_believed_from_trusted_proxies_alone(relay, worker, trusted):
    one = relay("--trusted-proxies", trusted, "--proxy-fields", "X-Forwarded-User,Remote-User")
    client = one.get(
        "/", ("X-Forwarded-User", "ann"), ("Remote-User", "ann"), ("X_Forwarded_User", "eve")
    )
    said = [pair for pair in worker.serve()["headers"] if "user" in pair[0]]
    believed = [["remote-user", "ann"], ["x-forwarded-user", "ann"]]
    assert sorted(said) == (believed if trusted == "127.0.0.1" else [])
    assert client.response().status == 200


def test_promise_6_all_of_a_burst_beyond_the_limit_hear_503(relay, worker):
    one = relay("--max-connections", "4")
    # The connection that looked whether it listens may still be counted.
    clients = [socket.create_connection(("127.0.0.1", one.port), PATIENCE) for _ in range(105)]
    for client in clients:
        with suppress(ConnectionError):
            client.sendall(request())
    statuses = []
    for client in clients[4:]:
        with client, client.makefile("rb") as reader:
            statuses.append(read(reader).status)
    assert statuses == [503] * 101
    for client in clients[:4]:
        client.close()
