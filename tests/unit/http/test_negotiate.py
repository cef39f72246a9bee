"""Negotiation: every ``Accept`` gets one of the forms, and the one that it asks for."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from queuerelay.http.negotiate import Format, preferred_format

HTML, PROBLEM, TEXT = Format.HTML, Format.PROBLEM, Format.TEXT

#: Accept, the form where there is a page, and where there is none.
CASES = [
    ("*/*", TEXT, TEXT),
    ("", TEXT, TEXT),
    ("text/*", HTML, TEXT),
    ("text/html", HTML, TEXT),
    ("text/plain", TEXT, TEXT),
    ("text/plain, text/html", HTML, TEXT),
    ("text/plain, text/html;q=0.9", TEXT, TEXT),
    # Firefox, Chromium, jQuery, axios.
    ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", HTML, TEXT),
    (
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,"
        "*/*;q=0.8,application/signed-exchange;v=b3;q=0.7",
        HTML,
        TEXT,
    ),
    ("application/json, text/javascript, */*; q=0.01", PROBLEM, PROBLEM),
    ("application/json, text/plain, */*", PROBLEM, PROBLEM),
    ("application/problem+json", PROBLEM, PROBLEM),
    ("APPLICATION/JSON", PROBLEM, PROBLEM),
    ("application/*", PROBLEM, PROBLEM),
    ("application/json;charset=utf-8", PROBLEM, PROBLEM),
    ("application/vnd.api+json", TEXT, TEXT),
    ("image/png", TEXT, TEXT),
    # Weights (RFC 9110 12.4.2).
    ("text/html;q=0.5, application/json", PROBLEM, PROBLEM),
    ("text/html, application/json;q=0.5", HTML, PROBLEM),
    ("text/html, application/json", HTML, PROBLEM),
    ("text/plain;q=0.4, application/json;q=0.41", PROBLEM, PROBLEM),
    ("application/json;q=0.001", PROBLEM, PROBLEM),
    ("application/json;q=0", TEXT, TEXT),
    ("application/json;q=0.000, */*", TEXT, TEXT),
    ("*/*;q=0", TEXT, TEXT),
    ("text/plain;q=0, */*", PROBLEM, PROBLEM),
    ("text/html;q=0, text/*", TEXT, TEXT),
    # The more precise range counts, whatever its weight.
    ("application/json, application/problem+json;q=0.1, text/plain;q=0.2", TEXT, TEXT),
    ("text/*, text/html;q=0", TEXT, TEXT),
    ("application/json ; q=0.3 , text/plain;q=0.2", PROBLEM, PROBLEM),
    # What is malformed is left out.
    ("application/json;q=2", TEXT, TEXT),
    ("application/json;q=0.1234, text/plain;q=0.1", TEXT, TEXT),
    ("application/json;q=-1, text/html;q=x", TEXT, TEXT),
    (",,;q=1, ;,/", TEXT, TEXT),
    ('text/html;a=", application/json;q=1";q=0.5, text/plain;q=0.6', TEXT, TEXT),
    ('application/json;a="\\"";q=0.5, text/plain;q=0.4', PROBLEM, PROBLEM),
]


@pytest.mark.parametrize(("accept", "page", "none"), CASES)
def test_the_form_that_is_asked_for(accept, page, none):
    fields = [accept.encode()]
    assert preferred_format(fields, html=True) is page
    assert preferred_format(fields, html=False) is none


def test_no_accept_is_text_and_several_are_one_list():
    assert preferred_format([], html=True) is TEXT
    assert preferred_format((), html=False) is TEXT
    assert preferred_format([b"text/plain;q=0.1", b"application/json"], html=True) is PROBLEM


PART = st.sampled_from(
    [b"text/html", b"application/json", b"*/*", b";q=", b"0", b".5", b"1", b",", b'"', b"\\", b" "]
)


@given(st.lists(st.lists(PART | st.binary(max_size=5), max_size=30).map(b"".join), max_size=3))
def test_whatever_comes_there_is_a_form(accept):
    assert preferred_format(accept, html=False) in (PROBLEM, TEXT)
    assert preferred_format(accept, html=True) in Format


def test_what_is_much_too_long_is_text():
    assert preferred_format([b"application/json" + b" " * 1008], html=False) is PROBLEM
    assert preferred_format([b"application/json" + b" " * 1009], html=False) is TEXT
