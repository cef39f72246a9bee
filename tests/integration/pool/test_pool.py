"""Pools on a real server, with real scripts."""

import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from queuerelay.processes import spawner
from queuerelay.processes.spawner import supported
from queuerelay.wire.commands import MOST_RESULTS
from queuerelay.wire.outcome import Outcome
from tests.helpers.processes import alive
from tests.integration.pool.bench import KEYS, REPLY_TO, Bench

pytestmark = pytest.mark.skipif(not supported(), reason="no pidfd here")


def kill(pid: int) -> None:
    """End an orphan, which is ours then: the tests adopt them."""
    os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


@pytest_twisted.async_yield_fixture(params=["ours", "launched"])
async def bench(
    request: pytest.FixtureRequest,
    fresh_valkey: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Bench]:
    """In either way of starting scripts."""
    if request.param == "launched":
        monkeypatch.setattr(spawner, "CROWDED", 0)
    bench = Bench(fresh_valkey, tmp_path)
    yield bench
    await bench.stop()


# Requests


async def test_a_shell_script_answers_a_request(bench):
    script = bench.script(
        r"""
        printf 'Status: 201 Created\r\nContent-Type: text/plain\r\n'
        printf 'X-Id: %s\r\n\r\n' "$QUEUERELAY_ID"
        echo "$REQUEST_METHOD $SCRIPT_NAME $PATH_INFO $QUERY_STRING $HTTP_X_ONE"
        cat
        """
    )
    await bench.pool(script, script_name="/app")
    bench.request(method="POST", body="grüße".encode())
    (reply,) = await bench.until(lambda: bench.replies)
    assert reply["node_id"] == "r"
    assert reply["status"] == 201
    assert ["X-Id", "r"] in reply["headers"]
    assert reply["body"] == "POST /app /a b x=1 1\ngrüße"
    await bench.idle()


async def test_a_wsgi_application_under_wsgirefs_cgi_handler(bench):
    script = bench.python(
        """
        from wsgiref.handlers import CGIHandler
        def app(environ, start_response):
            size = int(environ.get("CONTENT_LENGTH") or 0)
            body = environ["wsgi.input"].read(size)
            start_response("200 Fine", [("Content-Type", "text/html"), ("Set-Cookie", "a=1"),
                                        ("Set-Cookie", "b=2")])
            return [environ["PATH_INFO"].encode(), b"|%d|" % len(body), body[-4:]]
        CGIHandler().run(app)
        """
    )
    await bench.pool(script)
    bench.request(method="PUT", body=b"\xff" * (16 * 1024 * 1024 - 4) + b"last")
    (reply,) = await bench.until(lambda: bench.replies)
    assert reply["status"] == 200
    assert reply["body"] == "/app/a b|16777216|last"
    assert [value for name, value in reply["headers"] if name == "Set-Cookie"] == ["a=1", "b=2"]


async def test_a_script_that_reads_nothing(bench):
    script = bench.script("printf 'Content-Type: text/plain\\n\\nno'")
    await bench.pool(script)
    bench.request(method="POST", body=b"x" * (16 * 1024 * 1024))
    (reply,) = await bench.until(lambda: bench.replies)
    assert (reply["status"], reply["body"]) == (200, "no")
    await bench.idle()


@pytest.mark.parametrize(
    "body",
    [
        "echo hello",
        "true",
        r"printf 'Content-Type: a/b\r\nX: a\rb\r\n\r\n'",
        "yes | head -c 3000000",
        "exit 1",
    ],
)
async def test_an_answer_that_is_none_is_502_and_a_failed_entry(bench, body):
    await bench.pool(bench.script(body), max_output=1_000_000)
    bench.request(method="GET")
    (reply,) = await bench.until(lambda: bench.replies)
    assert reply["status"] == 502
    assert len(bench.failed) == 1
    await bench.idle()


