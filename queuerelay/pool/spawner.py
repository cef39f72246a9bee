"""Starts processes: an `IReactorProcess` whose cost does not grow with the connections held.

Twisted's own looks at every open descriptor for each process (11 to 14 ms with 10,000), and forks
for a `path`, uid or gid. Here:

1. `os.posix_spawn` gets only the descriptor actions it needs. What Python opens is closed by the
   kernel at exec; what was inheritable when the spawner was made (descriptors that the daemon
   was started with) is closed by name.
2. Each process leads a process group of its own, with all signals at their default and none
   blocked. It gets a session of its own only where the daemon has a terminal, to keep it off that
   one. Elsewhere a session would be of no use and costs: Linux gives each session its own share
   of the processors (sched(7), autogroup), and on a busy machine a start then takes twice as long.
3. A pidfd tells of its end, not SIGCHLD, and exactly this process is waited for: Twisted's own
   processes in the same reactor are not touched, nor does Twisted touch ours.
4. When the daemon dies, however it dies, a guardian kills all groups (`guardian`).
5. Whatever fails, `spawnProcess` raises at once and leaves no descriptor and no process behind.

Where the kernel has no pidfds (before Linux 5.4, or another system) the reactor's own
`spawnProcess` serves; see `Spawner.native`.
"""

import fcntl
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, AnyStr, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import (
    IProcessProtocol,
    IProcessTransport,
    IReactorFDSet,
    IReactorProcess,
)
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import classImplements, implementer

from queuerelay.pool.groups import Groups
from queuerelay.pool.transport import (
    IGroupTransport,
    ISpawnReactor,
    SpawnedProcess,
    signal_number,
)
from queuerelay.pool.watch import Watch

#: Twisted's: we write to stdin, and read from stdout and stderr.
_STANDARD: Final[Mapping[int, int | str]] = {0: "w", 1: "r", 2: "r"}


def supported() -> bool:
    """Whether this system has all that we build on.

    Tried, not looked up: a sandbox may refuse what kernel and Python know.
    """
    try:
        pidfd = os.pidfd_open(os.getpid())
    except (AttributeError, OSError):
        return False
    try:
        signal.pidfd_send_signal(pidfd, 0)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        # As it should: we are no child of ours.
        pass
    except (AttributeError, OSError):
        return False
    finally:
        os.close(pidfd)
    try:
        os.posix_spawn("/nonexistent/program", ["program"], {}, setsid=True)
    except FileNotFoundError:
        return True
    except (NotImplementedError, AttributeError, OSError):
        pass
    return False


@implementer(IReactorProcess)
class Spawner:
    """Starts processes on `reactor`; to be stopped at the end.

    What processes do in one turn of it is told within one `together`, as a broker's.
    Its transports provide `IGroupTransport` in either way of starting.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        reactor: ISpawnReactor,
        together: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._reactor = reactor
        #: Whether processes are started in our way, rather than in the reactor's.
        self.native = IReactorFDSet.providedBy(reactor) and supported()
        self._watch = Watch(reactor, together)
        self._groups = Groups(self._start_guardian, clock=reactor)
        self._inherited = _inheritable()
        # How a process gets its group; decided at the first, when we have become a daemon.
        self._own: dict[str, Any] | None = None
        # All, not only those that Python ignores: it costs the same and needs no look at each.
        self._signals = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
        if not self.native:
            self._log.warn(
                "no pidfd here: workers are started in Twisted's way, which is slow with many "
                "connections, have no process group of their own, and outlive a daemon that is "
                "killed"
            )

    @property
    def alive(self) -> int:
        """How many processes live that were started in our way; the guardian is not among them."""
        return self._groups.alive

    @property
    def guardian_pid(self) -> int | None:
        """Process id of the guardian, None while there is none."""
        return self._groups.guardian_pid

    def stop(self) -> Deferred[None]:
        """End the guardian; fires when it is gone. The processes are their owners' to end first."""
        return self._groups.stop()

    def spawnProcess(
        self,
        processProtocol: IProcessProtocol,
        executable: bytes | str,
        args: Sequence[bytes | str] = (),
        env: Mapping[AnyStr, AnyStr] | None = {},  # none, as Twisted's
        path: bytes | str | None = None,
        uid: int | None = None,
        gid: int | None = None,
        usePTY: bool = False,
        childFDs: Mapping[int, int | str] | None = None,
    ) -> IProcessTransport:
        """Start a process, as `IReactorProcess` says; it gets exactly the `childFDs`.

        Raises `OSError` (ENOENT, EACCES, ENOEXEC, E2BIG, EAGAIN, EMFILE, ...) or `ValueError` at
        once when it cannot be started. With `path`, uid, gid or usePTY it is started in the
        reactor's way, which forks: without group of its own and without guardian. For another
        working directory see `confine.prefix`.
        """
        if not self.native or usePTY or not (path is uid is gid is None):
            borrowing = _Borrowing(processProtocol)
            self._reactor.spawnProcess(
                borrowing, executable, args, env, path, uid, gid, usePTY, childFDs
            )
            assert borrowing.transport is not None
            return borrowing.transport
        if childFDs is None:
            childFDs = _STANDARD
        return self._spawn(processProtocol, executable, args, env, childFDs)

    def _start_guardian(
        self,
        protocol: ProcessProtocol,
        executable: str,
        args: Sequence[str],
        child_fds: Mapping[int, int],
    ) -> IProcessTransport:
        return self._spawn(protocol, executable, args, None, child_fds, guarded=False)

    def _spawn(
        self,
        protocol: IProcessProtocol,
        executable: bytes | str,
        args: Sequence[bytes | str],
        env: Mapping[Any, Any] | None,
        child_fds: Mapping[int, int | str],
        *,
        guarded: bool = True,
    ) -> SpawnedProcess:
        if self._own is None:
            self._own = {"setsid": True} if _has_terminal() else {"setpgroup": 0}
        ends = _Ends(child_fds)
        try:
            if guarded:
                self._groups.starting(ends.inode())
            pid = os.posix_spawnp(
                executable,
                list(args),
                os.environ if env is None else env,
                file_actions=ends.actions(self._inherited),
                **self._own,
                setsigdef=self._signals,
                # Always given: else it would be ours as it is now.
                setsigmask=[] if guarded else [signal.SIGHUP, signal.SIGINT, signal.SIGTERM],
            )
        except BaseException:
            if guarded:
                self._groups.failed()
            ends.close_theirs()
            ends.close_ours()
            raise
        before_reap = self._groups.started(pid) if guarded else _nothing
        # First, so that at the limit of descriptors there is one for the pidfd.
        ends.close_theirs()
        process = SpawnedProcess(
            self._reactor,
            self._watch,
            protocol,
            pid,
            ours=ends.ours,
            inputs=ends.inputs,
            before_reap=before_reap,
        )
        process.begin()
        return process


