"""When a client that takes an answer too slowly is cut off."""

import pytest

from queuerelay.http.sender import LEAST_RATE, Sender, Senders

STALL = 60.0
LARGE = 1024 * 1024


class Channel:
    transport = None


@pytest.fixture
def answer(monkeypatch):
    """An answer whose client has left so many bytes of it: `left`, in a list of one."""
    left, cut, senders = [0], [], Senders(stall=STALL)
    sender = Sender(
        senders,
        Channel(),
        write=lambda data: None,
        done=lambda: None,
        taken=lambda: None,
        give_up=lambda: cut.append(1),
    )
    monkeypatch.setattr(Sender, "_left", lambda self: left[0])

    def give(size):
        sender.send(b"x" * size)
        left[0] += size

    def look(at):
        senders.sweep(at)
        return bool(cut)

    return left, give, look


@pytest.mark.parametrize(
    ("rate", "cut"), [(0, True), (1, True), (LEAST_RATE - 10, True), (LEAST_RATE + 10, False)]
)
def test_promise_6_an_answer_has_to_be_taken_at_a_least_rate(answer, rate, cut):
    left, give, look = answer
    give(LARGE)
    for second in range(300):
        left[0] -= rate
        if look(float(second)):
            break
    assert (second < 2 * STALL) is cut


def test_a_stream_that_is_slow_itself_is_taken_as_slowly(answer):
    left, give, look = answer
    give(10)
    for second in range(300):
        # There is always something on its way.
        give(10)
        left[0] -= 10
        assert not look(float(second))