async def test_a_request_that_takes_too_long_is_504_at_its_deadline(bench):
    pool = await bench.pool(bench.script("trap '' TERM; while :; do sleep 0.1; done"), grace=0.3)
    bench.request(deadline=time.time() + 0.7)
    (reply,) = await bench.until(lambda: bench.replies)
    assert reply["status"] == 504
    (entry,) = bench.failed
    (attempt,) = entry["queuerelay"]["attempts"]
    assert attempt["signal"] == "SIGKILL"
    assert pool.snapshot().exits[0].signal == "SIGKILL"
    await bench.idle()


async def test_a_client_that_left(bench):
    await bench.pool(bench.script("sleep 60"), client_gone="kill", grace=5.0)
    bench.request("r")
    await bench.until(bench.inflight)
    await bench.pools[0][1].clients.mark_gone(["r"], life=60.0)
    await bench.idle()
    assert bench.failed == bench.replies == []


# Jobs


async def test_a_job_and_its_result(bench):
    script = bench.script('echo "$0 $1 $QUEUERELAY_QUEUE $QUEUERELAY_ATTEMPT"; cat')
    await bench.pool(script, "--id={name}")
    bench.job("7; ls", reply_to=REPLY_TO)
    (reply,) = await bench.until(lambda: bench.replies)
    first, rest = reply["body"].split("\n", 1)
    assert first == f"{script} --id=7; ls q 1"
    assert json.loads(rest) == {"name": "7; ls", "reply_to": REPLY_TO}
    await bench.idle()


@pytest.mark.parametrize(
    ("body", "outcome", "attempts"),
    [
        ("exit 0", "success", 0),
        ("exit 3", "critical", 1),
        ("exit 255", "critical", 1),
        ("kill -SEGV $$", "crash", 2),
        ("exit 75", "transient", 2),
    ],
)
async def test_exits(bench, body, outcome, attempts):
    pool = await bench.pool(bench.script(f"echo oh dear >&2; {body}"), tries=2)
    bench.job("7")
    await bench.idle()
    assert set(pool.snapshot().counters) == {outcome}
    assert [len(entry["queuerelay"]["attempts"]) for entry in bench.failed] == (
        [attempts] if attempts else []
    )
    for entry in bench.failed:
        assert entry["payload"] == {"class": "Job", "args": [{"name": "7"}]}
        assert entry["queuerelay"]["id"] == "7"
        assert entry["backtrace"] == ["oh dear"]
        assert set(entry) == {
            *("failed_at", "payload", "exception", "error", "backtrace", "worker", "queue"),
            "queuerelay",
        }
        for attempt in entry["queuerelay"]["attempts"]:
            assert attempt["stderr"] == "oh dear\n"
            assert ("exit" in attempt) != ("signal" in attempt)


async def test_a_start_that_fails_uses_no_try(bench):
    """A script is looked at once, and its interpreter may go; a launcher says so late."""
    interpreter = bench.folder / "interpreter"
    interpreter.symlink_to("/bin/sh")
    pool = await bench.pool(bench.script("exit 0", interpreter=interpreter))
    bench.job("1")
    await bench.idle()
    interpreter.unlink()
    bench.job("2")
    await bench.until(lambda: "No such file" in pool.snapshot().resting)
    await bench.until(lambda: [json.loads(one)["id"] for one in bench.waiting()] == ["2"])
    assert bench.failed == []
    interpreter.symlink_to("/bin/sh")
    await bench.idle()
    counters = pool.snapshot().counters
    assert counters["success"] == 2
    assert counters["misconfigured"] >= 1
    assert set(counters) == {"success", "misconfigured"}


async def test_exit_127_and_a_missing_program_use_no_try(bench):
    pool = await bench.pool(bench.script("exec /nonexistent/program"))
    bench.job("7")
    await bench.until(lambda: pool.snapshot().resting)
    bench.script("exit 0")
    await bench.idle()
    assert bench.failed == []
    assert pool.snapshot().counters["misconfigured"] >= 1
    os.unlink(bench.folder / "script")
    bench.job("8")
    await bench.until(lambda: pool.snapshot().resting)
    bench.script('test "$QUEUERELAY_ATTEMPT" = 1')
    await bench.idle()
    assert bench.failed == []
    assert pool.snapshot().resting == ""


