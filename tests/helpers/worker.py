"""The real ``queuerelay-worker`` in child processes; the tests play the relay."""

import json
import os
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import pytest

from queuerelay.wire.message import encode_request
from queuerelay.wire.reply import decode_reply
from tests.helpers.redis import ValkeyServer
from tests.helpers.waiting import PATIENCE, eventually

ROOT = Path(__file__).parents[2]
INBOX = "queuerelay:inbox:test"

APP = """
    import os, pathlib, sys, time

    HERE = pathlib.Path(__file__).parent

    def wait_for(name):
        # The test lets us go on by making this file.
        while not (HERE / name).exists():
            time.sleep(0.005)

    def stream(names):
        # A block for each name, after the test has allowed it.
        try:
            yield b"begin "
            for name in names:
                if name.startswith("mib-"):
                    for _ in range(16 * int(name[4:])):
                        yield b"x" * 65536
                elif name == "raise":
                    raise ValueError("secret detail")
                else:
                    wait_for(name)
                    yield name.encode()
        finally:
            (HERE / "closed").touch()

    def application(environ, start_response):
        path = environ["PATH_INFO"]
        with (HERE / "runs").open("a") as runs:
            runs.write(f"{os.getpid()} {environ['REQUEST_METHOD']} {path}\\n")
        if path == "/raise":
            raise ValueError("secret detail")
        if path == "/exit":
            sys.exit(3)
        if path == "/stream" or path.startswith("/stream/"):
            start_response("200 OK", [("X", "y")])
            return stream(path.split("/")[2:])
        if path.startswith("/wait/"):
            wait_for(path.removeprefix("/wait/"))
        start_response("201 Made", [("Set-Cookie", "a=1"), ("X", "\\xe9"), ("Set-Cookie", "b=2")])
        body = environ["wsgi.input"].read()
        return [path.encode("latin-1"), b" ", body, b" ", environ["queuerelay.queue"].encode()]
"""


class Worker:
    """One ``queuerelay-worker`` in a child process."""

    def __init__(self, directory, url, *options, env=None):
        self.log_path = directory / f"log-{uuid.uuid4().hex}"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "queuerelay.worker", "--redis", url),
                    *("--log-level", "debug", *options, "app:application"),
                ],
                cwd=directory,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self):
        """Of the process that serves now, a child of `process`; known once it is ready."""
        ready = [line for line in self.log.splitlines() if " queues " in line]
        return int(ready[-1].split()[3])

    @property
    def log(self):
        return self.log_path.read_text()

    def ready(self):
        eventually(lambda: " queues " in self.log or self.process.poll() is not None)
        assert self.process.poll() is None, self.log
        return self

    def signal(self, number):
        self.process.send_signal(number)

    def exit(self, seconds=PATIENCE):
        """Its exit status, once it has ended."""
        return self.process.wait(seconds)

    def remove(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Stage:
    """A server, workers, and a relay that is played by the test."""

    def __init__(self, server: ValkeyServer, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.workers: list[Worker] = []
        self.sent: dict[str, str] = {}
        (directory / "app.py").write_text(textwrap.dedent(APP))

    @property
    def redis(self):
        return self.server.client()

    def worker(self, *options, env=None):
        worker = Worker(self.directory, self.server.url, *options, env=env)
        self.workers.append(worker)
        return worker.ready()

    def push(
        self,
        url,
        *,
        method="GET",
        queue="requests",
        life=60.0,
        body=b"",
        node="test",
        reply_to=INBOX,
    ):
        node_id = f"{node}-{uuid.uuid4().hex}"
        now = time.time()
        message = encode_request(
            queue=queue,
            node_id=node_id,
            url=url,
            method=method,
            http_version="1.1",
            headers=[("host", "h")],
            body=body,
            remote_addr="203.0.113.5",
            scheme="http",
            reply_to=reply_to,
            accepted_at=now,
            deadline=now + life,
        )
        self.redis.rpush(f"resque:queue:{queue}", message)
        return node_id

    def reply(self, node_id=None, *, inbox=INBOX):
        """The next reply, which must be for `node_id`."""
        popped = self.redis.blpop([inbox], PATIENCE)
        assert popped is not None, "no reply\n" + "\n".join(one.log for one in self.workers)
        found = decode_reply(popped[1])
        assert node_id is None or found.node_id == node_id
        return found

    def runs(self):
        """What the application has run: (pid, method, path)."""
        path = self.directory / "runs"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(pid), method, url) for pid, method, url in map(str.split, lines)]

    def running(self, path, times=1):
        eventually(lambda: [run[2] for run in self.runs()].count(path) == times)

    def allow(self, name):
        """Let ``/wait/<name>`` go on."""
        (self.directory / name).touch()

    def in_flight(self, queue="requests"):
        keys = [f"queuerelay:{kind}:{queue}" for kind in ("inflight", "leases", "meta")]
        counts = [self.redis.hlen(keys[0]), self.redis.zcard(keys[1]), self.redis.hlen(keys[2])]
        return counts

    def done(self, queue="requests"):
        """Nothing waits and nothing is in flight."""
        eventually(
            lambda: (
                self.redis.llen(f"resque:queue:{queue}") == 0 and self.in_flight(queue) == [0, 0, 0]
            )
        )

    def failed(self):
        return [json.loads(one) for one in self.redis.lrange("resque:failed", 0, -1)]

    def remove(self):
        for worker in self.workers:
            worker.remove()


@pytest.fixture
def stage(fresh_valkey, tmp_path):
    stage = Stage(fresh_valkey, tmp_path)
    yield stage
    stage.remove()
