"""How the page puts figures into words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.status.collect.history import Percentiles
from queuerelay.status.views import page_text
from tests.unit.status.page_scene import NOW


def test_durations_can_be_read_by_machines() -> None:
    assert page_text.span(200.25) == '<time datetime="PT200.250S">3 min 20 s</time>'
    assert page_text.span(None) == "–"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ((0.0012, 0.003, 0.04), "1.2 / 3 / 40 ms"),
        ((0.5, 1.25, 12.0), "0.5 / 1.2 / 12 s"),
        ((1.0, 2.0, 200.0), "1.0 s / 2.0 s / 3 min 20 s"),
    ],
)
def test_percentiles_share_a_unit(found: tuple[float, float, float], words: str) -> None:
    p50, p95, p99 = found
    found_words = page_text.several(Percentiles(count=3, p50=p50, p95=p95, p99=p99))
    assert f">{words}<" in found_words.replace("\N{NO-BREAK SPACE}", " ")


def test_unknown_percentiles_are_a_dash() -> None:
    assert page_text.several(Percentiles()) == "–"


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (2**28, "256 MiB"), (2**52, "4096 TiB")],
)
def test_sizes(number: int, words: str) -> None:
    assert page_text.size(number) == words
    assert page_text.size(None) == "–"


def test_rates_and_counts() -> None:
    assert [page_text.rate(one) for one in (0, 0.25, 9.9, 12.34, 12345)] == [
        *("0", "0.2", "9.9", "12", "12,345"),
    ]
    assert page_text.count(12345) == "12,345"
    assert page_text.count(None) == "–"


def test_moments_of_today_have_no_day() -> None:
    assert page_text.moment(NOW, NOW) == '<time datetime="2026-09-21T14:13:20Z">14:13:20</time>'
    assert ">20 Sep 2026 14:13<" in page_text.moment(NOW - 86400, NOW)


@pytest.mark.parametrize("at", [0.0, -1.0, 2.0**53])
def test_moments_that_are_none_are_a_dash(at: float) -> None:
    assert page_text.moment(at, NOW) == "–"
    assert page_text.ago(at, NOW) == ""


def test_how_long_ago() -> None:
    ages = (5, 65, 7300, 200_000, -9)
    assert [page_text.ago(NOW - one, NOW) for one in ages] == [
        *("5 s ago", "1 min ago", "2 h ago", "2 d ago", "0 s ago"),
    ]


def test_only_what_is_full_is_a_hundred_percent() -> None:
    assert page_text.percent(9999, 10000) == 99
    assert page_text.percent(10000, 10000) == 100
    assert page_text.percent(10001, 10000) == 100
    assert page_text.percent(3, None) == 0


def test_what_is_no_text_is_shown_as_a_picture() -> None:
    assert page_text.fit("a\tb\nc\u00e4\U0001f600") == "a\tb\nc\u00e4\U0001f600"
    assert page_text.fit("\x00\x1b[31m\r") == "\u2400\u241b[31m\u240d"
    assert page_text.fit("\x7f\x85\ud800\u202e\ufeff") == "\u2421" + 4 * "\ufffd"


@given(st.text(st.characters(codec=None)))
def test_any_text_can_be_sent(text: str) -> None:
    assert len(page_text.fit(text).encode()) >= len(text)
