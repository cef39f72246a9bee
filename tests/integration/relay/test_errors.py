"""Errors of ours as clients of the real daemon see them."""

import json
import signal
import time

import pytest

from tests.helpers.waiting import eventually

FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
HTML, PROBLEM, TEXT = (
    b"text/html; charset=utf-8",
    b"application/problem+json",
    b"text/plain; charset=utf-8",
)


@pytest.fixture
def pages(tmp_path):
    directory = tmp_path / "pages"
    directory.mkdir()
    for status in (502, 503, 504):
        (directory / f"{status}.html").write_text(f"<h1>{status}</h1> sp\u00e4ter", "utf-8")
    return directory


def full(one, worker):
    """A client that is held, as the only one that may be."""
    waiting = one.get("/waiting")
    eventually(lambda: worker.waiting() == 1)
    return waiting


#: Accept, the type of an error where there are pages, and where there are none.
FORMS = [
    (None, TEXT, TEXT),
    ("*/*", TEXT, TEXT),
    (FIREFOX, HTML, TEXT),
    ("text/html;q=0.1, application/json;q=0.2", PROBLEM, PROBLEM),
    ("application/json, text/plain, */*", PROBLEM, PROBLEM),
    ("application/problem+json", PROBLEM, PROBLEM),
    ("image/png", TEXT, TEXT),
]


@pytest.mark.parametrize("paged", [True, False])
def test_an_error_is_in_the_form_that_is_asked_for(relay, worker, pages, paged):
    one = relay("--max-held", "1", *(("--error-pages", str(pages)) if paged else ()))
    waiting = full(one, worker)
    for accept, *kinds in FORMS:
        kind = kinds[0] if paged else kinds[1]
        fields = [("X-Request-Id", "r-1")] + ([("Accept", accept)] if accept is not None else [])
        client = one.get("/s3cr3t?s3cr3t", *fields)
        response = client.response()
        assert (response.status, response.get("content-type")) == (503, kind), accept
        assert response.get("cache-control") == b"no-store"
        assert response.get("retry-after") == b"5"
        assert response.get("x-request-id") == b"r-1"
        assert response.get("vary") is None
        if kind == PROBLEM:
            assert json.loads(response.body) == {
                "type": "about:blank",
                "title": "Service Unavailable",
                "status": 503,
                "detail": "too many requests are waiting",
                "request_id": "r-1",
            }
        elif kind == HTML:
            assert response.body == (pages / "503.html").read_bytes()
        else:
            assert response.body == b"503 Service Unavailable: too many requests are waiting.\n"
        # HEAD: the same fields, its length among them, and no body. The connection goes on.
        head = client.send("HEAD", "/", *fields).response("HEAD")
        assert head.headers[:3] == response.headers[:3]
        assert head.get("content-length") == b"%d" % len(response.body)
        assert client.send("HEAD", "/", *fields).response("HEAD").status == 503
    worker.serve()
    assert waiting.response().status == 200


def test_502_and_504_have_pages_and_a_workers_own_errors_do_not(relay, worker, pages):
    one = relay("--error-pages", str(pages), "--deadline", "1.5")
    browser = ("Accept", FIREFOX)
    bad = one.get("/bad", browser)
    taken = worker.take()
    worker.redis.rpush(
        taken["reply_to"], b'{"node_id":"%b","status":7}' % taken["node_id"].encode()
    )
    response = bad.response()
    assert (response.status, response.body) == (502, (pages / "502.html").read_bytes())
    late = one.get("/late", browser)
    worker.take()
    for status in (500, 502, 503, 504):
        own = one.get("/own", browser)
        headers = [("Content-Type", "text/html"), ("Retry-After", "77")]
        worker.reply(worker.take(), status=status, headers=headers, body=b"<p>mine")
        response = own.response()
        assert (response.status, response.body) == (status, b"<p>mine")
        assert response.all("content-type") == [b"text/html"]
        assert response.all("retry-after") == [b"77"]
        assert response.get("cache-control") is None
    response = late.response()
    assert (response.status, response.body) == (504, (pages / "504.html").read_bytes())
    assert response.get("retry-after") is None
    # What is malformed has no page, whoever asks.
    client = one.connect().send_raw(b"GET / HTTP/1.1\r\nAccept: text/html\r\nno colon\r\n\r\n")
    assert client.response().get("content-type") == TEXT


