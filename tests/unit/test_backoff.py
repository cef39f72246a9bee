"""Back-off: the first, the growth, the longest, and chance within its bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.backoff import back_off


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 1.0), (1, 1.0), (2, 2.0), (3, 4.0), (6, 32.0), (7, 60.0)]
)
def test_it_doubles_up_to_the_longest(failures, seconds):
    assert back_off(failures, first=1.0, longest=60.0) == seconds


def test_the_factor_is_the_callers():
    found = [back_off(n, first=1.0, longest=60.0, factor=4.0) for n in range(1, 6)]
    assert found == [1.0, 4.0, 16.0, 60.0, 60.0]


@given(st.integers(0, 10**9), st.floats(0.0, 1.0, exclude_max=True))
def test_chance_changes_it_by_a_half_at_most_and_never_beyond_the_longest(failures, jitter):
    base = back_off(failures, first=0.1, longest=5.0)
    seconds = back_off(failures, first=0.1, longest=5.0, jitter=jitter)
    assert base / 2 <= seconds <= min(5.0, base * 1.5)
