"""requests (urllib3, http.client) and httpx (h11) in front of the relay, Flask behind the queue.

h11 is as strict about an answer as we are about a request; http.client is what most scripts have.
"""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tests.acceptance import flask_app
from tests.acceptance.stage import Stage, staged
from tests.helpers.redis import ValkeyServer
from tests.helpers.waiting import PATIENCE, eventually

UPLOAD = flask_app.pattern(2 * 1024 * 1024)
#: A little more than the relay takes.
TOO_MUCH = 17 * 1024 * 1024
#: Seconds that a client waits which is to give up.
SHORT = 0.3


def blocks(data: bytes, size: int = 65536) -> Iterator[bytes]:
    """The data as an upload of unknown length."""
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def async_blocks(data: bytes) -> AsyncIterator[bytes]:
    """The same for an asynchronous client."""
    for block in blocks(data):
        yield block


@pytest.fixture(scope="module")
def served(valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(valkey, tmp_path_factory.mktemp("python")) as stage:
        stage.relay()
        stage.worker()
        stage.worker()
        yield stage


@pytest.fixture
def url(served: Stage) -> str:
    return f"http://127.0.0.1:{served.port}"


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as made:
        # The machine's own proxies are for elsewhere.
        made.trust_env = False
        yield made


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False) as made:
        yield made


# requests.


def _pool(session: requests.Session, url: str) -> Any:
    """The only one there is: its counters tell what the session has done."""
    adapter: Any = session.get_adapter(url)
    (key,) = adapter.poolmanager.pools.keys()
    return adapter.poolmanager.pools[key]