def test_what_a_pool_says_of_its_script_has_the_same_forms(relay, worker, pages, tmp_path):
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    config = tmp_path / "pools.toml"
    config.write_text(
        f"""
        [relay]
        error_pages = "{pages}"
        [[relay.route]]
        path = "/slow"
        queue = "slow"
        [[pool]]
        name = "failing"
        queues = ["requests"]
        command = ["false"]
        [[pool]]
        name = "slow"
        queues = ["slow"]
        command = ["{slow}"]
        timeout = 0.2
        tries = 1
        """
    )
    one = relay("--config", str(config))
    for target, status in (("/", 502), ("/slow", 504)):
        response = one.get(target, ("Accept", FIREFOX)).response()
        assert (response.status, response.body) == (
            status,
            (pages / f"{status}.html").read_bytes(),
        )
        response = one.get(target, ("Accept", "application/json")).response()
        assert (response.status, response.get("content-type")) == (status, PROBLEM)
        assert json.loads(response.body)["status"] == status
    assert "answered 502 (worker-failed)" in one.log
    assert "answered 504 (worker-timeout)" in one.log


def test_pages_are_read_again_on_sighup_and_stay_where_they_cannot_be(relay, worker, pages):
    one = relay("--max-held", "1", "--error-pages", str(pages))
    full(one, worker)

    def page():
        return one.get("/", ("Accept", "text/html")).response().body

    page_file = pages / "503.html"
    assert page() == page_file.read_bytes()
    page_file.write_bytes(b"<p>new")
    assert page() != b"<p>new"
    one.signal(signal.SIGHUP)
    eventually(lambda: page() == b"<p>new")
    page_file.write_bytes(b"")
    one.signal(signal.SIGHUP)
    eventually(lambda: "the pages for errors stay as they were" in one.log)
    assert "503.html: empty" in one.log
    assert page() == b"<p>new"


def test_times_go_to_the_client_behind_the_workers_own(relay, worker):
    one = relay()
    client = one.get("/")
    taken = worker.take()
    headers = [("Server-Timing", "db;dur=3")]
    worker.reply(taken, headers=headers, timing={"wait": 0.012, "run": 0.34})
    response = client.response()
    assert response.all("server-timing") == [b"db;dur=3", b"queue;dur=12, work;dur=340"]
    client.send("GET", "/")
    worker.reply(worker.take(), timing={"wait": -1, "run": "x"})
    assert client.response().all("server-timing") == []


def test_retry_after_grows_with_the_queue(relay, worker):
    one = relay("--deadline", "2")
    others = b'{"class":"Job","args":[]}'
    client = one.connect()

    def refused():
        response = client.send("GET", "/nobody").response()
        assert response.status == 503
        return int(response.get("retry-after"))

    def answer():
        """Answers one request while jobs of somebody else's wait on the same queue."""
        client.send("GET", "/")
        while (raw := worker.redis.lpop("resque:queue:requests")) == others:
            worker.redis.rpush("resque:queue:requests", raw)
        worker.reply(json.loads(raw)["args"][0])
        assert client.response().status == 200

    assert refused() == 10, "nothing was measured"
    worker.redis.rpush("resque:queue:requests", *[others] * 5)
    enough = time.monotonic() + 5
    while time.monotonic() < enough:
        answer()
    few = refused()
    worker.redis.rpush("resque:queue:requests", *[others] * 30_000)
    assert few <= 5
    assert refused() >= 10 * few
