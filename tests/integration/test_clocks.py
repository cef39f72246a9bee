"""Steps and skew of wall clocks, on real processes: whatever they say, everybody is answered."""

import json
import time
import urllib.request

import pytest

from tests.helpers.daemon import Client, daemon
from tests.helpers.ports import free_port
from tests.helpers.stepped import WallClock
from tests.helpers.waiting import eventually
from tests.helpers.worker import stage

__all__ = ["daemon", "stage"]

STEPS = (30.0, -30.0, 3600.0, -3600.0, 0.0)

SCRIPT = """#!/bin/sh
while [ "$PATH_INFO" = /held ] && [ ! -e go ]; do sleep 0.01; done
printf 'Content-Type: text/plain\\n\\n%s' "$PATH_INFO"
"""

CONFIG = """
redis = "{redis}"
[relay]
listen = ["tcp:{port}:interface=127.0.0.1"]
deadline = {deadline}
[[relay.route]]
path = "/pool/"
queue = "scripts"
[[pool]]
name = "scripts"
queues = ["scripts", "jobs"]
command = ["{script}"]
script_name = "/pool"
size = 2
[status]
listen = "tcp:{status}:interface=127.0.0.1"
"""


class Place:
    """A relay, a pool and a worker, each a process with a wall clock of its own."""

    def __init__(self, stage, daemon, directory, *, deadline=20.0, **ahead):
        self.stage, self.directory = stage, directory
        self.port, self.status = free_port(), free_port()
        script = directory / "answer.sh"
        script.write_text(SCRIPT)
        script.chmod(0o755)
        config = directory / "queuerelay.toml"
        config.write_text(
            CONFIG.format(
                redis=stage.server.url,
                port=self.port,
                status=self.status,
                script=script,
                deadline=deadline,
            )
        )
        self.clocks = {name: WallClock(directory, name) for name in ("relay", "pool", "worker")}
        for name, seconds in ahead.items():
            self.clocks[name].step(seconds)
        self.relay = daemon(
            *("--role", "relay,status", "--config", str(config)),
            port=self.port,
            listen=False,
            env=self.clocks["relay"].env,
        )
        self.pool = daemon(
            *("--role", "pool", "--config", str(config)),
            listen=False,
            env=self.clocks["pool"].env,
        )
        self.worker = stage.worker(env=self.clocks["worker"].env)
        self.relay.ready()
        self.clients = []

    def ask(self, target, method="GET"):
        client = Client(self.port)
        self.clients.append(client)
        return client.send(method, target)

    def asked(self):
        """Clients of both kinds of workers, each with its method."""
        return [
            (method, self.ask(target, method))
            for target in ("/a", "/pool/b")
            for method in ("GET", "POST", "GET")
        ]

    def answered(self):
        return _statuses(self.asked())

    def health(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.status}/status.json") as answer:
            return json.load(answer)

    def close(self):
        for client in self.clients:
            client.close()


def _statuses(asked):
    return [client.response(method).status for method, client in asked]


@pytest.fixture
def place(stage, daemon, tmp_path):
    made = []

    def make(**how):
        made.append(Place(stage, daemon, tmp_path, **how))
        return made[-1]

    yield make
    for one in made:
        one.close()


ALL = [201, 201, 201, 200, 200, 200]


def test_promise_6_a_step_of_a_wall_clock_costs_nobody_an_answer(place):
    here = place()
    assert here.answered() == ALL
    for name, clock in here.clocks.items():
        for seconds in STEPS:
            # Two are held while the clock is set, one by each kind of worker.
            (here.directory / "go").unlink(missing_ok=True)
            (here.directory / "slow").unlink(missing_ok=True)
            held = here.ask("/pool/held"), here.ask("/wait/slow")
            eventually(lambda: here.stage.in_flight("scripts")[0] == 1)
            eventually(lambda: here.stage.in_flight()[0] == 1)
            clock.step(seconds)
            (here.directory / "go").touch()
            asked = here.asked()
            here.stage.allow("slow")
            assert [one.response().status for one in held] == [200, 201], (name, seconds)
            assert _statuses(asked) == ALL, (name, seconds)


def test_promise_6_deadlines_pass_while_the_clock_of_the_relay_is_set_back(place, stage):
    here = place(deadline=3.0)
    here.worker.remove()
    client = here.ask("/nobody")
    eventually(lambda: stage.redis.llen("resque:queue:requests") == 1)
    here.clocks["relay"].step(-3600.0)
    (raw,) = stage.redis.lrange("resque:queue:requests", 0, -1)
    assert 0 < json.loads(raw)["args"][0]["deadline"] - time.time() <= 3.0
    assert client.response().status == 503
    here.relay.process.terminate()
    assert here.relay.exit() == 0


@pytest.mark.parametrize(
    "ahead",
    [{"relay": -300.0}, {"relay": 300.0}, {"pool": 30.0, "worker": 300.0}],
    ids=["relay behind", "relay ahead", "workers ahead"],
)
def test_skew_between_hosts_costs_nobody_an_answer_and_is_told(place, ahead):
    here = place(**ahead)
    assert here.answered() == ALL
    reasons = eventually(
        lambda: [r for r in here.health()["health"]["reasons"] if r["code"] == "clock-skew"]
    )
    (reason,) = reasons
    way = "ahead of" if max(ahead.values()) > 0 else "behind"
    assert way in reason["text"]
    skews = [abs(node["skew"]) for node in here.health()["nodes"]]
    expected = next(iter(ahead.values()))
    assert any(abs(skew - abs(expected)) < 1.0 for skew in skews)


def test_the_wait_of_a_job_is_by_the_clock_of_redis(place, stage):
    here = place(pool=300.0)
    here.stage.redis.rpush(
        "resque:queue:jobs",
        json.dumps({"class": "J", "args": [{}], "queue_time": time.time()}),
    )
    stage.done("jobs")
    pool = eventually(lambda: [p for p in here.health()["pools"] if p["wait"]["p50"] is not None])
    assert pool[0]["wait"]["p50"] < 100.0
