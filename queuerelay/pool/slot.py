"""A slot of a pool while it has a message."""

from queuerelay.pool.child import Child
from queuerelay.wire.claim import Claim
from queuerelay.wire.node import SlotState


class PoolSlot:
    """A slot; made for one message, and gone with it."""

    __slots__ = (
        "attempt",
        "child",
        "claim",
        "client_waits",
        "message",
        "number",
        "settling",
        "since",
    )

    def __init__(self, *, number: int, claim: Claim, since: float) -> None:
        #: From 1; the lowest that was free.
        self.number = number
        self.claim = claim
        #: Clock seconds at which it took the message.
        self.since = since
        #: Id of the message, "" until it has been read.
        self.message = ""
        self.attempt = 0
        #: Whether a client waits for it, who may leave.
        self.client_waits = False
        #: Whether its process is gone and only its message is to be settled: room for another.
        self.settling = False
        #: Its process, once it is started.
        self.child: Child | None = None

    @property
    def state(self) -> str:
        """``starting``, ``running`` or ``ending``."""
        if self.child is None:
            return "starting"
        return "running" if self.child.alive else "ending"

    def snapshot(self, now: float) -> SlotState:
        """What the slot is doing at `now` clock seconds."""
        return SlotState(
            number=self.number,
            state=self.state,
            pid=self.child.pid if self.child is not None else None,
            message=self.message or None,
            queue=self.claim.queue,
            age=now - self.since,
            attempt=self.attempt or None,
        )
