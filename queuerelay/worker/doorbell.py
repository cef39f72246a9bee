"""Waiting for work without polling, and waking up for signals.

A thread for each queue peeks at it, blocking, while the main loop is idle, and rings. A ring only
says *look*: it may come for nothing, and it is never missed. A paused queue does not ring: a peek
at what is on it would end at once, again and again. It is asked now and then whether it still is.
"""

import contextlib
import queue
import signal
import socket
import threading

from redis.exceptions import RedisError

from queuerelay.wire.commands import is_paused, wait_for
from queuerelay.wire.keys import Keys
from queuerelay.worker.link import Link

#: Seconds for which the server holds a peek.
PEEK = 2.0
#: Seconds for which a peek's connection waits; past this the connection is dead.
PEEK_TIMEOUT = PEEK + 2.0
#: Seconds between two looks whether a queue is still paused.
GATE_POLL = 0.5
#: Longest idle wait in seconds, so that even a lost ring costs no more than this.
LONGEST_WAIT = 30.0


class Doorbell:
    """Rings when there may be work, or when somebody else has a reason.

    Built on `queue.SimpleQueue` because its `put` is safe in a signal handler: `threading.Event`
    deadlocks when the signal comes inside its `wait`.
    """

    def __init__(self) -> None:
        self._rings: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._idle = threading.Event()

    def watch(self, queue: str, keys: Keys, link: Link) -> threading.Thread:
        """Start the thread that peeks at `queue` over `link`, its own."""
        thread = threading.Thread(
            target=self._peek_for_ever,
            args=(queue, keys, link),
            name=f"peek {queue}",
            daemon=True,
        )
        thread.start()
        return thread

    def ring(self) -> None:
        """End the wait. Safe in a signal handler and in any thread."""
        self._rings.put(None)

    def ring_at_signals(self) -> None:
        """Ring at every signal that has a handler; only in the main thread.

        A signal that comes just before the main thread blocks is noted by Python, whose handler
        then runs when something else ends the wait. The descriptor is written to at once.
        """
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(
            target=self._ring_for_ever, args=(reader, writer), name="signals", daemon=True
        ).start()

    def wait(self) -> None:
        """Return when a queue has something, at a ring, or after 30 s."""
        self._idle.set()
        self.pause(LONGEST_WAIT)
        self._idle.clear()
        while not self._rings.empty():
            self._rings.get()

    def pause(self, seconds: float) -> None:
        """Return after so many seconds, or at a ring."""
        with contextlib.suppress(queue.Empty):
            self._rings.get(timeout=seconds)

    def _ring_for_ever(self, reader: socket.socket, writer: socket.socket) -> None:
        # The writer is here to stay open: the interpreter knows only its number.
        with reader, writer:
            while reader.recv(64):
                self.ring()

    def _peek_for_ever(self, queue: str, keys: Keys, link: Link) -> None:
        pause = threading.Event()
        look, gate = wait_for(keys.queue(queue), PEEK), is_paused(keys, queue)
        paused = False
        while True:
            self._idle.wait()
            try:
                # Of the two, the second is answered after the first: it is as new as the message.
                *found, answer = link.send(gate) if paused else link.send(look, gate)
            except RedisError:
                pause.wait(link.delay())
                continue
            paused = answer == 1
            if paused:
                pause.wait(GATE_POLL)
            elif not found or found[0] is None:
                # Open again, or nothing there.
                continue
            else:
                if isinstance(found[0], Exception):
                    # The server does not let us peek (at maxmemory BLMOVE is refused, while
                    # claims work): then look from time to time.
                    pause.wait(link.delay())
                # Cleared before the ring, so that one wait gets one ring of each queue.
                self._idle.clear()
                self.ring()
