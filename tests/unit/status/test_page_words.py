"""What the page calls an end."""

import pytest

from queuerelay.status.views.page_view import how


@pytest.mark.parametrize(
    ("code", "signal", "words"),
    [
        (None, "SIGKILL", "SIGKILL"),
        (None, None, "not started"),
        (3, None, "exit 3"),
        (137, "SIGKILL", "exit 137: SIGKILL"),
        (124, "", "exit 124: time-out"),
    ],
)
def test_how_it_ended(code, signal, words):
    assert how(code, signal) == words
