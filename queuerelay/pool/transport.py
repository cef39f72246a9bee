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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, AnyStr, Final, Protocol

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

_SIGNALS: Final = signal.valid_signals()

_DONE: Final = Failure(ConnectionDone())
_ABORTED: Final = Failure(ConnectionAborted())

_log = Logger()


class ISpawnReactor(IReactorProcess, IReactorFDSet, IReactorTime):
    """A reactor that watches descriptors, starts processes and tells the time."""


class ILauncher(IReactorProcess):
    """Starts processes, and need not wait until they run."""

    def launch(
        protocol: IProcessProtocol,
        executable: bytes | str,
        args: Sequence[bytes | str],
        env: Mapping[AnyStr, AnyStr],
    ) -> IProcessTransport:
        """`spawnProcess` with stdin, stdout and stderr piped, for many short processes.

        The transport may have no pid at first, and what cannot be started may be told by
        `processExited` and `processEnded`, with an `OSError` as their reason.
        """


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
        # 0 asks only whether it is there (kill(2)).
        if signal_id == 0 or signal_id in _SIGNALS:
            return signal_id
    elif f"SIG{signal_id}" in signal.Signals.__members__:
        return signal.Signals[f"SIG{signal_id}"]
    raise ValueError(f"no such signal: {signal_id!r}")


class _Output:
    """Our end of a pipe that the process writes to."""

    def __init__(self, process: "SpawnedProcess", name: int, fd: int) -> None:
        self._process = process
        self._name = name
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

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


class Handle(Protocol):
    """A process by what can be done to it. Until `free` its number is nobody else's."""

    #: Process id, None while it is not known.
    pid: int | None

    def begin(self, process: "SpawnedProcess") -> None:
        """Tell `process.exited` of its end. Raises `OSError` where it cannot be watched."""

    def signal(self, number: int) -> None:
        """Send a signal to it alone. Raises `ProcessLookupError` where it is gone."""

    def signal_group(self, number: int) -> None:
        """Send a signal to its group. Raises `ProcessLookupError` where nobody is left of it."""

    def free(self) -> None:
        """Its number may go to somebody else."""

    def discard(self) -> None:
        """Kill it, and `free`: nobody is to be told of it."""


class OwnChild:
    """A child of ours: a pidfd (pidfd_open(2)) tells of its end, and we reap it.

    `before_reap` is called when its number is about to become free.
    """

    def __init__(self, pid: int, watch: Watch, before_reap: Callable[[], object]) -> None:
        self.pid: int | None = pid
        self._group = pid
        self._watch = watch
        self._before_reap = before_reap
        self._fd = -1
        self._process: SpawnedProcess | None = None

    def begin(self, process: "SpawnedProcess") -> None:
        self._process = process
        self._fd = os.pidfd_open(self._group)
        self._watch.add(self._fd, self)

    def signal(self, number: int) -> None:
        if self._fd == -1:
            raise ProcessLookupError
        # By its pidfd, so never to another one.
        signal.pidfd_send_signal(self._fd, number)

    def signal_group(self, number: int) -> None:
        os.killpg(self._group, number)

    def free(self) -> None:
        self._before_reap()
        with suppress(ChildProcessError):
            os.waitpid(self._group, os.WNOHANG)

    def discard(self) -> None:
        self.lost()
        with suppress(ProcessLookupError):
            os.killpg(self._group, signal.SIGKILL)
        self._before_reap()
        with suppress(ChildProcessError):
            os.waitpid(self._group, 0)

    # What the watch says

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
        if status is None:
            _log.error("process {pid} was reaped by someone else", pid=self._group)
        process, self._process = self._process, None
        assert process is not None
        process.exited(status)

    def lost(self) -> None:
        if self._fd != -1:
            self._watch.forget(self._fd)
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
    them we write to.

    Where the status cannot be known (something else in the daemon waited for our process),
    the reason is a `ProcessTerminated` whose exitCode and signal are both None. Where the process
    could not be started after all, which only a `launching` start learns so late, it is an
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
        self._pipes: dict[int, _Output | _Input] = {
            name: (_Input if name in inputs else _Output)(self, name, fd)
            for name, fd in ours.items()
        }

    def __repr__(self) -> str:
        return f"<{type(self).__name__} pid={self.pid}>"

    @property
    def pid(self) -> int | None:
        """Process id; None once the process is gone, and while it is not known."""
        if self._handle is None or self._reason is not None:
            return None
        return self._handle.pid

    def begin(self) -> None:
        """Watch it, and tell the protocol.

        Raises `OSError` where the kernel lacks descriptors or memory for that; then the process is
        killed and everything closed.
        """
        protocol, handle = self._protocol, self._handle
        assert protocol is not None
        assert handle is not None
        try:
            handle.begin(self)
            for pipe in self._pipes.values():
                if isinstance(pipe, _Output):
                    pipe.start()
        except BaseException:
            self._protocol = self._handle = None
            self._close_pipes()
            handle.discard()
            raise
        _call(protocol.makeConnection, self)
        # Only now: mostly stdin has been written and closed already, and then nothing is to watch.
        for pipe in list(self._pipes.values()):
            if isinstance(pipe, _Input):
                try:
                    pipe.start()
                except OSError:
                    pipe.abort()

    def inodes(self) -> set[int]:
        """Of the pipes that it may still write to, by which whoever does can be found."""
        outputs = [pipe for pipe in self._pipes.values() if isinstance(pipe, _Output)]
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
        """There is no process, and never was."""
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
            handle.free()

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
