"""The status listener as an HTTP server: how many it serves, for how long, and what it reads."""

import pytest
from twisted.logger import globalLogPublisher
from twisted.web import http

from queuerelay.http.channel import LINGER
from queuerelay.http.connections import SURPLUS, SWEEP
from queuerelay.http.forwarded import Trust
from queuerelay.http.proxied import behind_proxy
from queuerelay.status.denial_log import QUIET
from queuerelay.status.guard import TRIES
from queuerelay.status.listener import LIMITS
from queuerelay.status.status import Access
from tests.helpers.strict import request
from tests.unit.relay.stage import Connection

TOKEN = "0123456789abcdef"
AUTHORIZED = ("Authorization", f"Bearer {TOKEN}")
FORM = ("Content-Type", "application/x-www-form-urlencoded")
#: Many parts in few bytes, which twisted.web takes a second for.
PARTS = b"--x\r\n\r\n\r\n" * 1000 + b"--x--\r\n"
assert LIMITS.max_connections is not None
PLACES = LIMITS.max_connections


@pytest.fixture
def connect(stage):
    """Connects to the listener of `stage`, or of another."""

    def connect(one=stage, **how):
        connection = Connection(one, one.site.buildProtocol(None), **how)
        one.connections.append(connection)
        return connection

    return connect


@pytest.fixture
def guarded(make_stage, tmp_path):
    """A stage where somebody may act."""
    path = tmp_path / "credentials"
    path.write_text(f"bearer deploy {TOKEN}\n")
    path.chmod(0o600)
    return make_stage(access=Access(credentials=str(path)))


def local(method, target, *fields, body=b"", host="localhost"):
    """A request as bytes."""
    return request(method, target, *fields, body=body).replace(b"example.org", host.encode(), 1)


# How many


