"""Another master under load: by Sentinels that elect one, and by a list of addresses of which
another is made the master.
"""

import json
import threading
from collections import Counter
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from queuerelay.broker.redis.broker import RedisBroker
from queuerelay.wire import url
from queuerelay.wire.keys import Keys
from queuerelay.worker.link import Link, Outage
from queuerelay.worker.master import MasterFinder
from tests.helpers.sentinel import NAME, group
from tests.helpers.waiting import eventually, until
from tests.helpers.worker import Worker

__all__ = ["group"]

APP = """
def application(environ, start_response):
    start_response("200 OK", [])
    return [environ["PATH_INFO"].encode()]
"""
SCRIPT = """#!/bin/sh
read -r line
echo "$line" >> runs
"""
POOL = """
[[pool]]
name = "jobs"
queues = ["jobs"]
command = ["./script"]
size = 4
lease = 2.0
"""


class Place:
    """A daemon with a pool, a worker, and clients that ask all the time."""

    def __init__(self, daemon, directory: Path, address: str) -> None:
        self.directory = directory
        (directory / "app.py").write_text(APP)
        (directory / "script").write_text(SCRIPT)
        (directory / "script").chmod(0o755)
        (directory / "pool.toml").write_text(POOL)
        self.daemon = daemon("--redis", address, "--config", "pool.toml", "--deadline", "8")
        self.worker = Worker(directory, address, "--lease", "2").ready()
        self.daemon.ready()
        self.statuses: Counter[int] = Counter()
        self._stop = threading.Event()
        self._clients = [
            threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(4)
        ]

    def load(self) -> None:
        """Begin to ask."""
        for client in self._clients:
            client.start()
        eventually(lambda: self.statuses[200] >= 20)

    def _ask(self, number: int) -> None:
        client = self.daemon.connect()
        count = 0
        while not self._stop.wait(0.01):
            count += 1
            target = f"/{number}/{count}"
            answer = client.send("GET", target).response()
            # Nobody gets the answer to another request, whatever happens.
            wrong = answer.status == 200 and answer.body != target.encode()
            self.statuses[-1 if wrong else answer.status] += 1

    def answers(self, more: int) -> None:
        """Wait until so many more are answered."""
        before = self.statuses[200]
        eventually(lambda: self.statuses[200] >= before + more, lambda: str(self.statuses))

    def end(self) -> None:
        self._stop.set()
        for client in self._clients:
            client.join(30)
        self.worker.remove()

    def push(self, server, names) -> None:
        """Jobs, one for each name."""
        jobs = [json.dumps({"class": "Job", "args": [{"name": name}]}) for name in names]
        server.client().rpush("resque:queue:jobs", *jobs)

    def runs(self) -> Counter[str]:
        """How often each job was run."""
        path = self.directory / "runs"
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter(json.loads(line)["name"] for line in lines)


def acknowledged(server):
    """Whether nothing of the jobs is left, here and on the replicas."""
    client = server.client()
    left = [client.llen("resque:queue:jobs"), client.hlen("queuerelay:inflight:jobs")]
    # WAIT is for what this very client has written, and for all before it.
    client.incr("marker")
    return not any(left) and client.wait(1, 1000) >= 1


@pytest.fixture
def place_at(daemon, tmp_path):
    places = []

    def make(address):
        places.append(Place(daemon, tmp_path, address))
        return places[-1]

    yield make
    for place in places:
        place.end()


def test_a_master_that_is_killed_under_load_is_followed_by_the_one_elected(group, place_at):
    servers = group()
    servers.watch()
    old = servers.master
    place = place_at(servers.url)
    first = [f"first-{number}" for number in range(20)]
    place.push(old, first)
    eventually(lambda: len(place.runs()) == 20)
    eventually(lambda: acknowledged(old))
    place.load()
    old.kill()
    new = servers.elected(old)
    place.answers(20)
    place.push(new, ["second"])
    eventually(lambda: "second" in place.runs())
    # The old master is a replica when it is back, and nobody is at it. Sentinels make it one too,
    # after some time.
    old._config += ("--replicaof", "127.0.0.1", str(new.port))
    old.start()
    place.answers(20)
    place.end()
    assert not [one for one in old.client().client_list() if one["name"].startswith("queuerelay-")]
    # What was acknowledged and replicated ran once, and nobody heard anything wrong.
    assert place.runs() == Counter([*first, "second"])
    assert set(place.statuses) <= {200, 503, 504}, place.statuses
    assert f"the master is at 127.0.0.1:{new.port}" in place.daemon.log


