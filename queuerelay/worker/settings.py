"""What one worker is told at its start."""

from dataclasses import dataclass
from typing import Final

from queuerelay.wire.failure import KEPT, Kept
from queuerelay.wire.keys import Keys

#: Longest body that is held, in bytes, where nothing is said.
MAX_REPLY: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What one worker serves, as whom, and what bounds it."""

    keys: Keys
    #: In order of priority.
    queues: tuple[str, ...]
    #: Seconds for which a claim or a renewal holds a message.
    lease: float
    #: ``hostname:pid``: whose lease it is, for those who find it expired.
    holder: str
    #: Longest body that is held and sent as one reply, bytes; a longer one is streamed.
    max_reply: int = MAX_REPLY
    #: What is kept of messages that fail for good.
    kept: Kept = KEPT
    #: Requests after which the worker ends; 0 for never.
    requests: int = 0
    #: Seconds that the application may take for a request, and for each part of a streamed answer;
    #: None for as long as somebody waits, 0 for ever.
    timeout: float | None = None
