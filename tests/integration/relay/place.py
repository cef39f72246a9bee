"""A daemon with a pool and a status listener on which somebody may act."""

import http.client
import json

from tests.helpers.ports import free_port, listens
from tests.helpers.waiting import eventually

TOKEN = "0123456789abcdef"
CREDENTIALS = f"bearer deploy {TOKEN}\nbasic ann longpassword1\n"
SCRIPT = """#!/bin/sh
read -r line
case "$line" in
  *stay*) echo "$$" >> started; sleep 300 ;;
  *fail*) echo "oh dear" >&2; exit 1 ;;
esac
"""


class Place:
    """A daemon with a pool and a status listener."""

    def __init__(self, tmp_path, daemon, server, *options):
        self.directory = tmp_path
        self.client = server.client()
        (tmp_path / "script").write_text(SCRIPT)
        (tmp_path / "script").chmod(0o755)
        (tmp_path / "credentials").write_text(CREDENTIALS)
        (tmp_path / "credentials").chmod(0o600)
        self.port = free_port()
        self.daemon = daemon(
            *("--redis", server.url, "--worker", "./script", "--worker-queues", "jobs"),
            *("--status", f"tcp:{self.port}:interface=127.0.0.1"),
            *(options or ("--status-credentials", "credentials")),
        ).ready()
        eventually(lambda: listens(self.port))
        eventually(lambda: self.status()["redis"]["up"] and self.status()["pools"])

    def ask(self, method, path, body=b"", **headers):
        """Status, fields and body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, fields)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def post(self, path, fields=None, **headers):
        """The answer to a JSON request of somebody who may."""
        body = b"" if fields is None else json.dumps(fields).encode()
        headers.setdefault("Authorization", f"Bearer {TOKEN}")
        status, _, answer = self.ask(
            "POST", path, body, **{"Content_Type": "application/json", **headers}
        )
        return status, json.loads(answer)

    def status(self):
        # With credentials, so that ids are whole.
        authorization = f"Bearer {TOKEN}"
        return json.loads(self.ask("GET", "/status.json", Authorization=authorization)[2])

    def keys(self):
        """What is in Redis, but for what changes by itself."""
        return sorted(key for key in self.client.scan_iter() if b"node" not in key)

    def pool(self):
        return self.status()["pools"][0]

    def submit(self, what, queue="jobs"):
        status, answer = self.post(f"/queues/{queue}/jobs", {"class": "Job", "args": [what]})
        assert status == 201
        return answer["id"]
