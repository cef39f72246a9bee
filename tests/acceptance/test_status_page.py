"""The status page of a real daemon in a real browser.

One daemon for all of it: reading and writing look at the same things, and each test leaves them as
the next one may find them.
"""

import base64
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.acceptance.browser import Browser, Page
from tests.acceptance.stage import NODE
from tests.helpers.daemon import Daemon
from tests.helpers.ports import free_port
from tests.helpers.redis import ValkeyServer
from tests.helpers.waiting import eventually

SCRIPT = """#!/bin/sh
read -r line
case "$line" in
  *fail*) echo "Traceback: <b>it broke</b>" >&2; exit 1 ;;
  *kill*) kill -9 $$ ;;
  *stay*) sleep 300 ;;
esac
"""
PASSWORD = "correct-horse-battery"
HOSTILE = "</td></table><script>document.title='taken'</script><img src=x onerror=alert(1)>"
#: Where a picture of each is left, for people; nowhere unless set.
PICTURES = os.environ.get("QUEUERELAY_PICTURES")


class Place:
    """The daemon, its Redis and its page's address."""

    def __init__(self, directory: Path, server: ValkeyServer) -> None:
        server.flush()
        self.redis: redis.Redis = server.client()
        script = directory / "script"
        script.write_text(SCRIPT)
        script.chmod(0o755)
        credentials = directory / "credentials"
        credentials.write_text(f"basic ann {PASSWORD}\n")
        credentials.chmod(0o600)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.daemon = Daemon(
            directory,
            *("--redis", server.url, "--status", f"tcp:{self.port}:interface=127.0.0.1"),
            *("--status-credentials", str(credentials)),
            *("--worker", "./script", "--worker-queues", "jobs", "--workers", "3"),
        ).ready()

    def submit(self, what: str, queue: str = "jobs") -> None:
        """A job for the pool; its id begins with what it does."""
        id = f"{what}-{time.monotonic_ns()}"
        message = {"class": "Job", "args": [what], "queue": queue, "id": id}
        self.redis.rpush(f"resque:queue:{queue}", json.dumps(message))

    def bury(self, number: int, text: str = "") -> None:
        """Dead letters as any worker leaves them, with `text` in each of their fields."""
        for n in range(number):
            entry = {
                "failed_at": f"2026/11/22 05:14:06 UTC{text}",
                "payload": {"class": f"Old{text}", "args": [], "id": f"old-{n}{text}"},
                "exception": f"RuntimeError{text}",
                "error": f"boom {n}{text}",
                "backtrace": [],
                "worker": f"alpha:1:jobs{text}",
                "queue": f"old{text}",
                "queuerelay": {
                    "attempts": [{"error": f"e{text}", "stderr": f"said{text}", "exit": 1}]
                },
            }
            self.redis.rpush("resque:failed", json.dumps(entry))


@pytest.fixture(scope="module")
def place(valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("page"), valkey)
    yield made
    made.daemon.remove()
    assert "Traceback (" not in made.daemon.log
    assert "Unhandled" not in made.daemon.log


@pytest.fixture
def shown(place: Place, page: Page) -> Page:
    """The page, which knows of the pool and has the credentials."""
    authorize(page)
    page.open(place.url)
    page.until("document.querySelector('.pool') !== null")
    return page


def authorize(page: Page) -> None:
    """As if the reader had answered the browser's question already."""
    token = base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
    page.call("Network.setExtraHTTPHeaders", headers={"Authorization": f"Basic {token}"})


def looks_like(page: Page, *, width: int = 1400, theme: str = "light") -> None:
    """The reader's window and theme."""
    page.call(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=800,
        deviceScaleFactor=1,
        mobile=width < 600,
    )
    page.call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}]
    )


def press(page: Page, key: str, code: int) -> None:
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code)


def test_it_renders_and_nothing_complains(place: Place, shown: Page) -> None:
    place.submit("fine")
    shown.until("document.querySelector('#exits .badge.ok') !== null")
    for part in ("All is well", "jobs", "exit 0", "success", "3 idle", "No dead letters"):
        assert part in shown.text, part
    assert shown.evaluate("document.title") == "All is well – queuerelay"
    # Style and script are there, and no picture is broken.
    assert shown.evaluate("getComputedStyle(document.querySelector('.bar .track')).fill") != ""
    assert shown.evaluate("document.querySelectorAll('.plot svg .line').length") == 6
    assert shown.complaints() == []