def test_when_all_places_are_taken_probes_are_answered(connect):
    taken = [connect() for _ in range(PLACES)]
    taken[0].send(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
    for target in ("/healthz", "/readyz", "/healthz?x=1"):
        response = connect().send(local("GET", target)).response()
        assert (response.status, response.closes) == (200, True)
    for asked in (
        local("GET", "/status.json"),
        local("GET", "/healthz/deep"),
        local("POST", "/healthz", body=b"x"),
    ):
        connection = connect().send(asked)
        response = connection.response(asked.partition(b" ")[0].decode())
        assert (response.status, response.closes) == (503, True)
        assert response.get("retry-after") == b"5"


def test_connections_are_bounded_in_number(connect, log_lines):
    many = [connect() for _ in range(PLACES + LIMITS.spare)]
    assert not any(one.raw for one in many)
    told = [connect() for _ in range(SURPLUS)]
    assert {one.response().status for one in told} == {503}
    beyond = connect()
    assert (beyond.response().status, beyond.wire.disconnecting) == (503, True)
    for one in (*told, many.pop(), many.pop(0)):
        one.leave()
    assert connect().send(local("GET", "/readyz")).response().status == 200
    for one in many[: LIMITS.spare]:
        one.leave()
    assert connect().send(local("GET", "/stats.txt")).response().status == 200
    assert log_lines() == []


def test_a_place_to_spare_is_nobodys_for_long(connect, stage):
    for _ in range(PLACES):
        connect()
    idle = [connect() for _ in range(LIMITS.spare)]
    stage.clock.pump([SWEEP] * int((LIMITS.header_time + 1) / SWEEP))
    assert all(one.wire.lost for one in idle)
    assert connect().send(local("GET", "/readyz")).response().status == 200


def test_requests_are_not_logged_and_no_timer_runs_for_that(connect, stage):
    before = stage.clock.getDelayedCalls()
    events = []
    globalLogPublisher.addObserver(events.append)
    try:
        stage.site.doStart()
        assert stage.clock.getDelayedCalls() == before
        assert connect().send(local("GET", "/readyz")).response().status == 200
    finally:
        globalLogPublisher.removeObserver(events.append)
        stage.site.doStop()
    assert events == []


# How long


def test_who_sends_a_byte_a_second_is_told_after_the_time_for_a_head(connect, stage):
    slow = connect().send(b"GET / HTTP/1.1\r\nX-Slow: ")
    for _ in range(int(LIMITS.header_time) - 1):
        slow.send(b"x")
        stage.clock.advance(1.0)
    assert slow.raw == b""
    stage.clock.pump([1.0, SWEEP])
    response = slow.response()
    assert (response.status, response.closes) == (408, True)
    stage.clock.pump([LINGER, SWEEP, SWEEP])
    assert slow.wire.lost


def test_a_body_has_a_time_too(connect, guarded):
    head = local("POST", "/failed/retry", AUTHORIZED, ("Content-Length", "100"))
    slow = connect(guarded).send(head)
    for _ in range(int(LIMITS.body_time) + 1):
        slow.send(b"x")
        guarded.clock.advance(1.0)
    guarded.clock.pump([SWEEP, SWEEP])
    assert slow.response("POST").status == 408


def test_idle_connections_are_closed(connect, stage):
    idle = connect()
    used = connect().send(local("GET", "/readyz"))
    stage.clock.pump([1.0] * int(LIMITS.idle - 1))
    assert not idle.wire.lost
    stage.clock.pump([1.0, 1.0, SWEEP])
    assert idle.wire.lost
    assert used.wire.lost
    assert used.response().status == 200


# What is a request


@pytest.mark.parametrize(
    "data",
    [
        b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nX-Folded: a\r\n b\r\n\r\n",
        b"GET /readyz HTTP/1.1\nHost: localhost\n\n",
        b"GET /readyz HTTP/1.1\r\nHost: localhost\nX-Bare: 1\r\n\r\n",
        b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(connect, data):
    response = connect().send(data).response()
    assert (response.status, response.closes) == (400, True)


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 1048577\r\n\r\n",
        b"Content-Length: 99999999999\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n"
        + b"fffff\r\n"
        + b"x" * 0xFFFFF
        + b"\r\n"
        + b"2\r\nxx\r\n",
    ],
)
def test_bodies_are_bounded_before_they_are_there(connect, guarded, body):
    head = b"POST /failed/retry HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n"
    big = connect(guarded).send(head % TOKEN.encode() + body)
    assert big.raw.startswith(b"HTTP/1.1 413 ")
    assert big.raw.count(b"HTTP/1.1") == 1
    guarded.clock.pump([LINGER, SWEEP, SWEEP])
    assert big.wire.lost


# What is judged before a body is read


@pytest.mark.parametrize(
    ("target", "fields", "status", "host"),
    [
        ("/failed/retry", [AUTHORIZED], 403, "evil.example"),
        ("/failed/retry", [], 401, "localhost"),
        ("/failed/retry", [("Authorization", f"Bearer {TOKEN}x")], 401, "localhost"),
        ("/failed/retry", [("Origin", "http://x"), AUTHORIZED], 403, "localhost"),
        ("/status.json", [AUTHORIZED], 405, "localhost"),
        ("/nowhere", [AUTHORIZED], 404, "localhost"),
        ("/%ff", [AUTHORIZED], 404, "localhost"),
    ],
)
@pytest.mark.parametrize(
    "length", [("Content-Length", "1048576"), ("Transfer-Encoding", "chunked")]
)
def test_who_may_not_sends_no_body(connect, guarded, target, fields, status, host, length):
    fields = [*fields, length, ("Expect", "100-continue")]
    connection = connect(guarded).send(local("POST", target, *fields, host=host))
    response = connection.response("POST")
    assert (response.status, response.closes) == (status, True)
    # As without a body.
    assert response.get("content-security-policy")
    assert response.get("x-request-id")
    # And what follows is no second request.
    connection.send(local("GET", "/readyz"))
    assert len(connection.responses("POST")) == 1


def test_without_credentials_nobody_sends_a_body(connect):
    head = local("POST", "/failed/retry", AUTHORIZED, ("Content-Length", "9"))
    response = connect().send(head).response("POST")
    assert (response.status, response.closes) == (403, True)
    assert b"read-only" in response.body


def test_a_wrong_try_is_counted_and_noted_once(connect, guarded, log_lines):
    wrong = ("Authorization", f"Bearer {TOKEN}x")
    for _ in range(TRIES):
        head = local("POST", "/failed/retry", wrong, ("Content-Length", "9"))
        assert connect(guarded).send(head + b"x" * 9).response("POST").status == 401
    head = local("POST", "/failed/retry", wrong, ("Content-Length", "9"))
    assert connect(guarded).send(head).response("POST").status == 429
    assert [line.split(": ")[-1] for line in log_lines() if "action by nobody" in line] == [
        "401 credentials are needed",
        "429 too many wrong credentials",
    ]


def test_a_flood_of_denied_actions_is_few_lines(connect, guarded, log_lines):
    wrong = ("Authorization", f"Bearer {TOKEN}x")
    for number in range(80):
        for fields in ((), (wrong,)):
            head = local("POST", f"/queues/q{number}/pause", *fields, ("Content-Length", "0"))
            assert connect(guarded).send(head).response("POST").status in (401, 429)
    guarded.turn(QUIET + 0.1)
    lines = [line for line in log_lines() if "by nobody" in line]
    assert len(lines) == 4
    assert 2 + sum(int(line.split()[0]) for line in lines if " more by nobody" in line) == 160
    guarded.turn(2 * QUIET)
    assert len([line for line in log_lines() if "by nobody" in line]) == 4
    head = local("POST", "/queues/q/pause", ("Content-Length", "0"))
    connect(guarded).send(head)
    assert len([line for line in log_lines() if "by nobody" in line]) == 5


def test_an_error_of_ours_before_the_body_is_logged(connect, guarded, monkeypatch, logged_failures):
    def broken(ask, scope):
        raise KeyError("canary")

    monkeypatch.setattr(guarded.status.guard, "let", broken)
    head = local("POST", "/failed/retry", AUTHORIZED, ("Content-Length", "9"))
    response = connect(guarded).send(head).response("POST")
    assert (response.status, response.body) == (500, b"500: internal error\n")
    assert len(logged_failures.flush(KeyError)) == 1


def test_who_may_sends_a_form(connect, guarded):
    body = b"class=J&args=%5B1%5D"
    fields = (AUTHORIZED, FORM, ("Expect", "100-continue"), ("Content-Length", str(len(body))))
    connection = connect(guarded).send(local("POST", "/queues/q/jobs", *fields))
    assert connection.raw == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.wire.clear()
    response = connection.send(body).response("POST")
    assert (response.status, response.closes) == (201, False)


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("multipart/form-data; boundary=x", PARTS, 400),
        ("application/x-www-form-urlencoded", b"class=J&args=%5B1%5D", 201),
        ("application/x-www-form-urlencoded", b"a=1&" * 1001, 400),
    ],
)
def test_forms_are_not_twisted_webs_to_parse(connect, guarded, monkeypatch, kind, body, status):
    monkeypatch.setattr(http, "_getMultiPartArgs", None)
    monkeypatch.setattr(http, "parse_qs", None)
    asked = local("POST", "/queues/q/jobs", AUTHORIZED, ("Content-Type", kind), body=body)
    assert connect(guarded).send(asked).response("POST").status == status


