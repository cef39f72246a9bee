"""Starting: every option from both sides, and every mistake as one line."""

import json
import socket
import subprocess

import pytest

from tests.helpers.daemon import Client, Worker, refused, run
from tests.helpers.ports import free_port
from tests.helpers.strict import request
from tests.helpers.waiting import eventually

OPTIONS = {
    "prefix": "mine:",
    "queue": "q",
    "deadline": 33.5,
    "max-held": 9,
    "max-held-bytes": 100000,
    "max-body": 1000,
    "max-queue": 3,
    "drain": 7.0,
    "access-log": "access.log",
    "error-pages": "pages",
    "server-timing": False,
    "legacy-replies": "responses",
}


@pytest.mark.parametrize("source", ["options", "file"])
def test_every_option_works_from_the_command_line_and_from_the_file(
    fresh_valkey, daemon, tmp_path, source
):
    sock = str(tmp_path / "s")
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "503.html").write_text("<p>Come back")
    if source == "options":
        given = [part for name, value in OPTIONS.items() for part in (f"--{name}", str(value))]
        one = daemon("--redis", fresh_valkey.url, "--listen", f"unix:{sock}", *given)
    else:
        lines = [
            f"{name.replace('-', '_')} = {json.dumps(value)}" for name, value in OPTIONS.items()
        ]
        prefix, *relay = lines
        port = free_port()
        relay.append(f'listen = ["tcp:{port}:interface=127.0.0.1", "unix:{sock}"]')
        file = tmp_path / "queuerelay.toml"
        file.write_text(
            "\n".join([f"redis = {json.dumps(fresh_valkey.url)}", prefix, "[relay]", *relay])
        )
        one = daemon("--config", str(file), port=port, listen=False)
    one.ready()
    worker = Worker(fresh_valkey.client())
    client = Client(sock)
    one.clients.append(client)
    client.send("GET", "/a")
    taken = worker.take("q")
    assert taken["reply_to"].startswith("mine:inbox:")
    assert round(taken["deadline"] - taken["accepted_at"], 3) == 33.5
    assert fresh_valkey.client().zcard("mine:nodes") == 1
    # legacy-replies
    worker.redis.rpush("responses", json.dumps({"node_id": taken["node_id"], "body": "a%20b"}))
    assert client.response().body == b"a b"
    # max-body
    large = one.connect().send("POST", "/", body=b"x" * 1001)
    assert large.response("POST").status == 413
    # max-queue
    waiting = [one.get(f"/{number}") for number in range(3)]
    eventually(lambda: worker.waiting("q") == 3)
    refused = one.get("/full").response()
    assert (refused.status, refused.get("retry-after")) == (503, b"10")
    # error-pages
    assert one.get("/full", ("Accept", "text/html")).response().body == b"<p>Come back"
    for _ in waiting:
        worker.reply(worker.take("q"), timing={"wait": 1, "run": 2})
    # server-timing
    answers = [client.response() for client in waiting]
    assert [(one.status, one.get("server-timing")) for one in answers] == [(200, None)] * 3
    log = eventually(lambda: one.log if "limits:" in one.log else None)
    for limit in (
        "deadline 33.5 seconds",
        "max-held 9 requests",
        "max-held-bytes 100000 bytes",
        "max-body 1000 bytes",
        "max-queue 3 messages",
        "drain 7 seconds",
    ):
        assert limit in log
    lines = eventually(
        lambda: (
            found if len(found := (tmp_path / "access.log").read_text().splitlines()) >= 4 else None
        )
    )
    assert '"GET /a HTTP/1.1" 200 3 ' in lines[0]


def test_the_limit_of_held_requests(relay, worker):
    one = relay("--max-held", "2")
    waiting = [one.get(f"/{number}") for number in range(2)]
    eventually(lambda: worker.waiting() == 2)
    refused = one.get("/3").response()
    assert (refused.status, refused.get("retry-after")) == (503, b"5")
    for client in waiting:
        taken = worker.serve()
        assert taken["url"].encode() == client.response().body


