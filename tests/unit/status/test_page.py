"""The page's routes: what is written, how often, and in which pieces."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import html5lib
import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock

from queuerelay.errors import BrokerError
from queuerelay.status.collect.dead_letters import DeadLetters
from queuerelay.status.collect.snapshot import Health, Reason, Severity, StatusSnapshot
from queuerelay.status.route import StatusRequest, StatusResponse, find
from queuerelay.status.views import page
from tests.unit.status.page_scene import NOW, empty, snapshot


class Room:
    """What the page reads of a `Status`."""

    def __init__(self, shown: StatusSnapshot | None = None) -> None:
        self.snapshot = shown or snapshot()
        self.clock = Clock()
        self.writable = False
        self.asked: list[tuple[int, int]] = []
        self.read: Callable[[], Deferred[DeadLetters]] = lambda: succeed(self.snapshot.failures)
        self.guard = SimpleNamespace(trusts=lambda ask: False)
        self.routes = page.routes(self)  # type: ignore[arg-type]

    def time(self) -> float:
        return NOW

    def shown(self, *, whole: bool) -> StatusSnapshot:
        return self.snapshot

    def failures(self, start: int, count: int, *, whole: bool) -> Deferred[DeadLetters]:
        self.asked.append((start, count))
        return self.read()

    def ask(self, path: str = "", **query: str) -> StatusResponse | Deferred[StatusResponse]:
        route, params, _ = find(self.routes, "GET", path.split("/"))
        assert route is not None
        return route.handler(
            StatusRequest(method="GET", segments=tuple(path.split("/")), params=params, query=query)
        )

    def get(self, path: str = "", **query: str) -> StatusResponse:
        """The answer, after as many turns as it takes."""
        found = self.ask(path, **query)
        if isinstance(found, StatusResponse):
            return found
        got: list[Any] = []
        found.addBoth(got.append)
        for _ in range(1000):
            if got:
                break
            self.clock.advance(0)
        assert isinstance(got[0], StatusResponse), got
        return got[0]

    def text(self, **query: str) -> str:
        return self.get(**query).body.decode()


@pytest.fixture
def slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A break wherever there may be one."""
    monkeypatch.setattr(page, "SLICE", -1.0)


def tree(text: str) -> Any:
    return html5lib.parse(text, namespaceHTMLElements=False)


def test_the_page_is_html_and_shows_what_there_is() -> None:
    answer = Room().get()
    assert (answer.status, answer.content_type) == (200, "text/html; charset=utf-8")
    # Else the forms of it would come from nowhere.
    assert answer.headers["Referrer-Policy"] == "same-origin"
    shown = " ".join("".join(tree(answer.body.decode()).itertext()).split())
    for part in (
        "Warning: 1 reason",
        "queue requests is paused",
        "▲ paused 1 min ago by anna",
        "12 / 24 / 108 ms",
        "2 min 5 s",
        "5 1 gated",
        "SIGKILL",
        "exit 2",
        "command not found",
        "reap has not turned for 1 min 39 s",
        "1 to 1, the newest first",
        "2 attempts",
        "12 KiB",
        "3, 1 working",
    ):
        assert part in shown, part


def test_a_snapshot_is_written_once() -> None:
    room = Room()
    first = room.get()
    assert room.get().body is first.body
    room.snapshot = snapshot(at=NOW + 1)
    assert room.get().body != first.body


@pytest.mark.usefixtures("slices")
def test_writing_gives_way_to_others_and_whoever_asks_meanwhile_gets_the_same() -> None:
    room = Room()
    first, second = room.ask(), room.ask()
    # A newer snapshot does not start another one, before the one under way is done.
    room.snapshot = snapshot(at=NOW + 1)
    third = room.ask()
    answers: list[StatusResponse] = []
    for one in (first, second, third):
        assert isinstance(one, Deferred)
        assert not one.called
        one.addCallback(answers.append)
    assert len(room.clock.getDelayedCalls()) == 1
    room.clock.pump([0] * 1000)
    assert len(answers) == 3
    assert len({id(one.body) for one in answers}) == 1
    assert answers[0].body == Room().get().body


