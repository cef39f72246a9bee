"""The access log of the real daemon: a line for each request, in one file or the next."""

import json
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.helpers import daemon as harness
from tests.helpers.daemon import ROOT, Worker
from tests.helpers.log_line import lines
from tests.helpers.strict import request
from tests.helpers.waiting import PATIENCE, eventually

LOGROTATE = shutil.which("logrotate", path="/usr/sbin:/usr/bin:/sbin:/bin")
GOACCESS = shutil.which("goaccess")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "access.log"


def logged(path, count):
    """So many lines, once they are there."""
    return eventually(
        lambda: found if path.exists() and len(found := lines(path)) >= count else None
    )


def test_every_end_has_its_line(relay, worker, path):
    one = relay("--access-log", str(path), "--deadline", "1", "--max-body", "10")

    def expect(target, status, end, *, queue=b"requests", size=None):
        expected.append((target, status, end, queue))
        sizes.append(size)
        if end == b"gone":
            # Nobody else tells when the relay has seen it.
            logged(path, len(expected))

    expected, sizes = [], []
    client = one.get("/answered", ("X-Request-Id", "r-1"), ("Referer", "http://a/"))
    worker.reply(worker.take(), body=b"12345", timing={"wait": 0.5, "run": 2})
    client.response()
    expect(b"/answered", b"200", b"answered", size=b"5")
    client = one.get("/expired")
    assert client.response().status == 503
    expect(b"/expired", b"503", b"expired")
    client = one.get("/late")
    worker.take()
    assert client.response().status == 504
    expect(b"/late", b"504", b"expired")
    client = one.get("/gone")
    worker.take()
    client.close()
    expect(b"/gone", b"499", b"gone", size=b"0")
    client = one.get("/refused")
    taken = worker.take()
    worker.redis.rpush(
        taken["reply_to"], b'{"node_id":"%b","status":7}' % taken["node_id"].encode()
    )
    assert client.response().status == 502
    expect(b"/refused", b"502", b"refused")
    one.connect().send("POST", "/early", body=b"x" * 11).response("POST")
    expect(b"/early", b"413", b"early", queue=b"-")
    client = one.get("/aborted")
    taken = worker.take()
    frame = {"node_id": taken["node_id"], "status": 206, "body": "abc", "more": True}
    worker.redis.rpush(taken["reply_to"], json.dumps(frame))
    eventually(client.readable)
    worker.redis.rpush(taken["reply_to"], json.dumps({**frame, "more": 7}))
    expect(b"/aborted", b"206", b"aborted")
    found = logged(path, len(expected))
    assert [(line[3].split()[1], line[4], line[12], line[8]) for line in found] == expected
    for line, size in zip(found, sizes, strict=True):
        assert line[1] == b"127.0.0.1"
        assert size is None or line[5] == size
        assert (line[11] == b"-") is (line[12] == b"early")
    assert found[0].group(6, 9, 10, 13) == (b"http://a/", b"0.500", b"2.000", b"r-1")
    assert 1 <= float(found[1][11]) < PATIENCE


HOSTILE = [
    b'" 200 5 "x" "y" queue=z wait=0.000 run=0.000 total=0.000 end=answered id=z',
    b"\t tab and \\ backslash \\x22 \\n",
    b"\xff\xfe\x85\xa0\xe2\x80\xa8",
    b"\x1b]0;title\x07",
    b"a\x00b",
    b"x" * 7000,
    b"%0a%0d%00",
    b"${jndi:ldap://x} <script> ' OR 1=1 --",
]


def test_whatever_clients_send_it_is_one_line_for_each_request(relay, worker, path):
    one = relay("--access-log", str(path), "--deadline", "0.2")
    clients = []
    for text in HOSTILE:
        for data in (
            request().replace(b" / ", b" /" + text + b" ", 1),
            request().replace(b"\r\n\r\n", b"\r\nUser-Agent: " + text + b"\r\n\r\n"),
            request().replace(b"\r\n\r\n", b"\r\nReferer: " + text + b"\r\n\r\n"),
            request().replace(b"\r\n\r\n", b"\r\nX-Request-Id: " + text + b"\r\n\r\n"),
            request().replace(b"GET", text, 1),
        ):
            clients.append(one.connect().send_raw(data))
    statuses = {client.response().status for client in clients}
    assert statuses <= {400, 414, 501, 503, 505}
    assert {400, 503} <= statuses
    found = logged(path, len(clients))
    assert len(found) == len(clients)
    assert path.read_bytes().isascii()
    agents = {line[7] for line in found}
    assert b"\\xff\\xfe\\x85\\xa0\\xe2\\x80\\xa8" in agents
    assert b"tab and \\x5c backslash \\x5cx22 \\x5cn" in agents


class Traffic:
    """Clients and a worker that go on until they are told to stop."""

    def __init__(self, one, valkey, clients=3):
        self.sent = []
        self._one = one
        self._enough = threading.Event()
        self._valkey = valkey
        self._threads = [
            threading.Thread(target=self._ask, args=(number,)) for number in range(clients)
        ]
        self._worker = threading.Thread(target=self._work)

    def __enter__(self):
        for thread in (*self._threads, self._worker):
            thread.start()
        return self

    def __exit__(self, *_):
        self._enough.set()
        for thread in (*self._threads, self._worker):
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def _ask(self, number):
        client = self._one.connect()
        count = 0
        while not self._enough.is_set():
            id = f"{number}-{count}"
            assert client.send("GET", "/", ("X-Request-Id", id)).response().status == 200
            self.sent.append(id.encode())
            count += 1

    def _work(self):
        worker = Worker(self._valkey.client())
        while any(thread.is_alive() for thread in self._threads):
            found = worker.redis.blpop(["resque:queue:requests"], timeout=0.2)
            if found is not None:
                worker.reply(json.loads(found[1])["args"][0])


