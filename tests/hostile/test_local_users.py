"""Other users of the same machine: what they can see of a daemon, and reach."""

import os
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from queuerelay.worker.main import main
from tests.helpers.daemon import TWISTD, Client, refused
from tests.helpers.ports import free_port
from tests.helpers.processes import alive
from tests.helpers.waiting import eventually
from tests.integration.status.place import ask, listening

ROOT = Path(__file__).parents[2]
WORKER = str(Path(sys.executable).with_name("queuerelay-worker"))
SECRET = "s3cr3t-of-redis"
APPLICATION = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"here"]
"""


def command_lines(pid):
    """The command lines of a process and all that it has started, as ``ps`` shows them to all."""
    found = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += command_lines(int(child))
    return found


@pytest.mark.parametrize("how", ["--redis-file", "redis_file", "environment", "file"])
def test_the_password_of_redis_shows_nowhere(daemon, own_valkey, tmp_path, monkeypatch, how):
    server = own_valkey("--requirepass", SECRET)
    url = f"unix://:{SECRET}@{server.socket}"
    secret_file = tmp_path / "secret"
    secret_file.write_text(f"{url}\n")
    (tmp_path / "here_app.py").write_text(APPLICATION)
    config = tmp_path / "queuerelay.toml"
    config.write_text(
        {"redis_file": f'redis_file = "{secret_file}"', "file": f'redis = "{url}"'}.get(how, "")
        + f"""
        [[pool]]
        name = "site"
        resident = true
        command = ["{WORKER}", "here_app:application"]
        """
    )
    options = ["--config", str(config)]
    if how == "--redis-file":
        options += [how, str(secret_file)]
    if how == "environment":
        monkeypatch.setenv("QUEUERELAY_REDIS", url)
    port = free_port()
    one = daemon(*options, "--status", f"tcp:{port}:interface=127.0.0.1").ready()
    # The worker has found its way by itself.
    assert one.get("/").response().body == b"here"
    lines = command_lines(one.process.pid)
    assert any("here_app:application" in line for line in lines)
    listening(port)
    pages = [ask(port, path)[1] for path in ("/", "/status.json", "/metrics")]
    for shown in (*lines, *pages, one.log, one.stderr):
        assert SECRET not in shown


def test_a_password_in_a_command_is_not_logged(daemon, fresh_valkey, tmp_path):
    config = tmp_path / "queuerelay.toml"
    config.write_text(
        f"""
        [[pool]]
        name = "old"
        resident = true
        command = ["/bin/sleep", "6", "--redis", "redis://:{SECRET}@h/0", "--password", "{SECRET}"]
        """
    )
    one = daemon("--redis", fresh_valkey.url, "--config", str(config)).ready()
    eventually(lambda: "pool old: process 1 ended" in one.log)
    assert "/bin/sleep 6 --redis redis://:***@h/0 --password ***" in one.log
    assert SECRET not in one.log


@pytest.mark.parametrize(
    "options",
    [
        ("--redis", f"redis://u:{SECRET}@h:port"),
        ("--worker", f"/no/such/program redis://u:{SECRET}@h/0"),
        ("--worker", f"'redis://u:{SECRET}@h/0"),
        ("--worker", f"redis://u:{SECRET}@h/0"),
        ("--config", f"redis://u:{SECRET}@h/0"),
        ("--listen", f"redis://u:{SECRET}@h/0"),
        ("--queue", f"redis://u:{SECRET}@h/0"),
        (f"redis://u:{SECRET}@h/0",),
        (f"--redis://u:{SECRET}@h/0",),
    ],
)
def test_no_refusal_tells_it(tmp_path, options):
    assert SECRET not in refused(*options, "--check", cwd=tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        ("--redis", f"redis://u:{SECRET}@h:port", "m:a"),
        (f"redis://u:{SECRET}@h/0",),
        ("m:a", f"redis://u:{SECRET}@h/0"),
        (f"--redis-url=redis://u:{SECRET}@h/0", "m:a"),
        ("m:a", "--lease", f"redis://u:{SECRET}@h/0"),
    ],
)
def test_no_refusal_of_a_worker_tells_it(capsys, options):
    assert main(["--timeout", "0", *options]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert SECRET not in said


# Sockets and files


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("suffix", "mode"), [("", 0o660), (":mode=600", 0o600)])
def test_a_unix_socket_is_for_its_group_unless_it_says_more(
    daemon, fresh_valkey, short_dir, suffix, mode
):
    umask = os.umask(0)
    try:
        one = daemon(
            *("--redis", fresh_valkey.url, "--listen", f"unix:{short_dir}/http{suffix}"),
            *("--status", f"unix:{short_dir}/status{suffix}"),
        ).ready()
    finally:
        os.umask(umask)
    eventually(lambda: "limits: " in one.log)
    assert (mode_of(short_dir / "http"), mode_of(short_dir / "status")) == (mode, mode)
    client = Client(str(short_dir / "http")).send("TRACE", "/")
    one.clients.append(client)
    assert client.response().status == 405


@contextmanager
def forked(directory, *options, twistd=(), umask=-1, limit=""):
    """A daemon that twistd makes of itself, in `directory`; gives its process id.

    `limit` is a command of the shell before it.
    """
    pidfile = directory / "pid"
    command = [TWISTD[0], f"--pidfile={pidfile}", "--logfile=log", *twistd, "queuerelay", *options]
    if limit:
        command = ["/bin/sh", "-c", f'{limit}; exec "$@"', "sh", *command]
    subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        umask=umask,
        check=True,
        timeout=30,
    )
    pid = int(eventually(lambda: pidfile.exists() and pidfile.read_text()))
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not alive(pid))


REPORT = """\
#!/bin/sh
echo "$(ulimit -S -n) $(umask)" > "$1.new"
touch "$1.made"
mv "$1.new" "$1"
sleep "$2"
"""


def test_scripts_have_the_umask_and_the_open_files_of_the_start(fresh_valkey, tmp_path):
    script = tmp_path / "report.sh"
    script.write_text(REPORT)
    script.chmod(0o755)
    config = tmp_path / "queuerelay.toml"
    config.write_text(
        f"""
        [[pool]]
        name = "plain"
        queues = ["plain"]
        command = ["{script}", "plain", "0"]
        [[pool]]
        name = "own"
        queues = ["own"]
        command = ["{script}", "own", "0"]
        umask = "0002"
        [[pool]]
        name = "resident"
        resident = true
        command = ["{script}", "resident", "600"]
        """
    )
    options = ("--redis", fresh_valkey.url, "--config", str(config), "--role", "pool")
    with forked(tmp_path, *options, umask=0o027, limit="ulimit -S -n 600") as pid:
        for queue in ("plain", "own"):
            fresh_valkey.client().rpush(f"resque:queue:{queue}", '{"class":"Job","args":[]}')
        eventually(lambda: all((tmp_path / name).exists() for name in ("plain", "own", "resident")))
        limits = Path(f"/proc/{pid}/limits").read_text()
    assert (tmp_path / "plain").read_text() == (tmp_path / "resident").read_text() == "600 0027\n"
    assert (tmp_path / "own").read_text() == "600 0002\n"
    assert mode_of(tmp_path / "plain.made") == 0o640
    assert mode_of(tmp_path / "own.made") == 0o664
    (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
    assert line.split()[3] == line.split()[4]


def test_the_umask_that_twistd_was_told_is_that_of_scripts(fresh_valkey, tmp_path):
    script = tmp_path / "report.sh"
    script.write_text(REPORT)
    script.chmod(0o755)
    options = ("--redis", fresh_valkey.url, "--worker", f"{script} told 0", "--role", "pool")
    with forked(tmp_path, *options, twistd=("--umask=007",), umask=0o027):
        fresh_valkey.client().rpush("resque:queue:requests", '{"class":"Job","args":[]}')
        eventually((tmp_path / "told").exists)
    assert (tmp_path / "told").read_text().split()[1] == "0007"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_root_opens_belongs_to_the_user_that_it_becomes(own_valkey, short_dir):
    server = own_valkey("--unixsocketperm", "777")
    server.dir.chmod(0o755)
    short_dir.chmod(0o755)
    place = short_dir / "ours"
    place.mkdir()
    os.chown(place, 65534, 65534)
    # Root alone may listen here.
    (short_dir / "run").mkdir()
    with forked(
        place,
        *("--redis", server.url, "--access-log", str(place / "access.log")),
        *("--listen", f"unix:{short_dir}/run/http", "--status", f"unix:{short_dir}/run/status"),
        twistd=("--uid=65534", "--gid=65534"),
    ):
        eventually((place / "access.log").exists)
        for path, mode in (
            (place / "access.log", 0o640),
            (short_dir / "run/http", 0o660),
            (short_dir / "run/status", 0o660),
        ):
            assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534), path
            assert mode_of(path) == mode, path
        # It can open a new one by itself.
        pid = int((place / "pid").read_text())
        (place / "access.log").rename(place / "access.log.1")
        os.kill(pid, signal.SIGUSR1)
        eventually((place / "access.log").exists)
        assert mode_of(place / "access.log") == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_access_log_that_the_user_cannot_write(short_dir):
    short_dir.chmod(0o755)
    line = subprocess.run(
        [
            *(TWISTD[0], "-n", "--pidfile=", "--uid=65534", "queuerelay", "--redis", "localhost"),
            *("--listen", f"unix:{short_dir}/s", "--status", "off", "--access-log", "access.log"),
        ],
        cwd=short_dir,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert line.returncode == 1
    assert "--access-log: got 'access.log', expected a writable file" in line.stderr
    assert not (short_dir / "access.log").exists()
