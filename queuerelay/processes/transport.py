"""The transport of one process that `Spawner` started: its pipes, its signals, its end.

It behaves as `twisted.internet.process.Process` does towards its `ProcessProtocol`, and more:

1. `processExited` comes once, when it is known that the process is gone; `processEnded` comes once,
   after it, when every pipe is closed.
2. The process is reaped just before `processEnded` and not earlier. Until then the kernel keeps
   its number, so no signal to its group can ever reach a stranger's.
3. Whose child the process is, and how its end becomes known, is its `Handle`'s affair.
"""

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IProcessProtocol, IProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from queuerelay.processes.escapees import Escapees
from queuerelay.processes.interfaces import IGroupTransport, ISpawnReactor
from queuerelay.processes.pipes import Input, Output
from queuerelay.processes.watch import Watch

_SIGNALS: Final = signal.valid_signals()

_log = Logger()


def signal_number(signal_id: str | int) -> int:
    """The number of a signal by its name, such as ``"TERM"``; a number is returned as it is.

    Raises `ValueError` for a name of no signal.
    """
    if isinstance(signal_id, int):
        # 0 asks only whether it is there (kill(2)).
        if signal_id == 0 or signal_id in _SIGNALS:
            return signal_id
    elif f"SIG{signal_id}" in signal.Signals.__members__:
        return signal.Signals[f"SIG{signal_id}"]
    raise ValueError(f"no such signal: {signal_id!r}")


class Handle(Protocol):
    """What can be done to a process. Until `free` its process id is no other process's."""

    #: Process id, None while it is not known.
    pid: int | None

    def begin(self, process: "SpawnedProcess") -> None:
        """Call `process.exited` at its end. Raises `OSError` where it cannot be watched."""

    def signal(self, number: int) -> None:
        """Send a signal to the process alone. Raises `ProcessLookupError` where it is gone."""

    def signal_group(self, number: int) -> None:
        """Send a signal to the process's group. Raises `ProcessLookupError` where it is empty."""

    def free(self) -> None:
        """Let the process be reaped: its number may go to somebody else."""

    def discard(self) -> None:
        """Kill the process, and `free`: nobody is to be told of it."""


def _call(method: Callable[[Any], object], given: object) -> None:
    """Call a method of the protocol; an error that it raises is logged."""
    try:
        method(given)
    except Exception:
        _log.failure("a process protocol's {method} failed", method=method.__name__)


def _reason(status: int | None) -> Failure:
    """The reason that a protocol is given for a status of wait(2); None where that is unknown."""
    if status is None:
        return Failure(ProcessTerminated())
    if os.WIFSIGNALED(status):
        return Failure(ProcessTerminated(None, os.WTERMSIG(status), status))
    code = os.waitstatus_to_exitcode(status)
    return Failure(ProcessTerminated(code, None, status) if code else ProcessDone(status))