@pytest.mark.parametrize(("printed", "code", "outcome"), [(1, 0, "success"), (3, 0, "critical")])
async def test_status_on_stdout(bench, printed, code, outcome):
    pool = await bench.pool(bench.script(f"echo {printed}; exit {code}"), status="stdout")
    bench.job()
    await bench.idle()
    assert pool.snapshot().counters == {outcome: 1}


async def test_the_mapping(bench):
    pool = await bench.pool(bench.script("exit 9"), exits={9: Outcome.SUCCESS})
    bench.job()
    await bench.idle()
    assert pool.snapshot().counters == {"success": 1}


async def test_a_job_that_takes_too_long_and_will_not_go(bench):
    script = bench.script(
        f"""
        trap '' TERM
        sleep 300 &
        echo $! > {bench.folder}/grandchild
        while :; do sleep 0.1; done
        """
    )
    pool = await bench.pool(script, timeout=0.5, grace=0.5, tries=1)
    bench.job()
    await bench.until(lambda: bench.failed)
    assert pool.snapshot().exits[0].run >= 1.0
    assert pool.snapshot().counters == {"crash": 1}
    grandchild = int((bench.folder / "grandchild").read_text())
    await bench.until(lambda: not alive(grandchild))


async def test_a_grandchild_that_holds_the_pipes_holds_no_slot(bench):
    script = bench.script(f"sleep 300 & echo $! > {bench.folder}/grandchild")
    pool = await bench.pool(script)
    bench.job()
    begin = time.monotonic()
    await bench.idle()
    assert time.monotonic() - begin < 10
    assert pool.snapshot().counters == {"success": 1}
    # Nobody ended it: it may be meant to live on.
    grandchild = int((bench.folder / "grandchild").read_text())
    assert alive(grandchild)
    kill(grandchild)


async def test_limits_and_folder(bench, tmp_path):
    script = bench.python(
        """
        import os, resource
        print(os.getcwd(), resource.getrlimit(resource.RLIMIT_AS)[0],
              resource.getrlimit(resource.RLIMIT_CPU)[0],
              resource.getrlimit(resource.RLIMIT_NOFILE)[0], sorted(os.listdir("/proc/self/fd")))
        """
    )
    folder = tmp_path / "a b"
    folder.mkdir()
    await bench.pool(script, cwd=str(folder), rlimit_as=2 * 1024**3, rlimit_cpu=7, rlimit_nofile=50)
    bench.job(reply_to=REPLY_TO)
    (reply,) = await bench.until(lambda: bench.replies)
    # The fourth is the listing's own.
    assert reply["body"] == f"{folder} {2 * 1024**3} 7 50 ['0', '1', '2', '3']\n"


async def test_the_environment_is_explicit(bench, monkeypatch):
    monkeypatch.setenv("SECRET", "no")
    monkeypatch.setenv("PASSED", "yes")
    await bench.pool(bench.script("env"), env={"OWN": "1"}, pass_env=("PASSED",))
    bench.job(reply_to=REPLY_TO)
    (reply,) = await bench.until(lambda: bench.replies)
    assert "OWN=1\n" in reply["body"]
    assert "PASSED=yes\n" in reply["body"]
    assert "SECRET" not in reply["body"]


# Many


async def test_priorities(bench):
    for name in "abc":
        bench.job(name, queue="low")
        bench.job(name, queue="high")
    out = bench.folder / "out"
    await bench.pool(bench.script(f'echo "$QUEUERELAY_QUEUE" >> {out}'), queues=("high", "low"))
    await bench.until(lambda: out.exists() and len(out.read_text().split()) == 6)
    assert out.read_text().split() == ["high"] * 3 + ["low"] * 3