# Behind the PROXY protocol


@pytest.fixture
def proxied(guarded):
    """Connects to the listener behind the PROXY protocol."""
    trust = Trust(["10.0.0.0/8"], ["x-forwarded-for"])
    factory = behind_proxy("haproxy:tcp:8080", guarded.site, trust=trust)

    def connect(client):
        connection = Connection(guarded, factory.buildProtocol(None), client=client)
        guarded.connections.append(connection)
        return connection

    return connect


LINE = b"PROXY TCP4 203.0.113.9 10.0.0.2 1 2\r\n"
ACT = local("POST", "/failed/retry", ("Content-Length", "0"))


def test_a_trusted_proxy_says_who_the_client_is(proxied, log_lines):
    response = proxied("10.0.0.2").send(LINE + ACT).response("POST")
    assert response.status == 401
    (line,) = [line for line in log_lines() if "action by" in line]
    assert "action by nobody from 203.0.113.9: failed/retry: " in line


@pytest.mark.parametrize(
    ("client", "line"),
    [
        ("192.0.2.1", LINE),
        ("10.0.0.2", b"PROXY TCP4 \x1b[2J\x07 10.0.0.2 1 2\r\n"),
        ("10.0.0.2", b""),
    ],
)
def test_nobody_else_is_believed(proxied, log_lines, client, line):
    connection = proxied(client).send(line + ACT)
    assert (connection.raw, connection.wire.aborted) == (b"", True)
    assert not [line for line in log_lines() if "action by" in line]
