"""The bell rings for signals and for work, and misses neither."""

import signal
import threading

import pytest

from queuerelay.worker import doorbell
from queuerelay.worker.doorbell import Doorbell

#: Seconds after which a wait that nobody ended is a failure.
PATIENCE = 20.0


@pytest.fixture
def bell(monkeypatch):
    monkeypatch.setattr(doorbell, "LONGEST_WAIT", PATIENCE)
    return Doorbell()


def rang(thread):
    thread.join(PATIENCE / 2)
    return not thread.is_alive()


def test_a_ring_before_the_wait_ends_it(bell):
    bell.ring()
    waiting = threading.Thread(target=bell.wait, daemon=True)
    waiting.start()
    assert rang(waiting)


def test_a_signal_handler_may_ring_while_main_waits(bell):
    """`threading.Event` would deadlock here now and then."""
    rung = []

    def handler(number, frame):
        rung.append(number)
        bell.ring()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        main = threading.main_thread().ident
        timer = threading.Timer(0.05, lambda: signal.pthread_kill(main, signal.SIGUSR1))
        timer.start()
        bell.pause(PATIENCE)
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert rung == [signal.SIGUSR1]


def test_a_wait_ends_by_itself(monkeypatch):
    monkeypatch.setattr(doorbell, "LONGEST_WAIT", 0.01)
    Doorbell().wait()
