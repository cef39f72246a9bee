"""``queuerelay`` on the command line, asked of a real daemon."""

import contextlib
import io
import json
import os
import pty
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest import mock

import pytest

from queuerelay.cli import SHOWN, main
from queuerelay.client import Client, Unreachable
from tests.helpers.daemon import ROOT
from tests.helpers.ports import free_port
from tests.helpers.waiting import eventually
from tests.integration.relay.place import TOKEN, Place

COMMAND = [sys.executable, "-m", "queuerelay.cli"]
BOUND = 60


def run(*arguments, url="http://127.0.0.1:9", stdin="", **environment):
    """Its exit status, output and errors."""
    out, errors = io.StringIO(), io.StringIO()
    environment = {"QUEUERELAY_URL": url, "QUEUERELAY_TOKEN": "", **environment}
    with (
        mock.patch.dict(os.environ, environment),
        mock.patch.object(sys, "stdin", io.StringIO(stdin)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
    ):
        try:
            status = main(arguments)
        except SystemExit as end:
            status = end.code
    return status, out.getvalue(), errors.getvalue()


@pytest.fixture
def place(tmp_path, daemon, fresh_valkey):
    place = Place(tmp_path, daemon, fresh_valkey)

    def cli(*arguments, **how):
        return run(*arguments, url=f"http://127.0.0.1:{place.port}", QUEUERELAY_TOKEN=TOKEN, **how)

    place.cli = cli
    return place


def test_a_day_of_an_operator(place):
    status, out, errors = place.cli("status")
    assert (status, errors) == (0, "")
    assert out.startswith("queuerelay ")
    assert "jobs" in out
    assert "\x1b" not in out
    assert place.cli("pause", "jobs") == (0, "paused\n", "")
    status, id, _ = place.cli("submit", "jobs", "Job", '["fail"]')
    assert status == 0
    eventually(lambda: "paused" in place.cli("status")[1])
    assert place.client.llen("resque:queue:jobs") == 1
    assert place.cli("resume", "jobs")[:2] == (0, "resumed\n")
    eventually(lambda: place.status()["failures"]["total"] == 1)
    status, out, _ = place.cli("failed", "list")
    assert "1 dead letters" in out
    assert id.strip() in out
    short = out.splitlines()[-1].split()[0]
    status, out, _ = place.cli("failed", "show", short)
    assert status == 0
    assert "attempt 1: exit status 1" in out
    assert "    oh dear" in out
    assert place.cli("failed", "retry", short)[:2] == (0, "retried\n")
    # What the listener shows is a little old.
    eventually(lambda: place.client.llen("resque:failed") == 1)
    assert place.cli("failed", "drop", "--all")[:2] == (0, "1 dropped\n")
    assert place.cli("scale", "default", "2")[:2] == (0, "1 slots before, 2 now\n")
    assert place.cli("drain", "default")[0] == 0
    assert place.cli("drain", "--off", "default")[:2] == (0, "takes messages again\n")


def test_a_job_from_stdin_is_stopped(place):
    status, id, _ = place.cli("submit", "jobs", "Job", "-", stdin='["stay"]')
    assert status == 0
    eventually((place.directory / "started").exists)
    assert place.cli("stop", "--kill", id.strip()) == (0, "its script was killed\n", "")
    assert place.cli("stop", id.strip())[0] == 1


def listed_from(place, start):
    out = place.cli("failed", "list", "--json", "--start", str(start), "--count", "50")[1]
    return json.loads(out)["items"]


def test_many_ids_are_one_walk(place):
    place.cli("pause", "jobs")
    entry = {"payload": {"class": "J", "args": []}, "queue": "jobs", "failed_at": "", "error": ""}
    for number in range(120):
        place.client.rpush("resque:failed", json.dumps({**entry, "worker": f"w:{number}:q"}))
    listed = [one["id"] for start in (0, 50, 100) for one in listed_from(place, start)]
    with mock.patch.object(Client, "failures", autospec=True, side_effect=Client.failures) as asked:
        ids = [one[:SHOWN] for one in listed[:119]]
        assert place.cli("failed", "drop", *ids)[:2] == (0, "119 dropped\n")
    assert asked.call_count <= 7
    refused(place.cli("failed", "drop", listed[119][:SHOWN], "0" * SHOWN), 1, "0" * SHOWN)
    # A part that is too short to name it is none.
    refused(place.cli("failed", "drop", listed[119][:8]), 1, "no such dead letter")
    assert place.client.llen("resque:failed") == 1


def test_json_is_what_the_listener_says(place):
    status, out, _ = place.cli("status", "--json")
    assert status == 0
    assert {*json.loads(out)} == {*place.status()}
    status, out, _ = place.cli("failed", "list", "--json")
    assert json.loads(out)["total"] == 0


def refused(result, status, *texts):
    """One line on stderr, nothing on stdout, and no traceback."""
    code, out, errors = result
    assert (code, out) == (status, "")
    assert len(errors.splitlines()) == 1
    for text in texts:
        assert text in errors


def test_what_is_refused(place, tmp_path):
    refused(place.cli("restart", "default"), 1, "nothing to restart")
    refused(place.cli("scale", "nothing", "2"), 1, "no such pool")
    refused(place.cli("failed", "drop", "0123"), 1, "no such dead letter")
    refused(place.cli("failed", "show", "0123"), 1, "no such dead letter")
    refused(place.cli("pause", "a:b"), 1, "queue")
    url = f"http://127.0.0.1:{place.port}"
    refused(run("pause", "jobs", url=url), 1, "credentials")
    refused(run("pause", "jobs", url=url, QUEUERELAY_TOKEN="0" * 16), 1, "credentials")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    token = str(tmp_path / "token")
    assert run("--token-file", token, "pause", "jobs", url=url)[0] == 0


def test_wrong_command_lines(tmp_path):
    refused(run("failed", "drop"), 2, "--all")
    refused(run("failed", "drop", "--all", "0123"), 2, "--all")
    refused(run("submit", "q", "J", "{}"), 2, "list")
    refused(run("submit", "q", "J", "[" * 100_000), 2, "JSON")
    refused(run("--token-file", str(tmp_path / "no"), "status"), 2, "--token-file")
    refused(run("--url", "localhost:8080", "status"), 2, "localhost:8080")
    refused(run("--url", "http://x:y@z", "status"), 2, "without user")
    refused(run("status", QUEUERELAY_TOKEN="a\nb"), 2, "token")
    for arguments in ([], ["nothing"], ["scale", "p", "-1"], ["--timeout", "0", "status"]):
        code, out, errors = run(*arguments)
        assert (code, out) == (2, "")
        assert "Traceback" not in errors


def test_odd_texts_on_the_command_line():
    for url in ("http://h/ä", "http://h/a b", "http://a..b", f"http://{'a' * 64}.example"):
        refused(run("--url", url, "status"), 2, "expected")
    refused(run("pause", "\udcff", QUEUERELAY_TOKEN=TOKEN), 1, "cannot be sent")
    refused(run("submit", "q", "J", "[NaN]", QUEUERELAY_TOKEN=TOKEN), 1, "cannot be sent")
    for arguments in (["scale", "p", "x"], ["--timeout", "x", "status"]):
        code, _, errors = run(*arguments)
        assert (code, "got 'x', expected" in errors) == (2, True)
    stdin = mock.Mock(read=b"\xff".decode)
    with mock.patch.object(sys, "stdin", stdin), contextlib.redirect_stderr(io.StringIO()):
        assert main(["submit", "q", "J", "-"]) == 2


def test_an_ipv6_address_without_a_port():
    with (
        mock.patch("socket.create_connection", side_effect=ConnectionRefusedError) as connect,
        pytest.raises(Unreachable),
    ):
        Client("http://[::1]").status()
    assert connect.call_args.args[0] == ("::1", 80)


def test_whole_numbers_keep_their_digits(place):
    place.cli("pause", "jobs")
    assert place.cli("submit", "jobs", "Job", "[123456789012345678901]")[0] == 0
    assert b"[123456789012345678901]" in place.client.lindex("resque:queue:jobs", 0)


def command(place, *arguments, shell="", **environment):
    """The real command, at the end of a line of the shell's."""
    return subprocess.run(
        ["/bin/sh", "-c", f'"$@" {shell}', "-", *COMMAND, *arguments],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "QUEUERELAY_URL": f"http://127.0.0.1:{place.port}",
            "QUEUERELAY_TOKEN": TOKEN,
            **environment,
        },
        capture_output=True,
        timeout=BOUND,
        check=False,
    )