def test_a_list_of_servers_is_followed_to_the_one_that_says_master(group, place_at):
    servers = group()
    old, (new,) = servers.master, servers.replicas
    place = place_at(servers.list_url)
    place.load()
    # Somebody changes them over: the old one first, so that there is one master at most.
    old.client().replicaof("127.0.0.1", new.port)
    new.client().replicaof("NO", "ONE")
    eventually(lambda: f"the master is at 127.0.0.1:{new.port}" in place.daemon.log)
    place.answers(20)
    place.push(new, ["job"])
    eventually(lambda: place.runs() == Counter(["job"]))
    # And back.
    new.client().replicaof("127.0.0.1", old.port)
    old.client().replicaof("NO", "ONE")
    place.answers(20)
    place.end()
    assert set(place.statuses) <= {200, 503, 504}, place.statuses
    assert place.daemon.log.count(f"the master is at 127.0.0.1:{old.port}\n") == 2


def link_at(address):
    master = MasterFinder(url.parse(address), keys=Keys())
    return Link(master, role="test", outage=Outage(), timeout=5.0)


def test_the_links_of_a_worker_are_at_one_server(group):
    """When one finds the master elsewhere, the others follow, though theirs still works."""
    servers = group()
    first, (second,) = servers.master, servers.replicas
    master = MasterFinder(url.parse(servers.list_url), keys=Keys())
    links = [Link(master, role="test", outage=Outage(), timeout=5.0) for _ in range(2)]
    for link in links:
        link.send(("PING",))
    # The first goes on as a master for whoever is there already, and lets nobody in any more.
    second.client().replicaof("NO", "ONE")
    first.client().config_set("requirepass", "secret")
    links[0].close()
    for link in links:
        link.send(("INCR", "count"))
    assert second.client().get("count") == b"2"
    for link in links:
        link.close()


def test_a_worker_leaves_a_master_that_sentinels_have_replaced(group, own_valkey):
    """It goes on without knowing it, as one that only the Sentinels have lost."""
    servers = group(replicas=0)
    first, second = servers.master, own_valkey()
    servers.watch(1)
    master = MasterFinder(url.parse(servers.url), keys=Keys())
    link = Link(master, role="test", outage=Outage(), timeout=5.0)
    link.send(("INCR", "count"))
    (sentinel,) = servers.sentinels
    sentinel.client.execute_command("SENTINEL", "REMOVE", NAME)
    master.look()
    link.send(("INCR", "count"))
    assert first.client().get("count") == b"2"
    sentinel.client.execute_command("SENTINEL", "MONITOR", NAME, "127.0.0.1", second.port, 1)
    master.look()
    link.send(("INCR", "count"))
    assert (first.client().get("count"), second.client().get("count")) == (b"2", b"1")
    link.close()


def test_sentinels_have_a_password_of_their_own(group):
    servers = group(replicas=0)
    servers.master.client().config_set("requirepass", "data")
    servers.watch(1, f"sentinel auth-pass {NAME} data", "requirepass guard")
    # The first of them is not there.
    address = f"sentinel://:data@127.0.0.1:1,127.0.0.1:{servers.sentinels[0].port}"
    for path, said in (
        (f"{NAME}/3?sentinel_password=guard", ""),
        (f"{NAME}?sentinel_password=wrong", "no Sentinel names a master"),
        (NAME, "Authentication required"),
        ("other?sentinel_password=guard", "knows none of that name"),
    ):
        link = link_at(f"{address}/{path}")
        if said:
            with pytest.raises(RedisError, match=said):
                link.send(("PING",))
        else:
            link.send(("SET", "there", 1))
            assert servers.master.client(password="data", db=3).get("there") == b"1"
        link.close()


async def test_the_broker_tells_what_sentinels_say(group, said):
    from twisted.internet import reactor

    servers = group(replicas=0)
    servers.master.client().config_set("requirepass", "data")
    servers.watch(1, f"sentinel auth-pass {NAME} data", "requirepass guard")
    address = f"sentinel://:data@127.0.0.1:1,127.0.0.1:{servers.sentinels[0].port}"
    for path, code, text in (
        (f"{NAME}/3?sentinel_password=guard", None, ""),
        (f"{NAME}?sentinel_password=wrong", "redis-sentinel", "WRONGPASS"),
        (NAME, "redis-sentinel", "NOAUTH"),
        ("other?sentinel_password=guard", "redis-sentinel", "it knows none of that name"),
    ):
        broker = RedisBroker(url.parse(f"{address}/{path}"), reactor=reactor)
        broker.start()
        try:
            if code is None:
                await broker.when_up()
                assert await broker.queues.push("q", [b"x"]) == 1
                assert servers.master.client(password="data", db=3).llen("resque:queue:q") == 1
            else:
                await until(lambda broker=broker: broker.fault)
                assert broker.fault.code == code
                assert text in str(broker.fault)
                assert "127.0.0.1:1: Connection was refused" in str(broker.fault)
        finally:
            await broker.stop()
    assert not [line for _, line in said if "guard" in line or "data@" in line]
