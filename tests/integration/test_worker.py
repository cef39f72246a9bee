"""The real worker as a child process on a real server; the tests play the relay."""

import json
import os
import signal
import textwrap
import time
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from queuerelay.wire.keys import Keys
from queuerelay.wire.reply import decode_reply
from queuerelay.wire.url import parse
from queuerelay.worker.doorbell import LONGEST_WAIT, Doorbell
from queuerelay.worker.in_hand import InHand
from queuerelay.worker.lease import LeaseKeeper
from queuerelay.worker.link import Link, Outage
from queuerelay.worker.loop import WorkerLoop
from queuerelay.worker.master import MasterFinder
from queuerelay.worker.settings import WorkerSettings
from tests.helpers.waiting import PATIENCE, eventually
from tests.helpers.worker import APP, INBOX, Stage, Worker, stage

__all__ = ["stage"]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def own_stage(own_valkey, tmp_path):
    """On a server of its own, which may be harmed; it keeps its data over a restart."""
    stage = Stage(own_valkey("--appendonly", "yes", "--appendfsync", "always"), tmp_path)
    yield stage
    stage.remove()


SEVEN = {"failed_at", "payload", "exception", "error", "backtrace", "worker", "queue"}


def test_answers(stage):
    worker = stage.worker()
    for body in (b"", b"text", bytes(range(256))):
        node_id = stage.push("/a%20b%FF?q", method="POST", body=body)
        raw = stage.redis.blpop([INBOX], PATIENCE)[1]
        timing = json.loads(raw)["timing"]
        assert 0 <= timing["run"] < PATIENCE
        assert 0 <= timing["wait"] < PATIENCE
        reply = decode_reply(raw)
        assert reply.node_id == node_id
        assert reply.status == 201
        assert list(reply.headers) == [
            (b"Set-Cookie", b"a=1"),
            (b"X", b"\xe9"),
            (b"Set-Cookie", b"b=2"),
        ]
        assert reply.body == b"/a b\xff " + body + b" requests"
    stage.done()
    assert "203.0.113.5" not in worker.log


def test_an_unread_inbox_vanishes(stage):
    stage.worker()
    stage.push("/")
    eventually(lambda: stage.redis.llen(INBOX))
    assert 0 < stage.redis.ttl(INBOX) <= 3600


@pytest.mark.parametrize("reply_to", ["queuerelay:gate", "queuerelay:inbox:other", "resque:failed"])
def test_a_reply_goes_only_to_the_inbox_of_its_own_relay(stage, reply_to):
    stage.push("/", reply_to=reply_to)
    stage.worker()
    assert stage.reply(stage.push("/after")).status == 201
    stage.done()
    (entry,) = stage.failed()
    assert f"reply_to: '{reply_to}' is not 'queuerelay:inbox:test'" in entry["error"]
    assert stage.redis.llen(INBOX) == 0
    assert not stage.redis.exists("queuerelay:gate", "queuerelay:inbox:other")


def test_an_application_that_fails_gives_500_and_lives_on(stage):
    worker = stage.worker()
    for path in ("/raise", "/exit"):
        reply = stage.reply(stage.push(path))
        assert reply.status == 500
        assert b"secret" not in reply.body
    assert stage.reply(stage.push("/fine")).status == 201
    assert worker.log.count("ValueError: secret detail") == 1
    assert worker.log.count("Traceback") == 2
    assert worker.log.count(" ERROR ") == 2
    assert stage.failed() == []


def test_killed_amid_a_get_another_worker_answers(stage):
    first = stage.worker("--lease", "1")
    node_id = stage.push("/wait/go")
    stage.running("/wait/go")
    first.signal(signal.SIGKILL)
    first.exit()
    assert stage.in_flight() == [1, 1, 1]
    stage.allow("go")
    second = stage.worker("--lease", "1")
    assert stage.reply(node_id).body == b"/wait/go  requests"
    stage.done()
    assert [run[0] for run in stage.runs()] == [first.pid, second.pid]
    assert "retried 1, failed 0, dropped 0" in second.log