@pytest.mark.usefixtures("slices")
def test_who_leaves_while_it_is_written_takes_nobody_along() -> None:
    room = Room()
    first, second = room.ask(), room.ask()
    assert isinstance(first, Deferred)
    assert isinstance(second, Deferred)
    first.addErrback(lambda failure: failure.trap(CancelledError) and None)
    first.cancel()
    got: list[StatusResponse] = []
    second.addCallback(got.append)
    room.clock.pump([0] * 1000)
    assert got[0].status == 200


def test_an_error_reaches_all_who_wait_and_the_next_one_starts_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = Room()
    with monkeypatch.context() as patch:
        patch.setattr(page, "written", lambda made, clock: fail(ZeroDivisionError()))
        found = room.ask()
        assert isinstance(found, Deferred)
        errors: list[Any] = []
        found.addErrback(errors.append)
        assert errors[0].check(ZeroDivisionError)
    assert room.get().status == 200


def test_another_page_of_dead_letters_is_read_when_it_is_asked_for() -> None:
    room = Room()
    text = room.text(failed="20")
    assert room.asked == [(20, 20)]
    assert 'href="./#failures">Newer' not in text
    items = room.snapshot.failures.items
    room.read = lambda: succeed(DeadLetters(total=41, start=20, items=items * 20))
    text = room.text(failed="20")
    assert 'href="./#failures">Newer' in text
    assert 'href="?failed=40#failures">Older' in text
    assert "21 to 40, the newest first" in text
    room.read = lambda: succeed(DeadLetters(total=41, start=60, items=()))
    assert "none so far down" in room.text(failed="60")
    room.read = lambda: fail(BrokerError("away"))
    failed = room.ask(failed="20")
    assert isinstance(failed, Deferred)
    failed.addErrback(lambda failure: failure.trap(BrokerError) and None)


@pytest.mark.parametrize("start", ["", "0", "-1", "x", "1e3", "²"])
def test_the_newest_dead_letters_are_of_the_snapshot(start: str) -> None:
    room = Room()
    room.get(failed=start)
    assert room.asked == []


def test_without_a_script_the_page_reloads_itself_unless_told_otherwise() -> None:
    assert '<noscript><meta http-equiv="refresh" content="10">' in Room().text()
    still = Room().text(still="")
    assert "http-equiv" not in still
    assert '<a href="./">Reload every 10 s</a>' in still


def test_what_became_of_an_action_is_said_in_words_of_our_own() -> None:
    room = Room()
    text = room.text(said="paused")
    assert ">The queue is paused.</p>" in text
    # Else it would be said again and again.
    assert 'content="10; url=./"' in text
    plain = room.text()
    for said in ("", "<b>", "The queue is paused."):
        assert room.text(said=said) == plain


def test_style_and_script_may_be_kept_for_they_have_another_name_when_they_change() -> None:
    room = Room()
    for path, kind in (("page.css", "text/css"), ("page.js", "text/javascript")):
        answer = room.get(path)
        assert answer.content_type == f"{kind}; charset=utf-8"
        assert "immutable" in answer.headers["Cache-Control"]
        assert f"{path}?{page.BUILD}" in room.text()


def test_every_link_is_relative() -> None:
    room = Room()
    room.writable = True
    found = [
        value
        for one in tree(room.text()).iter()
        for name, value in one.attrib.items()
        if name in ("href", "src", "action", "formaction")
        # The picture of the browser's tab.
        and not value.startswith("data:image/svg+xml,")
    ]
    assert len(found) > 20
    assert not [one for one in found if one.startswith("/") or ":" in one]


def test_ids_are_unique_and_what_is_named_is_there() -> None:
    room = Room()
    room.writable = True
    root = tree(room.text())
    ids = [one.attrib["id"] for one in root.iter() if "id" in one.attrib]
    assert len(ids) == len(set(ids))
    for one in root.iter():
        for name in ("aria-labelledby", "aria-describedby", "for"):
            for id in one.attrib.get(name, "").split():
                assert id in ids
        if one.tag == "a" and one.attrib["href"].startswith("#"):
            assert one.attrib["href"][1:] in ids