def _inheritable() -> frozenset[int]:
    """Descriptors that a process would get from us; looked for once, a daemon has few."""
    # These always: becoming a daemon opens them, whatever they were before.
    found = {0, 1, 2}
    with suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            # One of them was the listing's own.
            with suppress(OSError):
                if os.get_inheritable(int(name)):
                    found.add(int(name))
    return frozenset(found)


def _has_terminal() -> bool:
    """Whether we have a controlling terminal, as under ``twistd -n`` in a shell."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _nothing() -> None:
    pass


class _Ends:
    """The descriptors of one process, on both sides.

    Raises `OSError` where there are no more, with all closed again.
    """

    def __init__(self, child_fds: Mapping[int, int | str]) -> None:
        #: The process's number -> our end of that pipe.
        self.ours: dict[int, int] = {}
        #: Numbers of the pipes that we write to.
        self.inputs: set[int] = set()
        # The process's number -> the descriptor here that it gets.
        self._given: dict[int, int] = {}
        # Those of them that are ours to close.
        self._theirs: list[int] = []
        above = max(child_fds, default=-1) + 1
        try:
            for number, target in child_fds.items():
                self._given[number] = self._source(number, target)
            for number, source in self._given.items():
                if source < above:
                    # Copied out of the way: dup2 to one number must not hit the source of another,
                    # and onto itself it would leave close-on-exec set.
                    copy = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, above)
                    self._given[number] = copy
                    self._theirs.append(copy)
        except BaseException:
            self.close_theirs()
            self.close_ours()
            raise

    def _source(self, number: int, target: int | str) -> int:
        if isinstance(target, int):
            return target
        if target not in ("r", "w"):
            raise ValueError(f"childFDs: got {target!r}, expected 'r', 'w' or a descriptor")
        reads, writes = os.pipe()
        ours, theirs = (reads, writes) if target == "r" else (writes, reads)
        self.ours[number] = ours
        self._theirs.append(theirs)
        if target == "w":
            self.inputs.add(number)
        # Only ours: the process expects its own to block.
        os.set_blocking(ours, False)
        return theirs

    def inode(self) -> int:
        """Of one of the pipes, by which the process can be known; 0 if there is none."""
        for number in self.ours:
            return os.fstat(self._given[number]).st_ino
        return 0

    def actions(self, inherited: frozenset[int]) -> list[tuple[int, ...]]:
        """For `posix_spawn`: what the process gets, and what it must not get."""
        given = self._given
        actions: list[tuple[int, ...]] = [
            (os.POSIX_SPAWN_DUP2, source, number) for number, source in given.items()
        ]
        # One that is closed already is no error (posix_spawn_file_actions_addclose(3)).
        actions += [(os.POSIX_SPAWN_CLOSE, fd) for fd in inherited if fd not in given]
        return actions

    def close_theirs(self) -> None:
        """Close the process's ends on our side."""
        for fd in self._theirs:
            os.close(fd)
        self._theirs.clear()

    def close_ours(self) -> None:
        """Close our ends, where there is no process to use them."""
        for fd in self.ours.values():
            os.close(fd)
        self.ours.clear()


class _Borrowed:
    """A transport of the reactor's own, with what `IGroupTransport` adds.

    It has no group of its own: a signal to its group reaches only the process.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def signalProcess(self, signalID: str | int) -> None:
        """Send a signal to the process."""
        self._transport.signalProcess(signal_number(signalID))

    signalGroup = signalProcess

    def closePipes(self) -> None:
        """Close all pipes, whatever is unread or unwritten."""
        # A terminal has none of its own to close.
        for pipe in list(getattr(self._transport, "pipes", {}).values()):
            pipe.connectionLost(Failure(ConnectionAborted()))
        self._transport.loseConnection()


# mypy would miss what `__getattr__` forwards.
classImplements(_Borrowed, IGroupTransport)


@implementer(IProcessProtocol)
class _Borrowing:
    """Gives a protocol a `_Borrowed` transport in place of the reactor's own."""

    def __init__(self, protocol: IProcessProtocol) -> None:
        self._protocol = protocol
        self.transport: _Borrowed | None = None

    def makeConnection(self, process: IProcessTransport) -> None:
        self.transport = _Borrowed(process)
        self._protocol.makeConnection(self.transport)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._protocol.childDataReceived(childFD, data)

    def childConnectionLost(self, childFD: int) -> None:
        self._protocol.childConnectionLost(childFD)

    def processExited(self, reason: Failure) -> None:
        self._protocol.processExited(reason)

    def processEnded(self, reason: Failure) -> None:
        self._protocol.processEnded(reason)
