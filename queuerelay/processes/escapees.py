"""What a script has started and let go of, found by a mark in its environment.

A process that makes a session of its own is out of reach of a signal to the script's group, and one
that was forked twice is nobody's child. But its environment is the script's, until it takes another
on purpose (proc_pid_environ(5)); and while the script lives, so are its ancestors.

1. A number is signalled by a pidfd that was opened before the process was looked at once more, so
   never another's.
2. One walk through /proc serves all that is asked for in a turn of the reactor; there is none where
   nothing is asked for.

What takes another environment and is no child of anybody's remains: only a control group knows.
"""

import os
import signal
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from queuerelay.processes import guardian

#: The variable with the mark.
VARIABLE: Final = guardian.VARIABLE


class Marks:
    """The marks of one daemon's processes: a word of its own, and a number for each process."""

    def __init__(self) -> None:
        self.daemon = os.urandom(8).hex()
        self._beginning = self.daemon.encode()
        self._last = 0

    def next(self) -> bytes:
        """A new one."""
        self._last += 1
        return b"%s-%d" % (self._beginning, self._last)


class Escapees:
    """Signals what has one of the marks and is in no group of its script's."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        #: The signals that are asked for, and the groups of the scripts, by mark.
        self._asked: dict[bytes, int] = {}
        self._groups: dict[bytes, int] = {}
        #: What was found of a script, each with the time of its start.
        self._found: dict[bytes, dict[int, bytes]] = {}
        self._timer: IDelayedCall | None = None

    def signal(self, mark: bytes, script: int, number: int) -> None:
        """Signal in the next turn what has `mark`, or is below the process `script` now. That leads
        a group which is not ours to signal; it is 0 where it is gone. KILL is the last word.
        """
        if self._timer is None:
            self._timer = self._clock.callLater(0, self.flush)
        if script:
            # Before the script is told: what has another environment is nobody's after its end.
            found = self._found.setdefault(mark, {})
            found.update((pid, process.started) for pid, process in guardian.below(script))
        before = self._asked.get(mark)
        self._asked[mark] = signal.SIGKILL if before == signal.SIGKILL else number
        self._groups[mark] = script or self._groups.get(mark, 0)

    def flush(self) -> None:
        """Signal now what is asked for."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        asked, self._asked = self._asked, {}
        if not asked:
            return
        marks = {VARIABLE + b"=" + mark: mark for mark in asked}
        table = guardian.processes()
        for pid, process in table.items():
            mark = marks.get(guardian.mark_of(pid))
            if mark is not None:
                self._found.setdefault(mark, {})[pid] = process.started
        for mark, number in asked.items():
            found = self._found.get(mark, {})
            for pid, started in found.items():
                # Its group hears it from its transport.
                if pid in table and table[pid].group != self._groups[mark]:
                    guardian.signal_one(pid, started, number)
            if number == signal.SIGKILL:
                self._found.pop(mark, None)
                del self._groups[mark]
