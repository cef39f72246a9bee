"""A real Chromium in front of the relay, with pages that come through the queue."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from queuerelay.wire.reply import encode_reply
from tests.acceptance import flask_app
from tests.acceptance.browser import Browser, BrowserError, Page
from tests.acceptance.site_app import IMAGES
from tests.acceptance.stage import Secure, Stage, staged
from tests.helpers.redis import ValkeyServer
from tests.helpers.waiting import PATIENCE, eventually

SITE = "tests.acceptance.site_app:application"
#: Bytes with a sum that the page can compute, too.
SUM = """
async function sum(data) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
"""


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Secure:
    return Secure.made(tmp_path_factory.mktemp("secure"))


@pytest.fixture(scope="module")
def served(
    valkey: ValkeyServer, secure: Secure, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    with staged(valkey, tmp_path_factory.mktemp("browser")) as stage:
        stage.relay("--max-body", str(3 << 20), "--listen", secure.endpoint)
        stage.worker(application=SITE)
        stage.worker(application=SITE)
        yield stage


@pytest.fixture
def url(served: Stage) -> str:
    return f"http://127.0.0.1:{served.port}"


def responses(page: Page) -> list[dict[str, Any]]:
    """What has been answered over the network, as the browser's own panel for that has it."""
    found = [one["response"] for one in page.all("Network.responseReceived")]
    return [one for one in found if one["url"].startswith("http")]


