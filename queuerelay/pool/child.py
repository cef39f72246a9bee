"""One child process, from its start until it needs no slot any more.

Invariants:

1. `Child.done` fires exactly once, with a `ProcessEnd`: at the latest `PIPES` seconds after the
   process itself has ended, even where something that it started holds its pipes; where we ended
   it, what is left of its grace is waited for if that is longer.
2. A child is ended by a ladder: TERM to its whole group, `grace` seconds, KILL to the group. What
   it started and left behind goes the same way, as long as it holds a pipe.
3. The exit is the process's own; what its pipes do afterwards changes nothing about it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from queuerelay.pool.exits import EndReason, ProcessEnd
from queuerelay.processes.interfaces import IGroupTransport

#: Seconds for which the pipes of a process that has ended are still read.
PIPES: Final = 2.0


class Child(ProcessProtocol):
    """A process that is fed `stdin`; `start` starts it.

    `on_output` and `on_errors` take what it prints, in pieces.
    """

    def __init__(
        self,
        *,
        stdin: bytes,
        clock: IReactorTime,
        on_output: Callable[[bytes], object],
        on_errors: Callable[[bytes], object],
        grace: float,
    ) -> None:
        self._stdin = stdin
        self._clock = clock
        self._on_output = on_output
        self._on_errors = on_errors
        self._grace = grace
        self._timer: IDelayedCall | None = None
        self._ended_by_us: EndReason | None = None
        self._exit: ProcessEnd | None = None
        self._started_at = 0.0
        self._kill_at = 0.0
        #: Its pipes that are open.
        self._pipes = {0, 1, 2}
        self._started = False
        #: Fires with its `ProcessEnd`, once.
        self.done: Deferred[ProcessEnd] = Deferred()

    def start(
        self,
        spawn: Callable[..., IGroupTransport],
        argv: Sequence[bytes],
        environment: Mapping[bytes, bytes],
    ) -> None:
        """Start the process by `spawn`, a `spawnProcess` or a `launch`.

        Raises what that raises, and then nothing was started.
        """
        self._started_at = self._clock.seconds()
        spawn(self, argv[0], argv, environment)
        self._started = True

    @property
    def pid(self) -> int | None:
        """Process id; None where it does not run, or not yet."""
        transport: Any = self.transport
        return transport.pid if self._started else None

    @property
    def alive(self) -> bool:
        """Whether the process itself runs, or is about to."""
        return self._started and self._exit is None

    def end(self, why: EndReason, *, grace: float | None = None) -> None:
        """End the process: TERM, grace, KILL. The first reason stays, and so does its `grace`, by
        default the child's.
        """
        if self.alive and self._ended_by_us is None:
            self._ended_by_us = why
            self._signal("TERM")
            patience = self._grace if grace is None else grace
            self._kill_at = self._clock.seconds() + patience
            self._timer = self._clock.callLater(patience, self._signal, "KILL")
            if why is EndReason.OUTPUT:
                # Its next write ends it, unless it catches SIGPIPE; we read no more of it.
                transport: Any = self.transport
                transport.closeStdout()

    def kill(self, why: EndReason) -> None:
        """Kill the process at once."""
        if self.alive:
            self._ended_by_us = self._ended_by_us or why
            self._signal("KILL")

    def _signal(self, name: str) -> None:
        transport: Any = self.transport
        # PermissionError: it has another user's rights now (sudo, su); its ladder fails, we do not.
        with suppress(ProcessExitedAlready, PermissionError):
            transport.signalGroup(name)

    # What the reactor calls

    def connectionMade(self) -> None:
        """The process runs: give it its stdin."""
        transport: Any = self.transport
        if self._stdin:
            transport.write(self._stdin)
            self._stdin = b""
        transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        """The process printed `data` on stdout."""
        self._on_output(data)

    def errReceived(self, data: bytes) -> None:
        """The process printed `data` on stderr."""
        self._on_errors(data)

    def childConnectionLost(self, childFD: int) -> None:
        """One of the process's pipes is closed."""
        self._pipes.discard(childFD)

    def processExited(self, reason: Failure) -> None:
        """The process itself has ended: this decides. Its pipes may be open for a while."""
        value = reason.value
        if isinstance(value, OSError):
            self._exit = ProcessEnd(not_started=str(value))
            return
        code: int | None = 0 if isinstance(value, ProcessDone) else None
        number = None
        if isinstance(value, ProcessTerminated):
            code, number = value.exitCode, value.signal
        self._exit = ProcessEnd(
            code=code if number is None else None,
            signal=number,
            run=self._clock.seconds() - self._started_at,
            ended_by_us=self._ended_by_us,
        )
        self._stop_timer()
        if not self._pipes:
            return
        patience = PIPES
        if self._ended_by_us is not None:
            patience = max(PIPES, self._kill_at - self._clock.seconds())
        self._timer = self._clock.callLater(patience, self._leave_pipes)

    def processEnded(self, reason: Failure) -> None:
        """The pipes are closed as well."""
        self._stop_timer()
        self._finish()

    def _leave_pipes(self) -> None:
        # Something that it started holds them. It may live on, its output is nobody's any more;
        # but not where we wanted an end of it.
        if self._ended_by_us is not None:
            self._signal("KILL")
        transport: Any = self.transport
        transport.closePipes()
        self._finish()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _finish(self) -> None:
        if not self.done.called:
            assert self._exit is not None, "a process ends before its pipes do"
            # They know us, and we them: let go, or all of it stays until the collector comes.
            self._on_output = self._on_errors = _unheard
            self.done.callback(self._exit)


def _unheard(output: bytes) -> None:
    """Drop what is printed after the end."""
