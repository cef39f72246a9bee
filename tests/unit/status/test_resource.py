"""The listener's manners: hosts, methods, headers, errors, and where it is mounted."""

import json

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.web.resource import Resource
from twisted.web.server import Site

from queuerelay.errors import NotConnected
from queuerelay.status.resource import MAX_BODY
from queuerelay.status.route import StatusResponse, StatusRoute
from tests.unit.relay.stage import Connection

PATHS = [
    "/",
    "/status.json",
    "/history.json",
    "/failures.json",
    "/metrics",
    "/stats.txt",
    "/healthz",
    "/readyz",
]


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_is_not_kept_and_not_guessed_at(stage, path):
    response = stage.ask(path)
    assert response.status == 200
    assert response.get("cache-control") == b"no-store"
    assert response.get("x-content-type-options") == b"nosniff"
    assert response.get("referrer-policy") in (b"no-referrer", b"same-origin")
    policy = response.get("content-security-policy")
    assert policy.startswith(b"default-src 'none'")
    assert b"frame-ancestors 'none'" in policy
    assert b"unsafe" not in policy
    head = stage.ask(path, "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert int(head.get("content-length")) > 0


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/status.json", b"application/json"),
        ("/failures.json", b"application/json"),
        ("/healthz", b"application/json"),
        ("/stats.txt", b"text/plain; charset=utf-8"),
        ("/metrics", b"text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_content_types(stage, path, kind):
    assert stage.ask(path).get("content-type") == kind


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
@pytest.mark.parametrize("path", PATHS)
def test_what_is_to_be_read_can_only_be_read(stage, method, path):
    response = stage.ask(path, method)
    assert response.status == 405
    assert response.get("allow") == b"GET, HEAD"


@pytest.mark.parametrize(
    "path",
    ["/x", "/status.json/", "//", "/status.json/x", "/%ff", "/STATUS.JSON", "/%2e%2e/metrics"],
)
def test_other_paths_are_not_there_and_not_echoed(stage, path):
    response = stage.ask(path)
    assert response.status == 404
    assert response.body == b"404: not found\n"


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8080", "LOCALHOST", "127.0.0.1", "127.0.0.1:8080"),
        *("10.1.2.3", "[::1]", "[::1]:8080", "[fe80::1]:80", "status.example.org"),
        *("Status.Example.ORG:8080",),
    ],
)
def test_hosts_that_are_served(make_stage, host):
    assert make_stage(hosts=["status.example.org"]).ask("/readyz", host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        *("", "evil.example", "localhost.evil.example", "evil.example:8080", "127.0.0.1.evil.com"),
        *("localhost@evil.com", "status.example.org.evil.com", "1.2.3", "[evil]", "x[::1]"),
        *("127.0.0.1:8080:80", "127.0.0.1\u00a0"),
    ],
)
def test_hosts_that_are_not(make_stage, host):
    stage = make_stage(hosts=["status.example.org"])
    response = stage.ask("/status.json", host=host)
    # A missing one is the parser's to refuse, an unknown one ours.
    assert response.status in (400, 403)
    assert b"evil" not in response.body


def test_two_hosts_are_none(stage):
    assert stage.ask("/readyz", "GET", ("Host", "localhost")).status in (400, 403)


def test_a_site_may_see_to_hosts_by_itself(make_stage):
    assert make_stage(hosts=None).ask("/readyz", host="any.example").status == 200


def test_mounted_below_a_site(stage):
    root, inner = Resource(), Resource()
    root.putChild(b"in ner", inner)
    inner.putChild(b"ops", stage.resource)
    stage.site.resource = root
    assert stage.ask("/in%20ner/ops/status.json").status == 200
    moved = stage.ask("/in%20ner/ops")
    assert moved.status == 308
    assert moved.get("location") == b"/in%20ner/ops/"
    assert stage.ask("/in%20ner/ops/").status == 200


