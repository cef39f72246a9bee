"""The thread that keeps leases: it renews ours, and takes over those of the dead.

It has its own connection, so that a long-running application or a large reply on the other one
never costs a lease.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any, Final

from redis.exceptions import RedisError

from queuerelay.wire import commands
from queuerelay.wire.claim import Claim
from queuerelay.wire.recovery import Drop, Fail, Retry, recover
from queuerelay.worker.link import LONGEST_DELAY, Link
from queuerelay.worker.settings import WorkerSettings

log = logging.getLogger(__name__)

#: Longest time between two looks for expired leases, seconds.
REAP_EVERY: Final = 5.0
#: How many expired leases one reap takes from a queue; the next one takes the next.
REAP_AT_ONCE: Final = 100
#: Shortest time between two turns, seconds.
SHORTEST_TURN: Final = 0.05


class LeaseKeeper:
    """Renews the lease of the message in hand each third of it, and reaps each half (at most 5 s).

    After Redis was away for longer than a lease, all leases have expired, those of living workers
    too. So reaping rests for a lease, and for no less than the longest back-off, after a lost
    connection: time for each holder to come back and renew.
    """

    def __init__(
        self, settings: WorkerSettings, link: Link, *, tokens: str, clock: Callable[[], float]
    ) -> None:
        """`tokens` begins every token of this process; `clock` gives monotonic seconds."""
        self._settings = settings
        self._link = link
        #: Begins every token of this process.
        self.tokens = tokens
        self._clock = clock
        self._lease = settings.lease
        self._reaps = 0
        self._reap_at = clock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="leases", daemon=True)
        #: ``(queue, token)`` of the message in hand; set by the main loop.
        self.held: tuple[str, str] | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop it, and wait at most 1 s for its last step."""
        self._stop.set()
        self._thread.join(1.0)

    def turn(self) -> float:
        """Renew and reap what is due. Gives the seconds until the next turn."""
        down = self._link.failures > 0
        try:
            # First renew, then reap: else a worker would reap its own message after an outage.
            self._renew()
            if self._link.failures == 0:
                if down:
                    self._reap_at = self._clock() + max(self._lease, LONGEST_DELAY + 1.0)
                if self._clock() >= self._reap_at:
                    self._reap_at = self._clock() + min(self._lease / 2, REAP_EVERY)
                    self._reap()
        except RedisError as error:
            log.debug("leases could not be kept: %s", error)
        except Exception:
            # This thread must outlive whatever is wrong with one message.
            log.exception("leases could not be kept")
        if self._link.failures:
            return min(self._lease / 3, self._link.delay())
        return min(self._lease / 3, max(SHORTEST_TURN, self._reap_at - self._clock()))

    def _keep(self) -> None:
        delay = 0.0
        while not self._stop.wait(delay):
            delay = self.turn()

    def _renew(self) -> None:
        held = self.held
        if held is None:
            if self._link.failures:
                # Find out whether Redis is back; nothing else would.
                self._link.send(("PING",))
            return
        queue, token = held
        renew = commands.renew(self._settings.keys, queue, [token], lease=self._lease)
        (answer,) = self._link.send(renew)
        if answer == [False] and self.held == held:
            # Not yet the truth: the acknowledgement may just have ended it. Its answer tells.
            log.debug("no lease on %s any more: %s", *held)

    def _reap(self) -> None:
        self._reaps += 1
        keys, queues = self._settings.keys, self._settings.queues
        tokens = f"{self.tokens}-r{self._reaps}-"
        reaps = [
            commands.reap(keys, queue, tokens, lease=self._lease, most=REAP_AT_ONCE)
            for queue in queues
        ]
        *reaped, time_of_redis = self._link.send(*reaps, ("TIME",))
        if isinstance(time_of_redis, Exception):
            return
        seconds, microseconds = time_of_redis
        now = int(seconds) + int(microseconds) / 1e6
        for queue, found in zip(queues, reaped, strict=True):
            if found and not isinstance(found, Exception):
                self._take_over(queue, found, now)

    def _take_over(self, queue: str, found: list[Claim], now: float) -> None:
        ends: list[commands.Call[bool]] = []
        counts = {Retry: 0, Fail: 0, Drop: 0}
        for claim in found:
            # A lease of which nobody knows since when it is held began now.
            since = claim.since or now
            try:
                verdict = recover(
                    claim.message,
                    keys=self._settings.keys,
                    queue=queue,
                    worker=claim.holder,
                    since=since,
                    now=now,
                    kept=self._settings.kept,
                )
            except Exception:
                log.exception("cannot decide about a dead worker's message on %s", queue)
                continue
            counts[type(verdict)] += 1
            ends.append(commands.conclude(self._settings.keys, queue, claim.token, verdict))
        answers: list[Any] = self._link.send(*ends) if ends else []
        log.warning(
            "took over messages of dead workers on %s: retried %d, failed %d, dropped %d%s",
            queue,
            *counts.values(),
            "" if all(answer is True for answer in answers) else "; not all done, again later",
        )