def test_it_updates_itself_and_leaves_the_reader_alone(place: Place, shown: Page) -> None:
    looks_like(shown)
    place.submit("fail")
    shown.until("document.querySelector('#exits details') !== null")
    shown.evaluate("""(() => {
        window.reader = "still here";
        document.querySelector('.pool input[type=number]').value = '17';
        const box = document.querySelector('#failures input[type=checkbox]');
        box.checked = true;
        const details = document.querySelector('#exits details');
        details.open = true;
        const row = window.row = details.closest('tr');
        const range = document.createRange();
        range.selectNodeContents(details.querySelector('pre'));
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        details.querySelector('summary').focus({preventScroll: true});
        row.scrollIntoView({block: 'center', behavior: 'instant'});
        window.place = row.getBoundingClientRect().top;
        window.rows = document.querySelectorAll('#exits tbody tr').length;
    })()""")
    before = shown.evaluate("document.getElementById('at').textContent")
    for _ in range(3):
        place.submit("fail")
    # Above the row, where everything moves down for it.
    shown.until("document.querySelectorAll('#exits tbody tr').length >= rows + 3")
    shown.until("document.querySelectorAll('#failures tbody tr').length >= 4")
    assert shown.evaluate("document.getElementById('at').textContent") != before
    state = shown.evaluate("""({
        reader: window.reader,
        open: row.querySelector('details').open,
        there: row.isConnected,
        selected: getSelection().toString().trim(),
        focused: document.activeElement === row.querySelector('summary'),
        typed: document.querySelector('.pool input[type=number]').value,
        ticked: document.querySelectorAll('#failures input:checked').length,
        moved: Math.abs(row.getBoundingClientRect().top - place),
    })""")
    moved = state.pop("moved")
    assert state == {
        "reader": "still here",
        "open": True,
        "there": True,
        "selected": "Traceback: <b>it broke</b>",
        "focused": True,
        "typed": "17",
        "ticked": 1,
    }
    assert moved < 2
    # The table grew above it: it was held in its place, not just left there.
    assert shown.evaluate("[...row.parentNode.children].indexOf(row)") >= 3
    assert shown.complaints() == []


def test_what_is_read_stays_when_it_is_over(place: Place, shown: Page) -> None:
    place.bury(1)
    shown.until("document.querySelector('#failures tbody details') !== null")
    shown.evaluate("""(() => {
        const details = document.querySelector('#failures td.wide details');
        details.open = true;
        window.row = details.closest('tr');
    })()""")
    place.redis.delete("resque:failed")
    shown.until("row.closest('.past') !== null")
    assert shown.evaluate("row.isConnected")
    shown.evaluate("row.querySelector('details').open = false")
    shown.until("!row.isConnected")
    shown.until("document.getElementById('failures').innerText.includes('No dead letters')")
    assert shown.complaints() == []


def test_it_says_when_nobody_answers_and_goes_on_by_itself(place: Place, shown: Page) -> None:
    offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    shown.call("Network.emulateNetworkConditions", offline=True, **offline)
    shown.until("!document.getElementById('stale').hidden")
    assert "No answer. These figures are of " in shown.text
    shown.call("Network.emulateNetworkConditions", offline=False, **offline)
    shown.until("document.getElementById('stale').hidden")
    assert not shown.evaluate("document.documentElement.classList.contains('stale')")


def test_it_rests_while_nobody_sees_it_and_when_told_to(place: Place, shown: Page) -> None:
    def asked() -> int:
        return len(shown.all("Network.requestWillBeSent"))

    def seen(hidden: str) -> None:
        shown.evaluate(f"""(() => {{
            Object.defineProperty(document, 'hidden', {{value: {hidden}, configurable: true}});
            document.dispatchEvent(new Event('visibilitychange'));
        }})()""")

    def rests() -> None:
        # One may be under way.
        time.sleep(0.5)
        before = asked()
        time.sleep(2.5)
        shown.evaluate("1")
        assert asked() == before

    shown.until("document.getElementById('at').textContent")
    seen("true")
    rests()
    before = asked()
    seen("false")
    shown.browser.until(lambda: asked() > before, "it looks again")
    shown.evaluate("document.getElementById('pause').click()")
    assert shown.evaluate("document.getElementById('pause').ariaPressed") == "true"
    rests()
    before = asked()
    shown.evaluate("document.getElementById('pause').click()")
    shown.browser.until(lambda: asked() > before, "it looks again")