async def test_weights(bench):
    for name in range(200):
        bench.job(str(name), queue="low")
        bench.job(str(name), queue="high")
    out = bench.folder / "out"
    await bench.pool(
        bench.script(f'echo "$QUEUERELAY_QUEUE" >> {out}'),
        queues=("high", "low"),
        weights=(3.0, 1.0),
        size=2,
    )
    await bench.until(lambda: out.exists() and len(out.read_text().split()) >= 120)
    assert 8 <= out.read_text().split()[:120].count("low") <= 60


async def test_it_grows_and_shrinks(bench):
    pool = await bench.pool(
        bench.script("sleep 0.4"), size=1, min=1, max=3, grow_after=0.5, shrink_after=1.0
    )
    for name in range(20):
        bench.job(str(name))
    await bench.until(lambda: pool.size == 3)
    await bench.until(lambda: pool.busy == 3)
    await bench.idle()
    await bench.until(lambda: pool.size == 1)


async def test_the_size_at_run_time(bench):
    pool = await bench.pool(bench.script("sleep 0.3"), size=1)
    for name in range(8):
        bench.job(str(name))
    await bench.until(lambda: pool.busy == 1)
    pool.set_size(4)
    await bench.until(lambda: pool.busy == 4)
    pool.set_size(1)
    await bench.idle()


# The end, and other people's ends


async def test_stop_puts_back_what_does_not_finish(bench):
    pool = await bench.pool(bench.script("sleep 300"), size=2, grace=5.0)
    messages = [bench.job("1"), bench.job("2")]
    bench.request("post", method="POST")
    await bench.until(lambda: pool.busy == 2)
    begin = time.monotonic()
    await pool.stop(drain=0.2)
    assert time.monotonic() - begin < 5
    assert sorted(bench.waiting()[:2]) == sorted(messages)
    assert not bench.inflight()
    assert not bench.spawner.alive


async def test_redis_is_restarted_while_scripts_run(own_valkey, tmp_path):
    server = own_valkey("--appendonly", "yes")
    bench = Bench(server, tmp_path)
    script = bench.script("sleep 0.5; printf 'Content-Type: text/plain\\n\\nx'")
    pool = await bench.pool(script, size=2)
    bench.request("a")
    bench.request("b")
    await bench.until(lambda: pool.busy == 2)
    server.stop()
    await deferLater(reactor, 1.0)
    server.start()
    await bench.until(lambda: len(bench.replies) == 2)
    assert not bench.inflight()
    assert pool.snapshot().counters == {"success": 2}
    await bench.stop()


async def test_an_operator_stops_a_job(bench):
    pool = await bench.pool(bench.script("sleep 300"))
    bench.job("7")
    await bench.until(lambda: pool.stop_job("7"))
    (entry,) = await bench.until(lambda: bench.failed)
    assert "requested" in entry["error"]


# Bad content


@pytest.mark.parametrize(
    "raw",
    [
        b"not json",
        b"\xff\xfe",
        b"[1]",
        b"{}",
        b'{"class":"J"}',
        b'{"args":[]}',
        b'{"class":"J","args":[' + b"[" * 10_000 + b"]" * 10_000 + b"]}",
        b"x" * (100 * 1024 * 1024),
    ],
    ids=lambda raw: raw[:20].decode("latin-1"),
)
async def test_what_cannot_be_understood(bench, raw):
    pool = await bench.pool(bench.script("exit 0"))
    bench.push(raw)
    bench.job("next")
    await bench.idle()
    (entry,) = bench.failed
    assert entry["payload"]["class"] in ("Unreadable", "J")
    assert pool.snapshot().counters == {"unreadable": 1, "success": 1}
    assert pool.busy == 0


async def test_a_hundred_megabytes_reach_the_script(bench):
    await bench.pool(bench.script("wc -c"), timeout=60.0)
    bench.push(
        b'{"class":"J","args":[{"reply_to":"%b","x":"%b"}]}'
        % (REPLY_TO.encode(), b"x" * (100 * 1024 * 1024))
    )
    (reply,) = await bench.until(lambda: bench.replies)
    assert int(reply["body"]) > 100 * 1024 * 1024


