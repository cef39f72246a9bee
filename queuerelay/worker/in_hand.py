"""What a worker process has in hand, and until when it may: written by the process, read by its
parent, in memory that both share.

A process that hangs can say nothing, not even by a thread: one regular expression may keep the
interpreter for hours. So it says beforehand until when something is to happen. That costs a few
bytes of memory for each message, and no system call.
"""

import mmap
import struct
import time
from math import inf
from typing import Final

#: Monotonic seconds (one clock for all processes), whether signals have handlers, lengths of the
#: queue's name and the token.
_RECORD: Final = struct.Struct("d?HH")
_UNTIL: Final = struct.Struct("d")
_SERVING: Final = 8
_SIZE: Final = 16 * 1024


class InHand:
    """The message that one process has in hand."""

    def __init__(self) -> None:
        # Anonymous and shared: a process that is forked has the same.
        self._memory = mmap.mmap(-1, _SIZE)
        self.forget()

    def forget(self) -> None:
        """Nothing is in hand: another process begins."""
        _RECORD.pack_into(self._memory, 0, inf, False, 0, 0)

    def take(self, queue: str, token: str, *, until: float) -> None:
        """The message that is under `token` from `queue` is in hand, and something is to happen
        until `until`, in monotonic seconds.
        """
        names = queue.encode(), token.encode()
        sizes = len(names[0]), len(names[1])
        end = _RECORD.size + sizes[0] + sizes[1]
        if end > _SIZE:
            # No name that anybody uses; the message's lease will expire.
            names, sizes, end = (b"", b""), (0, 0), _RECORD.size
        self._memory[_RECORD.size : end] = b"".join(names)
        _RECORD.pack_into(self._memory, 0, until, True, *sizes)

    def until(self, when: float) -> None:
        """Something is to happen until `when`, in monotonic seconds."""
        _UNTIL.pack_into(self._memory, 0, when)

    def rest(self) -> None:
        """No time runs."""
        _UNTIL.pack_into(self._memory, 0, inf)

    def serve(self) -> None:
        """The process has its handlers of signals."""
        self._memory[_SERVING] = 1

    @property
    def serving(self) -> bool:
        """Whether the process has its handlers of signals: before, a signal ends it."""
        return self._memory[_SERVING] != 0

    @property
    def due(self) -> float:
        """Until when something is to happen, in monotonic seconds; infinity while no time runs."""
        when: float = _UNTIL.unpack_from(self._memory, 0)[0]
        return when

    def message(self) -> tuple[str, str] | None:
        """Queue and token of the message in hand; to be asked when the process has ended."""
        _, _, queue, token = _RECORD.unpack_from(self._memory, 0)
        if not token:
            return None
        names = self._memory[_RECORD.size : _RECORD.size + queue + token]
        return names[:queue].decode(), names[queue:].decode()


class Limit:
    """The time that an application has for one message, while it is the application's turn."""

    def __init__(
        self, in_hand: InHand, *, first: float, silence: float, deadline: float = inf
    ) -> None:
        """`first` and `deadline` are monotonic seconds: until when the answer has to begin, and
        after which nobody waits for its beginning. Then `silence` is how many seconds may pass
        between two parts.
        """
        self._in_hand = in_hand
        #: Until when the answer has to begin, in monotonic seconds.
        self.first = first
        self._silence = silence
        self._deadline = deadline

    def run(self, *, begun: bool) -> None:
        """It is the application's turn."""
        self._in_hand.until(time.monotonic() + self._silence if begun else self.first)

    def rest(self) -> None:
        """It is not: Redis or the client are waited for, or the application has ended."""
        self._in_hand.rest()

    @property
    def over(self) -> bool:
        """Whether the deadline for the beginning of the answer has passed."""
        return time.monotonic() > self._deadline
