"""A place for daemons with pools: a directory with scripts, and the server that they use."""

import json
import signal
import textwrap
from pathlib import Path

from tests.helpers.daemon import Daemon
from tests.helpers.processes import alive, family
from tests.helpers.waiting import eventually

PREFIX = "queuerelay:"

#: Notes its start, waits until the file ``go`` is there, and notes its end.
PATIENT = """
    #!/bin/sh
    cat > /dev/null
    echo "$$ $QUEUERELAY_ID" >> started
    while [ ! -e go ]; do sleep 0.05; done
    echo "$QUEUERELAY_ID" >> done
    printf 'Content-Type: text/plain\\n\\nhello from %s\\n' "$QUEUERELAY_ID"
"""
#: The same, and it does not end before that.
STUBBORN = PATIENT.replace("cat >", "trap 'echo TERM >> told' TERM\n    cat >", 1)
#: Answers at once.
QUICK = """
    #!/bin/sh
    cat > /dev/null
    printf 'Content-Type: text/plain\\n\\nquick %s\\n' "$PATH_INFO"
"""
#: Runs until it is told to end.
RESIDENT = """
    #!/bin/sh
    echo "$$" >> resident
    trap 'exit 0' TERM
    while :; do sleep 0.05; done
"""
WSGI = """
    import os

    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(os.getpid()).encode()]
"""


class Place:
    """A directory with scripts, daemons in it, and the server that they use."""

    def __init__(self, directory: Path, server, daemon) -> None:
        self.directory = directory
        self.server = server
        self.redis = server.client()
        self._daemon = daemon

    def script(self, name: str, text: str) -> str:
        path = self.directory / name
        path.write_text(textwrap.dedent(text).lstrip())
        path.chmod(0o755)
        return f"./{name}"

    def start(self, *options: str, toml: str | None = None, **how) -> Daemon:
        if toml is not None:
            file = self.directory / f"{len(list(self.directory.glob('*.toml')))}.toml"
            file.write_text(textwrap.dedent(toml))
            options = ("--config", str(file), *options)
        one = self._daemon("--redis", self.server.url, *options, **how)
        if "pool" in options and "--role" in options:
            eventually(lambda: "pool " in one.log or one.process.poll() is not None)
            assert one.process.poll() is None, one.log + one.stderr
            return one
        return one.ready()

    def job(self, name: str, queue: str = "mp3", **more) -> None:
        message = {"class": "Job", "args": [{"id": name, **more}], "queue": queue, "id": name}
        self.redis.rpush(f"resque:queue:{queue}", json.dumps(message))

    def lines(self, name: str) -> list[str]:
        path = self.directory / name
        return path.read_text().splitlines() if path.exists() else []

    def started(self, number: int) -> list[int]:
        """Process ids of the first scripts, once there are so many."""
        eventually(lambda: len(self.lines("started")) >= number)
        return [int(line.split()[0]) for line in self.lines("started")]

    def go(self) -> None:
        (self.directory / "go").touch()

    def waiting(self, queue: str = "mp3") -> int:
        return self.redis.llen(f"resque:queue:{queue}")

    def inflight(self, queue: str = "mp3") -> int:
        return self.redis.hlen(f"{PREFIX}inflight:{queue}")

    @property
    def failed(self) -> list[dict]:
        return [json.loads(raw) for raw in self.redis.lrange("resque:failed", 0, -1)]

    def is_quiet(self, *queues: str) -> bool:
        """Whether nothing waits and nothing is in flight."""
        return all(
            not self.waiting(queue)
            and not self.inflight(queue)
            and not self.redis.zcard(f"{PREFIX}delayed:{queue}")
            for queue in queues or ("mp3",)
        )

    def nodes(self) -> list[dict]:
        raw = [self.redis.get(key) for key in self.redis.keys(f"{PREFIX}node:*")]
        return [json.loads(one) for one in raw if one is not None]


def stop(one: Daemon) -> None:
    """SIGTERM: exit status 0, and nothing of it is left."""
    below = family(one.process.pid)
    one.signal(signal.SIGTERM)
    assert one.exit() == 0
    eventually(lambda: not any(alive(pid) for pid in below))
