"""Finds messages whose worker died, and does with them what `wire.recovery` says."""

from collections.abc import Sequence

from twisted.logger import Logger

from queuerelay.broker.base import Broker
from queuerelay.errors import ConnectionDropped, NotConnected, Refused
from queuerelay.wire.claim import Claim
from queuerelay.wire.failure import KEPT, Kept
from queuerelay.wire.recovery import TRIES, Drop, Fail, Retry, is_no_list, recover

#: Seconds between two looks at the leases.
REAP_INTERVAL = 5.0
#: Looks that are left out after each new connection. After Redis was away for longer than a lease
#: all leases have expired, those of living workers too: these are to come back and renew first,
#: which the longest back-off may delay by 5 s.
REST = 2
#: Seconds that a reaper has to settle what it took over, before another one may.
_REAPER_LEASE = 30.0


class Reaper:
    """Settles what dead workers left in flight on `queues`; any number of them may run.

    `reap` is to be called each `REAP_INTERVAL` seconds. A message is tried `tries` times in all;
    leases that expired less than `overdue` seconds ago are left.
    """

    _log = Logger()

    def __init__(
        self,
        broker: Broker,
        queues: Sequence[str],
        *,
        tries: int = TRIES,
        overdue: float = 0.0,
        kept: Kept = KEPT,
    ) -> None:
        self._broker = broker
        self._queues = queues
        self._tries = tries
        self._overdue = overdue
        self._kept = kept
        self._resting = 0
        broker.on_up(self._rest)

    def _rest(self) -> None:
        self._resting = REST

    async def reap(self, queues: Sequence[str] | None = None) -> int:
        """Look once at every queue, or at those of `queues`; gives how many messages were
        settled.
        """
        if self._resting:
            self._resting -= 1
            return 0
        settled, refused = 0, None
        for queue in self._queues if queues is None else queues:
            try:
                claims = await self._broker.leases.reap(
                    queue, lease=_REAPER_LEASE, overdue=self._overdue
                )
            except Refused as error:
                # A key of the wrong type, for one: that is no other queue's matter.
                refused = refused or error
                continue
            for claim in claims:
                try:
                    settled += await self._settle(claim)
                except (ConnectionDropped, NotConnected):
                    raise
                except Exception:
                    # One bad message must not keep those behind it from their turn; it comes
                    # again when the reaper's own lease has expired.
                    self._log.failure(
                        "a message of queue {queue} could not be recovered", queue=queue
                    )
        if refused is not None:
            raise refused
        return settled

    async def _settle(self, claim: Claim) -> bool:
        """False where somebody else was faster."""
        now = self._broker.time()
        verdict = recover(
            claim.message,
            keys=self._broker.keys,
            queue=claim.queue,
            worker=claim.holder,
            since=claim.since or now,
            now=now,
            tries=self._tries,
            kept=self._kept,
        )
        match verdict:
            case Retry(message=message):
                held = await self._broker.leases.retry(claim, message)
            case Fail(entry=entry, reply_to=reply_to, reply=reply):
                held = await self._fail(claim, entry, reply_to, reply)
            case Drop():
                held = await self._broker.leases.ack(claim)
        if held:
            self._log.warn(
                "worker {worker} died with a message of queue {queue}: {outcome}",
                worker=claim.holder or "unknown",
                queue=claim.queue,
                outcome=type(verdict).__name__.lower(),
            )
        return held

    async def _fail(
        self, claim: Claim, entry: bytes, reply_to: str | None, reply: bytes | None
    ) -> bool:
        try:
            return await self._broker.leases.fail(claim, entry, reply_to=reply_to, reply=reply)
        except Refused as error:
            if not is_no_list(str(error.args[0]), reply_to):
                raise
            self._log.error("a reply cannot be given: {reason}", reason=str(error))
            return await self._broker.leases.fail(claim, entry)