def test_requests_keeps_one_connection(session: requests.Session, url: str) -> None:
    assert "世界" in session.get(f"{url}/").text
    assert session.get(f"{url}/stream").text.splitlines()[99] == "row 99 ü"
    assert session.get(f"{url}/nothing").status_code == 204
    assert session.head(f"{url}/large").headers["content-length"] == str(len(flask_app.LARGE))
    fresh = session.get(f"{url}/file")
    again = session.get(f"{url}/file", headers={"If-None-Match": fresh.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert session.options(f"{url}/echo").headers["allow"].count("PATCH") == 1
    assert session.delete(f"{url}/raw").json()["length"] == 0
    assert session.patch(f"{url}/mirror", data=flask_app.EVERYTHING).content == flask_app.EVERYTHING
    assert session.get(f"{url}/missing").status_code == 404
    assert session.get(f"{url}/encoded").content == b"compressed " * 1000
    assert session.get(f"{url}/download").content == flask_app.EVERYTHING
    assert session.get(f"{url}/large").content == flask_app.LARGE
    assert _pool(session, url).num_connections == 1


def test_requests_uploads(session: requests.Session, url: str) -> None:
    put = {"method": "PUT", **flask_app.digest(UPLOAD)}
    assert session.put(f"{url}/raw", data=UPLOAD).json() == put
    assert session.put(f"{url}/raw", data=io.BytesIO(UPLOAD)).json() == put
    # In chunks.
    assert session.put(f"{url}/raw", data=blocks(UPLOAD)).json() == put
    empty = {"method": "POST", **flask_app.digest(b"")}
    assert session.post(f"{url}/raw").json() == empty
    assert session.post(f"{url}/raw", data=iter(())).json() == empty
    assert _pool(session, url).num_connections == 1


def test_requests_forms(session: requests.Session, url: str) -> None:
    sent: dict[str, Any] = {"a": ["1", "ü &="], "b": ""}
    form = session.post(f"{url}/form", data=sent, params={"q": "ü"}).json()["form"]
    assert form == {"a": ["1", "ü &="], "b": [""]}
    assert session.post(f"{url}/json", json={"k": ["ü", None]}).json() == {
        "got": {"k": ["ü", None]}
    }
    files = {"file": ("ü.bin", UPLOAD, "a/b"), "none": ("none", b"")}
    got = session.post(f"{url}/form", data={"text": "ü"}, files=files).json()
    assert got["form"] == {"text": ["ü"]}
    assert got["files"]["file"] == [{"name": "ü.bin", "type": "a/b", **flask_app.digest(UPLOAD)}]
    assert got["files"]["none"][0]["length"] == 0


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_requests_follows_redirects(session: requests.Session, url: str, code: int) -> None:
    got = session.get(f"{url}/redirect/{code}")
    assert [one.status_code for one in got.history] == [code]
    assert got.json()["path"] == "neu/ü x"


def test_requests_keeps_cookies(session: requests.Session, url: str) -> None:
    assert session.post(f"{url}/cookies").status_code == 200
    # The others are for another path, another host, https.
    assert session.get(f"{url}/cookies").json() == {"plain": "1"}


def test_requests_reads_a_stream(session: requests.Session, url: str) -> None:
    with session.get(f"{url}/large", stream=True) as got:
        assert b"".join(got.iter_content(10000)) == flask_app.LARGE
    with session.get(f"{url}/stream", stream=True) as got:
        lines = list(got.iter_lines())
    assert lines == [f"row {number} ü".encode() for number in range(100)]
    assert _pool(session, url).num_connections == 1


def test_requests_resumes(session: requests.Session, url: str) -> None:
    got = session.get(f"{url}/file", headers={"Range": "bytes=9000-"})
    assert (got.status_code, got.headers["content-range"]) == (206, "bytes 9000-9999/10000")
    assert got.content == flask_app.LARGE[9000:10000]


def test_requests_times_out(session: requests.Session, url: str, served: Stage) -> None:
    """Nobody has begun what it asked for, so nobody ever does."""
    with served.busy("requests"):
        for method in ("GET", "POST"):
            with pytest.raises(requests.ReadTimeout):
                session.request(method, f"{url}/say/never", timeout=(PATIENCE, SHORT))
        eventually(lambda: served.queued() == 0)
    assert session.get(f"{url}/say/after").json()["word"] == "after"


def test_requests_reads_events(session: requests.Session, url: str, served: Stage) -> None:
    with session.get(f"{url}/events/requests", stream=True, timeout=PATIENCE) as got:
        lines = got.iter_lines(chunk_size=1)
        assert [next(lines) for _ in range(4)][2] == "data: first ü".encode()
        served.go("requests")
        assert list(lines) == [b"id: 2", b"event: named", b"data: second", b"data: line", b""]
    assert session.get(f"{url}/say/next").status_code == 200
    assert _pool(session, url).num_connections == 1


def test_requests_retries(session: requests.Session, url: str) -> None:
    """Three answers on one connection, and the exception tells the status of the last."""
    retries = Retry(total=2, status_forcelist=[503], backoff_factor=0)
    session.mount(url, HTTPAdapter(max_retries=retries))
    with pytest.raises(requests.exceptions.RetryError, match="too many 503"):
        session.get(f"{url}/abort/503")
    pool = _pool(session, url)
    assert (pool.num_requests, pool.num_connections) == (3, 1)


def test_requests_closes_if_asked(session: requests.Session, url: str) -> None:
    for word in "ab":
        got = session.get(f"{url}/say/{word}", headers={"Connection": "close"})
        assert (got.json()["word"], got.headers["connection"]) == (word, "close")


@pytest.mark.parametrize("how", [bytes, blocks], ids=["plain", "chunks"])
def test_requests_hears_of_too_much(
    session: requests.Session, url: str, how: Callable[[bytes], Any]
) -> None:
    """The refusal comes while it is still sending, and arrives."""
    assert session.post(f"{url}/raw", data=how(bytes(TOO_MUCH))).status_code == 413
    assert session.get(f"{url}/say/next").status_code == 200


def test_requests_in_threads(session: requests.Session, url: str) -> None:
    def say(word: str) -> str:
        said: str = session.get(f"{url}/say/{word}").json()["word"]
        return said

    words = [f"word-{number}" for number in range(60)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(say, words)) == words


# httpx.


def _port(answer: httpx.Response) -> int:
    """The client's port, by which a connection is known."""
    port: int = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
    return port


def test_httpx_keeps_one_connection(client: httpx.Client) -> None:
    answers = [
        client.get("/"),
        client.get("/stream"),
        client.get("/nothing"),
        client.head("/large"),
        client.get("/file", headers={"If-None-Match": '"fixed-etag"'}),
        client.get("/reset"),
        client.post("/form", data={"a": ["1", "ü"]}),
        client.put("/raw", content=blocks(UPLOAD)),
        client.request("PROPFIND", "/missing"),
        client.get("/encoded"),
        client.get("/headers"),
        client.get("/large"),
    ]
    assert [one.status_code for one in answers] == [
        *(200, 200, 204, 200, 304, 205, 200, 200, 404, 200, 200, 200),
    ]
    assert len({_port(one) for one in answers}) == 1
    assert {one.http_version for one in answers} == {"HTTP/1.1"}
    assert answers[3].headers["content-length"] == str(len(flask_app.LARGE))
    assert answers[6].json()["form"] == {"a": ["1", "ü"]}
    assert answers[7].json() == {"method": "PUT", **flask_app.digest(UPLOAD)}
    assert answers[9].content == b"compressed " * 1000
    assert answers[10].headers.get_list("x-multi") == ["one", "two, three"]
    assert answers[11].content == flask_app.LARGE


def test_httpx_uploads(client: httpx.Client) -> None:
    put = {"method": "PUT", **flask_app.digest(UPLOAD)}
    assert client.put("/raw", content=UPLOAD).json() == put
    assert client.put("/raw", content=iter(())).json()["length"] == 0
    files = {"file": ("ü.bin", io.BytesIO(UPLOAD), "a/b")}
    got = client.post("/form", data={"text": "ü"}, files=files).json()
    assert got["form"] == {"text": ["ü"]}
    assert got["files"]["file"] == [{"name": "ü.bin", "type": "a/b", **flask_app.digest(UPLOAD)}]
    assert client.post("/json", json={"k": "ü"}).json() == {"got": {"k": "ü"}}


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_httpx_follows_redirects(client: httpx.Client, code: int) -> None:
    got = client.get(f"/redirect/{code}", follow_redirects=True)
    assert [one.status_code for one in got.history] == [code]
    assert got.json()["path"] == "neu/ü x"


def test_httpx_keeps_cookies(client: httpx.Client) -> None:
    client.post("/cookies")
    assert client.get("/cookies").json() == {"plain": "1"}


def test_httpx_reads_a_stream(client: httpx.Client) -> None:
    with client.stream("GET", "/stream") as got:
        assert list(got.iter_lines()) == [f"row {number} ü" for number in range(100)]
    with client.stream("GET", "/large") as got:
        assert b"".join(got.iter_raw()) == flask_app.LARGE


def test_httpx_leaves_a_stream(client: httpx.Client) -> None:
    """It has what it wants, so it closes the connection; the next one is served."""
    with client.stream("GET", "/large") as got:
        assert next(got.iter_raw())
    assert client.get("/say/next").json()["word"] == "next"


def test_httpx_times_out(client: httpx.Client, served: Stage) -> None:
    with served.busy("httpx"):
        with pytest.raises(httpx.ReadTimeout):
            client.get("/say/never", timeout=httpx.Timeout(PATIENCE, read=SHORT))
        eventually(lambda: served.queued() == 0)
    assert client.get("/say/after").json()["word"] == "after"


def test_httpx_reads_events(client: httpx.Client, served: Stage) -> None:
    with client.stream("GET", "/events/httpx") as got:
        lines = got.iter_lines()
        assert [next(lines) for _ in range(4)][2] == "data: first ü"
        served.go("httpx")
        assert list(lines) == ["id: 2", "event: named", "data: second", "data: line", ""]


@pytest.mark.parametrize("how", [bytes, blocks], ids=["plain", "chunks"])
def test_httpx_hears_of_too_much(client: httpx.Client, how: Callable[[bytes], Any]) -> None:
    assert client.post("/raw", content=how(bytes(TOO_MUCH))).status_code == 413
    assert client.get("/say/next").status_code == 200


def test_httpx_many_at_once(url: str) -> None:
    """60 requests over at most 10 connections, uploads among them."""

    async def visit() -> tuple[list[str], set[int]]:
        limits = httpx.Limits(max_connections=10)
        async with httpx.AsyncClient(
            base_url=url, timeout=PATIENCE, limits=limits, trust_env=False
        ) as client:
            answers = await asyncio.gather(
                *(
                    client.post(f"/say/{number}", content=async_blocks(UPLOAD[: number * 1000]))
                    for number in range(60)
                )
            )
            return [json.loads(one.content)["word"] for one in answers], set(map(_port, answers))

    words, ports = asyncio.run(visit())
    assert words == [str(number) for number in range(60)]
    assert len(ports) <= 10


def test_httpx_is_cancelled(url: str, served: Stage) -> None:
    async def visit() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as client:
            waiting = asyncio.create_task(client.post("/say/never", content=UPLOAD))
            while not served.queued():  # noqa: ASYNC110 - other processes set no event here
                await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled()

    with served.busy("cancelled"):
        asyncio.run(asyncio.wait_for(visit(), PATIENCE))
        eventually(lambda: served.queued() == 0)
