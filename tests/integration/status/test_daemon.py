"""The status listener of the real daemon: its place, its end, and what it does not tell."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.helpers.daemon import ROOT, TWISTD, Client, run
from tests.helpers.ports import free_port, listens
from tests.helpers.waiting import PATIENCE, eventually
from tests.integration.status.place import PATHS, PROBES, ask, listening, status

CANARY = "c4n4ry5ecret"


@pytest.fixture
def start(daemon, fresh_valkey):
    """Starts a daemon with a status listener; gives it and the listener's port."""

    def start(*options, url=fresh_valkey.url):
        port = free_port()
        endpoint = f"tcp:{port}:interface=127.0.0.1"
        one = daemon("--redis", url, "--status", endpoint, *options).ready()
        return one, listening(port)

    return start


def test_its_place_by_default_is_loopback_8080(tmp_path):
    ended = run("--help", cwd=tmp_path)
    assert ended.returncode == 0
    assert "tcp:8080:interface=127.0.0.1" in " ".join(ended.stdout.split())


def test_a_place_that_is_taken_is_one_line_that_says_what_to_do(tmp_path, fresh_valkey):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        options = ["--redis", fresh_valkey.url, "--listen", f"tcp:{free_port()}"]
        ended = run(*options, "--status", endpoint, cwd=tmp_path)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"queuerelay: cannot listen: --status {endpoint}: ")
    assert line.endswith("(--status ENDPOINT for another place, --status off for none)")


@pytest.mark.parametrize("options", [["--status", "off"], ["--role", "relay"]])
def test_without_it(daemon, fresh_valkey, options):
    one = daemon("--redis", fresh_valkey.url, *options).ready()
    assert "status at" not in one.log


def test_a_status_listener_alone_sees_everybody(daemon, fresh_valkey):
    port = free_port()
    endpoint = f"tcp:{port}:interface=127.0.0.1"
    relay = daemon("--redis", fresh_valkey.url).ready()
    daemon("--redis", fresh_valkey.url, "--role", "status", "--status", endpoint, listen=False)
    listening(port)
    relay.get("/")
    eventually(lambda: [held["count"] for held in status(port)["held"]] == [1])
    (node,) = status(port)["nodes"]
    assert (node["role"], node["pid"], node["local"]) == ("relay", relay.process.pid, False)


def test_while_it_drains_it_is_not_ready_and_shows_who_waits(start, worker):
    one, port = start()
    client = one.get("/")
    taken = worker.take()
    assert ask(port, "/readyz")[0] == 200
    one.signal(signal.SIGTERM)
    eventually(lambda: ask(port, "/readyz")[0] == 503)
    assert json.loads(ask(port, "/readyz")[1])["reasons"] == ["draining"]
    assert ask(port, "/healthz")[0] == 200
    eventually(lambda: [node["draining"] for node in status(port)["nodes"]] == [True])
    assert status(port)["held"][0]["count"] == 1
    worker.reply(taken, body=b"x")
    assert client.response().body == b"x"
    assert one.exit() == 0
    assert not listens(port)


def test_dashboards_that_stay_connected_do_not_keep_it(start):
    one, port = start()
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(100)
        one.signal(signal.SIGTERM)
        assert one.exit() == 0


def test_redis_away_is_shown_and_no_reason_to_be_started_anew(daemon, own_valkey):
    server = own_valkey()
    port = free_port()
    endpoint = f"tcp:{port}:interface=127.0.0.1"
    daemon("--redis", server.url, "--status", endpoint).ready()
    listening(port)
    server.kill()
    eventually(lambda: not status(port)["redis"]["up"])
    assert ask(port, "/readyz")[0] == 503
    assert ask(port, "/healthz")[0] == 200
    assert ask(port, "/failures.json")[0] == 503
    assert "queuerelay_redis_up 0.0" in ask(port, "/metrics")[1]
    server.start()
    eventually(lambda: status(port)["redis"]["up"])


def test_the_deep_check_goes_through_a_pool(start, tmp_path):
    script = tmp_path / "page.sh"
    script.write_text('#!/bin/sh\nprintf "Content-Type: text/plain\\n\\n$REQUEST_METHOD\\n"\n')
    script.chmod(0o755)
    _, port = start("--worker", "./page.sh")
    code, body = ask(port, "/healthz/deep")
    assert code == 200, body
    result = json.loads(body)
    assert result["ok"]
    assert 0 < result["seconds"] < 5


def test_the_deep_check_when_nobody_works(start, fresh_valkey):
    _, port = start()
    code, body = ask(port, "/healthz/deep")
    assert (code, json.loads(body)["reason"]) == (503, "no-answer")
    eventually(lambda: fresh_valkey.client().llen("resque:queue:requests") == 0)


def command_lines(pid: int) -> str:
    """Those of the process and all below it."""
    found = []
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            found.append(Path(f"/proc/{one}/cmdline").read_bytes())
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return b"\n".join(found).decode()