def answer_with(stage, handler):
    stage.resource._routes.insert(0, StatusRoute(path="test", handler=handler))
    return stage.ask("/test")


def test_an_error_of_ours_is_logged_and_not_shown(stage, logged_failures):
    def broken(ask):
        raise KeyError("canary")

    response = answer_with(stage, broken)
    assert (response.status, response.body) == (500, b"500: internal error\n")
    assert len(logged_failures.flush(KeyError)) == 1


def test_redis_away_says_when_to_come_back(stage):
    response = answer_with(stage, lambda ask: fail(NotConnected("x")))
    assert response.status == 503
    assert response.get("retry-after") == b"5"


def test_an_answer_that_never_comes_ends(stage):
    stage.resource._routes.insert(0, StatusRoute(path="test", handler=lambda ask: Deferred()))
    asked = Connection(stage, stage.site.buildProtocol(None))
    stage.connections.append(asked)
    asked.send(b"GET /test HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert asked.raw == b""
    stage.turn(16.0)
    assert asked.response().status == 503


def test_a_client_that_leaves_before_its_answer(stage, log_lines):
    later = Deferred()
    stage.resource._routes.insert(0, StatusRoute(path="test", handler=lambda ask: later))
    asked = Connection(stage, stage.site.buildProtocol(None))
    asked.send(b"GET /test HTTP/1.1\r\nHost: localhost\r\n\r\n")
    asked.leave()
    later.callback(StatusResponse())
    stage.turn(1.0)
    assert log_lines() == []


def test_an_ask_has_what_was_asked(stage):
    asked = []

    def note(ask):
        asked.append(ask)
        return StatusResponse(status=201, body=b"x", headers={"Cache-Control": "private"})

    stage.resource._routes.insert(0, StatusRoute(path="a/{b}/c", handler=note))
    response = stage.ask("/a/%C3%A9%2F/c?x=1&x=2&y=%20z", "GET", ("X-Test", "1"))
    assert (response.status, response.get("cache-control")) == (201, b"private")
    (ask,) = asked
    assert (ask.params, ask.query) == ({"b": "é/"}, {"x": "1", "y": " z"})
    assert (ask.headers["x-test"], ask.root, ask.body) == ("1", "/", b"")
    assert ask.number("x", 7, 0, 9) == 1
    assert ask.number("y", 7, 0, 9) == 7
    assert stage.ask("/a//c").status == 404


def test_a_query_of_thousands_of_fields_is_none(stage):
    assert stage.ask("/failures.json?" + "&".join(f"a{n}=1" for n in range(900))).status == 200


def test_json_is_written_once_for_each_snapshot(stage):
    first, second = stage.ask("/status.json").body, stage.ask("/status.json").body
    assert first == second
    stage.turn(1.0)
    assert json.loads(stage.ask("/status.json").body)["at"] > json.loads(first)["at"]


def test_an_address_that_is_none_is_escaped_in_the_log(stage, log_lines):
    """A plain Site behind Twisted's own PROXY wrapper believes any text."""
    site = Site(stage.resource, reactor=stage.clock)
    connection = Connection(stage, site.buildProtocol(None), client="\x1b[2J\x07")
    stage.connections.append(connection)
    connection.send(b"POST /jobs/1/stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    assert connection.response("POST").status == 403
    (line,) = [line for line in log_lines() if "action by" in line]
    assert r"from \x1b[2J\x07: " in line


def test_in_a_plain_site_a_body_is_judged_as_well(make_stage):
    """There it comes parsed by that site, and the judge is not asked."""
    stage = make_stage()
    site = Site(stage.resource, reactor=stage.clock)
    for host, body, status in (
        ("evil.example", b"x", 403),
        ("localhost", b"x", 403),
        ("localhost", b"x" * (MAX_BODY + 1), 413),
    ):
        connection = Connection(stage, site.buildProtocol(None))
        stage.connections.append(connection)
        head = f"POST /jobs/1/stop HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.send(head.encode() + body)
        assert connection.response("POST").status == status