def test_routes_send_by_path_method_host_and_header(relay, worker, tmp_path):
    file = tmp_path / "routes.toml"
    file.write_text(
        """
        [[relay.route]]
        path = "/checkout/"
        queue = "by.path"
        deadline = 20
        [[relay.route]]
        method = "DELETE"
        queue = "by.method"
        [[relay.route]]
        host = "Shop.example"
        queue = "by.host"
        [[relay.route]]
        header = "X-Priority: high"
        queue = "by.header"
        """
    )
    one = relay("--config", str(file))
    sent = {
        "by.path": request("GET", "/checkout/1"),
        "by.method": request("DELETE", "/"),
        "by.host": b"GET / HTTP/1.1\r\nHost: shop.EXAMPLE:8000\r\n\r\n",
        "by.header": request("GET", "/", ("X-Priority", "high")),
        "requests": request("GET", "/checkout"),
    }
    for queue, data in sent.items():
        client = one.connect().send_raw(data)
        taken = worker.take(queue)
        assert round(taken["deadline"] - taken["accepted_at"]) == (20 if queue == "by.path" else 60)
        worker.reply(taken, body=queue.encode())
        assert client.response().body == queue.encode()
    # Resque's workers with QUEUE=* and resque-web find queues only in this set.
    known = {name.decode() for name in worker.redis.smembers("resque:queues")}
    assert known == set(sent)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--deadline", "soon"], ["--deadline", "'soon'", "seconds"]),
        (["--max-held", "0"], ["--max-held", "0", "requests"]),
        (["--queue", "a:b"], ["--queue", "'a:b'"]),
        (["--redis", "nonsense://"], ["--redis", "nonsense"]),
        (["--listen", "nowhere:1"], ["--listen", "'nowhere:1'", "tcp:8000"]),
        (["--listen", "tcp:http-no-such"], ["--listen"]),
        (["--listen", "tcp:65536"], ["--listen", "'tcp:65536'", "a port from 0 to 65535"]),
        (["--listen", "haproxy:tcp6:port=99999"], ["--listen", "a port from 0 to 65535"]),
        (["--status", "tcp:-1"], ["--status", "a port from 0 to 65535"]),
        (["--access-log", "/no/such/dir/log"], ["--access-log", "/no/such/dir", "No such file"]),
        (["--access-log", "/dev"], ["--access-log", "'/dev'", "Is a directory"]),
        (["--access-log", "/dev/null/log"], ["--access-log", "'/dev/null/log'"]),
        (["--no-such"], ["--no-such"]),
        (["surplus"], ["surplus"]),
        (["--config", "/no/such/file"], ["/no/such/file", "No such file"]),
        (["--deadline"], ["deadline"]),
    ],
)
def test_a_wrong_option_is_one_line(options, said, tmp_path):
    for more in ([], ["--check"]):
        if options[-1] == "--deadline" and more:
            continue
        line = refused(*options, *more, cwd=tmp_path)
        assert all(word in line for word in said), line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[relay]\ndeadlin = 3\n", ["relay.deadlin", "deadline"]),
        ("[relay]\ndeadline = 'x'\n", ["relay.deadline", "'x'", "seconds"]),
        ("[relay\n", ["file.toml:1"]),
        ("[[relay.route]]\npath = '/a'\n", ["relay.route[1].queue"]),
    ],
)
def test_a_wrong_file_is_one_line(text, said, tmp_path):
    (tmp_path / "file.toml").write_text(text)
    for more in ([], ["--check"]):
        line = refused("--config", "file.toml", *more, cwd=tmp_path)
        assert all(word in line for word in said), line


def test_what_only_shows_at_the_start_is_one_line_as_well(short_dir, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(short_dir))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        line = refused("--redis", "embedded", "--listen", endpoint, cwd=short_dir)
        assert f"--listen {endpoint}" in line
        assert "in use" in line
    free = f"tcp:{free_port()}:interface=127.0.0.1"
    line = refused("--listen", free, "--access-log", "/no/such/dir/log", cwd=short_dir)
    assert "--access-log" in line
    assert "/no/such/dir/log" in line
    (short_dir / "pages").mkdir()
    (short_dir / "pages" / "502.html").write_bytes(b"")
    for more in ([], ["--check"]):
        line = refused("--listen", free, "--error-pages", "pages", *more, cwd=short_dir)
        assert "--error-pages" in line
        assert "pages/502.html: empty" in line
    line = refused("--listen", free, "--redis", "embedded:/proc/no", cwd=short_dir)
    assert "--redis" in line
    # Nothing of the embedded server that was never started is left.
    assert [path.name for path in short_dir.iterdir() if path.name.startswith("queuerelay")] == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("", "lines of: bearer NAME TOKEN"),
        ("bearer deploy short\n", "at least 12 characters"),
        ("nobody\n", "line 1"),
    ],
)
def test_a_file_of_credentials_is_looked_at(tmp_path, content, said):
    path = tmp_path / "file"
    if content is not None:
        path.touch(0o600)
        path.write_text(content)
    listen = ("--listen", f"tcp:{free_port()}:interface=127.0.0.1")
    for more in ([], ["--check"]):
        options = (*listen, "--status", "tcp:0:interface=127.0.0.1", *more)
        line = refused(*options, "--status-credentials", str(path), cwd=tmp_path)
        assert "--status-credentials" in line
        assert said in line


def test_check_refuses_credentials_that_others_can_read(tmp_path):
    path = tmp_path / "file"
    path.write_text(f"bearer deploy {'0' * 16}\n")
    path.chmod(0o644)
    options = ("--status", "tcp:0", "--status-credentials", str(path), "--check")
    assert "0600" in refused(*options, cwd=tmp_path)
    path.chmod(0o640)
    assert run(*options, cwd=tmp_path).returncode == 0


def test_key_and_certificate_belong_together(tmp_path):
    for name in ("a", "b"):
        command = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ]
        out = ["-nodes", "-subj", "/CN=localhost", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        subprocess.run([*command, *out], cwd=tmp_path, check=True, capture_output=True)
    for more in ([], ["--check"]):
        for cert in ("b.pem", "none.pem"):
            endpoint = f"ssl:0:privateKey=a.key:certKey={cert}:interface=127.0.0.1"
            assert "--listen" in refused("--listen", endpoint, *more, cwd=tmp_path)
    endpoint = "ssl:0:privateKey=a.key:certKey=a.pem:interface=127.0.0.1"
    assert run("--listen", endpoint, "--check", cwd=tmp_path).returncode == 0


def test_check_says_that_all_is_well_and_starts_nothing(tmp_path):
    (tmp_path / "file.toml").write_text("[relay]\nlisten = ['tcp:1']\naccess_log = 'log'\n")
    done = run("--config", "file.toml", "--check", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "queuerelay: the configuration is valid\n"
    assert [path.name for path in tmp_path.iterdir()] == ["file.toml"]


def test_help_names_every_option_with_its_unit_and_default(tmp_path):
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    for name in OPTIONS:
        assert f"--{name}=" in text
    assert "[seconds; default: 60]" in text
    assert "--listen=" in text
