"""The transport of one process that `Spawner` started: its pipes, its signals, its end.

It behaves as `twisted.internet.process.Process` does towards its `ProcessProtocol`, and more:

1. `processExited` comes once, when a pidfd says that the process is gone; `processEnded` comes
   once, after it, when every pipe is closed.
2. The process is reaped just before `processEnded` and not earlier. Until then the kernel keeps
   its number, so no signal to its group can ever reach a stranger's.
3. An input that the reactor watches is closed in a later turn of it: closed earlier, its number
   could be given to a new pipe, which would then get the events that still wait for the old one.
   All else is watched by `watch`, which has no such trouble.
"""

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ProcessDone,
    ProcessExitedAlready,
    ProcessTerminated,
)
from twisted.internet.interfaces import (
    IProcessProtocol,
    IProcessTransport,
    IProducer,
    IReactorFDSet,
    IReactorProcess,
    IReactorTime,
)
from twisted.internet.main import CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from queuerelay.pool.watch import Watch

#: Bytes read from one pipe in one turn of the reactor; a pipe holds as much.
READ_SIZE: Final = 65536

_DONE: Final = Failure(ConnectionDone())
_ABORTED: Final = Failure(ConnectionAborted())

_log = Logger()


class ISpawnReactor(IReactorProcess, IReactorFDSet, IReactorTime):
    """A reactor that watches descriptors, starts processes and tells the time."""


class IGroupTransport(IProcessTransport):
    """A process that is alone in its group with what it has started itself."""

    def signalGroup(signalID: str | int) -> None:
        """Send a signal to the process and to all that it started in its group.

        `signalID` is a name (``"TERM"``) or a number. Possible until `processEnded`, so also in
        and after `processExited`, for what the process left behind. Raises
        `ProcessExitedAlready` after that and where nobody is left, `ValueError` for an unknown
        name.
        """

    def closePipes() -> None:
        """Close all pipes now, whatever is unread or unwritten.

        For a process that has ended while a process of its own holds the pipes; `processEnded`
        follows in one of the next turns of the reactor.
        """

    def pauseProducing() -> None:
        """Read no output until `resumeProducing`."""

    def resumeProducing() -> None:
        """Read output again."""

    def registerProducer(producer: IProducer, streaming: bool) -> None:
        """Let `producer` write to stdin, as fast as the process reads."""

    def unregisterProducer() -> None:
        """The producer is done."""


def signal_number(signal_id: str | int) -> int:
    """The number of ``"TERM"`` and the like; a number is returned as it is.

    Raises `ValueError` for a name that there is not.
    """
    if isinstance(signal_id, int):
        return signal_id
    try:
        return signal.Signals[f"SIG{signal_id}"]
    except KeyError:
        raise ValueError(f"no such signal: {signal_id!r}") from None


class _Output:
    """Our end of a pipe that the process writes to."""

    def __init__(self, process: "SpawnedProcess", name: int, fd: int) -> None:
        self._process = process
        self._name = name
        self._fd = fd

    def start(self) -> None:
        if self._fd != -1:
            self._process.watch.add(self._fd, self)

    def stop(self) -> None:
        if self._fd != -1:
            self._process.watch.forget(self._fd)

    def ready(self) -> None:
        if self._fd == -1:
            return
        try:
            data = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._process.received(self._name, data)
        else:
            self.lost()

    def close(self) -> None:
        """Close it in a later turn, as transports do; what is unread is lost."""
        self.stop()
        self._process.reactor.callLater(0, self.lost)

    abort = close

    def lost(self) -> None:
        if self._fd != -1:
            self.stop()
            os.close(self._fd)
            self._fd = -1
            self._process.pipe_closed(self._name)