def test_a_page_with_all_that_belongs_to_it(page: Page, url: str, tmp_path: Path) -> None:
    page.open(f"{url}/site/")
    assert page.evaluate("document.title") == "Käse"
    assert page.text.strip() == "Grüße"
    assert page.evaluate("window.ran") == "schön"
    assert page.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(1, 2, 3)"
    widths = page.evaluate("Array.from(document.images, (image) => image.naturalWidth)")
    assert widths == list(range(1, IMAGES + 1))
    assert page.complaints() == []
    # In parallel, on connections that are used again.
    answers = responses(page)
    assert {one["status"] for one in answers} == {200}
    assert {one["protocol"] for one in answers} == {"http/1.1"}
    connections = [one["connectionId"] for one in answers]
    assert len(connections) == IMAGES + 3
    assert 1 < len(set(connections)) <= 6
    assert sum(one["connectionReused"] for one in answers) >= len(answers) - 6
    assert page.screenshot(tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


def test_a_reload_asks_whether_something_has_changed(page: Page, url: str) -> None:
    page.open(f"{url}/site/forms")
    page.open(f"{url}/site/forms?again")
    # The browser tells what came over the wire beside, and perhaps after, what it makes of it.
    told = "Network.responseReceivedExtraInfo"
    page.browser.until(lambda: len(page.all(told)) == 4, "both pages and their style sheets")
    assert sorted(one["statusCode"] for one in page.all(told)) == [200, 200, 200, 304]
    assert page.evaluate("document.styleSheets[0].cssRules.length") == 1


def test_a_form(page: Page, url: str) -> None:
    page.open(f"{url}/site/forms")
    with page.navigation():
        page.evaluate("document.querySelector('#plain button').click()")
    assert json.loads(page.text)["form"] == {
        "text": ["Grüße & 世界 🙂", "a=b+c"],
        "lines": ["one\r\ntwo"],
        "empty": [""],
        "button": ["pressed"],
    }


def test_a_form_with_files(page: Page, url: str) -> None:
    page.open(f"{url}/site/forms")
    page.evaluate("""
        const chosen = new DataTransfer();
        const bytes = Uint8Array.from({length: 1 << 20}, (_, at) => at % 251);
        chosen.items.add(new File([bytes], 'ü "x".bin', {type: "a/b"}));
        chosen.items.add(new File([], "empty.txt", {type: "text/plain"}));
        document.querySelector("#multipart [type=file]").files = chosen.files;
    """)
    with page.navigation():
        page.evaluate("document.querySelector('#multipart button').click()")
    sent = bytes(at % 251 for at in range(1 << 20))
    got = json.loads(page.text)
    assert got["form"] == {"text": ["Grüße"]}
    assert got["files"]["file"] == [
        {"name": 'ü "x".bin', "type": "a/b", **flask_app.digest(sent)},
        {"name": "empty.txt", "type": "text/plain", **flask_app.digest(b"")},
    ]


def test_cookies_and_a_redirect_after_a_form(page: Page, url: str) -> None:
    page.open(f"{url}/site/forms")
    with page.navigation():
        page.evaluate("document.querySelector('#login').submit()")
    assert page.evaluate("location.pathname") == "/site/me"
    assert page.text.strip() == "Käthe, name,session"
    # HttpOnly is kept from scripts.
    assert page.evaluate("document.cookie") == "name=" + "Käthe".encode().hex()


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects(page: Page, url: str, code: int) -> None:
    page.open(f"{url}/redirect/{code}")
    assert page.evaluate("location.href") == f"{url}/items/neu/%C3%BC%20x?q=a%26b"
    assert json.loads(page.text)["path"] == "neu/ü x"


def test_fetch_with_bytes(page: Page, url: str) -> None:
    page.open(f"{url}/site/forms")
    got = page.evaluate("""
        (async () => {
          const body = Uint8Array.from({length: 2 << 20}, (_, at) => at % 253);
          const sent = {method: "PUT", body, headers: {"Content-Type": "a/b"}};
          const answer = await fetch("/mirror", sent);
          const back = new Uint8Array(await answer.arrayBuffer());
          const every = new Uint8Array(await (await fetch("/download")).arrayBuffer());
          const empty = await fetch("/nothing");
          return {
            same: back.length === body.length && back.every((byte, at) => byte === body[at]),
            every: Array.from(every),
            empty: [empty.status, await empty.text()],
            head: (await fetch("/large", {method: "HEAD"})).headers.get("content-length"),
            several: (await fetch("/headers")).headers.get("x-multi"),
            unpacked: (await (await fetch("/encoded")).text()).length,
          };
        })()
    """)
    assert got == {
        "same": True,
        "every": list(range(256)),
        "empty": [204, ""],
        "head": str(len(flask_app.LARGE)),
        "several": "one, two, three",
        "unpacked": len("compressed ") * 1000,
    }


def test_fetch_of_much_and_of_a_part(page: Page, url: str) -> None:
    page.open(f"{url}/site/forms")
    got = page.evaluate(
        SUM
        + """
        (async () => {
          const large = await (await fetch("/large")).arrayBuffer();
          const part = await fetch("/file", {headers: {Range: "bytes=100-299"}});
          const range = part.headers.get("content-range");
          return [await sum(large), part.status, range, await sum(await part.arrayBuffer())];
        })()
        """
    )
    large, part = (flask_app.digest(data) for data in (flask_app.LARGE, flask_app.LARGE[100:300]))
    assert got == [large["sha256"], 206, "bytes 100-299/10000", part["sha256"]]


def test_fetch_of_too_much(page: Page, url: str) -> None:
    """The refusal comes while the browser is still sending, and arrives."""
    page.open(f"{url}/site/forms")
    post = "fetch('/raw', {method: 'POST', body: new Uint8Array(8 << 20)})"
    assert page.evaluate(f"{post}.then((answer) => answer.status)") == 413
    assert page.evaluate("fetch('/say/next').then((answer) => answer.status)") == 200


def test_events(page: Page, url: str, served: Stage) -> None:
    """The second one is let go when the page has had the first one."""
    page.open(f"{url}/site/forms")
    page.evaluate("""
        window.had = [];
        const source = new EventSource("/events/browser");
        source.onmessage = (event) => had.push([event.lastEventId, event.data]);
        source.addEventListener("named", (event) => {
          had.push([event.lastEventId, event.data]);
          source.close();
        });
    """)
    page.until("had.length === 1")
    served.go("browser")
    page.until("had.length === 2")
    assert page.evaluate("had") == [["1", "first ü"], ["2", "second\nline"]]


def test_events_come_again_after_an_error_of_ours(page: Page, url: str, served: Stage) -> None:
    """A browser gives an event stream up for good after a 502 or 503."""
    page.open(f"{url}/site/forms")
    with served.busy("again"):
        page.evaluate("""
            window.had = [];
            const source = new EventSource("/events/again");
            source.onmessage = (event) => had.push(event.data);
        """)
        raw: Any = served.redis.blpop(["resque:queue:requests"], PATIENCE)
        taken = json.loads(raw[1])["args"][0]
        failed = encode_reply(node_id=taken["node_id"], status=502, problem="worker-failed")
        served.redis.rpush(taken["reply_to"], failed)
        eventually(lambda: served.queued() == 1)
    page.until("had.length === 1")
    assert page.evaluate("had") == ["first ü"]
    served.go("again")


def test_a_fetch_that_is_aborted(page: Page, url: str, served: Stage) -> None:
    page.open(f"{url}/site/forms")
    with served.busy("abort"):
        page.evaluate("""
            window.controller = new AbortController();
            window.ended = fetch("/say/never", {signal: controller.signal}).catch((e) => e.name);
            undefined
        """)
        eventually(lambda: served.queued() == 1)
        page.evaluate("controller.abort()")
        assert page.evaluate("ended") == "AbortError"
        eventually(lambda: served.queued() == 0)


def test_a_tab_that_is_closed(browser: Browser, url: str, served: Stage) -> None:
    with served.busy("closed"):
        with browser.page() as page:
            page.call("Page.navigate", url="about:blank")
            page.evaluate(f"setTimeout(() => location.assign('{url}/say/never'), 0)")
            eventually(lambda: served.queued() == 1)
        eventually(lambda: served.queued() == 0)


def test_no_websocket(page: Page, url: str) -> None:
    """The answer is no switch of protocols, and the page hears of it at once."""
    page.open(f"{url}/site/forms")
    end = page.evaluate(f"""
        new Promise((resolve) => {{
          const socket = new WebSocket("{url.replace("http", "ws")}/echo");
          socket.onopen = () => resolve("open");
          socket.onclose = (event) => resolve(event.code);
        }})
    """)
    assert end == 1006


def test_tls(page: Page, served: Stage, secure: Secure) -> None:
    url = f"https://localhost:{secure.port}/site/"
    with pytest.raises(BrowserError, match="ERR_CERT_AUTHORITY_INVALID"):
        page.open(url)
    page.call("Security.setIgnoreCertificateErrors", ignore=True)
    page.open(url)
    assert page.evaluate("Array.from(document.images, (i) => i.naturalWidth).at(-1)") == IMAGES
    assert {one["protocol"] for one in responses(page)} == {"http/1.1"}
