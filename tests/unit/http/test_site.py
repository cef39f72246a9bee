"""The hardened Site: what it closes beside what the corpus shows, and what it leaves alone."""

import pytest
from twisted.internet import error
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from queuerelay.config import Config, RelayConfig
from queuerelay.http.channel import LINGER
from queuerelay.http.connections import SURPLUS, SWEEP, ClientLimits
from queuerelay.http.site import Site
from queuerelay.relay.limits import client_limits
from queuerelay.relay.resource import RelayResource
from queuerelay.service import RelayService
from queuerelay.testing import MemoryBroker
from tests.helpers.strict import CONTINUE, chunked, request
from tests.unit.relay.stage import Connection


class Echo(Resource):
    """Answers with what it was sent; or never."""

    isLeaf = True

    def __init__(self):
        super().__init__()
        self.seen = []

    def render(self, request):
        self.seen.append(request)
        if request.uri == b"/never":
            return NOT_DONE_YET
        request.setHeader(b"content-type", b"text/plain")
        return request.content.read() + b"|" + b",".join(sorted(request.args))


@pytest.fixture
def echo():
    return Echo()


@pytest.fixture
def connect(stage, echo):
    """Connects to a Site with the given arguments."""

    def connect(*sites, **arguments):
        site = sites[0] if sites else Site(echo, reactor=stage.clock, **arguments)
        connection = Connection(stage, site.buildProtocol(None))
        connection.site = site
        stage.connections.append(connection)
        return connection

    return connect


def test_an_answer_does_not_say_what_it_was_made_by(connect):
    response = connect().send(request("POST", "/", body=b"abc")).response("POST")
    assert (response.status, response.body) == (200, b"abc|")
    assert response.get("server") == b"queuerelay"


@pytest.mark.parametrize("parsed", [False, True])
def test_forms_are_parsed_only_where_that_is_asked_for(connect, parsed):
    arguments = {"parsePOSTFormSubmission": True} if parsed else {}
    connection = connect(**arguments).send(
        request("POST", "/", ("Content-Type", "application/x-www-form-urlencoded"), body=b"a=1")
    )
    assert connection.response("POST").body == (b"a=1|a" if parsed else b"a=1|")


def test_a_form_that_is_none_is_400(connect):
    kind = ("Content-Type", "multipart/form-data; boundary=x")
    connection = connect(parsePOSTFormSubmission=True).send(
        request("POST", "/", kind, body=b"no part") + request("GET", "/smuggled")
    )
    response = connection.response("POST")
    assert (response.status, response.closes) == (400, True)


@pytest.mark.parametrize("coding", ["length", "chunks"])
def test_a_body_is_in_memory_however_large(connect, echo, monkeypatch, coding):
    monkeypatch.setattr("tempfile.TemporaryFile", None)
    body = b"x" * 300_000
    if coding == "length":
        data = request("POST", "/", body=body)
    else:
        data = request("POST", "/", ("Transfer-Encoding", "chunked"), body=chunked(body))
    connection = connect().send(*(data[n : n + 65536] for n in range(0, len(data), 65536)))
    assert connection.response("POST").body == body + b"|"
    assert connection.site.receiving == 0


def test_a_body_too_large_is_refused_before_it_comes(connect, echo):
    fields = [("Content-Length", "11"), ("Expect", "100-continue"), ("Accept", "application/json")]
    connection = connect(limits=ClientLimits(max_body=10)).send(request("POST", "/", *fields))
    response = connection.response("POST")
    assert (response.status, response.closes) == (413, True)
    assert response.get("content-type") == b"application/problem+json"
    assert response.get("server") == b"queuerelay"
    assert response.get("x-request-id")
    assert echo.seen == []


def test_bodies_together_are_bounded_until_their_answers(connect, stage):
    first = connect(max_bodies=15)
    first.send(request("POST", "/never", body=b"x" * 10))
    second = connect(first.site).send(request("POST", "/", body=b"x" * 10))
    assert second.response("POST").status == 503
    first.leave()
    second.leave()
    assert first.site.receiving == 0
    third = connect(first.site).send(request("POST", "/", body=b"x" * 10))
    assert third.response("POST").status == 200


