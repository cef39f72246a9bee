"""The two clocks of a process, and which of them a reactor stands on.

Invariants:

1. Durations, timers, deadlines and time-outs go by the monotonic clock, which nobody sets: the
   reactor's `seconds`. Twisted gives its reactors the wall clock, by which no timer fires for as
   long as that was set back, and all fire at once where it was set ahead.
2. What goes into Redis, and what is compared with that, is in Unix seconds by the clock of Redis:
   `Broker.time`. It is the monotonic clock and the offset that was measured.
3. The wall clock is for people alone: log lines, the access log, ``Date``.
"""

import time
from typing import Any


def use_monotonic(reactor: Any) -> None:
    """Let `reactor` go by the monotonic clock from now on; what it has still to call moves along.

    To be called by the process's main thread, best before the reactor runs. Whatever takes
    ``reactor.seconds()`` for Unix seconds is wrong from then on: use ``time.time()`` for those.
    """
    if not on_wall_clock(reactor):
        return
    ahead = time.monotonic() - reactor.seconds()
    for call in reactor.getDelayedCalls():
        call.time += ahead
        call.seconds = time.monotonic
    reactor.seconds = time.monotonic


def on_wall_clock(reactor: Any) -> bool:
    """Whether the timers of `reactor` go by the wall clock."""
    now = reactor.seconds()
    # A `Clock` in a test goes by neither.
    return bool(abs(now - time.time()) < 1.0 and abs(now - time.monotonic()) >= 1.0)
