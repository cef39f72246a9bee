"""Every request of the corpus, sent to the relay and to the status listener of a real daemon."""

import json
import re
import socket
import threading
from collections.abc import Iterator

import pytest

from queuerelay.wire.reply import encode_reply
from tests.helpers.ports import free_port
from tests.helpers.strict import CONTINUE, parse
from tests.helpers.waiting import PATIENCE
from tests.hostile.corpus import CASES, NEXT, Case
from tests.integration.status.place import listening

#: Ends each connection, so that everything that is answered can be read.
LAST = b"GET /last HTTP/1.1\r\nHost: last\r\nConnection: close\r\n\r\n"
STATUS_LINE = re.compile(rb"HTTP/1\.1 \d{3} ")
#: What is not complete waits for more, and some cases have limits of their own: the unit tests
#: look at these.
WHOLE = [
    case for case in CASES if case.status != 0 and case.limits is None and case.max_body == 1000
]
#: One that names another host is read with its body by the relay alone.
POSTED = b"POST / HTTP/1.1\r\nHost: a\r\n"
REFUSED = [case for case in WHOLE if case.status is not None]


class Echo(threading.Thread):
    """A worker that answers each request with its target, and keeps what it saw."""

    def __init__(self, client) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._over = threading.Event()
        self.seen: list[tuple[str, str]] = []

    def run(self) -> None:
        while not self._over.is_set():
            popped = self._client.lpop("resque:queue:requests", 100)
            if popped is None:
                popped = [one[1] for one in [self._client.blpop("resque:queue:requests", 1)] if one]
            for raw in popped:
                self._answer(raw)

    def _answer(self, raw: bytes) -> None:
        taken = json.loads(raw)["args"][0]
        self.seen.append((taken["method"], taken["url"]))
        reply = encode_reply(node_id=taken["node_id"], body=taken["url"].encode())
        self._client.rpush(taken["reply_to"], reply)

    def stop(self) -> None:
        self._over.set()
        self.join()


@pytest.fixture
def echo(fresh_valkey) -> Iterator[Echo]:
    one = Echo(fresh_valkey.client())
    one.start()
    yield one
    one.stop()


def everything(port: int, data: bytes) -> bytes:
    """What the other side sends until it closes."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.sendall(data)
        with connection.makefile("rb") as file:
            return file.read().replace(CONTINUE, b"")


def _methods(case: Case) -> list[str]:
    methods = [seen.method for seen in case.seen]
    if case.status is not None:
        # The body of a refusal is left out where HEAD was asked for; that is none of these.
        return [*methods, "GET"]
    return methods if case.closes else [*methods, "GET", "GET"]


def test_each_is_judged_by_the_relay_and_nothing_behind_a_refusal_is_read(relay, echo):
    one = relay("--max-body", "1000")
    wrong = []
    for case in WHOLE:
        echo.seen.clear()
        raw = everything(one.port, case.data + NEXT + LAST)
        try:
            statuses = [response.status for response in parse(raw, _methods(case))]
        except AssertionError as error:
            wrong.append(f"{case.name}: {error}")
            continue
        expected = [(seen.method, seen.target) for seen in case.seen]
        if case.status is None and not case.closes:
            expected += [("GET", "/next"), ("GET", "/last")]
        ends = [] if case.status is None else [case.status]
        if statuses != [200] * len(expected) + ends or echo.seen != expected:
            wrong.append(f"{case.name}: {statuses}, a worker saw {echo.seen}")
    assert wrong == []


def test_the_status_listener_lets_none_of_them_through(daemon, fresh_valkey):
    port = free_port()
    daemon(
        *("--redis", fresh_valkey.url, "--role", "relay,status", "--deadline", "0.2"),
        *("--status", f"tcp:{port}:interface=127.0.0.1"),
    ).ready()
    listening(port)
    wrong = []
    for case in REFUSED:
        raw = everything(port, case.data + NEXT + LAST)
        # It judges heads as the relay does, and refuses what names another host before its body.
        expected = (
            {case.status, 403} if case.seen or case.data.startswith(POSTED) else {case.status}
        )
        try:
            statuses = [
                response.status for response in parse(raw, ["GET"] * len(STATUS_LINE.findall(raw)))
            ]
        except AssertionError as error:
            wrong.append(f"{case.name}: {error}")
            continue
        if not set(statuses) <= expected:
            wrong.append(f"{case.name}: {statuses}")
    assert wrong == []