async def test_two_gigabytes_of_output_cost_next_to_nothing(bench):
    def memory() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    pool = await bench.pool(bench.script("yes | head -c 60000000"))
    bench.job("1")
    await bench.idle()
    before = memory()
    for name in "23":
        bench.job(name)
        await bench.idle()
    assert pool.snapshot().counters == {"success": 3}
    assert memory() - before < 5 * 1024 * 1024


# Whoever may enqueue a job may not do more


@pytest.mark.parametrize(
    "reply_to",
    ["queuerelay:gate", "queuerelay:inflight:q", "queuerelay:inbox:relay1", "resque:queue:q", "x"],
)
async def test_a_job_has_nothing_written_where_it_likes(bench, reply_to):
    await bench.pool(bench.script("echo poison"))
    bench.job("1", reply_to=reply_to, node_id="relay1-0")
    bench.job("2", reply_to=REPLY_TO)
    (reply,) = await bench.until(lambda: bench.replies)
    assert reply["node_id"] == "2"
    (entry,) = bench.failed
    assert entry["error"].endswith(f"reply_to: '{reply_to}' is not under 'queuerelay:results:'")
    assert not bench.client.exists(reply_to)
    assert 0 < bench.client.ttl(REPLY_TO) <= 3600


async def test_a_request_is_answered_nowhere_but_where_its_client_waits(bench):
    await bench.pool(bench.script("echo Content-Type: text/plain; echo; echo hello"))
    bench.request("relay1-a", reply_to=KEYS.inbox("relay2"))
    bench.request("relay1-b")
    (reply,) = await bench.until(lambda: bench.replies)
    assert reply["node_id"] == "relay1-b"
    (entry,) = bench.failed
    assert "reply_to: 'queuerelay:inbox:relay2' is not 'queuerelay:inbox:relay1'" in entry["error"]


async def test_a_list_of_results_is_bounded(bench):
    bench.client.rpush(REPLY_TO, *map(str, range(MOST_RESULTS)))
    await bench.pool(bench.script("echo done"))
    bench.job("1", reply_to=REPLY_TO)
    await bench.until(lambda: bench.replies[-1] != MOST_RESULTS - 1)
    assert (bench.replies[0], len(bench.replies)) == (1, MOST_RESULTS)


@pytest.mark.parametrize("status", [0, 1])
async def test_a_reply_list_of_another_type_holds_no_slot_and_loses_nothing(
    bench, status, log_lines
):
    bench.client.hset(REPLY_TO, "f", "v")
    await bench.pool(bench.script(f"echo done; exit {status}"))
    bench.job("first", reply_to=REPLY_TO)
    (entry,) = await bench.until(lambda: bench.failed)
    assert entry["queuerelay"]["id"] == "first"
    if status == 0:
        assert entry["exception"] == "ReplyRefused"
        assert f"{REPLY_TO} is a hash, expected a list" in entry["error"]
    await bench.idle()
    # The key is nobody's: it stays, and its name is in the log.
    assert bench.client.hgetall(REPLY_TO) == {b"f": b"v"}
    assert [line for line in log_lines() if f"WRONGTYPE {REPLY_TO} is a hash" in line]
    bench.client.delete(REPLY_TO)
    bench.job("second", reply_to=REPLY_TO)
    await bench.until(lambda: bench.client.llen(REPLY_TO) or len(bench.failed) > 1)


async def test_the_inbox_of_a_relay_of_another_type_holds_no_slot(bench):
    inbox = KEYS.inbox("r")
    bench.client.set(inbox, "x")
    await bench.pool(bench.script("printf 'Content-Type: a/b\\n\\nyes'"))
    bench.request(method="GET")
    (entry,) = await bench.until(lambda: bench.failed)
    assert f"{inbox} is a string, expected a list" in entry["error"]
    await bench.idle()
