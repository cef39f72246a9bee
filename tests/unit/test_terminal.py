"""Text for terminals."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.overview import overview
from queuerelay.safe_text import safe
from queuerelay.status.views.document import status_document
from queuerelay.terminal import cut, painted, show, span, table, width
from tests.unit.status.page_scene import snapshot


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, è, 漢字", "plain, è, 漢字"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("one\ntwo\r\t", r"one\ntwo\r\t"),
        ("a\u202eb\u200b", r"a\u202eb\u200b"),
        ("\x9b31m", r"\x9b31m"),
        ("\ud800", r"\ud800"),
    ],
)
def test_nothing_reaches_the_terminal_that_it_would_obey(text, expected):
    assert safe(text) == expected


@given(st.text())
def test_whatever_it_is_it_can_be_printed(text):
    assert safe(text).isprintable()


@given(st.text(), st.integers(1, 30))
def test_cut_fits(text, columns):
    assert width(cut(text, columns)) <= columns
    if width(text) <= columns:
        assert cut(text, columns) == text


def test_columns_stand_below_each_other_whatever_is_in_them():
    lines = table(
        ("NAME", ">N", "TEXT"), [("a", "1", "x"), ("漢字", "10", "\n"), ("e\u0301", "100", "")]
    )
    assert lines == [
        "NAME    N  TEXT",
        "a       1  x",
        "漢字   10  \\n",
        "e\u0301     100",
    ]


def test_a_narrow_terminal_has_fewer_columns_and_no_cut_numbers():
    head = ("NAME", "STATE", ">SPARE", ">N", "TEXT")
    rows = [("n" * 100, "paused", "10", "12345", "t" * 100), ("b", "", "1", "1", "")]
    lines = table(head, rows, columns=54, spare=(">SPARE",))
    assert lines == [
        "NAME                STATE       N  TEXT",
        f"{'n' * 17}…  paused  12345  {'t' * 18}…",
        "b                               1",
    ]
    assert "SPARE" in table(head, rows, columns=75, spare=(">SPARE",))[0]
    assert table(head, rows)[1].startswith("n" * 100)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, "-"),
        (0, "0 s"),
        (0.0004, "0.4 ms"),
        (0.0123, "12 ms"),
        (0.9996, "1.0 s"),
        (1.24, "1.2 s"),
        (59.96, "1 min"),
        (200, "3 min 20 s"),
        (3599.6, "1 h"),
        (7380, "2 h 3 min"),
        (187200, "2 d 4 h"),
    ],
)
def test_durations(seconds, expected):
    assert span(seconds) == expected


def test_what_is_shown_has_no_controls_but_our_own_colours(capsys):
    show(["a\x1b[2Jb\rc\nd\u202e\u2028\x85\ud800", painted("ok", "32"), "\x1b[5m\x1b[31m"])
    assert capsys.readouterr().out.split("\n") == [
        r"a\x1b[2Jb\rc\nd\u202e\u2028\x85\ud800",
        "\x1b[32;1mok\x1b[0m",
        r"\x1b[5m\x1b[31m",
        "",
    ]


def test_no_field_of_a_status_gets_through_unescaped():
    foreign = "x\x1b[31m\r\n"

    def hostile(value):
        if isinstance(value, dict):
            return {name: hostile(one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [hostile(one) for one in value]
        return foreign if isinstance(value, str) else value

    document = hostile(json.loads(json.dumps(status_document(snapshot()), default=str)))
    for line in overview(document, 200, colour=False):
        assert line.isprintable()
