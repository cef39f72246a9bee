"""Pools in the real daemon: started, watched, told, killed; with real scripts and a real server."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from tests.helpers.daemon import ROOT, TWISTD, Client, refused
from tests.helpers.ports import free_port, listens
from tests.helpers.processes import alive, family
from tests.helpers.waiting import eventually
from tests.integration.pool.place import (
    PATIENT,
    PREFIX,
    QUICK,
    RESIDENT,
    STUBBORN,
    WSGI,
    Place,
    stop,
)

# The command line, the file, the roles


def test_one_pool_from_the_command_line(place):
    command = place.script("resize.sh", PATIENT + '    echo "$1 $QUEUERELAY_QUEUE" >> argv\n')
    for number in range(3):
        place.job(f"low{number}", "requests")
    for number in range(5):
        place.job(f"high{number}")
    one = place.start(
        *("--worker", f"{command} --id={{id}}", "--workers", "4"),
        *("--worker-queues", "mp3,requests"),
    )
    place.started(4)
    # In the order of the queues, and not one more.
    eventually(lambda: (place.inflight("mp3"), place.waiting("mp3")) == (4, 1))
    assert (place.inflight("requests"), place.waiting("requests")) == (0, 3)
    place.go()
    eventually(lambda: place.is_quiet("mp3", "requests"))
    assert sorted(place.lines("argv")) == [
        *(f"--id=high{number} mp3" for number in range(5)),
        *(f"--id=low{number} requests" for number in range(3)),
    ]
    assert place.failed == []
    stop(one)


def test_a_request_is_answered_by_a_script_of_the_same_process(place):
    one = place.start("--worker", place.script("hello.sh", QUICK))
    response = one.get("/a/b").response()
    assert (response.status, response.body) == (200, b"quick /a/b\n")
    stop(one)


SEVERAL = """
    [[relay.route]]
    path = "/slow/"
    queue = "slow"
    [[pool]]
    name = "quick"
    queues = ["requests"]
    command = ["./quick.sh"]
    size = 2
    [[pool]]
    name = "slow"
    queues = ["slow", "mp3"]
    command = ["./patient.sh"]
    min = 1
    max = 3
    [[pool]]
    name = "residents"
    resident = true
    command = ["./resident.sh"]
    size = 2
