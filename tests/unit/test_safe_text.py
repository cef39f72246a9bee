"""Foreign text in the log: nothing that a terminal obeys, nothing that looks like another line."""

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import Logger, LogPublisher, textFileLogObserver
from twisted.python.failure import Failure

from queuerelay.safe_log import make_safe
from queuerelay.safe_text import safe_line, safe_lines

#: Each of them does something to a terminal, or to who reads it.
EVIL = (
    *("\x1b[2J", "\x1b]0;title\x07", "\r", "\b", "\x00", "\x7f", "\x85", "\x9b31m", "\x0b", "\x0c"),
    *("\u2028", "\u2029", "\u202e", "\u2066", "\u200e", "\u061c", "\ufeff", "\ud800"),
)
FORGED = "job\n2026-11-28T05:00:00+0000 [-] forged"


@pytest.fixture
def log():
    """A log as twistd has it, and a Logger for it."""
    file = io.StringIO()
    publisher = LogPublisher(make_safe, textFileLogObserver(file))
    logger = Logger(observer=publisher)
    logger.text = file.getvalue
    return logger


@pytest.mark.parametrize("evil", EVIL)
def test_what_is_not_text_is_written_out(evil):
    for made in (safe_line(f"a{evil}b"), safe_lines(f"a{evil}b")):
        assert made.startswith("a\\")
        assert made.isprintable()


@pytest.mark.parametrize(
    "text", ["a\tb", "é 漢字\u3000x", "می\u200cخواهم", "👩\u200d💻", "a\xa0b", "\\x1b"]
)
def test_text_of_people_is_left_alone(text):
    assert safe_line(text) == text


@given(st.text())
def test_once_is_enough(text):
    line = safe_line(text)
    assert safe_line(line) == line
    assert not {unicodedata.category(char) for char in line if char != "\t"} & {"Cc", "Cs", "Zl"}
    assert len(line.splitlines()) <= 1
    line.encode()


@pytest.mark.parametrize("evil", EVIL)
def test_every_field_of_an_event(log, evil):
    class Node:
        def __str__(self):
            return f"node{evil}"

    log.info(
        "{id} {error} {error!r} {node} {name}",
        id=evil,
        error=ValueError(evil),
        node=Node(),
        name=[evil],
    )
    log.failure("failed on {id}", Failure(ValueError(f"of Redis{evil}")), id=evil)
    text = log.text()
    assert all(char.isprintable() or char in "\n\t" for char in text)
    assert "Traceback" in text
    assert "of Redis\\" in text


def test_a_line_cannot_be_forged(log):
    log.info("{id} {error} {error!s}", id=FORGED, error=ValueError(FORGED))
    assert len(log.text().splitlines()) == 1
    log.failure("failed", Failure(ValueError(FORGED)))
    assert sum(not line.startswith("\t") for line in log.text().splitlines()) == 2


def test_what_is_well_is_left_as_it_is(log):
    log.info("pool {pool}: {line}", pool="a", line="1\t2 漢字 {braces}")
    log.info("{number} {none}", number=1.5, none=None)
    lines = [line.partition("] ")[2] for line in log.text().splitlines()]
    assert lines == ["pool a: 1\t2 漢字 {braces}", "1.5 None"]
