"""Actions, without HTTP: what is put on a queue, and what the log says of those that go wrong."""

import json

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from queuerelay.status.actions import actions
from queuerelay.status.route import StatusRequest, find
from queuerelay.status.status import Access, Status
from queuerelay.testing import MemoryBroker

TOKEN = "0123456789abcdef"
BIG = 12345678901234567890123


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def broker(clock):
    broker = MemoryBroker(clock=clock)
    broker.start()
    clock.advance(0)
    yield broker
    broker.stop()


@pytest.fixture
def act(tmp_path, broker, clock):
    """Does an action; gives its answer, or its Deferred."""
    path = tmp_path / "credentials"
    path.write_text(f"bearer deploy {TOKEN}\n")
    path.chmod(0o600)
    status = Status(broker, address="memory", clock=clock, access=Access(credentials=str(path)))
    routes = actions.routes(status)

    def act(path, body=b"", *, token=TOKEN, kind="application/json"):
        segments = tuple(path.split("/"))
        route, params, _ = find(routes, "POST", segments)
        fields = {"authorization": f"Bearer {token}", "content-type": kind, "host": "localhost"}
        asked = StatusRequest(
            method="POST", segments=segments, params=params, headers=fields, body=body, client="::1"
        )
        answering = route.handler(asked)
        for _ in range(3):
            clock.advance(0)
        return answering

    return act


def now(answering):
    found = []
    answering.addBoth(found.append)
    (answer,) = found
    return answer


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (f'{{"class":"J","args":[{BIG}]}}', "application/json"),
        (f"class=J&args=%5B{BIG}%5D", "application/x-www-form-urlencoded"),
    ],
)
def test_whole_numbers_keep_all_their_digits(act, broker, body, kind):
    assert now(act("queues/q/jobs", body.encode(), kind=kind)).status == 201
    claim = broker.store.claim(["q"], holder="h:1", lease=9.0)
    assert json.loads(claim.message)["args"] == [BIG]


@pytest.mark.parametrize(
    "args", ["[NaN]", "[1e400]", '["\\ud800"]', "[" * 2000 + "]" * 2000, "9" * 5000]
)
def test_what_is_no_json_to_everybody_is_refused(act, args):
    assert now(act("queues/q/jobs", f'{{"class":"J","args":{args}}}'.encode())).status == 400


def test_what_takes_too_long_is_in_the_log_too(act, broker, monkeypatch, log_lines):
    monkeypatch.setattr(broker.dead_letters, "retry_many", lambda which: Deferred())
    answering = act("failed/retry", b'{"all":true}')
    # As the resource does after its bound.
    answering.cancel()
    now(answering).trap(CancelledError)
    assert any("deploy from ::1: failed/retry: 503 not finished" in line for line in log_lines())


def test_a_line_of_the_log_is_short_whatever_is_asked(act, log_lines):
    assert act(f"jobs/{chr(1) * 9000}/stop", token="0" * 16).status == 401
    (line,) = [line for line in log_lines() if "action by nobody" in line]
    assert len(line) < 2000
    assert r"jobs/\x01\x01" in line


@pytest.mark.parametrize(
    "path", [f"jobs/{'1' * 257}/stop", "jobs/\x1b/stop", "queues/a\x9bb/pause"]
)
def test_names_that_are_none(act, path):
    assert now(act(path)).status == 400


def test_a_request_cannot_be_submitted(act, broker):
    body = json.dumps({"class": "RequestProcessor", "args": [{"remote_addr": "127.0.0.1"}]})
    answer = act("queues/requests/jobs", body.encode())
    answer = now(answer)
    assert answer.status == 400
    assert b"RequestProcessor" in answer.body
    assert broker.messages("requests") == []