"""


def test_several_pools_from_the_file(place):
    place.script("quick.sh", QUICK)
    place.script("patient.sh", PATIENT)
    place.script("resident.sh", RESIDENT)
    one = place.start(toml=SEVERAL)
    slow = one.get("/slow/1")
    place.started(1)
    assert one.get("/").response().body == b"quick /\n"
    pids = {int(line) for line in eventually(lambda: place.lines("resident"))}
    eventually(lambda: len(place.lines("resident")) == 2)
    # The node says so to everybody.
    (node,) = eventually(lambda: [node for node in place.nodes() if node["role"] == "pool"])
    assert [pool["name"] for pool in node["pools"]] == ["quick", "slow", "residents"]
    assert pids <= family(one.process.pid)
    log = eventually(lambda: one.log if "pool residents" in one.log else None)
    assert "pool slow: 1 to 3 x ./patient.sh, queues slow,mp3" in log
    place.go()
    assert slow.response().body.startswith(b"hello from ")
    stop(one)
    assert place.redis.zcard(f"{PREFIX}nodes") == 0
    assert place.redis.smembers("resque:workers") == set()


def test_relay_and_pool_apart(place):
    command = place.script("quick.sh", QUICK)
    front = place.start("--role", "relay", "--worker", command)
    port = free_port()
    back = place.start("--role", "pool", "--worker", command, port=port)
    assert front.get("/x").response().body == b"quick /x\n"
    assert not listens(port)
    assert family(front.process.pid) == set()
    assert family(back.process.pid)
    # Either may go first.
    stop(back)
    client = front.get("/y")
    again = place.start("--role", "pool", "--worker", command)
    assert client.response().body == b"quick /y\n"
    stop(front)
    stop(again)


def test_a_daemon_that_forks_bears_its_own_process_id(place):
    place.script("quick.sh", QUICK)
    pidfile = place.directory / "pid"
    twistd = [TWISTD[0], f"--pidfile={pidfile}", "--logfile=log", "queuerelay"]
    options = ["--redis", place.server.url, "--role", "pool", "--worker", "./quick.sh"]
    subprocess.run(
        [*twistd, *options],
        cwd=place.directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=30,
    )
    pid = int(eventually(lambda: pidfile.exists() and pidfile.read_text()))
    try:
        (one,) = eventually(lambda: place.redis.smembers("resque:workers"))
        assert one.decode().split(":")[1] == str(pid)
        place.job("1", "requests")
        eventually(lambda: place.redis.get("resque:stat:processed") == b"1")
    finally:
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not alive(pid))


POOL = '[[pool]]\nname = "p"\nqueues = ["q"]\n'
MISTAKES = [
    ({"--worker": "./missing.sh --id={id}"}, ["pool default: command", "./missing.sh", "No such"]),
    ({"--worker": "no-such-program"}, ["pool default: command", "no-such-program", "PATH"]),
    ({"--worker": "./plain"}, ["./plain", "not executable"]),
    ({"--worker": "./orphan"}, ["./orphan", "interpreter", "/no/such/interpreter"]),
    ({"--worker": "./ok --id={id"}, ["--worker", "{id"]),
    ({"--worker": "./ok 'x"}, ["--worker", "no closing quotation"]),
    ({"--worker": "./ok", "--workers": "0"}, ["--workers", "0", "slots"]),
    ({"--worker": "./ok", "--workers": "many"}, ["--workers", "'many'"]),
    ({"--worker": "./ok", "--worker-queues": "a,b:c"}, ["--worker-queues", "'b:c'"]),
    ({"--workers": "2"}, ["--workers", "--worker beside it"]),
    ({"--role": "pool"}, ["--role", "'pool'", "--worker"]),
    ({"--role": "rely"}, ["--role", "'rely'", "did you mean 'relay'"]),
    ({"": POOL + 'command = ["./missing.sh"]'}, ["pool p: command", "./missing.sh"]),
    ({"": POOL + 'command = ["./ok"]\ncwd = "nowhere"'}, ["pool p: command", "nowhere"]),
    ({"": POOL + 'command = ["./{id}"]'}, ["pool[1].command", "{id}"]),
    ({"": POOL + 'command = ["./ok"]\nsize = 0'}, ["pool[1].size", "0"]),
    ({"": POOL + 'command = ["./ok"]\nlease = 0.1'}, ["pool[1].lease", "0.1", "seconds"]),
    ({"": POOL + 'command = ["./ok"]\ncomand = 1'}, ["pool[1].comand", "command"]),
    (
        {"": POOL + 'command = ["./ok"]\nresident = true\nlease = 2'},
        ["pool[1].lease", "resident"],
    ),
    (
        {"": POOL + 'command = ["./ok"]\nscript_filename = "no.php"'},
        ["pool p: script_filename", "no.php"],
    ),
]


@pytest.mark.parametrize(("given", "said"), MISTAKES, ids=lambda value: None)
def test_a_mistake_is_one_line_at_the_start(given, said, place):
    place.script("ok", QUICK)
    place.script("orphan", "#!/no/such/interpreter\n")
    (place.directory / "plain").write_text("#!/bin/sh\n")
    (place.directory / "file.toml").write_text(given.get("", ""))
    options = [part for name, value in given.items() if name for part in (name, value)]
    for more in ([], ["--check"]):
        line = refused(
            *("--redis", place.server.url, "--listen", f"tcp:{free_port()}:interface=127.0.0.1"),
            *("--config", "file.toml", *options, *more),
            cwd=place.directory,
        )
        assert all(word in line for word in said), line


def test_the_command_is_looked_for_where_it_will_run(place):
    rundir = place.directory / "elsewhere"
    rundir.mkdir()
    place.script("elsewhere/quick.sh", QUICK)
    port = free_port()
    command = [*TWISTD[:-1], f"--rundir={rundir}", TWISTD[-1], "--redis", place.server.url]
    listen = ["--listen", f"tcp:{port}:interface=127.0.0.1", "--status", "off"]
    with subprocess.Popen(
        [*command, *listen, "--worker", "./quick.sh"],
        cwd=place.directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            eventually(lambda: listens(port) or process.poll() is not None)
            assert process.poll() is None
            client = Client(port)
            assert client.send("GET", "/").response().status == 200
            client.close()
        finally:
            process.terminate()
        assert process.wait(30) == 0


# Rolling restart


RESIDENTS = f"""
    [[pool]]
    name = "site"
    resident = true
    size = 2
    command = ["{sys.executable}", "-m", "queuerelay.worker", "--redis", "URL", "app:application"]
    env = {{PYTHONPATH = "{ROOT}"}}
