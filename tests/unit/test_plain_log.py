"""The log: whatever stands in an event, it forges no line and nothing on a terminal."""

import io
from typing import Any

import pytest
from twisted.logger import (
    LegacyLogObserverWrapper,
    Logger,
    LogPublisher,
    textFileLogObserver,
)
from twisted.python import log as legacy
from twisted.python.failure import Failure

from queuerelay.plain_log import make_plain
from queuerelay.visible import visible

FOREIGN = "a\x1b[2Jb\rc\n2026-11-28T00:00:00+0000 [x] forged\x9b\x85\u2028\u202e\ud800\x7f"
SHOWN = r"a\x1b[2Jb\rc\n2026-11-28T00:00:00+0000 [x] forged\x9b\x85\u2028\u202e\ud800\x7f"


@pytest.fixture(params=["new", "legacy"])
def written(request):
    """Logs by a `Logger` behind the root; gives what a file of twistd's then has."""
    file = io.StringIO()
    if request.param == "new":
        observer: Any = textFileLogObserver(file)
    else:
        observer = LegacyLogObserverWrapper(legacy.FileLogObserver(file).emit)
    log = Logger(observer=LogPublisher(make_plain, observer))

    def write(say):
        say(log)
        return file.getvalue()

    return write


def test_a_field_is_one_line_without_controls(written):
    text = written(lambda log: log.info("{id} ended", id=FOREIGN))
    assert f"{SHOWN} ended" in text
    assert visible(text.rstrip("\n")) == text.rstrip("\n")


@pytest.mark.parametrize("value", [ValueError(FOREIGN), [FOREIGN], {"x": FOREIGN}])
def test_what_only_becomes_text_is_escaped_too(written, value):
    text = written(lambda log: log.error("{what}", what=value)).rstrip("\n")
    assert text.isprintable()


def test_a_traceback_keeps_its_lines_and_no_others_controls(written):
    def say(log):
        try:
            raise ValueError("x\x1b[31m\ry")
        except ValueError:
            log.failure("{id} failed", Failure(), id=FOREIGN)

    text = written(say)
    assert all(line.replace("\t", "").isprintable() for line in text.split("\n"))
    assert r"x\x1b[31m\ry" in text
    assert "Traceback" in text


def test_what_is_plain_stays_as_it_was():
    event = {"log_format": "{id} ended", "id": "mp3/7 \u6f22\u5b57"}
    make_plain(event)
    assert event == {"log_format": "{id} ended", "id": "mp3/7 \u6f22\u5b57"}
