"""Text of others in twelve places, eight payloads: text everywhere, and nothing else anywhere.

Each representation of a real daemon is read by a parser of its own format, and compared with what
it is where the same places have harmless texts.
"""

import http.client
import json
import re

import html5lib
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.helpers.html import shape
from tests.helpers.ports import free_port
from tests.helpers.waiting import PATIENCE, eventually
from tests.integration.status.place import listening, status

PAYLOADS = {
    "script": "<script>alert(1)</script>",
    "attribute": "\"><img src=x onerror='alert(1)'>",
    "line": 'x"} 1\nqueuerelay_evil 1\r\n# TYPE evil counter\n',
    "json": '","evil":true,"x":"\\',
    "controls": "\x00\x1b[2J\x07\x7f\x85\u2028\u202e",
    "template": "{{7*7}}{%raw%}${x}%s%(x)s%n",
    "entity": "&lt;b&gt;&#60;b&#62;]]><!--",
    "wide": "漢字\U0001f600\ufeff\u200b" * 20,
}
TYPES = {
    "/": "text/html; charset=utf-8",
    "/status.json": "application/json",
    "/failures.json": "application/json",
    "/metrics": "text/plain",
    "/stats.txt": "text/plain; charset=utf-8",
}
#: A line of the access log, whatever the client sent.
LINE = re.compile(
    r"127\.0\.0\.1 - - \[[^\]]+\] "
    r'"[\x20-\x7e]*" \d{3} \d+ "[\x20-\x7e]*" "[\x20-\x7e]*" [\x20-\x7e]*'
)


class Place:
    """A daemon, its Redis with others' texts in it, and what it says."""

    def __init__(self, start, client, log) -> None:
        self.daemon, self.port = start
        self.client = client
        self.log = log
        self.letters = 1

    def fill(self, text: str) -> None:
        """Put `text` into each place."""
        client = self.client
        for key in client.scan_iter():
            if not key.startswith((b"queuerelay:node", b"queuerelay:inbox")):
                client.delete(key)
        queue = f"q{text}"
        attempt = {"started_at": 1.0, "run": 1.0, "exit": 1, "error": text, "stderr": text}
        # Another number than before: the first page is read again at once where it changes.
        self.letters = 3 - self.letters
        client.rpush(
            "resque:failed",
            *self.letters
            * [
                json.dumps(
                    {
                        "failed_at": f"at{text}",
                        "payload": {"class": f"C{text}", "args": [text]},
                        "exception": f"E{text}",
                        "error": f"e{text}",
                        "backtrace": [text],
                        "worker": f"w{text}",
                        "queue": queue,
                        "queuerelay": {"id": f"m{text}", "attempts": [attempt]},
                    }
                )
            ],
        )
        client.sadd("resque:queues", queue)
        client.rpush(f"resque:queue:{queue}", "{}")
        client.sadd("resque:workers", f"host{text}:1:{queue}")
        client.hset("queuerelay:gate", queue, json.dumps({"since": 1.0, "by": f"by{text}"}))
        node = {
            "role": "pool",
            "id": "0" * 8,
            "version": f"v{text}",
            "host": f"h{text}",
            "pid": 1,
            "loops": [[f"l{text}", 0.0, 10.0]],
            "pools": [],
        }
        seconds, microseconds = client.time()
        client.zadd("queuerelay:nodes", {"0" * 8: seconds * 1000 + microseconds // 1000})
        client.set(f"queuerelay:node:{'0' * 8}", json.dumps(node), px=600_000)

        def seen() -> bool:
            found = status(self.port)
            return (
                [one["error"] for one in found["failures"]["items"]] == self.letters * [f"e{text}"]
                and any(one["name"] == queue for one in found["queues"])
                and any(one["gate"] and one["gate"]["by"] == f"by{text}" for one in found["queues"])
                and any(one["host"] == f"h{text}" for one in found["nodes"])
            )

        eventually(seen)

    def ask(self, path: str) -> tuple[str, bytes]:
        """Content type and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            assert response.status == 200
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            return response.headers["Content-Type"], response.read()
        finally:
            connection.close()

    def read(self) -> dict[str, object]:
        """What each representation is made of, its texts apart."""
        found: dict[str, object] = {}
        for path, expected in TYPES.items():
            kind, body = self.ask(path)
            assert kind.startswith(expected), (path, kind)
            text = body.decode("utf-8")
            if path == "/":
                parser = html5lib.HTMLParser(namespaceHTMLElements=False)
                tree = parser.parse(body, transport_encoding="utf-8")
                assert parser.errors == []
                # The plots have as many elements as they have points.
                tags = {name for name, _ in shape(tree)}
                found[path] = tags, [one for one in shape(tree) if one[0] in ("script", "a", "img")]
            elif path == "/metrics":
                families = list(text_string_to_metric_families(text))
                found[path] = sorted(
                    (one.name, sample.name, tuple(sorted(sample.labels)))
                    for one in families
                    for sample in one.samples
                )
            elif path == "/stats.txt":
                lines = text.split("\n")
                assert lines.pop() == ""
                assert all(re.fullmatch(r"[^\s=]+\+?=\d+", line) for line in lines), lines
                found[path] = len(lines)
            else:
                found[path] = structure(json.loads(text))
        return found


def structure(value: object) -> object:
    """Names and kinds."""
    if isinstance(value, dict):
        return {name: structure(one) for name, one in sorted(value.items())}
    if isinstance(value, list):
        return [structure(value[0])] if value else []
    return isinstance(value, str)


@pytest.fixture
def place(daemon, fresh_valkey, tmp_path):
    port = free_port()
    one = daemon(
        *("--redis", fresh_valkey.url, "--access-log", "access.log", "--deadline", "0.2"),
        *("--status", f"tcp:{port}:interface=127.0.0.1"),
    ).ready()
    return Place((one, listening(port)), fresh_valkey.client(), tmp_path / "access.log")


def test_text_of_others_is_text(place):
    place.fill("harmless")
    harmless = place.read()
    assert place.log.exists()
    for name, payload in PAYLOADS.items():
        place.fill(payload)
        found = place.read()
        for path in TYPES:
            if path != "/metrics":
                assert found[path] == harmless[path], (name, path)
        # Queues are labels, so names of series stay, and nothing new has any.
        assert {one[0] for one in found["/metrics"]} == {one[0] for one in harmless["/metrics"]}


def test_text_of_clients_is_text_in_the_log(place):
    """In the target, in the agent and in the referer: as far as it is a request at all."""
    for payload in PAYLOADS.values():
        field = payload.encode().replace(b"\n", b"").replace(b"\r", b"").replace(b"\0", b"")
        place.daemon.connect().send_raw(
            b"GET /%b HTTP/1.1\r\nHost: x\r\nUser-Agent: %b\r\nReferer: %b\r\n\r\n"
            % (field.replace(b" ", b""), field, field)
        )
    eventually(lambda: len(place.log.read_text().splitlines()) == len(PAYLOADS))
    for line in place.log.read_text().splitlines():
        assert LINE.fullmatch(line), line
    noise = place.daemon.log.encode()
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", noise)