def test_without_a_script_it_is_all_there(place: Place, page: Page) -> None:
    place.redis.delete("resque:failed")
    place.bury(25)
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    authorize(page)
    page.open(place.url)

    def eyes(script: str) -> Any:
        return page.evaluate(script)

    def reloaded(script: str) -> None:
        for _ in range(40):
            if eyes(script):
                return
            time.sleep(0.25)
            page.open(place.url)
        raise AssertionError(script)

    reloaded("document.querySelectorAll('#failures tbody tr').length === 20")
    assert eyes("document.querySelector('noscript meta').content") == "10"
    assert eyes("document.getElementById('pause').hidden")
    with page.navigation():
        eyes("document.querySelector('#failures nav a[rel=next]').click()")
    assert "21 to 25, the newest first" in page.text
    # A form is sent, the answer leads back to the page, and that says what came of it.
    with page.navigation():
        eyes("""[...document.querySelectorAll('#queues button')].find(
            (one) => one.ariaLabel === 'Pause queue jobs').click()""")
    assert eyes("location.search") == "?said=paused"
    assert "The queue is paused." in page.text
    assert place.redis.hexists("queuerelay:gate", "jobs")
    reloaded("document.querySelector('#queues .badge.warning') !== null")
    with page.navigation():
        eyes("""[...document.querySelectorAll('#queues button')].find(
            (one) => one.ariaLabel === 'Resume queue jobs').click()""")
    assert not place.redis.hexists("queuerelay:gate", "jobs")
    with page.navigation():
        eyes("""(() => {
            const details = document.querySelector('details[data-key=drop-all]');
            details.open = true;
            details.querySelector('button').click();
        })()""")
    assert "Dropped." in page.text
    assert place.redis.llen("resque:failed") == 0
    assert page.complaints() == []


def test_an_action_is_done_in_place_and_told(place: Place, shown: Page) -> None:
    shown.evaluate("window.reader = 'still here'")
    place.submit("stay")
    shown.until("document.querySelector('.slots details') !== null")

    def does(button: str, said: str) -> None:
        shown.evaluate(f"""(() => {{
            const said = document.getElementById('said');
            said.hidden = true;
            const one = document.querySelector({button!r});
            const sure = one.closest('details');
            if (sure) sure.open = true;
            one.click();
        }})()""")
        shown.until("!document.getElementById('said').hidden")
        assert shown.evaluate("document.getElementById('said').textContent") == said

    does("form[action='queues/jobs/pause'] button", "The queue is paused.")
    assert place.redis.hexists("queuerelay:gate", "jobs")
    shown.until("document.querySelector('#queues .paused') !== null")
    does("form[action='queues/jobs/resume'] button", "The queue goes on.")
    does(".slots button[name=kill]", "The script was told to end.")
    shown.until("document.querySelector('.slots') === null")
    assert "SIGKILL" in shown.evaluate("document.getElementById('exits').innerText")
    shown.evaluate("document.querySelector('.pool input[type=number]').value = '5'")
    does("form[action$='/size'] button", "The size is changed.")
    shown.until("document.querySelector('.load').innerText.includes('of 5')")
    place.bury(2)
    shown.until("document.querySelectorAll('#failures tbody tr').length >= 2")
    left = place.redis.llen("resque:failed") - 1
    does("#failures button[formaction$='/drop']", "Dropped.")
    assert place.redis.llen("resque:failed") == left
    assert shown.evaluate("window.reader") == "still here"
    assert shown.complaints() == []
    place.redis.delete("resque:failed")


def paused(page: Page, place: Place, answer: dict[str, str]) -> str:
    """What the page says to *Pause*, when the browser's question for credentials is answered so."""
    page.open(place.url)
    page.until("document.querySelector(\"form[action='queues/jobs/pause']\") !== null")
    page.call("Fetch.enable", handleAuthRequests=True, patterns=[{"urlPattern": "*"}])
    page.evaluate("document.querySelector(\"form[action='queues/jobs/pause'] button\").click()")
    asked = []

    def told() -> bool:
        for method, event in list(page.events):
            if method == "Fetch.requestPaused":
                page.call("Fetch.continueRequest", requestId=event["requestId"])
            elif method == "Fetch.authRequired":
                asked.append(event["authChallenge"]["scheme"])
                page.call(
                    "Fetch.continueWithAuth",
                    requestId=event["requestId"],
                    authChallengeResponse=answer,
                )
            else:
                continue
            page.events.remove((method, event))
        return bool(page.evaluate("!document.getElementById('said').hidden"))

    eventually(told)
    assert asked == ["basic"]
    said: str = page.evaluate("document.getElementById('said').textContent")
    return said


def test_with_name_and_password_it_is_done(place: Place, page: Page) -> None:
    answer = {"response": "ProvideCredentials", "username": "ann", "password": PASSWORD}
    assert paused(page, place, answer) == "The queue is paused."
    assert place.redis.hexists("queuerelay:gate", "jobs")
    place.redis.delete("queuerelay:gate")


def test_without_credentials_nothing_is_done_and_it_is_told(place: Place, page: Page) -> None:
    said = paused(page, place, {"response": "CancelAuth"})
    assert said == "401: credentials are needed"
    assert not place.redis.hexists("queuerelay:gate", "jobs")
    assert [one for one in page.complaints() if "401" not in one] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 360], ids=["desk", "phone"])