def test_killed_amid_a_post_the_client_gets_502(stage):
    first = stage.worker("--lease", "1")
    node_id = stage.push("/wait/go", method="POST")
    stage.running("/wait/go")
    first.signal(signal.SIGKILL)
    first.exit()
    stage.worker("--lease", "1")
    assert stage.reply(node_id).status == 502
    stage.done()
    assert len(stage.runs()) == 1
    (entry,) = stage.failed()
    assert set(entry) >= SEVEN
    assert entry["exception"] == "WorkerDied"
    assert f":{first.process.pid}:" in entry["worker"]


def test_a_busy_worker_reaps_for_the_others(stage):
    busy = stage.worker("--lease", "1")
    stage.push("/wait/late")
    stage.running("/wait/late")
    victim = stage.worker("--lease", "1")
    node_id = stage.push("/wait/never", method="POST")
    stage.running("/wait/never")
    victim.signal(signal.SIGKILL)
    victim.exit()
    assert stage.reply(node_id).status == 502
    # And has kept its own lease meanwhile.
    stage.allow("late")
    assert stage.reply().body == b"/wait/late  requests"
    assert "lost" not in busy.log
    stage.done()


def test_three_tries_in_all(stage):
    node_id = stage.push("/wait/never")
    for times in (1, 2, 3):
        worker = stage.worker("--lease", "0.5")
        stage.running("/wait/never", times)
        worker.signal(signal.SIGKILL)
        worker.exit()
    stage.worker("--lease", "0.5")
    assert stage.reply(node_id).status == 502
    (entry,) = stage.failed()
    assert len(entry["queuerelay"]["attempts"]) == 3
    assert len(stage.runs()) == 3


def test_a_lease_is_renewed_while_the_application_runs(stage):
    worker = stage.worker("--lease", "0.3")
    other = stage.worker("--lease", "0.3")
    node_id = stage.push("/wait/go", method="POST")
    stage.running("/wait/go")
    ((token, first),) = stage.redis.zrange("queuerelay:leases:requests", 0, -1, withscores=True)
    # Prolonged by more than three leases: without renewals it would have been taken over.
    eventually(lambda: stage.redis.zscore("queuerelay:leases:requests", token) > first + 900)
    stage.allow("go")
    assert stage.reply(node_id).status == 201
    assert "lost" not in worker.log + other.log


def test_sigterm_amid_a_request_finishes_it(stage):
    worker = stage.worker()
    node_id = stage.push("/wait/go")
    stage.running("/wait/go")
    unserved = stage.push("/other")
    worker.signal(signal.SIGTERM)
    stage.allow("go")
    assert worker.exit() == 0
    assert stage.reply(node_id).status == 201
    assert stage.in_flight() == [0, 0, 0]
    # What it had not begun is still there for others.
    (left,) = stage.redis.lrange("resque:queue:requests", 0, -1)
    assert unserved.encode() in left
    assert "stopped by SIGTERM: 1 requests answered" in worker.log


def test_a_second_signal_ends_it_at_once(stage):
    worker = stage.worker("--lease", "1")
    node_id = stage.push("/wait/never", method="POST")
    stage.running("/wait/never")
    worker.signal(signal.SIGTERM)
    eventually(lambda: _caught(worker.process.pid, signal.SIGTERM) is False)
    worker.signal(signal.SIGTERM)
    assert worker.exit() == -signal.SIGTERM
    stage.worker("--lease", "1")
    assert stage.reply(node_id).status == 502


def _caught(pid, number):
    """Whether the process has a handler for the signal."""
    return bool(int(_said_of(pid, "SigCgt"), 16) >> (number - 1) & 1)


def _state(pid):
    """Of a process, as ps shows it."""
    return _said_of(pid, "State")