def test_odd_locales_and_closed_streams(place):
    place.client.sadd("resque:queues", "größe", "漢字", "\x9b31m")
    eventually(lambda: any(one["name"] == "漢字" for one in place.status()["queues"]))
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = command(place, "status", **plain)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert rb"gr\xf6\xdfe" in ended.stdout
    ended = command(place, "status", "--json", PYTHONIOENCODING="latin-1")
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.isascii()
    assert "漢字" in [one["name"] for one in json.loads(ended.stdout)["queues"]]
    ended = command(place, "status", shell=">/dev/full")
    assert ended.returncode == 3
    assert ended.stderr == b"queuerelay: cannot write: No space left on device\n"
    ended = command(place, "status", shell=">&-")
    assert (ended.returncode, ended.stderr) == (0, b"")
    ended = command(place, "submit", "q", "J", "-", shell="<&-")
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1


def test_a_watch_goes_on_while_the_listener_is_away(place):
    answers = [place.status(), Unreachable("away"), place.status(), KeyboardInterrupt()]
    with mock.patch.object(Client, "status", side_effect=answers):
        status, out, errors = place.cli("status", "--watch", "0.01")
    assert (status, errors) == (130, "queuerelay: away\n")
    assert out.count("queuerelay ") == 2


def test_nobody_there():
    refused(run("status", url=f"http://127.0.0.1:{free_port()}"), 3, "Connection refused")
    refused(run("status", url="http://nowhere.invalid"), 3, "nowhere.invalid")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "closed"),
        (b"no HTTP\r\n\r\n", "http"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "no status listener"),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", "302"),
        (b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\n\x1b[31mred!", r"\x1b[31mred!"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", "no status listener"),
        (b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\n[]", "[]"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"health":[]}', "no status listener"),
    ],
)
def test_somebody_else_there(answer, text):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            client, _ = server.accept()
            with client:
                client.recv(65536)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        code, out, errors = run("status", url=f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert (code in (1, 3), out) == (True, "")
    assert len(errors.splitlines()) == 1
    assert text.lower() in errors.lower() or text == "closed"


def test_somebody_who_never_answers():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        refused(run("--timeout", "0.2", "status", url=url), 3, "no answer in time")


def test_somebody_who_answers_bit_by_bit():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            client, _ = server.accept()
            with client, contextlib.suppress(OSError):
                client.recv(65536)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 102\r\n\r\n")
                for char in b" " * 100 + b"{}":
                    client.sendall(bytes([char]))
                    # Each comes well within the bound, all of them do not.
                    time.sleep(0.02)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        answer = run("--timeout", "0.5", "status", url=url)
        thread.join()
    refused(answer, 3, "no answer in time")


def test_a_reader_that_has_enough(place):
    # As `queuerelay status --watch | head -1` does.
    watch = subprocess.Popen(
        [*COMMAND, "status", "--watch", "0.1"],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "QUEUERELAY_URL": f"http://127.0.0.1:{place.port}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert watch.stdout.readline().startswith(b"queuerelay ")
    watch.stdout.close()
    errors = watch.stderr.read()
    watch.stderr.close()
    assert watch.wait(BOUND) == 141
    assert errors == b""


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_on_a_terminal(place, environment, coloured):
    place.client.sadd("resque:queues", "a" * 100, "\x1b[2Jevil")
    eventually(lambda: any("evil" in one["name"] for one in place.status()["queues"]))
    ours, theirs = pty.openpty()
    subprocess.run(
        [*COMMAND, "status"],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "QUEUERELAY_URL": f"http://127.0.0.1:{place.port}",
            "COLUMNS": "60",
            "TERM": "xterm",
            "PYTHONIOENCODING": "utf-8",
            **environment,
        },
        stdout=theirs,
        timeout=BOUND,
        check=True,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:
            break
        if not chunk:
            break
        shown += chunk
    os.close(ours)
    lines = shown.decode().splitlines()
    assert ("\x1b" in lines[0]) == coloured
    assert "\x1b" not in "".join(lines[1:])
    assert all(len(line) <= 60 for line in lines[1:])
    assert any("evil" in line for line in lines)


def test_check_says_by_its_exit_status_whether_all_is_well(place):
    assert place.cli("status", "--check")[0] == 0


def test_help_has_examples():
    code, out, _ = run("--help")
    assert code == 0
    assert "queuerelay pause requests && ./deploy && queuerelay resume requests" in out
    for command in ("status", "pause", "failed", "scale", "drain", "restart", "stop", "submit"):
        assert run(command, "--help")[0] == 0


def test_it_starts_without_twisted():
    code = "import sys, queuerelay.cli; assert 'twisted' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=BOUND)


def test_the_entry_point_is_this(tmp_path):
    assert "queuerelay = queuerelay.cli:main" in Path(ROOT, "setup.cfg").read_text()
