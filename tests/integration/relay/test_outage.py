"""Redis away, gone under load and back; relays killed and started again."""

import signal

import pytest

from tests.helpers.daemon import Worker
from tests.helpers.ports import free_port
from tests.helpers.waiting import PATIENCE, eventually


def test_redis_is_not_there_at_the_start_and_comes_later(own_valkey, daemon):
    server = own_valkey()
    server.stop()
    one = daemon("--redis", server.tcp_url).ready()
    for _ in range(2):
        refused = one.get().response()
        assert (refused.status, refused.get("retry-after")) == (503, b"5")
    assert one.log.count("no connection to Redis") == 1
    assert one.log.count("answered 503 (redis-unavailable)") == 1
    server.start()
    worker = Worker(server.client())
    client = eventually(lambda: accepted(one, worker))
    worker.serve()
    assert client.response().body == b"/accepted"


def accepted(one, worker):
    """A client whose request is on the queue; None where it was refused."""
    client = one.get("/accepted")
    eventually(lambda: worker.waiting() or client.readable())
    return client if worker.waiting() else None


# Promise 4, Promise 3
def test_promise_4_redis_is_killed_under_load_and_everybody_held_is_answered(own_valkey, daemon):
    server = own_valkey("--appendonly", "yes", "--appendfsync", "always")
    one = daemon("--redis", server.tcp_url).ready()
    worker = Worker(server.client())
    held = {f"/{number}": one.get(f"/{number}") for number in range(50)}
    eventually(lambda: worker.waiting() == 50)
    taken = [worker.take() for _ in range(20)]
    for round_ in range(2):
        server.kill()
        refused = one.get("/new").response()
        assert (refused.status, refused.get("retry-after")) == (503, b"5")
        assert not any(client.readable() for client in held.values())
        server.start()
        worker = Worker(server.client())
        eventually(lambda: server.client().llen("resque:queue:requests") == 30)
        # A worker that is not ours was busy all the time, and answers now.
        for request in taken[10 * round_ : 10 * round_ + 10]:
            worker.reply(request, body=request["url"].encode())
            url = request["url"]
            assert held.pop(url).response().body == url.encode()
    for _ in range(30):
        worker.serve()
    for url, client in held.items():
        assert client.response().body == url.encode()
    # Nothing was pushed twice.
    assert worker.waiting() == 0
    client = eventually(lambda: accepted(one, worker))
    worker.serve()
    assert client.response().status == 200


# Promise 3
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_promise_3_redis_stops_answering_with_a_push_under_way(own_valkey, daemon, method):
    server = own_valkey()
    one = daemon("--redis", server.tcp_url, "--deadline", "20").ready()
    worker = Worker(server.client())
    # The first push on a connection is not like the others.
    first = one.get("/first")
    worker.serve()
    assert first.response().status == 200
    server.freeze()
    client = one.connect().send(method, "/unknown")
    eventually(lambda: "no answer in time" in one.log or "no connection" in one.log)
    server.thaw()
    # The frozen server had it in its buffers and takes it up now, or it is late and comes again: in
    # any case once.
    taken = worker.take()
    assert taken["url"] == "/unknown"
    worker.reply(taken, body=b"once")
    assert client.response(method).body == b"once"
    marker = one.get("/marker")
    assert worker.serve()["url"] == "/marker"
    assert marker.response().status == 200


# Promise 1
def test_promise_1_a_relay_is_killed_and_started_again_and_nobody_gets_an_old_reply(
    fresh_valkey, daemon
):
    port = free_port()
    worker = Worker(fresh_valkey.client())
    old = []
    for generation in range(3):
        one = daemon("--redis", fresh_valkey.url, port=port).ready()
        clients = {f"/{generation}/{number}": None for number in range(10)}
        for url in clients:
            clients[url] = one.get(url)
        eventually(lambda: worker.waiting() >= 10)
        taken = [worker.take() for _ in clients]
        # The old ones are answered now, into the old inbox and, by a mad worker, into the new one.
        for request in old:
            worker.reply(request, body=b"old")
            worker.reply({**request, "reply_to": taken[0]["reply_to"]}, body=b"old")
        assert len({request["reply_to"] for request in old} & {taken[0]["reply_to"]}) == 0
        if generation == 2:
            for request in reversed(taken):
                worker.reply(request, body=request["url"].encode())
            for url, client in clients.items():
                assert client.response().body == url.encode()
        else:
            assert not any(client.readable() for client in clients.values())
            one.signal(signal.SIGKILL)
            assert one.exit() == -signal.SIGKILL
        old += taken


def test_a_killed_daemon_leaves_no_embedded_server(daemon, tmp_path):
    from tests.helpers.processes import alive, children

    one = daemon("--redis", f"embedded:{tmp_path / 'data'}").ready()
    eventually(lambda: "embedded server" in one.log)
    (server,) = children(one.process.pid)
    one.signal(signal.SIGKILL)
    one.exit()
    eventually(lambda: not alive(server), PATIENCE)