class _Input(FileDescriptor):
    """Our end of a pipe that the process reads from: buffered, for a producer if there is one."""

    def __init__(self, process: "SpawnedProcess", name: int, fd: int) -> None:
        super().__init__(process.reactor)
        self._process = process
        self._name = name
        self._fd = fd
        self._begun = False
        self.connected = 1

    def logPrefix(self) -> str:
        return "process"

    def fileno(self) -> int:
        return self._fd

    def start(self) -> None:
        """Watch for the process closing its end: a poller says so to readers too.

        Mostly all is written and it is to be closed already; then the reactor never hears of it.
        """
        self._begun = True
        if not self.disconnecting:
            self.startReading()
        elif self._idle:
            self.connectionLost(_DONE)

    def doRead(self) -> Exception:
        # A pipe's writing end is never readable: this is how select(2) says that it broke.
        return CONNECTION_LOST

    @property
    def _idle(self) -> bool:
        """Whether nothing is left to be written, and nobody is about to give us more."""
        return not self.dataBuffer and not self._tempDataLen and self.producer is None

    def write(self, data: bytes) -> None:
        """Write what the pipe takes at once, which is mostly all, and keep the rest."""
        if data and self._idle and self.connected and not self.disconnecting:
            try:
                written = os.write(self._fd, data)
            except BrokenPipeError:
                # No error here: the event that tells of it closes it, and nobody will read this.
                return
            except OSError:
                pass
            else:
                if written == len(data):
                    return
                # Not a slice: a body may have many megabytes.
                self.dataBuffer, self.offset = data, written
                self.startWriting()
                return
        super().write(data)

    def writeSomeData(self, data: bytes) -> int | BaseException:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError:
            return CONNECTION_LOST

    def close(self) -> None:
        """Close it when all is written."""
        if not self._idle:
            self.loseConnection()
        elif self.connected and not self.disconnecting:
            self.disconnecting = 1
            if self._begun:
                self.stopReading()
                self._process.reactor.callLater(0, self.connectionLost, _DONE)

    def abort(self) -> None:
        """Close it in a later turn; what is unwritten is lost."""
        if self.connected:
            self.disconnecting = 1
            self.stopReading()
            self.stopWriting()
            self._process.reactor.callLater(0, self.connectionLost, _ABORTED)

    def lost(self) -> None:
        self.connectionLost(_ABORTED)

    def connectionLost(self, reason: Failure) -> None:
        if self._fd != -1:
            super().connectionLost(reason)
            os.close(self._fd)
            self._fd = -1
            self.dataBuffer = b""
            self._tempDataBuffer.clear()
            self._process.pipe_closed(self._name)


class _Exit:
    """The pidfd (pidfd_open(2)): readable when the process is gone."""

    def __init__(self, process: "SpawnedProcess", fd: int) -> None:
        self._process = process
        self._fd = fd

    def start(self) -> None:
        self._process.watch.add(self._fd, self)

    def send(self, number: int) -> None:
        signal.pidfd_send_signal(self._fd, number)

    def ready(self) -> None:
        if self._fd == -1:
            return
        # WNOWAIT: it stays a zombie, see invariant 2.
        options = os.WEXITED | os.WNOWAIT | os.WNOHANG
        status: int | None = None
        try:
            result = os.waitid(os.P_PIDFD, self._fd, options)
        except ChildProcessError:
            # Someone else took it: a waitpid(-1) in the same process, or SIGCHLD is ignored.
            pass
        else:
            if result is None:  # a debugger is told first
                return
            # As wait(2) puts it: a code in the second byte, or a signal and whether it left a core.
            if result.si_code == os.CLD_EXITED:
                status = result.si_status << 8
            else:
                status = result.si_status | (0x80 if result.si_code == os.CLD_DUMPED else 0)
        self.lost()
        self._process.exited(status)

    def lost(self) -> None:
        if self._fd != -1:
            self._process.watch.forget(self._fd)
            os.close(self._fd)
            self._fd = -1


def _call(method: Callable[[Any], object], given: object) -> None:
    """Tell the protocol; what it raises is its own affair."""
    try:
        method(given)
    except Exception:
        _log.failure("a process protocol's {method} failed", method=method.__name__)


