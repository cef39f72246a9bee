"""The clock of Redis without Redis: what is made of its answers."""

import pytest

from queuerelay.broker.redis.clock import KEPT, RedisClock

REDIS = 1_790_000_000.0


class Bench:
    """A process whose clocks a test sets, and a Redis with a clock of its own."""

    def __init__(self):
        self.steady = 100.0
        self.wall = REDIS
        #: Redis's time less the steady one.
        self.ahead = REDIS - 100.0
        self.clock = RedisClock(steady=lambda: self.steady, wall_clock=lambda: self.wall)

    def ask(self, there=0.0005, back=0.0005):
        sent = self.steady
        self.steady += there
        redis = self.steady + self.ahead
        self.steady += back
        self.clock.heard(redis, sent, self.steady)

    @property
    def off(self):
        return self.clock.time() - (self.steady + self.ahead)


@pytest.fixture
def bench():
    return Bench()


def test_until_redis_was_heard_it_is_our_own(bench):
    bench.wall += 300.0
    assert bench.clock.time() == bench.wall
    assert bench.clock.skew is None


def test_it_goes_on_with_the_steady_clock_and_a_step_of_ours_moves_nothing(bench):
    bench.ask()
    bench.steady += 5.0
    bench.wall -= 3600.0
    assert abs(bench.off) < 0.001
    assert bench.clock.skew == pytest.approx(-3605.0, abs=0.01)


@pytest.mark.parametrize("first", [True, False])
def test_the_best_round_trip_counts(bench, first):
    asks = [(0.0002, 0.0002), (0.8, 0.0002)]
    for there, back in asks if first else reversed(asks):
        bench.ask(there, back)
        bench.steady += 2.0
    assert abs(bench.off) < 0.005


@pytest.mark.parametrize("step", [30.0, -30.0, 3600.0, -0.5])
def test_a_step_of_redis_is_followed_at_once(bench, step):
    for _ in range(5):
        bench.ask()
        bench.steady += 2.0
    bench.ahead += step
    bench.ask(0.01, 0.01)
    assert abs(bench.off) <= 0.01
    bench.ask()
    assert abs(bench.off) <= 0.001


def test_a_slow_drift_is_followed(bench):
    for _ in range(10 * KEPT):
        bench.ask()
        bench.steady += 2.0
        bench.ahead += 2.0 * 0.0004
    assert abs(bench.off) < 0.05