@implementer(IGroupTransport)
class SpawnedProcess:
    """A running process, as its `ProcessProtocol` sees it.

    `ours` maps the process's descriptors to our ends of the pipes, and `inputs` says which of
    them we write to.

    Where the status cannot be known (something else in the daemon waited for our process),
    the reason is a `ProcessTerminated` whose exitCode and signal are both None. Where the process
    could not be started after all, which only a start by the launcher learns so late, it is an
    `OSError`.
    """

    def __init__(
        self,
        reactor: ISpawnReactor,
        watch: Watch,
        protocol: IProcessProtocol,
        handle: Handle,
        *,
        ours: Mapping[int, int],
        inputs: set[int],
    ) -> None:
        self.reactor: Any = reactor
        self.watch = watch
        self._protocol: IProcessProtocol | None = protocol
        # None when its number is free.
        self._handle: Handle | None = handle
        self._reason: Failure | None = None
        self._escapees: Escapees | None = None
        self._mark = b""
        #: Whether its group was told to end, and so all that it started.
        self._told = False
        self._pipes: dict[int, Output | Input] = {
            name: (Input if name in inputs else Output)(self, name, fd) for name, fd in ours.items()
        }

    def __repr__(self) -> str:
        return f"<{type(self).__name__} pid={self.pid}>"

    @property
    def pid(self) -> int | None:
        """Process id; None once the process is gone, and while it is not known."""
        if self._handle is None or self._reason is not None:
            return None
        return self._handle.pid

    def mark(self, escapees: Escapees, mark: bytes) -> None:
        """Have what the process lets go of known by `mark`."""
        self._escapees, self._mark = escapees, mark

    def begin(self) -> None:
        """Watch the process, and tell the protocol.

        Raises `OSError` where the kernel lacks descriptors or memory for that; then the process is
        killed and everything closed.
        """
        protocol, handle = self._protocol, self._handle
        assert protocol is not None
        assert handle is not None
        try:
            handle.begin(self)
            for pipe in self._pipes.values():
                if isinstance(pipe, Output):
                    pipe.start()
        except BaseException:
            self._protocol = self._handle = None
            self._close_pipes()
            handle.discard()
            raise
        _call(protocol.makeConnection, self)
        # Only now: mostly stdin has been written and closed already, and then nothing is to watch.
        for pipe in list(self._pipes.values()):
            if isinstance(pipe, Input):
                try:
                    pipe.start()
                except OSError:
                    pipe.abort()

    def inodes(self) -> set[int]:
        """Inodes of the pipes that the process may still write to, by which writers are found."""
        outputs = [pipe for pipe in self._pipes.values() if isinstance(pipe, Output)]
        return {os.fstat(pipe.fileno()).st_ino for pipe in outputs}

    def _close_pipes(self) -> None:
        for pipe in list(self._pipes.values()):
            pipe.lost()

    # What the descriptors say

    def received(self, name: int, data: bytes) -> None:
        """Output came; what the protocol raises closes the pipe, as with any transport."""
        if self._protocol is not None:
            self._protocol.childDataReceived(name, data)

    def pipe_closed(self, name: int) -> None:
        """One of the pipes is closed."""
        del self._pipes[name]
        if self._protocol is not None:
            _call(self._protocol.childConnectionLost, name)
        self._maybe_ended()

    def exited(self, status: int | None) -> None:
        """The process is gone; `status` is wait(2)'s, or None if someone else has taken it."""
        if status is None:
            # Its number is free already: from here on no signal may go there.
            self._free()
        self._over(_reason(status))

    def not_started(self, error: OSError) -> None:
        """The process could not be started."""
        self._free()
        self._over(Failure(error))
        self.closePipes()

    def _over(self, reason: Failure) -> None:
        self._reason = reason
        if self._protocol is not None:
            _call(self._protocol.processExited, reason)
        self._maybe_ended()

    def _maybe_ended(self) -> None:
        protocol, reason = self._protocol, self._reason
        if self._pipes or reason is None or protocol is None:
            return
        self._protocol = None
        self._free()
        _call(protocol.processEnded, reason)

    def _free(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            if self._told:
                # What has not ended by now never will.
                self._tell_escapees(handle, signal.SIGKILL)
            handle.free()

    def _tell_escapees(self, handle: Handle, number: int) -> None:
        if self._escapees is not None and number:
            self._told = True
            # A number that was reaped may be somebody else's.
            script = handle.pid if self._reason is None else None
            self._escapees.signal(self._mark, script or 0, number)

    # IGroupTransport

    def signalProcess(self, signalID: str | int) -> None:
        """Send a signal to the process alone."""
        number = signal_number(signalID)
        if self._handle is None or self._reason is not None:
            raise ProcessExitedAlready
        try:
            self._handle.signal(number)
        except ProcessLookupError:
            raise ProcessExitedAlready from None

    def signalGroup(self, signalID: str | int) -> None:
        """Send a signal to the process and its children; see `IGroupTransport`."""
        number = signal_number(signalID)
        if self._handle is None:
            raise ProcessExitedAlready
        self._tell_escapees(self._handle, number)
        try:
            self._handle.signal_group(number)
        except ProcessLookupError:
            raise ProcessExitedAlready from None

    def closePipes(self) -> None:
        """Close all pipes, whatever is unread or unwritten."""
        for pipe in self._pipes.values():
            pipe.abort()

    def closeChildFD(self, descriptor: int) -> None:
        """Close one pipe, an input after all is written; nothing if it is closed."""
        pipe = self._pipes.get(descriptor)
        if pipe is not None:
            pipe.close()

    def closeStdin(self) -> None:
        """Close stdin after all is written."""
        self.closeChildFD(0)

    def closeStdout(self) -> None:
        """Read no more of stdout."""
        self.closeChildFD(1)

    def closeStderr(self) -> None:
        """Read no more of stderr."""
        self.closeChildFD(2)

    def loseConnection(self) -> None:
        """Close stdin, stdout and stderr."""
        for descriptor in (0, 1, 2):
            self.closeChildFD(descriptor)

    def writeToChild(self, childFD: int, data: bytes) -> None:
        """Write to the pipe `childFD`. Raises `KeyError` if that is no input, or closed."""
        pipe = self._pipes[childFD]
        if not isinstance(pipe, Input):
            raise KeyError(childFD)
        pipe.write(data)

    def write(self, data: bytes) -> None:
        """Write to stdin; nothing if it is closed."""
        with suppress(KeyError):
            self.writeToChild(0, data)

    def writeSequence(self, data: Any) -> None:
        """Write several pieces to stdin."""
        self.write(b"".join(data))

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Let `producer` write to stdin; it is stopped at once if there is none."""
        pipe = self._pipes.get(0)
        if isinstance(pipe, Input):
            pipe.registerProducer(producer, streaming)
        else:
            producer.stopProducing()

    def unregisterProducer(self) -> None:
        """The producer is done."""
        pipe = self._pipes.get(0)
        if isinstance(pipe, Input):
            pipe.unregisterProducer()

    def pauseProducing(self) -> None:
        """Read no output until `resumeProducing`."""
        for pipe in self._pipes.values():
            if isinstance(pipe, Output):
                pipe.stop()

    def resumeProducing(self) -> None:
        """Read output again."""
        for pipe in self._pipes.values():
            if isinstance(pipe, Output):
                pipe.start()

    def getHost(self) -> Any:
        """A process has no address."""
        raise NotImplementedError

    def getPeer(self) -> Any:
        """A process has no address."""
        raise NotImplementedError