def ids(*paths):
    """The ids in these files, sorted; each line of them is whole."""
    return sorted(line[13] for path in paths for line in lines(path))


def test_no_line_is_lost_while_it_is_renamed_under_traffic(relay, fresh_valkey, path):
    one = relay("--access-log", str(path))
    old = [path.with_suffix(f".{number}") for number in range(8)]
    with Traffic(one, fresh_valkey) as traffic:
        for number, target in enumerate(old):
            enough = len(traffic.sent) + 20
            eventually(lambda: len(traffic.sent) >= enough)  # noqa: B023  # called at once
            path.rename(target)
            one.signal(signal.SIGUSR1 if number % 4 else signal.SIGHUP)
            eventually(path.exists)
    one.signal(signal.SIGTERM)
    assert one.exit() == 0
    assert ids(path, *old) == sorted(traffic.sent)
    assert all(lines(file) for file in old)


def test_the_example_for_logrotate_rotates_without_a_lost_line(relay, fresh_valkey, tmp_path):
    if LOGROTATE is None:
        pytest.skip("needs logrotate")
    logs = tmp_path / "logs"
    logs.mkdir(mode=0o750)
    path = logs / "access.log"
    one = relay("--access-log", str(path))
    example = (ROOT / "etc/examples/logrotate").read_text()
    command = "systemctl kill --kill-whom=main --signal=USR1 queuerelay.service"
    for theirs, ours in {
        "/var/log/queuerelay/access.log": str(path),
        "create 0640 queuerelay adm": "create 0640",
        command: f"kill -USR1 {one.process.pid}",
    }.items():
        assert theirs in example
        example = example.replace(theirs, ours)
    config = tmp_path / "rotate"
    config.write_text(example)
    config.chmod(0o600)
    with Traffic(one, fresh_valkey) as traffic:
        for number in range(1, 4):
            enough = len(traffic.sent) + 20
            eventually(lambda: len(traffic.sent) >= enough)  # noqa: B023  # called at once
            # An empty file is not rotated.
            eventually(lambda: path.stat().st_size)
            done = subprocess.run(
                [LOGROTATE, "--force", "--state", str(tmp_path / "state"), str(config)],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            assert (done.returncode, done.stderr) == (0, "")
            assert len(list(logs.iterdir())) == number + 1
    one.signal(signal.SIGTERM)
    assert one.exit() == 0
    rest = []
    for file in sorted(logs.glob("*.gz")):
        subprocess.run(["gunzip", str(file)], timeout=PATIENCE, check=True)
        rest.append(file.with_suffix(""))
    assert ids(path, path.with_name("access.log.1"), *rest) == sorted(traffic.sent)


def test_twistds_own_log_is_rotated_by_the_same_signal(
    fresh_valkey, daemon, monkeypatch, tmp_path, path
):
    log = tmp_path / "twistd.log"
    twistd = Path(sys.executable).with_name("twistd")
    monkeypatch.setattr(
        harness, "TWISTD", [str(twistd), "-n", "--pidfile=", "--logfile", str(log), "queuerelay"]
    )
    one = daemon("--redis", fresh_valkey.url, "--access-log", str(path)).ready()
    eventually(lambda: "limits:" in log.read_text())
    client = one.get("/1")
    worker = Worker(fresh_valkey.client())
    worker.serve()
    client.response()
    old = path.rename(path.with_suffix(".1"))
    one.signal(signal.SIGUSR1)
    eventually(path.exists)
    assert len(lines(old)) == 1
    assert "limits:" in eventually((tmp_path / "twistd.log.1").read_text)
    client.send("GET", "/2")
    worker.serve()
    client.response()
    assert len(logged(path, 1)) == 1
    one.signal(signal.SIGTERM)
    assert one.exit() == 0
    assert "stopped" in log.read_text()


def test_without_an_access_log_the_signal_does_nothing(relay, worker):
    one = relay()
    one.signal(signal.SIGUSR1)
    client = one.get("/")
    worker.serve()
    assert client.response().status == 200


def test_a_program_that_knows_the_combined_format_reads_it(relay, worker, path, tmp_path):
    if GOACCESS is None:
        pytest.skip("needs goaccess")
    one = relay("--access-log", str(path), "--deadline", "0.2")
    client = one.connect().send(
        "GET", '/a?b="', ("User-Agent", 'evil" 200'), ("Referer", "http://a/")
    )
    client.response()
    client = one.get("/good")
    worker.serve(body=b"12345", timing={"wait": 0.5})
    client.response()
    logged(path, 2)
    report = tmp_path / "report.json"
    subprocess.run(
        [GOACCESS, str(path), "--log-format=COMBINED", "--no-global-config", "-o", str(report)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    read = json.loads(report.read_text())
    assert (read["general"]["valid_requests"], read["general"]["failed_requests"]) == (2, 0)
    assert {one["data"][:3] for one in read["status_codes"]["data"]} == {"2xx", "5xx"}
    assert "/good" in {one["data"] for one in read["requests"]["data"]}
