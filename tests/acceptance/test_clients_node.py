"""Node's fetch (undici) and http module in front of the relay, Flask behind the queue.

The visits are in node/fetch.mjs; here stands what they must have seen.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance import flask_app
from tests.acceptance.stage import NODE, Stage, staged
from tests.helpers.redis import ValkeyServer
from tests.helpers.waiting import PATIENCE, eventually

UPLOAD = flask_app.digest(flask_app.pattern(2 * 1024 * 1024))
FILE = {"name": 'ü "x".bin', "type": "a/b", **UPLOAD}


@pytest.fixture(scope="module")
def served(valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    if shutil.which("node") is None:
        pytest.skip("needs node on PATH")
    with staged(valkey, tmp_path_factory.mktemp("node")) as stage:
        stage.relay()
        stage.worker()
        stage.worker()
        yield stage


def visit(stage: Stage, name: str, *more: object) -> Any:
    """What the visit gives."""
    ended = subprocess.run(
        [
            *("node", NODE / "fetch.mjs", f"http://127.0.0.1:{stage.port}", name),
            *map(str, more),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return json.loads(ended.stdout)


def test_connections_are_kept(served: Stage) -> None:
    """For 10 requests; behind gunicorn fetch opens as many, as one is not yet free at the next."""
    kept = visit(served, "keeps")
    assert kept.pop("connects") <= 3
    assert kept == {
        "statuses": [200, 200, 204, 200, 304, 404, 200, 200, 200, 200],
        "text": "<!doctype html><title>Käse</title><p>Grüße, 世界 🙂",
        "rows": 101,
        "length": str(len(flask_app.LARGE)),
        "unpacked": len("compressed ") * 1000,
        "several": "one, two, three",
        "large": flask_app.digest(flask_app.LARGE)["sha256"],
    }


def test_uploads(served: Stage) -> None:
    put, empty = {"method": "PUT", **UPLOAD}, {"method": "PUT", **flask_app.digest(b"")}
    assert visit(served, "uploads") == {
        "buffer": put,
        "blob": put,
        "stream": put,
        "empty": empty,
        "none": empty,
    }


def test_forms(served: Stage) -> None:
    assert visit(served, "forms") == {
        "fields": {"form": {"a": ["ü &="], "b": [""]}, "files": {}},
        "multipart": {"form": {"text": ["ü\r\nx"]}, "files": {"file": [FILE]}},
        "json": {"got": {"k": "ü"}},
    }


def test_redirects(served: Stage) -> None:
    assert visit(served, "redirects") == {
        **{str(code): [True, "neu/ü x"] for code in (301, 302, 303, 307, 308)},
        "manual": [302, "/items/neu/%C3%BC%20x?q=a%26b"],
    }


def test_cookies(served: Stage) -> None:
    names = [one.partition("=")[0] for one in visit(served, "cookies")]
    assert names == ["plain", "full", "strict", "old"]


def test_many_at_once(served: Stage) -> None:
    assert visit(served, "many") == {"same": True}


def test_a_client_that_aborts(served: Stage) -> None:
    """What it has asked for and nobody has begun is taken off the queue."""
    with served.busy("aborts"):
        assert visit(served, "aborts") == ["AbortError", "TimeoutError"]
        eventually(lambda: served.queued() == 0)


def test_a_client_that_leaves_a_download(served: Stage) -> None:
    assert visit(served, "leaves") == {"some": True, "next": "next"}


def test_events_come_one_by_one(served: Stage) -> None:
    assert visit(served, "events", served.directory / "node.go") == {
        "type": "text/event-stream",
        "first": "retry: 60000\nid: 1\ndata: first ü\n\n",
        "second": "id: 2\nevent: named\ndata: second\ndata: line\n\n",
    }


def test_too_much(served: Stage) -> None:
    """The refusal comes while it is still sending, and arrives."""
    assert visit(served, "too_much") == [413, 413, 200]


def test_the_http_module_keeps_one_connection(served: Stage) -> None:
    assert visit(served, "agent") == {
        "statuses": [200, 200, 200, 200, 200, 204, 206, 200, 200, 200],
        "reused": [False, *[True] * 9],
        "continued": True,
        "uploads": [UPLOAD["sha256"]] * 3,
        "rows": 101,
        "links": ["</a.css>; rel=preload", "</b.css>; rel=preload"],
        "last": "b",
    }