def test_what_is_secret_is_told_nowhere(daemon, own_valkey, tmp_path, monkeypatch):
    server = own_valkey("--requirepass", CANARY)
    client = server.client(password=CANARY)
    script = tmp_path / "slow.sh"
    script.write_text(
        "#!/bin/sh\ncat > /dev/null\nwhile [ ! -e go ]; do sleep 0.05; done\nexit 1\n"
    )
    script.chmod(0o755)
    port, listen = free_port(), free_port()
    config = tmp_path / "queuerelay.toml"
    url = server.url.replace("unix://", f"unix://:{CANARY}@")
    config.write_text(
        f"redis = {json.dumps(url)}\n"
        f"[relay]\nlisten = ['tcp:{listen}:interface=127.0.0.1']\n"
        f"[status]\nlisten = 'tcp:{port}:interface=127.0.0.1'\n"
        "[[pool]]\nname = 'p'\nqueues = ['requests', 'jobs']\ncommand = ['./slow.sh']\n"
        f"size = 2\n[pool.env]\nSECRET = '{CANARY}'\n"
    )
    monkeypatch.setenv("SECRET", CANARY)
    one = daemon(
        "--config", str(config), "--status", f"tcp:{port}:interface=127.0.0.1",
        port=listen, listen=False,
    ).ready()  # fmt: skip
    listening(port)
    job = {"class": "Job", "args": [{"id": "j1", "secret": CANARY}], "queue": "jobs", "id": "j1"}
    client.rpush("resque:queue:jobs", json.dumps(job))
    waiter = Client(listen)
    one.clients.append(waiter)
    headers = [("Cookie", f"session={CANARY}"), ("Authorization", f"Bearer {CANARY}")]
    waiter.send("POST", f"/{CANARY}?q={CANARY}", *headers, body=CANARY.encode())

    def told() -> dict[str, str]:
        found = {path: ask(port, path)[1] for path in (*PATHS, *PROBES[:2])}
        return {**found, "log": one.log, "stderr": one.stderr}

    eventually(lambda: status(port)["pools"][0]["busy"] == 2)
    running = {**told(), "processes": command_lines(one.process.pid)}
    assert "slow.sh" in running["processes"]
    (tmp_path / "go").touch()
    eventually(lambda: status(port)["failures"]["total"] == 2)
    assert waiter.response("POST").status == 502
    for state in (running, told()):
        for where, text in state.items():
            assert CANARY not in text, where
    # It is where it has to be.
    assert all(CANARY in raw.decode() for raw in client.lrange("resque:failed", 0, -1))


def test_the_example_of_mounting_it(fresh_valkey, tmp_path, relay):
    port = free_port()
    relay()
    text = (ROOT / "etc" / "examples" / "embed_status.py").read_text()
    assert text.count("tcp:8081:") == text.count('redis="localhost"') == 1
    text = text.replace("tcp:8081:", f"tcp:{port}:")
    (tmp_path / "embed.py").write_text(text.replace('"localhost"', f'"{fresh_valkey.url}"'))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [TWISTD[0], "--pidfile=", "-ny", "embed.py"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        eventually(lambda: listens(port) or process.poll() is not None)
        assert ask(port, "/hello") == (200, "hello from this process\n")
        eventually(lambda: json.loads(ask(port, "/ops/status.json")[1])["nodes"])
        assert ask(port, "/ops")[0] == 308
        assert "queuerelay_redis_up 1.0" in ask(port, "/ops/metrics")[1]
        assert ask(port, "/ops/status.json", Host="evil.example")[0] == 403
        assert ask(port, "/ops/status.json", "POST")[0] == 405
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()
    text = (tmp_path / "log").read_text()
    assert "Traceback" not in text, text


def test_a_key_of_the_wrong_type_is_named_and_other_queues_go_on(start, fresh_valkey):
    redis = fresh_valkey.client()
    _, port = start("--worker", "true", "--worker-queues", "a,b")
    redis.rpush("queuerelay:inflight:a", "not ours")
    redis.rpush("resque:queue:a", '{"class":"J","args":[]}')
    redis.rpush("resque:queue:b", '{"class":"J","args":[]}')

    def reason():
        reasons = status(port)["health"]["reasons"]
        return next((one for one in reasons if one["code"] == "wrong-type"), None)

    named = eventually(reason)
    assert (named["severity"], named["subject"]) == ("critical", "queuerelay:inflight:a")
    assert "queuerelay:inflight:a is a list, expected a hash" in named["text"]
    assert status(port)["redis"]["up"]
    code, body = ask(port, "/readyz")
    assert (code, json.loads(body)["reasons"]) == (503, ["wrong-type"])
    eventually(lambda: redis.llen("resque:queue:b") == 0)
    assert redis.llen("resque:queue:a") == 1
    redis.delete("queuerelay:inflight:a")
    eventually(lambda: ask(port, "/readyz")[0] == 200)
    eventually(lambda: redis.llen("resque:queue:a") == redis.hlen("queuerelay:inflight:a") == 0)
    assert redis.llen("resque:failed") == 0


def test_a_gate_of_the_wrong_type_is_not_redis_being_away(start, fresh_valkey):
    fresh_valkey.client().rpush("queuerelay:gate", "not ours")
    _, port = start()
    codes = {one["code"] for one in status(port)["health"]["reasons"]}
    assert "wrong-type" in codes
    assert "redis-down" not in codes
