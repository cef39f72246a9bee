"""Other users of the same machine: what they can see of a daemon, and reach."""

import sys
from pathlib import Path

import pytest

from queuerelay.worker.main import main
from tests.helpers.daemon import refused
from tests.helpers.ports import free_port
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
