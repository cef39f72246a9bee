"""Requests that go through a real queue and come back."""

import json
import re

import pytest

from tests.helpers.strict import chunked
from tests.helpers.waiting import eventually


def test_a_request_is_answered(relay, worker):
    one = relay()
    client = one.connect().send("POST", "/things?x=1", ("X-Request-Id", "mine"), body=b"a=\xff")
    taken = worker.take()
    assert taken["url"] == "/things?x=1"
    assert taken["body_encoding"] == "base64"
    assert taken["remote_addr"] == "127.0.0.1"
    assert ["x-request-id", "mine"] in taken["headers"]
    worker.reply(taken, status=201, headers=[("content-type", "image/png")], body=b"\x89PNG\xff")
    response = client.response("POST")
    assert (response.status, response.body) == (201, b"\x89PNG\xff")
    assert response.get("x-request-id") == b"mine"
    # The connection is kept.
    client.send("GET", "/next")
    worker.serve()
    assert client.response().body == b"/next"


def test_a_large_body_goes_both_ways(relay, worker):
    one = relay()
    body = bytes(range(256)) * 20_000
    client = one.connect().send(
        "PUT", "/", ("Transfer-Encoding", "chunked"), body=chunked(body[:10], body[10:])
    )
    from queuerelay.wire.body import decode_body

    taken = worker.take()
    assert decode_body(taken["body"], taken["body_encoding"]) == body
    worker.reply(taken, body=body)
    assert client.response("PUT").body == body


@pytest.mark.parametrize("coding", ["length", "chunks"])
def test_a_body_that_is_too_large_is_refused_and_the_answer_arrives(relay, worker, coding):
    one = relay("--max-body", "1000")
    body = b"x" * 100_000
    fields = []
    if coding == "chunks":
        fields, body = [("Transfer-Encoding", "chunked")], chunked(*[body] * 10)
    client = one.connect().send("POST", "/", *fields, body=body)
    assert client.response("POST").status == 413
    assert client.at_end()
    assert worker.waiting() == 0


def test_what_is_malformed_is_400(relay):
    client = relay().connect().send_raw(b"nonsense\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
    response = client.response()
    assert response.status == 400
    assert response.get("x-request-id")
    assert client.at_end()


def test_at_the_deadline_503_off_the_queue_or_504_with_a_worker(relay, worker):
    one = relay("--deadline", "1")
    taken_by_a_worker = one.get("/taken")
    worker.take()
    nobody = one.get("/nobody")
    refused = nobody.response()
    assert (refused.status, refused.get("retry-after")) == (503, b"10")
    assert taken_by_a_worker.response().status == 504
    assert worker.waiting() == 0


def test_a_client_that_leaves_takes_its_request_off_the_queue(relay, worker):
    one = relay()
    clients = [one.get(f"/{number}") for number in range(5)]
    eventually(lambda: worker.waiting() == 5)
    for client in clients[1:4]:
        client.close()
    eventually(lambda: worker.waiting() == 2)
    urls = {worker.serve()["url"], worker.serve()["url"]}
    assert {clients[0].response().body.decode(), clients[4].response().body.decode()} == urls
    assert urls == {"/0", "/4"}


def test_replies_that_cannot_be_used_are_502_and_one_line_each_kind(relay, worker):
    one = relay()
    client = one.get("/bad")
    taken = worker.take()
    worker.redis.rpush(taken["reply_to"], b"garbage", b'{"node_id":"%b","status":7}' % taken["node_id"].encode())  # fmt: skip # noqa: E501
    assert client.response().status == 502
    client.send("GET", "/good")
    worker.serve()
    assert client.response().body == b"/good"
    assert one.log.count("bad-reply") == 1


def test_the_access_log_has_a_line_for_each_request(relay, worker, tmp_path):
    path = tmp_path / "access.log"
    one = relay("--access-log", str(path), "--max-body", "10")
    client = one.connect().send(
        "GET", "/a?b=%22", ("User-Agent", 'evil" 200 0'), ("Referer", "\xff"), ("X-Request-Id", "r")
    )
    worker.serve(body=b"12345")
    assert client.response().status == 200
    one.connect().send("POST", "/large", body=b"x" * 11).response("POST")
    leaves = one.get("/leaves")
    worker.take()
    leaves.close()
    text = eventually(lambda: text if (text := path.read_text()).count("\n") == 3 else None)
    first, second, third = text.splitlines()
    assert re.fullmatch(
        r"127\.0\.0\.1 - - \[../.../....:..:..:.. \+0000\] "
        r'"GET /a\?b=%22 HTTP/1\.1" 200 5 "\\xff" "evil\\x22 200 0" '
        r"queue=requests wait=- run=- total=\d+\.\d{3} end=answered id=r",
        first,
    )
    assert '"POST /large HTTP/1.1" 413 ' in second
    assert '"GET /leaves HTTP/1.1" 499 0 ' in third


def test_the_seeds_worker_answers_on_the_shared_list_for_any_relay(relay, worker):
    relays = [relay("--legacy-replies", "responses") for _ in range(2)]
    clients = {}
    for number in range(20):
        url = f"/caf%C3%A9/{number}"
        clients[url] = relays[number % 2].connect().send("GET", url, ("X-A", "b"))
    for _ in clients:
        # resque gives the worker args[0]; it deletes the URL, adds the body, and sends it all.
        args = worker.take()
        url = args.pop("url")
        args["body"] = url.replace("%", "%25") + "%20%FF%0A"
        worker.redis.rpush("responses", json.dumps(args))
    for url, client in clients.items():
        response = client.response()
        assert response.status == 200
        assert response.get("content-type") == b"text/plain; charset=utf-8"
        assert response.body == url.encode() + b" \xff\n"
    assert worker.redis.llen("responses") == 0


def test_without_the_option_the_shared_list_is_left_alone(relay, worker):
    one = relay()
    client = one.get("/")
    taken = worker.take()
    worker.redis.rpush("responses", json.dumps({"node_id": taken["node_id"], "body": "x"}))
    worker.reply(taken, body=b"inbox")
    assert client.response().body == b"inbox"
    assert worker.redis.llen("responses") == 1
