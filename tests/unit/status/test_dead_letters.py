"""Dead letters as they are shown: bounded, and nobody's arguments."""

import json

import pytest

from queuerelay.broker.records import DeadLetterEntry, DeadLetterPage
from queuerelay.status.collect.dead_letters import ATTEMPTS, LONG, TEXT, failures

HUGE = "x" * 1_000_000


def shown(entry):
    raw = json.dumps(entry).encode()
    (letter,) = failures(DeadLetterPage(total=1, items=[DeadLetterEntry.of(raw, 0)]), 0).items
    return letter


@pytest.mark.heavy
def test_texts_and_attempts_are_bounded(monkeypatch):
    # Else of an entry of this size only a part is read.
    monkeypatch.setattr("queuerelay.wire.dead_letter.SHOWN", 10**9)
    attempt = {"started_at": 1.0, "run": 2, "error": HUGE, "stderr": HUGE, "signal": HUGE}
    letter = shown(
        {
            **dict.fromkeys(("queue", "exception", "failed_at", "worker"), HUGE),
            "error": HUGE,
            "payload": {"class": HUGE, "args": [HUGE], "id": HUGE},
            "backtrace": [HUGE],
            "queuerelay": {"attempts": [{**attempt, "exit": number} for number in range(99)]},
        }
    )
    assert len(letter.error) == LONG
    for text in (letter.queue, letter.exception, letter.failed_at, letter.worker, letter.cls):
        assert len(text) == TEXT
    assert len(letter.message) == TEXT
    # The last ones.
    assert [one.code for one in letter.attempts] == list(range(99 - ATTEMPTS, 99))
    assert len(letter.attempts[0].stderr) == len(letter.attempts[0].error) == LONG


def test_halves_of_characters_become_whole_ones():
    letter = shown({"error": "\ud800", "queue": "\udfff", "payload": {"class": "a\ud800b"}})
    assert (letter.error, letter.queue, letter.cls) == ("?", "?", "a?b")


def test_wrong_types_are_nothing():
    for wrong in (7, None, [], {}, True, -1, 1e300):
        letter = shown(
            {
                **dict.fromkeys(("queue", "error", "payload", "queuerelay"), wrong),
                "retried_at": "2026/11/22",
            }
        )
        assert (letter.queue, letter.error, letter.cls, letter.attempts) == ("", "", "", ())
        assert letter.retried
        one = shown({"queuerelay": {"attempts": [dict.fromkeys(("run", "exit", "signal"), wrong)]}})
        assert (one.attempts[0].code, one.attempts[0].signal) in ((None, ""), (7, ""))


def test_arguments_and_backtrace_are_not_shown():
    letter = shown({"payload": {"class": "C", "args": ["canary"]}, "backtrace": ["canary"]})
    assert "canary" not in repr(letter)


def test_a_retried_one_says_so():
    assert shown({"retried_at": "2026/11/22 10:00:00"}).retried
    assert not shown({}).retried