def _said_of(pid, name):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return line.split()[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("queues", ["requests", "a,b,c"])
def test_an_idle_worker_stops_at_once(stage, number, queues):
    worker = stage.worker("--queues", queues)
    _peeking(stage, queues)
    worker.signal(number)
    # An idle worker that did not hear the signal would go on waiting.
    assert worker.exit(LONGEST_WAIT / 2) == 0


def _peeking(stage, queues):
    eventually(
        lambda: (
            sum(
                client["name"] == "queuerelay-worker-peek" and client["cmd"] == "blmove"
                for client in stage.redis.client_list()
            )
            == len(queues.split(","))
        )
    )


def test_a_signal_while_redis_is_frozen(own_stage):
    worker = own_stage.worker()
    _peeking(own_stage, "requests")
    own_stage.server.freeze()
    try:
        worker.signal(signal.SIGTERM)
        assert worker.exit() == 0
    finally:
        own_stage.server.thaw()


def test_started_before_redis_it_waits_for_it(own_stage):
    own_stage.server.stop()
    worker = own_stage.worker()
    eventually(lambda: "Redis does not do what is asked" in worker.log)
    own_stage.server.start()
    assert own_stage.reply(own_stage.push("/")).status == 201
    assert worker.log.count(" WARNING ") == 1
    assert worker.log.count("Redis is back") == 1


def test_stopped_while_redis_is_away(own_stage):
    own_stage.server.stop()
    worker = own_stage.worker()
    eventually(lambda: "Redis does not do what is asked" in worker.log)
    worker.signal(signal.SIGTERM)
    assert worker.exit() == 0


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_redis_restarted_under_an_idle_worker(own_stage, how):
    worker = own_stage.worker()
    assert own_stage.reply(own_stage.push("/before")).status == 201
    getattr(own_stage.server, how)()
    own_stage.server.start()
    assert own_stage.reply(own_stage.push("/after")).status == 201
    own_stage.done()
    assert worker.process.poll() is None


def test_redis_restarted_amid_a_request_the_reply_still_comes(own_stage):
    worker = own_stage.worker("--lease", "1")
    node_id = own_stage.push("/wait/go", method="POST")
    own_stage.running("/wait/go")
    own_stage.server.kill()
    own_stage.allow("go")
    # Its acknowledgement is tried again and again while nobody listens.
    eventually(lambda: worker.log.count("is not acknowledged yet") >= 2)
    own_stage.server.start()
    assert own_stage.reply(node_id).status == 201
    own_stage.done()
    assert own_stage.reply(own_stage.push("/next")).status == 201
    assert [run[2] for run in own_stage.runs()] == ["/wait/go", "/next"]
    assert "Redis is back" in worker.log


def test_scripts_flushed(stage):
    stage.worker()
    stage.reply(stage.push("/"))
    for _ in range(3):
        stage.redis.script_flush()
        assert stage.reply(stage.push("/")).status == 201
    stage.done()


def test_connections_killed_all_the_time_nothing_is_lost(stage):
    """Each request is answered, once; a POST is never answered 502 by a living worker."""
    workers = [stage.worker() for _ in range(2)]
    ids = set()
    names = {f"queuerelay-worker-{role}" for role in ("main", "lease", "peek")}
    for number in range(300):
        ids.add(stage.push(f"/{number}", method="POST"))
        if number % 3 == 0:
            for client in stage.redis.client_list():
                if client["name"] in names:
                    stage.redis.client_kill_filter(_id=client["id"])
    replies = [stage.reply() for _ in ids]
    assert {reply.status for reply in replies} == {201}
    assert {reply.node_id for reply in replies} == ids
    stage.done()
    assert stage.redis.llen(INBOX) == 0
    assert len(stage.runs()) == 300
    assert all(worker.process.poll() is None for worker in workers)


class LossyLink(Link):
    """Loses every third round trip: its commands, or only its answers."""

    calls = 0

    def _exchange(self, commands):
        LossyLink.calls += 1
        if self.calls % 6 == 0:
            raise RedisConnectionError("lost on the way there")
        answers = super()._exchange(commands)
        if self.calls % 6 == 3:
            raise RedisConnectionError("lost on the way back")
        return answers

    def delay(self):
        return min(0.01, super().delay())


class RestlessBell(Doorbell):
    """Needs no threads that watch: it rings at once, as often as `PATIENCE` has milliseconds."""

    waits = 0

    def wait(self):
        self.waits += 1
        assert self.waits < PATIENCE * 1000, "messages are missing"
        time.sleep(0.001)


def test_lost_answers_lose_and_double_nothing(fresh_valkey, tmp_path):
    """A claim or an acknowledgement whose answer is lost took effect all the same."""
    stage = Stage(fresh_valkey, tmp_path)
    runs = []

    def app(environ, start_response):
        runs.append(environ["PATH_INFO"])
        start_response("200 OK", [])
        return []

    ids = [stage.push(f"/{number}", method="POST", queue="ab"[number % 2]) for number in range(60)]
    settings = WorkerSettings(
        keys=Keys(),
        queues=("a", "b"),
        lease=60.0,
        holder="test:1",
        max_reply=1,
        requests=60,
    )
    master = MasterFinder(parse(fresh_valkey.url), keys=Keys())
    links = [kind(master, role="test", outage=Outage(), timeout=5.0) for kind in (LossyLink, Link)]
    keeper = LeaseKeeper(settings, links[1], tokens="t", clock=time.monotonic)
    WorkerLoop(app, settings, links[0], keeper, RestlessBell(), in_hand=InHand()).run()
    for link in links:
        link.close()
    assert len(runs) == 60
    assert sorted(stage.reply().node_id for _ in ids) == sorted(ids)
    assert stage.redis.llen(INBOX) == 0
    for queue in "ab":
        assert stage.in_flight(queue) == [0, 0, 0]


def test_past_its_deadline_it_is_skipped(stage):
    stage.push("/late", life=-1.0)
    node_id = stage.push("/in-time")
    worker = stage.worker()
    stage.reply(node_id)
    stage.done()
    assert [run[2] for run in stage.runs()] == ["/in-time"]
    assert stage.redis.llen(INBOX) == 0
    assert stage.failed() == []
    worker.signal(signal.SIGTERM)
    worker.exit()
    assert "1 requests answered, 1 skipped past their deadline" in worker.log


MALFORMED = [
    b"\xff\xfe",
    b"{}",
    b"[]",
    b'{"class":"RequestProcessor","args":[]}',
    b'{"class":"RequestProcessor","args":[{"node_id":"n"}]}',
    b'{"class":"RequestProcessor","args":[{"node_id":"n","url":"/","reply_to":"queuerelay:inbox:n","headers":5}]}',
    b'{"class":"SendMail","args":[1,"two"],"queue":"requests","id":"j-1"}',
]


def test_what_is_no_request_goes_to_the_failed(stage):
    for raw in MALFORMED:
        stage.redis.rpush("resque:queue:requests", raw)
    worker = stage.worker()
    assert stage.reply(stage.push("/after")).status == 201
    stage.done()
    entries = stage.failed()
    assert len(entries) == len(MALFORMED)
    for entry in entries:
        assert set(entry) == SEVEN | {"queuerelay"}
        assert entry["queue"] == "requests"
        assert entry["failed_at"].endswith(" UTC")
        assert set(entry["payload"]) == {"class", "args"}
        name, _, queues = entry["worker"].split(":")
        assert name.startswith("queuerelay.")
        assert queues == "requests"
    assert entries[0]["payload"]["args"] == ["\\xff\\xfe"]
    assert entries[-1]["payload"] == {"class": "SendMail", "args": [1, "two"]}
    assert entries[-1]["queuerelay"]["id"] == "j-1"
    assert worker.log.count("now in resque:failed") == len(MALFORMED)
    assert worker.log.count(" WARNING ") == len(MALFORMED)


def test_queues_in_order_of_priority(stage):
    for queue in ("c", "b", "a"):
        for number in range(3):
            stage.push(f"/{queue}{number}", queue=queue)
    stage.worker("--queues", "a,b,c")
    for _ in range(9):
        stage.reply()
    order = [f"/{queue}{number}" for queue in "abc" for number in range(3)]
    assert [run[2] for run in stage.runs()] == order


@pytest.mark.parametrize("queue", ["a", "b", "c"])
def test_an_idle_worker_hears_each_of_its_queues(stage, queue):
    stage.worker("--queues", "a,b,c")
    for _ in range(3):
        _peeking(stage, "a,b,c")
        assert stage.reply(stage.push("/", queue=queue)).status == 201


def test_an_idle_worker_does_not_poll(stage):
    """A peek each 2 s and a look for expired leases each 5 s, whatever the machine does."""
    stage.worker()
    stage.reply(stage.push("/"))
    _peeking(stage, "requests")
    claims = _claims(stage)
    before = stage.redis.info("commandstats")["cmdstat_blmove"]["calls"]
    eventually(lambda: stage.redis.info("commandstats")["cmdstat_blmove"]["calls"] >= before + 2)
    assert _claims(stage) == claims


def _claims(stage):
    """LPOPs so far: each claim tries one; nobody else does."""
    return stage.redis.info("commandstats").get("cmdstat_lpop", {"calls": 0})["calls"]


def test_a_frozen_worker_that_wakes_up_late_corrupts_nothing(stage):
    frozen = stage.worker("--lease", "1")
    node_id = stage.push("/wait/go")
    stage.running("/wait/go")
    os.kill(frozen.pid, signal.SIGSTOP)
    eventually(lambda: _state(frozen.pid) == "T")
    stage.allow("go")
    second = stage.worker("--lease", "1")
    assert stage.reply(node_id).status == 201
    stage.done()
    second.signal(signal.SIGTERM)
    second.exit()
    os.kill(frozen.pid, signal.SIGCONT)
    eventually(lambda: "its answer was dropped" in frozen.log)
    # It lives on; and its second answer went nowhere.
    assert stage.reply(stage.push("/next")).body == b"/next  requests"
    stage.done()
    assert stage.redis.llen(INBOX) == 0
    assert stage.failed() == []
    assert [run[0] for run in stage.runs()] == [frozen.pid, second.pid, frozen.pid]


def test_ends_after_so_many_requests(stage):
    worker = stage.worker("--requests", "2")
    stage.push("/late", life=-1.0)
    ids = [stage.push(f"/{number}") for number in range(3)]
    assert worker.exit() == 0
    assert [stage.reply().node_id for _ in range(2)] == ids[:2]
    assert stage.in_flight() == [0, 0, 0]
    assert stage.redis.llen("resque:queue:requests") == 1


def test_a_password_never_reaches_the_log(own_valkey, tmp_path):
    server = own_valkey("--requirepass", "s3cret")
    (tmp_path / "app.py").write_text(textwrap.dedent(APP))
    right = server.tcp_url.replace("redis://", "redis://:s3cret@")
    wrong = server.tcp_url.replace("redis://", "redis://:s3cret-not@")
    workers = [Worker(tmp_path, url) for url in (right, wrong)]
    try:
        for worker in workers:
            worker.ready()
        client = server.client(password="s3cret")
        eventually(
            lambda: any(one["name"] == "queuerelay-worker-peek" for one in client.client_list())
        )
        eventually(lambda: "Redis does not do what is asked" in workers[1].log)
        assert "WARNING" not in workers[0].log
        assert workers[1].process.poll() is None
        assert not any("s3cret" in worker.log for worker in workers)
    finally:
        for worker in workers:
            worker.remove()


def test_an_application_that_sets_up_logging_does_not_silence_the_worker(stage):
    app = (stage.directory / "app.py").read_text()
    (stage.directory / "app.py").write_text(
        "import logging.config\nlogging.config.dictConfig({'version': 1})\n" + app
    )
    worker = stage.worker()
    stage.reply(stage.push("/raise"))
    assert worker.log.count("ValueError: secret detail") == 1


def test_a_reply_list_of_another_type_stops_nobody(stage):
    stage.redis.set("queuerelay:inbox:odd", "x")
    stage.worker()
    stage.push("/", node="odd", reply_to="queuerelay:inbox:odd", life=2.0)
    assert stage.reply(stage.push("/next")).status == 201
    stage.done()
