"""A daemon whose whole control group is told to end, as a service manager does it."""

import os
import signal

import pytest

from tests.helpers.processes import alive, family
from tests.helpers.waiting import eventually
from tests.integration.pool.place import RESIDENT, Place

#: A job that notes its start and its try, and waits: for a signal, which may end it in its own way.
SCRIPT = """
    #!/bin/sh
    {trap}
    cat > /dev/null
    echo "$$ $QUEUERELAY_ID $QUEUERELAY_ATTEMPT" >> started
    while :; do sleep 0.05; done
"""
TRAPS = {"TERM": ":", "143": "trap 'exit 143' TERM", "1": "trap 'exit 1' TERM"}
TOML = """
    [[pool]]
    name = "p"
    queues = ["mp3", "requests"]
    command = ["./a.sh"]
    size = 3
    tries = 1
    [[pool]]
    name = "r"
    resident = true
    command = ["./r.sh"]
"""


def tell(pids: set[int]) -> None:
    for pid in pids:
        if alive(pid):
            os.kill(pid, signal.SIGTERM)


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("order", ["scripts first", "daemon first"])
def test_a_group_that_is_told_to_end_loses_no_try(place: Place, order: str, trap: str) -> None:
    place.script("a.sh", SCRIPT.format(trap=TRAPS[trap]))
    place.script("r.sh", RESIDENT.replace("exit 0", "exit 143"))
    front = place.start("--role", "relay")
    one = place.start("--role", "pool", "--drain", "30", toml=TOML)
    place.job("1")
    get = front.get("/get")
    post = front.connect().send("POST", "/post", body=b"x")
    place.started(3)
    eventually(lambda: place.lines("resident"))
    group = family(one.process.pid)
    if order == "daemon first":
        one.signal(signal.SIGTERM)
        eventually(lambda: _draining(place))
    tell(group)
    if order == "scripts first":
        if trap != "1":
            # A client that waits for another status hears of it sooner.
            eventually(lambda: not any(map(alive, place.started(3))))
        one.signal(signal.SIGTERM)
    assert one.exit() == 0
    assert not any(alive(pid) for pid in group)
    # No dead letter but that of the request which may not be repeated, and no try is gone.
    assert post.response("POST").status == 502
    assert (place.waiting("mp3"), place.waiting("requests")) == (1, 1)
    (failed,) = place.failed
    assert failed["payload"]["args"][0]["url"] == "/post"
    assert place.redis.zcard("queuerelay:delayed:mp3") == 0
    assert "attempts" not in place.redis.lindex("resque:queue:mp3", 0).decode()
    assert not get.readable()
    assert "again in" not in one.log


def _draining(place: Place) -> bool:
    return any(
        pool["resting"] == "draining" for node in place.nodes() for pool in node.get("pools", ())
    )


def test_a_group_is_told_while_the_relay_of_the_same_daemon_drains(place: Place) -> None:
    place.script("a.sh", SCRIPT.format(trap=TRAPS["143"]))
    one = place.start("--drain", "3", "--worker", "./a.sh", "--worker-queues", "mp3,requests")
    place.job("1")
    first = place.started(1)
    client = one.get("/held")
    eventually(lambda: place.waiting("requests") == 1)
    one.signal(signal.SIGTERM)
    eventually(lambda: "stopping: 1 requests are held" in one.log)
    tell(set(first))
    assert client.response().status == 503
    assert one.exit() == 0
    assert place.failed == []
    assert place.waiting("mp3") == 1
    assert {line.split()[2] for line in place.lines("started")} == {"1"}
