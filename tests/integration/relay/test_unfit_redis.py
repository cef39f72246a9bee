"""A Redis that will not do is refused at once, and said so wherever somebody looks: by daemon,
worker and command line.
"""

import json
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from tests.helpers.daemon import ROOT
from tests.helpers.ports import free_port
from tests.helpers.waiting import eventually
from tests.helpers.worker import Worker

CLUSTER = "is in cluster mode, and a single server without cluster mode is needed"


@pytest.fixture
def worker_at(tmp_path):
    """Workers of an application that answers with its path."""
    (tmp_path / "app.py").write_text(
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [environ['PATH_INFO'].encode()]\n"
    )
    workers = []

    def start(url):
        workers.append(Worker(tmp_path, url).ready())
        return workers[-1]

    yield start
    for worker in workers:
        worker.remove()


def ask(port, path):
    """Status and body, as JSON, of the status listener's answer; None before it listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return None, {}


def reasons(port):
    """Reasons of the health by their code."""
    _, status = ask(port, "/status.json")
    return {one["code"]: one["text"] for one in status["health"]["reasons"]}


def command_line(port):
    done = subprocess.run(
        [sys.executable, "-m", "queuerelay.cli", "--url", f"http://127.0.0.1:{port}", "status"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    return done.stdout


def lines_with(log, text):
    return [line for line in log.splitlines() if text in line]


def test_a_cluster_is_refused_in_one_line_until_it_is_none(own_valkey, daemon, worker_at):
    server = own_valkey("--cluster-enabled", "yes")
    status = free_port()
    one = daemon("--redis", server.tcp_url, "--status", f"tcp:{status}:interface=127.0.0.1")
    worker = worker_at(server.tcp_url)
    one.ready()
    # Readiness is red, with a reason of its own.
    eventually(lambda: ask(status, "/readyz") == (503, {"ok": False, "reasons": ["redis-cluster"]}))
    eventually(lambda: CLUSTER in reasons(status).get("redis-cluster", ""))
    assert "redis-down" not in reasons(status)
    assert CLUSTER in command_line(status)
    # Clients do not hang.
    assert one.get("/").response().status == 503
    # One line each, and no more of it.
    eventually(lambda: lines_with(worker.log, CLUSTER))
    (line,) = lines_with(one.log, "no connection to Redis")
    assert CLUSTER in line
    assert "cluster-enabled no" in line
    assert len(lines_with(worker.log, "WARNING")) == 1
    assert worker.process.poll() is None
    # Redis at the same address is another one now.
    server.stop()
    server._config = ()
    server.start()
    eventually(lambda: ask(status, "/readyz")[0] == 200)
    answer = one.get("/mended").response()
    assert (answer.status, answer.body) == (200, b"/mended")
    # And back.
    server.stop()
    server._config = ("--cluster-enabled", "yes")
    server.start()
    eventually(lambda: ask(status, "/readyz")[1].get("reasons") == ["redis-cluster"])
    assert one.get("/").response().status == 503
    eventually(lambda: worker.log.count(CLUSTER) == 2 or worker.log.count("trying on") >= 2)


def test_a_replica_is_named_with_its_master(own_valkey, daemon, worker_at):
    master = own_valkey()
    replica = own_valkey("--replicaof", "127.0.0.1", str(master.port))
    status = free_port()
    one = daemon("--redis", replica.tcp_url, "--status", f"tcp:{status}:interface=127.0.0.1")
    worker = worker_at(replica.tcp_url)
    text = f"it is a replica of 127.0.0.1:{master.port}, and the master is needed"
    eventually(lambda: ask(status, "/readyz")[1].get("reasons") == ["redis-replica"])
    eventually(lambda: text in reasons(status).get("redis-replica", ""))
    eventually(lambda: text in worker.log)
    replica.client().replicaof("NO", "ONE")
    eventually(lambda: ask(status, "/readyz")[0] == 200)
    one.ready()
    assert one.get("/now").response().body == b"/now"


def test_a_redis_that_may_drop_queues_is_warned_of_until_it_is_mended(own_valkey, daemon):
    server = own_valkey("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    status = free_port()
    one = daemon("--redis", server.tcp_url, "--status", f"tcp:{status}:interface=127.0.0.1")
    text = "maxmemory-policy is allkeys-lru: when its memory is full Redis drops whole queues"
    eventually(lambda: ask(status, "/readyz")[0] == 200)
    eventually(lambda: text in reasons(status).get("redis-eviction", ""))
    one.ready()
    (line,) = lines_with(one.log, "maxmemory-policy")
    assert text in line
    assert "CONFIG SET maxmemory-policy noeviction" in line
    assert len(lines_with(one.log, "keeps nothing over a restart")) == 1
    assert text in command_line(status)
    _, found = ask(status, "/status.json")
    assert found["health"]["severity"] == "warning"
    assert (found["redis"]["eviction"], found["redis"]["persistence"]) == ("allkeys-lru", "none")
    with urllib.request.urlopen(f"http://127.0.0.1:{status}/metrics", timeout=30) as answer:
        metrics = answer.read().decode()
    assert 'queuerelay_health_reasons{code="redis-eviction"} 1.0' in metrics
    assert 'queuerelay_health_reasons{code="redis-cluster"} 0.0' in metrics
    # Also after another connection it is told once.
    server.client().client_kill_filter(_type="normal", skipme=True)
    server.client().config_resetstat()
    eventually(lambda: server.client().info("commandstats").get("cmdstat_config|get"))
    server.client().config_set("maxmemory-policy", "noeviction")
    eventually(lambda: "redis-eviction" not in reasons(status))
    assert len(lines_with(one.log, "maxmemory-policy")) == 1


def test_who_only_looks_leaves_a_master_that_was_demoted(own_valkey, daemon):
    other, server = own_valkey(), own_valkey()
    status = free_port()
    daemon(
        *("--redis", server.tcp_url, "--role", "status"),
        *("--status", f"tcp:{status}:interface=127.0.0.1"),
        listen=False,
    )
    eventually(lambda: ask(status, "/readyz")[0] == 200)
    server.client().replicaof("127.0.0.1", other.port)
    eventually(lambda: ask(status, "/readyz")[1]["reasons"] == ["redis-replica"])
