"""Durations as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.durations import in_words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.00004, "0 s"),
        (0.0004, "0.4 ms"),
        (0.0099, "9.9 ms"),
        (0.00996, "10 ms"),
        (0.999, "999 ms"),
        (0.9996, "1.0 s"),
        (1.24, "1.2 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86400 * 4 + 3700, "4 d 1 h"),
        (2.0**52, "52,124,995,687 d 3 h"),
    ],
)
def test_a_duration_is_written_for_people(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@given(st.floats(min_value=0, max_value=2.0**53))
def test_no_duration_fails_or_says_sixty(seconds: float) -> None:
    words = in_words(seconds)
    assert "60 s" not in words
    assert "60 min" not in words
    assert "24 h" not in words
    assert "1000 ms" not in words
