"""A real Chromium for tests, over its DevTools protocol (JSON on a pipe): no driver, no package.

Each page has a browser context of its own: no cookie, no cache, no connection of another test.

1. Every wait is bounded by `PATIENCE`; what the browser says meanwhile is kept, bounded.
2. The browser is a session of its own, and ends with its group: no process outlives `close`.
3. It finds 127.0.0.1 and localhost, and nothing else of the world.

The protocol is described at https://chromedevtools.github.io/devtools-protocol/.
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

#: Seconds in which anything that should happen must have happened.
PATIENCE = 30.0
#: Events kept for each page.
KEPT = 5000
#: Where distributions put it.
PROGRAMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FLAGS = (
    "--headless",
    # Root may not have a sandbox; the pages are the tests' own.
    "--no-sandbox",
    "--disable-gpu",
    # A container's /dev/shm is often too small.
    "--disable-dev-shm-usage",
    "--disable-breakpad",
    # Nothing that the tests did not ask for.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--window-size=1280,900",
)


class BrowserError(Exception):
    """The browser, or a script in its page, says that something failed."""


def program() -> str | None:
    """Path of the browser."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Browser:
    """One headless Chromium."""

    def __init__(self, path: str) -> None:
        # Not under pytest's own folder: it has sockets, whose paths have 107 bytes at most.
        self._dir = Path(tempfile.mkdtemp(prefix="qr-chromium-"))
        self._log = self._dir / "log"
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        try:
            self.pid = self._spawn(path, theirs_in, theirs_out)
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        self._read = bytearray()
        self._number = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._pages: dict[str, Page] = {}
        try:
            self.version: str = self.call("Browser.getVersion")["product"]
        except BaseException:
            self.close()
            raise

    def _spawn(self, path: str, theirs_in: int, theirs_out: int) -> int:
        # It reads commands from descriptor 3 and writes to 4. Neither pipe's end may be one of
        # those before, or the first dup2 would close what the second one needs.
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        null = os.open(os.devnull, os.O_RDONLY)
        ends = [_high(end) for end in (null, log, log, theirs_in, theirs_out)]
        try:
            return os.posix_spawn(
                path,
                [
                    *(path, *FLAGS, "--remote-debugging-pipe"),
                    *(f"--user-data-dir={self._dir / 'profile'}", "about:blank"),
                ],
                {**os.environ, "HOME": str(self._dir), "XDG_CONFIG_HOME": str(self._dir)},
                file_actions=[(os.POSIX_SPAWN_DUP2, end, n) for n, end in enumerate(ends)],
                setsid=True,
            )
        finally:
            for end in (*ends, null, log):
                os.close(end)

    @property
    def log(self) -> str:
        """What it has written to stdout and stderr."""
        return self._log.read_text("utf-8", "replace")

    def call(self, command: str, *, session: str = "", **parameters: Any) -> dict[str, Any]:
        """A command of the protocol; gives its result."""
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": command, "params": parameters}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        self.until(lambda: number in self._answers, command)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise BrowserError(f"{command}: {answer['error'].get('message')}")
        result: dict[str, Any] = answer["result"]
        return result

    def until(self, what: Callable[[], Any], why: str = "", seconds: float = PATIENCE) -> Any:
        """What `what()` gives once it is true; it is asked again after each message."""
        end = time.monotonic() + seconds
        while True:
            found = what()
            if found:
                return found
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._in], [], [], left)[0]:
                raise BrowserError(f"not within {seconds} s: {why or what}\n{self.log[-2000:]}")
            self._receive()

    def _receive(self) -> None:
        data = os.read(self._in, 1 << 20)
        if not data:
            raise BrowserError(f"the browser has ended:\n{self.log[-2000:]}")
        self._read += data
        if b"\0" not in data:
            return
        *messages, rest = bytes(self._read).split(b"\0")
        self._read[:] = rest
        for one in messages:
            message = json.loads(one)
            if "id" in message:
                self._answers[message["id"]] = message
            elif (page := self._pages.get(message.get("sessionId", ""))) is not None:
                page.events.append((message["method"], message["params"]))

    @contextlib.contextmanager
    def page(self) -> Iterator["Page"]:
        """An empty page with no past."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        try:
            target = self.call("Target.createTarget", url="about:blank", browserContextId=context)[
                "targetId"
            ]
            session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            page = self._pages[session] = Page(self, session)
            try:
                for domain in ("Page", "Runtime", "Network", "Log"):
                    page.call(f"{domain}.enable")
                page.call("Page.setLifecycleEventsEnabled", enabled=True)
                yield page
            finally:
                del self._pages[session]
        finally:
            # With its pages.
            self.call("Target.disposeBrowserContext", browserContextId=context)

    def close(self) -> None:
        """End it, all its processes, and remove its files."""
        with contextlib.suppress(OSError):
            os.write(self._out, b'{"id":0,"method":"Browser.close"}\0')
        end = time.monotonic() + 5.0
        while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                break
            time.sleep(0.01)
        # Its helpers end by themselves, but not at once. Those that we have adopted, we reap.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-self.pid, 0)
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._dir, ignore_errors=True)


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser = browser
        self._session = session
        #: (method, parameters) of the protocol's events, the last `KEPT` ones.
        self.events: deque[tuple[str, dict[str, Any]]] = deque(maxlen=KEPT)

    def call(self, command: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol for this page."""
        return self.browser.call(command, session=self._session, **parameters)

    def all(self, event: str) -> list[dict[str, Any]]:
        """The parameters of all such events."""
        return [parameters for method, parameters in self.events if method == event]

    @contextlib.contextmanager
    def navigation(self) -> Iterator[None]:
        """Ends once what is done inside has loaded a document."""
        before = len(self.all("Page.loadEventFired"))
        yield
        self.browser.until(
            lambda: len(self.all("Page.loadEventFired")) > before, "a document is loaded"
        )

    def open(self, url: str) -> None:
        """Load the document, its images and scripts."""
        answer = self.call("Page.navigate", url=url)
        if "errorText" in answer:
            raise BrowserError(f"{url}: {answer['errorText']}")
        # By its own loader: an error page before it may not have ended yet.
        ours = (answer.get("loaderId"), "load")
        self.browser.until(
            lambda: any(
                (one["loaderId"], one["name"]) == ours for one in self.all("Page.lifecycleEvent")
            ),
            url,
        )

    def evaluate(self, script: str) -> Any:
        """What the expression gives, as JSON; a promise is awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            thrown = details.get("exception", {})
            raise BrowserError(thrown.get("description") or thrown.get("value") or details["text"])
        return answer["result"].get("value")

    def until(self, script: str) -> Any:
        """What the expression gives once it is true."""
        end = time.monotonic() + PATIENCE
        while not (found := self.evaluate(script)):
            if time.monotonic() > end:
                raise BrowserError(f"not within {PATIENCE} s: {script}")
            time.sleep(0.01)
        return found

    @property
    def text(self) -> str:
        """What a reader sees."""
        seen: str = self.evaluate("document.body.innerText")
        return seen

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, and exceptions that nobody caught."""
        found = [
            one["entry"]["text"] + " " + one["entry"].get("url", "")
            for one in self.all("Log.entryAdded")
            if one["entry"]["level"] in ("error", "warning")
        ]
        found += [
            " ".join(str(part.get("value", part.get("description"))) for part in one["args"])
            for one in self.all("Runtime.consoleAPICalled")
            if one["type"] in ("error", "warning", "assert")
        ]
        thrown = [one["exceptionDetails"] for one in self.all("Runtime.exceptionThrown")]
        found += [one.get("exception", {}).get("description", one["text"]) for one in thrown]
        return found

    def screenshot(self, path: Path, *, whole: bool = False) -> Path:
        """A PNG of the window, or of the whole document."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path


def _high(end: int) -> int:
    """A copy of the descriptor that is none of 0 to 9; a child does not inherit it."""
    return fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The session's Chromium."""
    path = program()
    if path is None:
        pytest.skip(f"needs {PROGRAMS[0]} on PATH")
    running = Browser(path)
    try:
        yield running
    finally:
        running.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of the session's browser, for one test."""
    with browser.page() as opened:
        yield opened
