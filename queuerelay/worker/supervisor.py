"""The parent of a worker process: where the application hangs, the process is killed and replaced.

The parent forks before the application is imported, and has nothing of it: each process that it
starts is new. Invariants:

1. Parent and process end together and alike: with the same exit status, or by the same signal. A
   process whose parent is killed is killed.
2. The first SIGTERM or SIGINT lets the process finish what it has in hand, whether it reaches both,
   as systemd sends it, or the parent alone; the second ends both.
3. A process that is over its time is killed first, and then its message ends: so it says nothing
   more about it.
"""

import ctypes
import faulthandler
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Final

from queuerelay.worker.in_hand import InHand

log = logging.getLogger(__name__)

#: Longest time between two looks at a process, seconds.
LOOK: Final = 1.0
#: Seconds in which a process that is to be killed may write where it was.
LAST_WORDS: Final = 0.3
_STOPPING: Final = (signal.SIGTERM, signal.SIGINT)
_OURS: Final = (*_STOPPING, signal.SIGCHLD)
#: The signal that asks a process where it is: one that nobody else uses, or where there is no such
#: signal, none.
_WHERE: Final = getattr(signal, "SIGRTMAX", 0)
#: The option of prctl(2) for "end with the parent".
_PR_SET_PDEATHSIG: Final = 1

#: What a process does: gives its exit status. It is given where it says what it has in hand, and
#: how it is told to stop.
Run = Callable[[InHand, "Orders"], int]
#: Ends a message, by queue and token, that a killed process had in hand.
EndMessage = Callable[[str, str], None]


class Orders:
    """What a process hears from its parent: to stop, by the number of a signal."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def give(self, number: int) -> None:
        """Have the process stop, as by this signal."""
        with suppress(BrokenPipeError):
            os.write(self._writer, bytes([number]))

    def heard_by(self, stop: Callable[[int], None]) -> None:
        """Call `stop` with each, in a thread; the process ends at once where its parent has."""
        os.close(self._writer)

        def hear() -> None:
            while number := os.read(self._reader, 1):
                stop(number[0])
            os._exit(1)

        threading.Thread(target=hear, name="orders", daemon=True).start()

    def close(self) -> None:
        """The process has ended."""
        os.close(self._reader)
        os.close(self._writer)


class Supervisor:
    """One parent, for the main thread of its process."""

    def __init__(self, run: Run, end_message: EndMessage) -> None:
        self._run = run
        self._end_message = end_message
        self._in_hand = InHand()
        self._pid = 0
        self._stopped_by = 0

    def serve(self) -> int:
        """Run processes, one at a time; gives the exit status of the last one, or dies as it did.

        In each process it gives the status of that, too.
        """
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        os.set_blocking(reader, False)
        while True:
            # What comes between is handled by the process that it was sent to.
            signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)
            if self._stopped_by:
                return 0
            self._in_hand.forget()
            orders = Orders()
            parent = os.getpid()
            self._pid = os.fork()
            if self._pid == 0:
                os.close(reader)
                os.close(writer)
                self._become_a_process(parent)
                return self._run(self._in_hand, orders)
            self._handle_signals(orders, writer)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _OURS)
            status = self._attend(reader)
            orders.close()
            if status is not None:
                return _end_alike(status)

    def _become_a_process(self, parent: int) -> None:
        for number in _STOPPING:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _OURS)
        with suppress(Exception):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        with suppress(Exception):
            # Where it hangs, for the log; a handler in C, which needs no interpreter.
            faulthandler.register(_WHERE, all_threads=True)

    def _handle_signals(self, orders: Orders, writer: int) -> None:
        def stop(number: int, frame: FrameType | None) -> None:
            self._stopped_by = number
            for each in _STOPPING:
                signal.signal(each, signal.SIG_DFL)
            if self._in_hand.serving:
                orders.give(number)
            else:
                # It would not hear orders yet, and has nothing to finish.
                os.kill(self._pid, signal.SIGTERM)

        if not self._stopped_by:
            for number in _STOPPING:
                signal.signal(number, stop)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def _attend(self, reader: int) -> int | None:
        """Wait for the end of the process: its wait status; None where it is to be replaced."""
        while True:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                return status
            left = self._in_hand.due - time.monotonic()
            if left <= 0:
                if self._hangs():
                    self._kill()
                    return None
                continue
            select.select([reader], [], [], min(LOOK, left))
            with suppress(BlockingIOError):
                os.read(reader, 512)

    def _hangs(self) -> bool:
        """Have the process write where it is; whether it is still there after that."""
        os.kill(self._pid, _WHERE)
        time.sleep(LAST_WORDS)
        return self._in_hand.due <= time.monotonic()

    def _kill(self) -> None:
        """The process is over its time."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        log.error("worker process %d hung, and was killed", self._pid)
        message = self._in_hand.message()
        # Else it went on at the last moment, and what it has by now is for whoever finds its lease.
        if message is not None and self._in_hand.due <= time.monotonic():
            try:
                self._end_message(*message)
            except Exception:
                log.exception("the message of a killed process could not be ended")


def _end_alike(status: int) -> int:
    """The exit status of a process whose wait status this is; ends by its signal where one did."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    with suppress(OSError, ValueError):
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
    # A signal that does not end us, after all.
    return 128 - code
