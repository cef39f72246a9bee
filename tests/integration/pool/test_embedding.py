"""`PoolService` inside another application: real scripts on the test's own reactor."""

import json
import os

import pytest
from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from queuerelay.config import load
from queuerelay.errors import ConfigError
from queuerelay.service import PoolService
from queuerelay.testing import MemoryBroker
from tests.helpers.processes import alive, children
from tests.helpers.waiting import until

TOML = """
[[pool]]
name = "jobs"
queues = ["jobs"]
command = ["{directory}/job.sh"]
size = 2
cwd = "{directory}"
grace = 0.2
[[pool]]
name = "residents"
resident = true
command = ["{directory}/resident.sh"]
size = 2
cwd = "{directory}"
"""
JOB = """#!/bin/sh
cat >> got
[ "$QUEUERELAY_ID" = slow ] || exit 0
trap '' TERM
echo $$ > slow
while :; do sleep 0.05; done
"""
RESIDENT = """#!/bin/sh
while :; do sleep 0.05; done
"""


@pytest.fixture
def config(tmp_path):
    for name, text in (("job.sh", JOB), ("resident.sh", RESIDENT)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "pools.toml").write_text(TOML.format(directory=tmp_path))

    def make(**options):
        return load(str(tmp_path / "pools.toml"), options)

    return make


def job(name):
    return json.dumps({"class": "Job", "args": [{"n": name}], "id": name}).encode()


async def stopped(service):
    done: Deferred[None] = service.stopService()
    return await done.addTimeout(30, reactor)


async def test_it_works_in_memory_and_leaves_nothing(config, tmp_path):
    before = children(os.getpid())
    broker = MemoryBroker(clock=reactor)
    parent = MultiService()
    service = PoolService(config(), reactor=reactor, broker=broker)
    service.setServiceParent(parent)
    parent.startService()
    await broker.when_up()
    await broker.queues.push("jobs", [job("a"), job("b"), job("c")])
    await until(lambda: broker.store.stats.get(("processed", None)) == 3)
    assert sorted((tmp_path / "got").read_text()) == sorted('{"n":"a"}{"n":"b"}{"n":"c"}')
    jobs, residents = service.pools.snapshot()
    assert jobs.counters == {"success": 3}
    assert [slot.state for slot in residents.slots] == ["running"] * 2
    service.pools["residents"].set_size(1)
    pids = {slot.pid for slot in residents.slots}
    await until(lambda: sum(map(alive, pids)) == 1)
    await service.roll()
    assert not any(map(alive, pids))
    await stopped(parent)
    assert children(os.getpid()) == before


async def test_it_works_with_a_real_server(config, fresh_valkey):
    service = PoolService(config(redis=fresh_valkey.url), reactor=reactor)
    service.startService()
    client = fresh_valkey.client()
    client.rpush("resque:queue:jobs", job("a"))
    await until(lambda: client.get("resque:stat:processed") == b"1")
    await stopped(service)
    assert client.zcard("queuerelay:nodes") == 0
    assert client.smembers("resque:workers") == set()


async def test_redis_is_not_there(config, tmp_path):
    service = PoolService(config(redis=f"unix://{tmp_path}/nothing"), reactor=reactor)
    service.startService()
    await deferLater(reactor, 0)
    await stopped(service)


async def test_hurry_cuts_the_drain_time_short(config, tmp_path):
    broker = MemoryBroker(clock=reactor)
    service = PoolService(config(drain="600"), reactor=reactor, broker=broker)
    service.startService()
    await broker.when_up()
    await broker.queues.push("jobs", [job("slow")])
    slow = tmp_path / "slow"
    await until(lambda: slow.exists() and slow.read_text().strip())
    done = service.stopService()
    await deferLater(reactor, 0.0)
    assert alive(int(slow.read_text()))
    service.hurry()
    await done.addTimeout(30, reactor)
    assert not alive(int(slow.read_text()))
    assert broker.messages("jobs") == [job("slow")]


async def test_a_hurry_before_the_stop_is_not_forgotten(config, tmp_path):
    broker = MemoryBroker(clock=reactor)
    service = PoolService(config(drain="600"), reactor=reactor, broker=broker)
    service.startService()
    await broker.when_up()
    await broker.queues.push("jobs", [job("slow")])
    slow = tmp_path / "slow"
    await until(lambda: slow.exists() and slow.read_text().strip())
    service.hurry()
    assert alive(int(slow.read_text()))
    await stopped(service)
    assert broker.messages("jobs") == [job("slow")]


async def test_a_missing_command_is_refused_before_anything_is_started(config, tmp_path):
    (tmp_path / "resident.sh").unlink()
    before = children(os.getpid())
    service = PoolService(config(), reactor=reactor, broker=MemoryBroker(clock=reactor))
    with pytest.raises(ConfigError, match="pool residents: command"):
        service.startService()
    assert not service.running
    assert children(os.getpid()) == before


async def test_a_stop_without_a_start(config):
    service = PoolService(config(), reactor=reactor, broker=MemoryBroker(clock=reactor))
    await stopped(service)


async def test_what_is_published_is_json_on_every_beat(config):
    broker = MemoryBroker(clock=reactor)
    service = PoolService(config(), reactor=reactor, broker=broker)
    service.startService()
    # An id with half a character, and one that is long.
    await broker.when_up()
    await broker.queues.push(
        "jobs",
        [
            b'{"class":"Job","args":[{"n":1}],"id":"\\ud800"}',
            job("x" * 100_000),
            b"\xff no json \x00",
        ],
    )
    await until(lambda: sum(service.pools.snapshot()[0].counters.values()) == 3)
    await service.pools._beat()
    beats = (await broker.nodes.survey()).nodes.values()
    (raw,) = [beat.snapshot for beat in beats if beat.snapshot is not None]
    node = json.loads(raw)
    assert (node["role"], len(node["pools"])) == ("pool", 2)
    assert len(raw) < 20_000
    await stopped(service)