def test_slow_and_idle_clients_are_sent_away(connect, stage):
    limits = ClientLimits(header_time=10.0, body_time=30.0, idle=60.0)
    head = connect(limits=limits).send(b"GET / HT")
    body, idle, never = (connect(head.site) for _ in range(3))
    body.send(request("POST", "/", ("Content-Length", "9")))
    never.send(request("GET", "/never"))
    stage.turn(10 + 2 * SWEEP)
    assert head.response().status == 408
    stage.turn(20)
    assert body.response("POST").status == 408
    stage.turn(30 + LINGER)
    assert idle.wire.disconnecting
    assert idle.raw == b""
    assert not never.wire.disconnecting


def test_beyond_the_limit_clients_are_told_and_then_closed(connect):
    served = connect(limits=ClientLimits(max_connections=1))
    told = [connect(served.site) for _ in range(SURPLUS)]
    assert {one.response().status for one in told} == {503}
    closed = connect(served.site)
    assert (closed.response().status, closed.wire.disconnecting) == (503, True)
    assert served.send(request()).response().status == 200


def test_who_waits_before_sending_is_told_to_go_on(connect):
    fields = [("Content-Length", "3"), ("Expect", "100-continue")]
    connection = connect().send(request("POST", "/", *fields))
    assert connection.raw == CONTINUE
    connection.send(b"abc")
    assert b"abc|" in connection.raw


@pytest.mark.parametrize(
    ("version", "option", "closes"),
    [("1.1", None, False), ("1.1", "close", True), ("1.0", "keep-alive", True)],
)
def test_a_connection_is_kept_where_both_want_it(connect, version, option, closes):
    fields = [] if option is None else [("Connection", option)]
    connection = connect().send(request("GET", "/", *fields, version=version))
    # Told to HTTP/1.0 too, which would close anyway.
    assert connection.raw.lower().count(b"connection: close") == closes
    assert connection.wire.disconnecting is closes


def test_resources_hear_of_clients_that_leave(connect, echo):
    connection = connect().send(request("GET", "/never"))
    left = []
    echo.seen[0].notifyFinish().addErrback(left.append)
    connection.leave()
    (failure,) = left
    assert isinstance(failure, Failure)
    assert failure.check(error.ConnectionDone)


def test_it_has_the_relay_among_its_resources(connect, stage):
    site = Site(RelayResource(stage.relay, max_body=1000), reactor=stage.clock)
    connection = connect(site).send(request("POST", "http://other/a?b", body=b"abc"))
    taken = stage.take()
    assert (taken["url"], taken["body"]) == ("/a?b", "abc")
    assert ["host", "other"] in taken["headers"]
    stage.reply(taken, body=b"done", headers=[("Server", "mine")])
    response = connection.response("POST")
    assert (response.body, response.get("server")) == (b"done", b"mine")


def test_a_connection_may_become_a_websocket(connect, stage):
    class Talk(Protocol):
        heard = b""
        lost = False

        def dataReceived(self, data):
            self.heard += data

        def connectionLost(self, reason):
            self.lost = True

    class Upgrade(Resource):
        isLeaf = True
        talk = Talk()

        def render(self, request):
            request.channel._protocolUpgradeForWebsockets(self.talk)
            return NOT_DONE_YET

    connection = connect(Site(Upgrade(), reactor=stage.clock)).send(request("GET"), b"\x81\x00")
    stage.turn(200)
    assert Upgrade.talk.heard == b"\x81\x00"
    assert not connection.wire.disconnecting
    connection.leave()
    assert Upgrade.talk.lost
    assert connection.site.connections.channels == set()


def test_http_1_1_is_what_is_spoken(connect):
    assert connect().site.acceptableProtocols() == [b"http/1.1"]


def test_a_service_makes_one_by_its_options(stage, echo):
    relay = RelayConfig(max_body=10, max_held_bytes=100, header_time=3.0, max_connections=7)
    service = RelayService(
        Config(relay=relay), reactor=stage.clock, broker=MemoryBroker(clock=stage.clock)
    )
    site = service.site(echo, parsePOSTFormSubmission=True)
    assert site.connections.limits == client_limits(relay)
    assert site.connections.settle() == 7
    assert site.max_bodies == 100
    assert site.resource is echo
