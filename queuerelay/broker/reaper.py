"""Finds messages whose worker died, and does with them what `wire.recovery` says."""

from collections.abc import Callable, Sequence

from twisted.logger import Logger

from queuerelay.broker.base import Broker, Claim
from queuerelay.wire.recovery import Drop, Fail, Retry, recover

#: Seconds between two looks at the leases.
REAP_INTERVAL = 5.0
#: Seconds that a reaper has to settle what it took over, before another one may.
_REAPER_LEASE = 30.0


class Reaper:
    """Settles what dead workers left in flight on `queues`; any number of them may run."""

    _log = Logger()

    def __init__(
        self, broker: Broker, queues: Sequence[str], *, wall_clock: Callable[[], float]
    ) -> None:
        self._broker = broker
        self._queues = queues
        self._wall_clock = wall_clock

    async def reap(self) -> int:
        """Look once at every queue; gives how many messages were settled."""
        settled = 0
        for queue in self._queues:
            for claim in await self._broker.reap(queue, lease=_REAPER_LEASE):
                await self._settle(claim)
                settled += 1
        return settled

    async def _settle(self, claim: Claim) -> None:
        now = self._wall_clock()
        verdict = recover(
            claim.message,
            queue=claim.queue,
            worker=claim.holder,
            since=claim.since or now,
            now=now,
        )
        match verdict:
            case Retry(message=message):
                await self._broker.retry(claim, message)
            case Fail(entry=entry, reply_to=reply_to, reply=reply):
                await self._broker.fail(claim, entry, reply_to=reply_to, reply=reply)
            case Drop():
                await self._broker.ack(claim)
        self._log.warn(
            "worker {worker} died with a message of queue {queue}: {outcome}",
            worker=claim.holder or "unknown",
            queue=claim.queue,
            outcome=type(verdict).__name__.lower(),
        )