"""


def test_a_rolling_restart_under_load_is_seen_by_no_client(place):
    (place.directory / "app.py").write_text(textwrap.dedent(WSGI))
    one = place.start(toml=RESIDENTS.replace("URL", place.server.url))
    statuses: list[int] = []
    served: set[bytes] = set()
    enough = threading.Event()

    def load() -> None:
        client = one.connect()
        while not enough.is_set():
            response = client.send("GET", "/").response()
            statuses.append(response.status)
            served.add(response.body)

    first = one.get("/").response().body
    clients = [threading.Thread(target=load) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        eventually(lambda: len(served) == 2)
        old = set(served)
        one.signal(signal.SIGHUP)
        eventually(lambda: "all processes are replaced" in one.log)
        served.clear()
        eventually(lambda: len(served - old) == 2)
        assert not any(alive(int(pid)) for pid in old)
    finally:
        enough.set()
        for client in clients:
            client.join(30)
    assert first in old
    assert set(statuses) == {200}
    assert not served & old
    stop(one)


def test_a_hangup_without_residents_changes_nothing(place):
    one = place.start("--role", "relay")
    eventually(lambda: "limits:" in one.log)
    one.signal(signal.SIGHUP)
    eventually(lambda: "reloading" in one.log)
    stop(one)
    two = place.start("--worker", place.script("quick.sh", QUICK))
    two.signal(signal.SIGHUP)
    eventually(lambda: "there is no resident pool" in two.log)
    assert two.get("/").response().status == 200
    stop(two)


# Stop


def test_what_runs_is_finished_within_the_drain_time(place):
    one = place.start("--worker", place.script("a.sh", PATIENT), "--worker-queues", "mp3,requests")
    place.job("1")
    place.started(1)
    place.job("2")
    one.signal(signal.SIGTERM)
    eventually(lambda: "stopping" in one.log)
    assert one.process.poll() is None
    place.go()
    assert one.exit() == 0
    assert place.lines("done")[0] == "1"
    assert place.inflight() == 0
    assert place.failed == []
    assert not any(alive(pid) for pid in place.started(1))


def test_held_clients_are_answered_while_it_stops(place):
    one = place.start("--worker", place.script("a.sh", PATIENT))
    clients = [one.get("/1")]
    place.started(1)
    # Nobody has begun on the second: the pools go on until nobody is held.
    clients.append(one.get("/2"))
    eventually(lambda: place.waiting("requests") == 1)
    one.signal(signal.SIGTERM)
    eventually(lambda: not listens(one.port))
    place.go()
    assert [client.response().status for client in clients] == [200, 200]
    assert one.exit() == 0
    assert place.is_quiet("requests")


@pytest.mark.parametrize("script", [PATIENT, STUBBORN], ids=["TERM", "KILL"])
def test_what_runs_longer_than_the_drain_time_is_ended(place, script):
    place.script("a.sh", script)
    front = place.start("--role", "relay")
    back = place.start(
        *("--role", "pool", "--drain", "0.3"),
        toml="""
        [[pool]]
        name = "p"
        queues = ["mp3", "requests"]
        command = ["./a.sh"]
        size = 3
        grace = 0.3
        """,
    )
    place.job("1")
    get = front.get("/get")
    post = front.connect().send("POST", "/post", body=b"x")
    pids = place.started(3)
    back.signal(signal.SIGTERM)
    assert back.exit() == 0
    assert not any(alive(pid) for pid in pids)
    if script == STUBBORN:
        assert "TERM" in place.lines("told")
    # What may run twice goes back as it was, what may not has failed.
    assert post.response("POST").status == 502
    assert (place.waiting("mp3"), place.waiting("requests")) == (1, 1)
    assert (place.inflight("mp3"), place.inflight("requests")) == (0, 0)
    (failed,) = place.failed
    assert failed["payload"]["args"][0]["url"] == "/post"
    assert not get.readable()
    place.go()
    again = place.start("--role", "pool", "--worker", "./a.sh", "--worker-queues", "mp3,requests")
    assert get.response().status == 200
    eventually(lambda: place.is_quiet("mp3", "requests"))
    stop(again)


def test_a_second_signal_hurries(place):
    one = place.start("--role", "pool", "--drain", "600", "--worker", place.script("a.sh", PATIENT))
    place.job("1", "requests")
    (pid,) = place.started(1)
    one.signal(signal.SIGTERM)
    eventually(lambda: _draining(place))
    assert alive(pid)
    one.signal(signal.SIGTERM)
    assert one.exit() == 0
    assert not alive(pid)
    assert (place.waiting("requests"), place.inflight("requests")) == (1, 0)


def _draining(place: Place) -> bool:
    return any(pool["resting"] == "draining" for node in place.nodes() for pool in node["pools"])


def test_a_second_signal_while_the_relay_drains_hurries_its_pools_as_well(place):
    one = place.start("--drain", "600", "--worker", place.script("a.sh", PATIENT))
    client = one.get("/")
    (pid,) = place.started(1)
    one.signal(signal.SIGTERM)
    eventually(lambda: "stopping: 1 requests are held" in one.log)
    one.signal(signal.SIGTERM)
    assert client.response().status == 503
    assert one.exit() == 0
    assert not alive(pid)


def test_residents_are_told_and_then_killed(place):
    place.script("kind.sh", RESIDENT)
    place.script("hard.sh", RESIDENT.replace("exit 0", "echo TERM >> told"))
    one = place.start(
        *("--role", "pool", "--drain", "0.3"),
        toml="""
        [[pool]]
        name = "kind"
        resident = true
        command = ["./kind.sh"]
        [[pool]]
        name = "hard"
        resident = true
        command = ["./hard.sh"]
        grace = 0.3
        """,
    )
    eventually(lambda: len(place.lines("resident")) == 2)
    stop(one)
    assert place.lines("told") == ["TERM"]
    assert not any(alive(int(pid)) for pid in place.lines("resident"))


# Death


def test_a_killed_daemon_leaves_no_process_and_loses_no_message(place):
    place.script("a.sh", PATIENT)
    place.script("resident.sh", RESIDENT)
    pools = """
        [[pool]]
        name = "p"
        queues = ["mp3"]
        command = ["./a.sh"]
        size = 3
        lease = 1.0
        [[pool]]
        name = "r"
        resident = true
        command = ["./resident.sh"]
    """
    one = place.start("--role", "pool", toml=pools)
    for number in range(5):
        place.job(str(number))
    place.started(3)
    eventually(lambda: place.lines("resident"))
    below = family(one.process.pid)
    # Three scripts, a resident, the guardian; and what these sleep in.
    assert len(below) >= 5
    one.process.kill()
    one.process.wait()
    eventually(lambda: not any(alive(pid) for pid in below))
    assert place.inflight() == 3
    place.go()
    two = place.start("--role", "pool", toml=pools)
    eventually(place.is_quiet)
    assert sorted(place.lines("done")) == ["0", "1", "2", "3", "4"]
    assert place.failed == []
    stop(two)


def test_a_client_whose_script_is_killed_gets_its_answer_or_an_honest_error(place):
    one = place.start("--worker", place.script("a.sh", PATIENT), "--workers", "2")
    get = one.get("/get")
    (first,) = place.started(1)
    post = one.connect().send("POST", "/post", body=b"x")
    second = place.started(2)[1]
    for pid in (first, second):
        os.kill(pid, signal.SIGKILL)
    assert post.response("POST").status == 502
    place.started(3)
    place.go()
    assert get.response().status == 200
    (failed,) = place.failed
    assert failed["queuerelay"]["attempts"][0]["signal"] == "SIGKILL"
    stop(one)


@pytest.mark.parametrize("client_gone", ["finish", "kill"])
def test_a_client_that_leaves(place, client_gone):
    place.script("a.sh", PATIENT)
    one = place.start(
        toml=f"""
        [[pool]]
        name = "p"
        queues = ["requests"]
        command = ["./a.sh"]
        size = 2
        client_gone = "{client_gone}"
        """
    )
    leaves = one.get("/leaves")
    (pid,) = place.started(1)
    stays = one.get("/stays")
    place.started(2)
    leaves.close()
    if client_gone == "kill":
        eventually(lambda: not alive(pid))
        eventually(lambda: place.inflight("requests") == 1)
    else:
        eventually(lambda: place.redis.keys(f"{PREFIX}gone:*"))
        assert alive(pid)
    place.go()
    assert stays.response().status == 200
    eventually(lambda: place.is_quiet("requests"))
    assert len(place.lines("done")) == (1 if client_gone == "kill" else 2)
    assert place.failed == []
    stop(one)


def test_a_pool_that_was_frozen_for_longer_than_its_lease_corrupts_nothing(place):
    place.script("a.sh", PATIENT)
    pools = """
        [[pool]]
        name = "p"
        queues = ["mp3"]
        command = ["./a.sh"]
        lease = 1.0
    """
    front = place.start("--role", "relay", "--queue", "mp3")
    frozen = place.start("--role", "pool", toml=pools)
    client = front.get("/")
    (pid,) = place.started(1)
    frozen.signal(signal.SIGSTOP)
    try:
        other = place.start("--role", "pool", toml=pools)
        # Its lease has expired, and another has its message: that is more than twice as long.
        second = place.started(2)[1]
    finally:
        frozen.signal(signal.SIGCONT)
    # It finds out, and ends what it has no right to do any more; the other goes on.
    eventually(lambda: not alive(pid))
    assert alive(second)
    assert place.inflight() == 1
    place.go()
    assert client.response().status == 200
    eventually(place.is_quiet)
    assert (len(place.lines("done")), place.failed) == (1, [])
    # It works again.
    for number in range(4):
        place.job(str(number))
    eventually(lambda: place.is_quiet() and len(place.lines("done")) == 5)
    for one in (frozen, other, front):
        stop(one)


# Load


def test_the_size_follows_the_backlog(place):
    place.script("a.sh", PATIENT)
    one = place.start(
        toml="""
        [[pool]]
        name = "p"
        queues = ["mp3"]
        command = ["./a.sh"]
        min = 1
        max = 3
        grow_after = 0.1
        shrink_after = 0.5
        """
    )
    for number in range(6):
        place.job(str(number))
    place.started(3)
    assert len(place.started(3)) == 3
    assert place.waiting() == 3
    place.go()
    eventually(place.is_quiet)
    sizes = eventually(
        lambda: (found := re.findall(r"slots, now (\d)", one.log))[-1:] == ["1"] and found
    )
    assert sizes == ["2", "3", "2", "1"]
    stop(one)


FLOOD = """
    #!/bin/sh
    echo $$ >> flooding
    yes "$(head -c 4000 /dev/zero | tr '\\0' x)" | head -c 2000000000
    echo over >> flooding
    exec sleep 1000
"""


def test_a_request_is_answered_while_a_script_prints_two_gigabytes(place):
    place.script("flood.sh", FLOOD)
    place.script("quick.sh", QUICK)
    one = place.start(
        toml="""
        [[pool]]
        name = "quick"
        queues = ["requests"]
        command = ["./quick.sh"]
        [[pool]]
        name = "flood"
        queues = ["mp3"]
        command = ["./flood.sh"]
        [[pool]]
        name = "resident-flood"
        resident = true
        command = ["./flood.sh"]
        grace = 0.2
        """
    )
    place.job("1")
    eventually(lambda: place.lines("flooding"))
    answered = 0
    while "over" not in place.lines("flooding"):
        assert one.get(f"/{answered}").response().status == 200
        answered += 1
    assert answered
    # The job's was ended: it printed more than a script may.
    eventually(lambda: len(place.failed) == 1)
    # Of what it printed only some lines went to the log.
    assert len(one.log) < 20_000_000
    stop(one)