def _reason(status: int | None) -> Failure:
    """What protocols are told about a wait(2) status; None where it is not known."""
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
    them we write to. `before_reap` is called when its number is about to become free.

    Where the status cannot be known (something else in the daemon waited for our process),
    the reason is a `ProcessTerminated` whose exitCode and signal are both None.
    """

    def __init__(
        self,
        reactor: ISpawnReactor,
        watch: Watch,
        protocol: IProcessProtocol,
        pid: int,
        *,
        ours: Mapping[int, int],
        inputs: set[int],
        before_reap: Callable[[], object],
    ) -> None:
        self.reactor: Any = reactor
        self.watch = watch
        #: Process id, None once the process is gone.
        self.pid: int | None = pid
        self._protocol: IProcessProtocol | None = protocol
        self._group = pid
        # None when it has been reaped.
        self._before_reap: Callable[[], object] | None = before_reap
        self._reason: Failure | None = None
        self._exit: _Exit | None = None
        self._pipes: dict[int, _Output | _Input] = {
            name: (_Input if name in inputs else _Output)(self, name, fd)
            for name, fd in ours.items()
        }

    def __repr__(self) -> str:
        return f"<{type(self).__name__} pid={self.pid} group={self._group}>"

    def begin(self) -> None:
        """Watch it, and tell the protocol.

        Raises `OSError` where the kernel lacks descriptors or memory for that; then the process is
        killed and everything closed.
        """
        protocol = self._protocol
        assert protocol is not None
        try:
            self._exit = _Exit(self, os.pidfd_open(self._group))
            self._exit.start()
            for pipe in self._pipes.values():
                if isinstance(pipe, _Output):
                    pipe.start()
        except BaseException:
            self._discard()
            raise
        _call(protocol.makeConnection, self)
        # Only now: mostly stdin has been written and closed already, and then nothing is to watch.
        for pipe in list(self._pipes.values()):
            if isinstance(pipe, _Input):
                try:
                    pipe.start()
                except OSError:
                    pipe.abort()

    def _discard(self) -> None:
        """Undo a start of which the protocol has not been told."""
        self._protocol = None
        for pipe in list(self._pipes.values()):
            pipe.lost()
        if self._exit is not None:
            self._exit.lost()
        with suppress(ProcessLookupError):
            os.killpg(self._group, signal.SIGKILL)
        self._reap(0)

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
            _log.error("process {pid} was reaped by someone else", pid=self._group)
            # Its number is free already: from here on no signal may go there.
            self._free()
        self.pid = self._exit = None
        self._reason = _reason(status)
        if self._protocol is not None:
            _call(self._protocol.processExited, self._reason)
        self._maybe_ended()

    def _maybe_ended(self) -> None:
        protocol, reason = self._protocol, self._reason
        if self._pipes or reason is None or protocol is None:
            return
        self._protocol = None
        self._reap(os.WNOHANG)
        _call(protocol.processEnded, reason)

    def _reap(self, options: int) -> None:
        self.pid = self._exit = None
        if self._free():
            with suppress(ChildProcessError):
                os.waitpid(self._group, options)

    def _free(self) -> bool:
        """Give up its number; whether that was not done before."""
        before_reap, self._before_reap = self._before_reap, None
        if before_reap is not None:
            before_reap()
        return before_reap is not None

    # IGroupTransport

    def signalProcess(self, signalID: str | int) -> None:
        """Send a signal to the process alone; by its pidfd, so never to another one."""
        number = signal_number(signalID)
        if self._exit is None:
            raise ProcessExitedAlready
        try:
            self._exit.send(number)
        except ProcessLookupError:
            raise ProcessExitedAlready from None

    def signalGroup(self, signalID: str | int) -> None:
        """Send a signal to the process and its children; see `IGroupTransport`."""
        number = signal_number(signalID)
        if self._before_reap is None:
            raise ProcessExitedAlready
        try:
            os.killpg(self._group, number)
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
        """Write to one of the inputs. Raises `KeyError` if it is none, or closed."""
        pipe = self._pipes[childFD]
        if not isinstance(pipe, _Input):
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
        if isinstance(pipe, _Input):
            pipe.registerProducer(producer, streaming)
        else:
            producer.stopProducing()

    def unregisterProducer(self) -> None:
        """The producer is done."""
        pipe = self._pipes.get(0)
        if isinstance(pipe, _Input):
            pipe.unregisterProducer()

    def pauseProducing(self) -> None:
        """Read no output until `resumeProducing`."""
        for pipe in self._pipes.values():
            if isinstance(pipe, _Output):
                pipe.stop()

    def resumeProducing(self) -> None:
        """Read output again."""
        for pipe in self._pipes.values():
            if isinstance(pipe, _Output):
                pipe.start()

    def getHost(self) -> Any:
        """A process has no address."""
        raise NotImplementedError

    def getPeer(self) -> Any:
        """A process has no address."""
        raise NotImplementedError
