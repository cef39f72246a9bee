"""SIGTERM: held requests are answered, new ones are not taken, and nothing is left."""

import signal
import sys

import pytest

from tests.helpers.daemon import Worker, run
from tests.helpers.ports import listens
from tests.helpers.processes import alive, children
from tests.helpers.waiting import eventually

#: twistd, which gets a signal as it is half-way up.
SIGNALLED = """
import os, signal, sys
from twisted.application import app
from twisted.internet import reactor
from twisted.scripts import twistd

number, moment = getattr(signal, sys.argv[1]), sys.argv[2]
kill = lambda *_: os.kill(os.getpid(), number)
if moment == "before":
    start = app.startApplication
    app.startApplication = lambda *args: (kill(), start(*args))
else:
    reactor.addSystemEventTrigger(moment, "startup", kill)
sys.argv = ["twistd", "-n", "--pidfile=", "queuerelay", *sys.argv[3:]]
twistd.run()
"""


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
# Before the services start, as the reactor takes the signals for itself, and as it runs.
@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_a_signal_during_the_start_ends_it_in_order(fresh_valkey, tmp_path, number, moment):
    options = ["--redis", fresh_valkey.url, "--role", "pool", "--worker", "/bin/cat"]
    command = [sys.executable, "-c", SIGNALLED, number, moment]
    done = run(*options, "--worker-queues", "a", cwd=tmp_path, command=command)
    assert (done.returncode, done.stderr) == (0, "")
    assert "stopped" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_answers_who_is_held(relay, worker, number):
    one = relay()
    held = one.get("/held")
    taken = worker.take()
    idle = one.connect().send("GET", "/idle")
    worker.serve()
    assert idle.response().status == 200
    node = eventually(lambda: worker.redis.zrange("queuerelay:nodes", 0, -1))
    one.signal(number)
    # An idle connection is closed at once, and nobody new gets in.
    assert idle.at_end()
    assert not listens(one.port)
    assert one.process.poll() is None
    worker.reply(taken, body=b"last")
    response = held.response()
    assert (response.status, response.body, response.closes) == (200, b"last", True)
    assert held.at_end()
    assert one.exit() == 0
    assert worker.redis.zrange("queuerelay:nodes", 0, -1) == []
    assert worker.redis.exists(taken["reply_to"], f"queuerelay:node:{node[0].decode()}") == 0
    assert "stopped" in one.log


def test_a_stop_without_anybody_held_is_over_at_once(relay, worker):
    one = relay()
    one.signal(signal.SIGTERM)
    assert one.exit() == 0


def test_what_is_held_after_the_drain_time_is_503_and_off_the_queue(relay, worker):
    one = relay("--drain", "0.3")
    clients = [one.get(f"/{number}") for number in range(3)]
    eventually(lambda: worker.waiting() == 3)
    worker.take()
    one.signal(signal.SIGTERM)
    for client in clients:
        response = client.response()
        assert (response.status, response.closes) == (503, True)
        assert response.get("retry-after") == b"1"
    assert one.exit() == 0
    assert worker.waiting() == 0


def test_a_second_signal_skips_to_the_503(relay, worker):
    one = relay("--drain", "600")
    client = one.get("/held")
    worker.take()
    one.signal(signal.SIGTERM)
    eventually(lambda: "stopping: 1 requests are held" in one.log)
    assert one.process.poll() is None
    one.signal(signal.SIGTERM)
    assert client.response().status == 503
    assert one.exit() == 0


def test_a_client_that_reads_slowly_gets_all_of_its_last_answer(relay, worker):
    one = relay()
    client = one.get("/large")
    body = bytes(range(256)) * 80_000
    taken = worker.take()
    one.signal(signal.SIGTERM)
    worker.reply(taken, body=body)
    eventually(lambda: not worker.redis.exists("queuerelay:nodes"))
    # The relay has left, and its client has read nothing yet.
    assert client.response().body == body
    assert one.exit() == 0


# Promise 6
def test_promise_6_a_client_that_reads_nothing_does_not_keep_it(relay, worker):
    one = relay("--drain", "0.5")
    client = one.get("/large")
    worker.serve(body=b"x" * 50_000_000)
    eventually(client.readable)
    one.signal(signal.SIGTERM)
    assert one.exit() == 0


def test_redis_is_away_at_the_stop(own_valkey, daemon):
    server = own_valkey()
    one = daemon("--redis", server.tcp_url, "--drain", "0.3").ready()
    client = one.get("/first")
    Worker(server.client()).serve()
    assert client.response().status == 200
    server.freeze()
    client.send("GET", "/held")
    one.signal(signal.SIGTERM)
    assert client.response().status == 503
    assert one.exit() == 0
    server.thaw()


def test_the_embedded_server_goes_with_its_daemon(daemon, short_dir, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(short_dir))
    one = daemon("--redis", "embedded").ready()
    eventually(lambda: "embedded server" in one.log)
    (server,) = children(one.process.pid)
    one.signal(signal.SIGTERM)
    assert one.exit() == 0
    assert not alive(server)
    assert [path for path in short_dir.iterdir() if path.name.startswith("queuerelay-")] == []