def test_it_can_be_read(
    place: Place, shown: Page, node_modules: None, width: int, theme: str
) -> None:
    """Axe finds nothing, nothing is cut off, and each state is there: busy, paused, failed."""
    looks_like(shown, width=width, theme=theme)
    place.redis.delete("resque:failed")
    place.bury(3)
    place.submit("stay")
    place.redis.hset("queuerelay:gate", "paused.one", '{"since":1790000000,"by":"ann"}')
    place.redis.sadd("resque:queues", "paused.one", "a.queue." + 100 * "long")
    for _ in range(2):
        place.submit("kept", queue="paused.one")
    for part in (".slots", "#queues .paused"):
        shown.until(f"document.querySelector({part!r}) !== null")
    shown.until("document.querySelectorAll('#failures tbody tr').length >= 3")
    shown.until("document.getElementById('queues').innerText.includes('longlong')")
    shown.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    if PICTURES:
        shown.screenshot(Path(PICTURES) / f"{width}-{theme}.png", whole=True)
    # No update in the middle of it.
    shown.evaluate("document.getElementById('pause').click()")
    shown.evaluate((NODE / "node_modules/axe-core/axe.min.js").read_text() + ";0")
    found = shown.evaluate("""axe.run(document, {resultTypes: ['violations']}).then(
        ({violations, passes}) => ({
            passes: passes.length,
            violations: violations.map((one) => [one.id, one.nodes.map((node) => node.html)]),
        }))""")
    assert found["violations"] == []
    assert found["passes"] > 20
    assert shown.complaints() == []
    place.redis.delete("queuerelay:gate", "resque:queue:paused.one", "resque:failed")
    place.redis.delete("resque:queues")


def test_the_keyboard_is_enough(place: Place, shown: Page) -> None:
    press(shown, "Tab", 9)
    assert shown.evaluate("document.activeElement.className") == "skip"
    assert shown.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
    shown.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", text="\r")
    shown.until("document.activeElement.id === 'main'")
    seen = []
    for _ in range(12):
        press(shown, "Tab", 9)
        seen.append(
            shown.evaluate("""(() => {
                const one = document.activeElement;
                const {top} = one.getBoundingClientRect();
                return [one.textContent.trim(), getComputedStyle(one).outlineStyle, top + scrollY];
            })()""")
        )
    assert seen[0][0] == "Clients held"
    assert {style for _, style, _ in seen} == {"solid"}
    assert any(name == "Pause" for name, _, _ in seen)


def test_hostile_text_is_text(place: Place, shown: Page) -> None:
    place.redis.delete("resque:failed")
    before = shown.evaluate("document.querySelectorAll('script, img, style').length")
    place.bury(1, HOSTILE)
    place.redis.sadd("resque:queues", HOSTILE)
    place.redis.rpush(f"resque:queue:{HOSTILE}", "{}")
    shown.until("document.querySelectorAll('#failures tbody tr').length === 1")
    shown.until(f"document.getElementById('queues').innerText.includes({json.dumps(HOSTILE)})")
    for name in ("queues", "failures"):
        shown.evaluate(
            f"for (const one of document.querySelectorAll('#{name} details')) one.open = true"
        )
        assert HOSTILE in shown.evaluate(f"document.getElementById('{name}').innerText")
    after = shown.evaluate("document.querySelectorAll('script, img, style').length")
    assert after == before
    # As the server writes it too, not only as the script puts it in.
    shown.open(place.url)
    shown.until(f"document.getElementById('queues').innerText.includes({json.dumps(HOSTILE)})")
    assert shown.evaluate("document.querySelectorAll('script, img, style').length") == before
    assert "taken" not in shown.evaluate("document.title")
    assert shown.complaints() == []
    place.redis.delete("resque:failed", "resque:queues", f"resque:queue:{HOSTILE}")


def test_redis_away_is_plain_to_see(
    own_valkey: Any, tmp_path: Path, page: Page, browser: Browser
) -> None:
    server = own_valkey()
    status = free_port()
    daemon = Daemon(
        tmp_path, "--redis", server.url, "--status", f"tcp:{status}:interface=127.0.0.1"
    ).ready()
    try:
        page.open(f"http://127.0.0.1:{status}/")
        page.until("document.querySelector('#nodes .badge.ok') !== null")
        assert "No pool." in page.text
        server.stop()
        page.until("document.querySelector('h1').innerText.includes('Critical')")
        assert "Redis does not answer" in page.text
        assert page.evaluate("document.title").startswith("■ Critical")
        assert page.complaints() == []
    finally:
        daemon.remove()


def test_two_that_are_alike_are_both_shown(place: Place, shown: Page) -> None:
    place.redis.delete("resque:failed")
    place.bury(1)
    place.bury(1)
    rows = "document.querySelectorAll('#failures tbody tr').length"
    shown.until(f"{rows} === 2")
    before = shown.evaluate("document.getElementById('at').textContent")
    shown.until(f"document.getElementById('at').textContent !== {before!r}")
    assert shown.evaluate(rows) == 2
    place.redis.delete("resque:failed")
