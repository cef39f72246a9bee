"""The page: one document of everything, and the style sheet and the script beside it.

Invariants:

1. Text is escaped unless the template engine is told otherwise, and it is told so by `page_text`
   and `page_plot` alone; what is no text at all (controls, halves of characters) is replaced last,
   in the whole document, so that nothing can be forgotten.
2. Each snapshot is written once, however many look at it, and never in one go: a relay in the same
   process gets its turn after at most `SLICE` seconds.
3. Links are relative to the page: it works wherever it is mounted, and behind any prefix.

The engine is Jinja2: it writes a table of 3,200 cells in 2 ms where twisted.web.template needs 45.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any, Final
from urllib.parse import quote

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from queuerelay.status.actions.acts import SAID
from queuerelay.status.collect.collector import PAGE
from queuerelay.status.collect.dead_letters import DeadLetters
from queuerelay.status.collect.history import History
from queuerelay.status.collect.snapshot import StatusSnapshot
from queuerelay.status.route import StatusRequest, StatusResponse, StatusRoute
from queuerelay.status.status import Status
from queuerelay.status.views import page_text, page_view
from queuerelay.status.views.page_plot import plots
from queuerelay.status.views.page_view import View, view

#: Seconds that the page is written without a break.
SLICE: Final = 0.002
#: Pieces between two looks at the clock.
_PIECES: Final = 64
#: Fields of the page's address: which dead letters to show, to keep the page as it is where no
#: script runs, and what became of an action.
FAILED: Final = "failed"
STILL: Final = "still"
SAY: Final = "said"

_HTML: Final = "text/html; charset=utf-8"
#: With no-referrer, which is what other answers say, browsers send forms with ``Origin: null``.
_OURS: Final = {"Referrer-Policy": "same-origin"}
_FOREVER: Final = {"Cache-Control": "public, max-age=31536000, immutable"}


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


_STYLE: Final = _read("page.css").encode()
_SCRIPT: Final = _read("page.js").encode()
#: Name of the style sheet and script that a browser may keep; another one where either changed.
BUILD: Final = hashlib.sha256(_STYLE + b"\0" + _SCRIPT).hexdigest()[:12]


def _environment() -> Environment:
    made = Environment(
        loader=DictLoader({name: _read(name) for name in ("page.html", "page_parts.html")}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals.update(
        build=BUILD,
        marks={severity.value: mark for severity, mark in page_view.MARKS.items()},
        most_reasons=page_view.REASONS,
        **{
            name: getattr(page_text, name)
            for name in (
                *("NOTHING", "span", "several", "count", "rate", "size", "moment", "ago"),
                "percent",
            )
        },
        node_state=page_view.node_state,
        attempted=page_view.attempted,
    )
    # One segment of a path, whatever is in it.
    made.filters["path"] = lambda text: quote(text, safe="", errors="replace")
    return made


_TEMPLATE: Final = _environment().get_template("page.html")


def routes(status: Status) -> list[StatusRoute]:
    """The routes of the page, its style sheet and its script."""
    pages = _Pages(status)
    return [
        StatusRoute(path="", handler=pages.page),
        StatusRoute(path="page.css", handler=_fixed(_STYLE, "text/css; charset=utf-8")),
        StatusRoute(path="page.js", handler=_fixed(_SCRIPT, "text/javascript; charset=utf-8")),
    ]


def _fixed(body: bytes, content_type: str) -> Callable[[StatusRequest], StatusResponse]:
    answer = StatusResponse(body=body, content_type=content_type, headers=_FOREVER)
    return lambda ask: answer


class _Pages:
    """The pages of one status room."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._plots: tuple[History, Mapping[str, Markup]] | None = None
        #: The plain page, by whether ids are whole in it.
        self._plain = {whole: _PlainPage(self._write) for whole in (True, False)}

    def page(self, ask: StatusRequest) -> StatusResponse | Deferred[StatusResponse]:
        """The page as it was asked for."""
        whole = self._status.guard.trusts(ask)
        snapshot = self._status.shown(whole=whole)
        start = ask.number(FAILED, 0, 0, 10**9)
        if start:
            found = self._status.failures(start, PAGE, whole=whole)
            return found.addCallback(lambda failures: self._write(snapshot, ask, failures))
        if STILL in ask.query or SAY in ask.query:
            return self._write(snapshot, ask)
        return self._plain[whole].answer(snapshot, ask)

    def _write(
        self, snapshot: StatusSnapshot, ask: StatusRequest, failures: DeadLetters | None = None
    ) -> Deferred[StatusResponse]:
        if self._plots is None or self._plots[0] is not snapshot.history:
            self._plots = snapshot.history, plots(snapshot.history)
        made = view(
            snapshot,
            now=self._status.time(),
            plots_=self._plots[1],
            failures=failures,
            page=PAGE,
            writable=self._status.writable,
            refresh=STILL not in ask.query,
            said=SAID.get(ask.query.get(SAY, ""), ""),
        )
        return written(made, self._status.clock).addCallback(_answer)


class _PlainPage:
    """The page as most ask for it: each snapshot is written once, by `write`."""

    def __init__(
        self, write: Callable[[StatusSnapshot, StatusRequest], Deferred[StatusResponse]]
    ) -> None:
        self._write = write
        #: The page of a snapshot, None while it is written.
        self._written: tuple[StatusSnapshot, bytes | None] | None = None
        #: Requests that wait for it.
        self._waiting: list[Deferred[StatusResponse]] = []

    def answer(
        self, snapshot: StatusSnapshot, ask: StatusRequest
    ) -> StatusResponse | Deferred[StatusResponse]:
        """The page of `snapshot`, or of the one before where that is being written."""
        if self._written is None or self._written[0] is not snapshot:
            if self._waiting:
                # It is as good, and one at a time is enough.
                return self._wait()
            self._written = snapshot, None
            waiting = self._wait()
            self._write(snapshot, ask).addBoth(self._done, snapshot)
            return waiting
        body = self._written[1]
        return self._wait() if body is None else _answer(body)

    def _wait(self) -> Deferred[StatusResponse]:
        waiting: Deferred[StatusResponse] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def _done(self, result: Any, snapshot: StatusSnapshot) -> None:
        self._written = (snapshot, result.body) if isinstance(result, StatusResponse) else None
        waiting, self._waiting = self._waiting, []
        while waiting:
            # The first one may see to it that the others leave.
            waiting.pop().callback(result)


def _answer(body: bytes) -> StatusResponse:
    return StatusResponse(body=body, content_type=_HTML, headers=_OURS)


def written(made: View, clock: IReactorTime) -> Deferred[bytes]:
    """The document, in slices."""
    return Deferred.fromCoroutine(_written(made, clock))


async def _written(made: View, clock: IReactorTime) -> bytes:
    done: list[str] = []
    pieces: list[str] = []
    # What a slice costs is the processor's time, not the reactor's.
    end = time.perf_counter() + SLICE
    for number, piece in enumerate(_TEMPLATE.generate(v=made, s=made.s, now=made.s.at)):
        pieces.append(piece)
        if not number % _PIECES and time.perf_counter() > end:
            done.append(page_text.fit("".join(pieces)))
            pieces.clear()
            await deferLater(clock, 0)
            end = time.perf_counter() + SLICE
    done.append(page_text.fit("".join(pieces)))
    return "".join(done).encode()
