"""Applications that hang, fork, die or wait for nobody: the worker as its parent has it."""

import json
import os
import signal
import textwrap

import pytest

from queuerelay.wire.reply import Failed, decode_reply
from tests.helpers.processes import alive, children
from tests.helpers.waiting import PATIENCE, eventually
from tests.helpers.worker import INBOX, Worker, stage

__all__ = ["stage"]

APP = """
    import os, pathlib, re, sys, time

    HERE = pathlib.Path(__file__).parent

    def waiting():
        try:
            while True:
                time.sleep(0.01)
                yield b""
        finally:
            (HERE / "closed").touch()

    def silent():
        yield b"one"
        time.sleep(3600)

    def application(environ, start_response):
        path = environ["PATH_INFO"]
        with (HERE / "runs").open("a") as runs:
            runs.write(f"{os.getpid()} {environ['REQUEST_METHOD']} {path}\\n")
        if path == "/sleep":
            time.sleep(3600)
        if path == "/spin":
            # Holds the interpreter: no other thread of the process gets a turn.
            re.match("(a+)+$", "a" * 64 + "b")
        if path == "/segv":
            os.kill(os.getpid(), 11)
        if path == "/term":
            while not (HERE / "go").exists():
                time.sleep(0.005)
        start_response("200 OK", [])
        if path == "/empty":
            return waiting()
        if path == "/silent":
            return silent()
        if path == "/fork":
            if os.fork() == 0:
                return [b"child"]
        if path == "/fork-stream":
            return (b"child" if os.fork() == 0 else b"parent" for _ in range(1))
        if path == "/fork-exit":
            if os.fork() == 0:
                sys.exit(3)
        return [path.encode(), b" ", str(os.getpid()).encode()]
"""


@pytest.fixture(autouse=True)
def app(stage):
    (stage.directory / "app.py").write_text(textwrap.dedent(APP))


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/sleep", "/spin"])
def test_an_application_that_hangs_costs_its_own_request_alone(stage, path, method):
    worker = stage.worker("--timeout", "0.5")
    first = worker.pid
    reply = stage.reply(stage.push(path, method=method))
    assert isinstance(reply, Failed)
    assert (reply.status, reply.problem) == (504, "worker-timeout")
    assert stage.reply(stage.push("/after")).body.startswith(b"/after ")
    stage.done()
    assert worker.pid != first
    assert [(run[0] == first, run[2]) for run in stage.runs()] == [(True, path), (False, "/after")]
    (entry,) = stage.failed()
    assert entry["exception"] == "WorkerTimeout"
    (attempt,) = entry["queuerelay"]["attempts"]
    assert (attempt["error"], attempt["run"] >= 0.5) == ("time-out", True)
    assert f"worker process {first} hung, and was killed" in worker.log
    assert f"worker-timeout: {method} '{path}' after " in worker.log
    # Where it hung.
    assert "app.py" in worker.log
    assert "in application" in worker.log


def test_by_default_the_deadline_is_the_limit(stage):
    worker = stage.worker()
    assert stage.reply(stage.push("/sleep", life=1.0)).status == 504
    assert stage.reply(stage.push("/after")).status == 200
    assert "hung" in worker.log


def test_without_a_limit_there_is_no_parent(stage):
    worker = stage.worker("--timeout", "0")
    assert worker.pid == worker.process.pid
    assert stage.reply(stage.push("/")).body.endswith(b" %d" % worker.pid)
    worker.signal(signal.SIGTERM)
    assert worker.exit() == 0


def test_a_stream_that_says_nothing_more_is_given_up(stage):
    stage.worker("--timeout", "0.5")
    node_id = stage.push("/silent")
    assert json.loads(stage.redis.blpop([INBOX], PATIENCE)[1])["more"] is True
    assert stage.reply(node_id).status == 504
    assert stage.reply(stage.push("/after")).status == 200


def test_empty_blocks_are_no_life_without_a_client(stage):
    worker = stage.worker()
    node_id = stage.push("/empty")
    stage.running("/empty")
    stage.redis.set(f"queuerelay:gone:{node_id}", "1")
    eventually((stage.directory / "closed").exists)
    assert stage.reply(stage.push("/after")).status == 200
    assert f"{node_id}: its client has left" in worker.log
    assert "hung" not in worker.log


def test_empty_blocks_end_with_the_deadline(stage):
    worker = stage.worker("--timeout", "60")
    stage.push("/empty", life=1.0)
    eventually((stage.directory / "closed").exists)
    assert stage.reply(stage.push("/after")).status == 200
    assert "its deadline has passed" in worker.log
    assert "hung" not in worker.log


@pytest.mark.parametrize("path", ["/fork", "/fork-stream", "/fork-exit"])
@pytest.mark.parametrize("option", ["60", "0"])
def test_a_process_that_an_application_forks_is_no_worker(stage, path, option):
    worker = stage.worker("--timeout", option)
    serving = worker.pid
    for number in range(5):
        node_id = stage.push(path)
        raws = [stage.redis.blpop([INBOX], PATIENCE)[1]]
        if path == "/fork-stream":
            raws.append(stage.redis.blpop([INBOX], PATIENCE)[1])
            assert "".join(json.loads(raw).get("body", "") for raw in raws) == "parent"
        else:
            assert decode_reply(raws[0]).body.endswith(b" %d" % serving), number
        assert json.loads(raws[0])["node_id"] == node_id
    eventually(lambda: not children(serving))
    assert stage.redis.llen(INBOX) == 0
    stage.done()


@pytest.mark.parametrize("to", ["parent", "both"])
def test_the_first_signal_lets_the_request_finish_whoever_gets_it(stage, to):
    worker = stage.worker()
    node_id = stage.push("/term")
    stage.running("/term")
    worker.signal(signal.SIGTERM)
    if to == "both":
        os.kill(worker.pid, signal.SIGTERM)
    (stage.directory / "go").touch()
    assert stage.reply(node_id).status == 200
    assert worker.exit() == 0
    assert "stopped by SIGTERM: 1 requests answered" in worker.log


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_a_process_whose_parent_is_killed_ends(stage, number):
    worker = stage.worker()
    serving = worker.pid
    stage.push("/sleep")
    stage.running("/sleep")
    worker.signal(number)
    assert worker.exit() == -number
    eventually(lambda: not alive(serving))


def test_a_process_that_dies_takes_its_parent_with_it(stage):
    worker = stage.worker()
    stage.push("/segv")
    assert worker.exit() == -signal.SIGSEGV


def test_what_cannot_be_imported_is_one_line_and_exit_status_1(stage):
    (stage.directory / "app.py").write_text("import no_such_module\n")
    worker = Worker(stage.directory, stage.server.url)
    stage.workers.append(worker)
    assert worker.exit() == 1
    assert worker.log.splitlines()[-1].startswith("queuerelay-worker: wrong configuration: ")


def test_a_signal_during_the_import_ends_it(stage):
    (stage.directory / "app.py").write_text(
        "import pathlib, time\npathlib.Path('importing').touch()\ntime.sleep(3600)\n"
    )
    worker = Worker(stage.directory, stage.server.url)
    stage.workers.append(worker)
    eventually((stage.directory / "importing").exists)
    worker.signal(signal.SIGTERM)
    assert worker.exit() == -signal.SIGTERM
