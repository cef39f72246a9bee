"""An unmodified node-resque worker answers requests of the relay."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.acceptance import flask_app
from tests.acceptance.stage import Client, get, post, request, staged
from tests.helpers.redis import ValkeyServer

pytestmark = pytest.mark.usefixtures("node_modules")


@pytest.fixture(scope="module")
def relay(
    node_modules: None, valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """Port of a relay with one node-resque worker on its queue."""
    with staged(valkey, tmp_path_factory.mktemp("node")) as stage:
        port = stage.relay()
        stage.node("worker.mjs", "requests").logged("ready")
        yield port


def echo(port: int, method: str, target: str, *headers: Any, body: bytes | None = None) -> Any:
    """The `args[0]` that perform() was called with."""
    with Client(port) as client:
        answer = client.ask(request(method, target, *headers, body=body))
    assert answer.status == 200
    assert answer.one("content-type") == "application/json"
    return json.loads(answer.body)


def test_a_get_arrives_with_query_and_fields(relay: int) -> None:
    target = "/echo?a=1&b=%C3%BC&a=2+3&c"
    seen = echo(relay, "GET", target, ("Accept", "text/html"), ("X-Latin", b"caf\xe9"))
    assert seen["url"] == target
    assert seen["method"] == "GET"
    assert seen["http_version"] == "1.1"
    assert seen["scheme"] == "http"
    assert seen["remote_addr"] == "127.0.0.1"
    assert seen["v"] == 1
    assert seen["deadline"] == pytest.approx(seen["accepted_at"] + 60)
    assert "body" not in seen
    assert "body_encoding" not in seen
    assert sorted(seen["headers"]) == [
        ["accept", "text/html"],
        ["host", "shop.example:8080"],
        ["via", "1.1 queuerelay"],
        ["x-forwarded-for", "127.0.0.1"],
        ["x-forwarded-host", "shop.example:8080"],
        ["x-forwarded-proto", "http"],
        ["x-latin", "café"],
        ["x-request-id", "acceptance-1"],
    ]


def test_repeated_fields_keep_number_and_order(relay: int) -> None:
    fields = (("X-Multi", "one"), ("Accept", "a/b"), ("X-Multi", "two, three"), ("x-multi", ""))
    seen = echo(relay, "GET", "/echo", *fields)
    multi = [value for name, value in seen["headers"] if name == "x-multi"]
    assert multi == ["one", "two, three", ""]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_text_body_arrives_as_text(relay: int, method: str) -> None:
    text = "Grüße, 世界 🙂 \u2028\x00\r\n"
    seen = echo(relay, method, "/echo", body=text.encode())
    assert seen["method"] == method
    assert (seen["body"], seen["body_encoding"]) == (text, "utf-8")


def test_an_empty_body_is_no_body(relay: int) -> None:
    assert "body" not in echo(relay, "POST", "/echo", body=b"")


def test_unicode_goes_through_and_comes_back(relay: int) -> None:
    text = "Grüße, 世界 🙂 \u2028 \\ \" '".encode()
    answer = post(relay, "/text", text)
    assert answer.status == 200
    # What a reply without headers has.
    assert answer.one("content-type") == "text/plain; charset=utf-8"
    assert answer.body == text


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(flask_app.EVERYTHING, id="every-byte"),
        pytest.param(b"\xff", id="one-byte"),
        pytest.param(flask_app.pattern(1_000_001), id="a-million-bytes"),
    ],
)
def test_bytes_go_through_and_come_back(relay: int, body: bytes) -> None:
    assert echo(relay, "POST", "/echo", body=body)["body_encoding"] == "base64"
    answer = post(relay, "/bytes", body)
    assert answer.status == 201
    assert answer.one("content-type") == "application/octet-stream"
    assert answer.one("content-length") == str(len(body))
    same = answer.body == body
    assert same


def test_status_and_fields_as_pairs(relay: int) -> None:
    answer = get(relay, "/pairs")
    assert answer.status == 202
    assert answer.one("content-type") == "text/html; charset=utf-8"
    assert answer.all("set-cookie") == ["a=1", "b=2; Path=/"]
    assert answer.one("x-between") == "café"
    assert answer.body == b"<p>pairs</p>"


def test_status_and_fields_as_an_object(relay: int) -> None:
    answer = get(relay, "/object")
    assert answer.status == 404
    assert answer.one("content-type") == "text/html"
    assert answer.all("set-cookie") == ["a=1", "b=2"]
    assert answer.one("x-one") == "one"
    assert answer.body == b"<p>object</p>"


def test_an_id_alone_is_an_answer(relay: int) -> None:
    answer = get(relay, "/bare")
    assert answer.status == 200
    assert answer.one("content-type") == "text/plain; charset=utf-8"
    assert answer.body == b""


def test_head_gets_the_length_and_no_body(relay: int) -> None:
    with Client(relay) as client:
        answer = client.ask(request("HEAD", "/pairs"))
        assert answer.status == 202
        assert answer.one("content-length") == str(len("<p>pairs</p>"))
        # Nothing of a body came after it.
        assert client.ask(request("GET", "/bare")).status == 200


def test_fifty_clients_at_once_each_get_their_own_answers(relay: int) -> None:
    def visit(number: int) -> list[bytes]:
        bodies = [f"client {number} round {turn}".encode() for turn in range(4)]
        with Client(relay) as client:
            return [
                body
                for body in bodies
                if client.ask(request("POST", "/text", body=body)).body == body
            ]

    with ThreadPoolExecutor(50) as clients:
        answered = list(clients.map(visit, range(50)))
    assert [len(bodies) for bodies in answered] == [4] * 50