def test_keys_are_unique_among_siblings() -> None:
    stuck = Reason(severity=Severity.WARNING, code="loop-stale", subject="n", text="stuck")
    room = Room(snapshot(health=Health(severity=Severity.WARNING, reasons=(stuck, stuck))))
    room.writable = True
    for parent in tree(room.text()).iter():
        keys = [one.attrib["data-key"] for one in parent if "data-key" in one.attrib]
        assert len(keys) == len(set(keys)), keys


def test_there_are_no_forms_where_nothing_can_be_done() -> None:
    room = Room()
    root = tree(room.text())
    assert [list(root.iter(name)) for name in ("form", "input", "select")] == [[], [], []]
    # That one is the script's.
    assert [one.attrib["id"] for one in root.iter("button")] == ["pause"]
    room.writable = True
    room.snapshot = snapshot(at=NOW + 1)
    forms = [one.attrib for one in tree(room.text()).iter("form")]
    assert {one["method"] for one in forms} == {"post"}
    assert {one["action"] for one in forms} == {
        "queues/requests/resume",
        "jobs/m-9/stop",
        "pools/thumbnails/size",
        "pools/thumbnails/drain",
        "failed/retry",
        "failed/drop",
    }


def test_residents_are_restarted_and_scripts_are_drained() -> None:
    # What a pool would refuse is not offered.
    room = Room()
    room.writable = True
    room.snapshot = snapshot(
        pools=tuple(replace(one, resident=True) for one in room.snapshot.pools)
    )
    actions = {one.attrib["action"] for one in tree(room.text()).iter("form")}
    assert "pools/thumbnails/restart" in actions
    assert "pools/thumbnails/drain" not in actions


def test_what_destroys_needs_a_second_step() -> None:
    room = Room()
    room.writable = True
    root = tree(room.text())
    parents = {child: parent for parent in root.iter() for child in parent}

    def folded(one: Any) -> bool:
        while one in parents:
            one = parents[one]
            if one.tag == "details" and "open" not in one.attrib:
                return True
        return False

    dangers = [
        one
        for one in root.iter("button")
        if "drop" in one.attrib.get("formaction", "") or one.attrib.get("class") == "danger"
    ]
    assert len(dangers) == 7
    assert all(folded(one) for one in dangers)


def test_where_there_is_nothing_it_says_what_to_do() -> None:
    text = Room(empty()).text()
    assert "All is well" in text
    for command in (
        "twistd -n queuerelay --redis localhost:6379 --worker &#39;COMMAND&#39; --workers 4",
        "twistd -n queuerelay --redis localhost:6379 --role relay --listen tcp:8000",
        "queuerelay-worker --redis localhost:6379 myproject.wsgi:application",
    ):
        assert command.replace("&#39;", "'") in text.replace("&#39;", "'"), command
    assert "No dead letters" in text
    assert "No process of a pool has ended yet" in text


def test_severity_is_a_word_and_a_mark_and_not_a_colour_alone() -> None:
    for severity, mark in ((Severity.OK, "●"), (Severity.WARNING, "▲"), (Severity.CRITICAL, "■")):
        reasons = (
            ()
            if severity is Severity.OK
            else (Reason(severity=severity, code="x", subject="", text="because"),)
        )
        shown = snapshot(health=Health(severity=severity, reasons=reasons))
        root = tree(Room(shown).text())
        [title] = root.iter("h1")
        assert mark in "".join(title.itertext())
        assert severity is Severity.OK or severity.value in "".join(title.itertext()).lower()


def test_many_reasons_are_cut() -> None:
    reasons = tuple(
        Reason(severity=Severity.WARNING, code="paused", subject=f"q{n}", text=f"q{n} is paused")
        for n in range(50)
    )
    shown = snapshot(health=Health(severity=Severity.WARNING, reasons=reasons))
    text = Room(shown).text()
    assert "Warning: 50 reasons" in text
    assert "and 30 more" in text


def test_an_old_snapshot_says_so() -> None:
    assert "nothing was collected since" not in Room().text()
    assert "nothing was collected since" in Room(snapshot(at=NOW - 6)).text()
