"""Starts processes: `IProcesses` whose cost does not grow with the connections held.

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
4. When the daemon dies, however it dies, a guardian kills all groups (`guardian`), or their
   launcher does. What has left its group is found by a mark in its environment (`escapees`).
5. Whatever fails, `spawnProcess` raises at once and leaves no descriptor and no process behind.
6. A process has the limit of open files and the umask of the daemon's start (`heritage`).
7. `launch`, for scripts, need not wait: where more than `CROWDED` descriptors are open, another
   process starts them, which has few (`launchers`).

Where the kernel has no pidfds (before Linux 5.4, or another system) the reactor's own
`spawnProcess` serves; see `Spawner.native`.
"""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, AnyStr, Final

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import (
    IProcessProtocol,
    IProcessTransport,
    IReactorFDSet,
)
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import classImplements, implementer

from queuerelay.processes.ends import STANDARD, Ends
from queuerelay.processes.escapees import VARIABLE, Escapees, Marks
from queuerelay.processes.guarded import Groups
from queuerelay.processes.heritage import HERITAGE
from queuerelay.processes.interfaces import IGroupTransport, IProcesses, ISpawnReactor
from queuerelay.processes.launchers import Launchers
from queuerelay.processes.orphans import Orphans
from queuerelay.processes.ownchild import OwnChild
from queuerelay.processes.transport import SpawnedProcess, signal_number
from queuerelay.processes.watch import Watch

#: Descriptors above which a process is started by the launcher: with so many open a start costs
#: a tenth more than with few.
CROWDED: Final = 512
#: What a Python may need to start at all.
_FOR_HELPERS: Final = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")


def supported() -> bool:
    """Whether this system has pidfds and all else that the spawner builds on.

    Each call is tried, not looked up: a sandbox may refuse what kernel and Python know.
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


@implementer(IProcesses)
class Spawner:
    """Starts processes on `reactor`; to be stopped at the end.

    What processes do in one turn of the reactor is told within one `together`, as a broker's.
    The transports provide `IGroupTransport` in either way of starting.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        reactor: ISpawnReactor,
        together: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._reactor = reactor
        #: Whether processes are started by the spawner itself, rather than in the reactor's way.
        self.native = IReactorFDSet.providedBy(reactor) and supported()
        self._watch = Watch(reactor, together)
        #: Our children that are not reaped.
        self._children: set[int] = set()
        self._orphans = Orphans(lambda: self._children)
        self._marks = Marks()
        self._escapees = Escapees(reactor)
        self._groups = Groups(self._start_helper, clock=reactor, mark=self._marks.daemon)
        self._launchers = Launchers(
            self._start_helper, reactor, self._watch, session=lambda: "setsid" in self._own()
        )
        self._inherited = _inheritable()
        self._group: Mapping[str, Any] | None = None
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
        """How many processes of the spawner live, guardian and launcher not among them."""
        return self._groups.alive + self._launchers.alive

    @property
    def guardian_pid(self) -> int | None:
        """Process id of the guardian, None while there is none."""
        return self._groups.guardian_pid

    @property
    def launcher_pid(self) -> int | None:
        """Process id of the launcher, None while there is none."""
        return self._launchers.pid

    def take_orphans(self) -> None:
        """Reap what became ours because its parent is gone: to be called now and then by a daemon
        that is process 1.
        """
        self._orphans.look()

    def stop(self) -> Deferred[None]:
        """End guardian and launcher; fires when they are gone. The processes are their owners' to
        end first: what was launched and still lives is killed.
        """
        self._escapees.flush()
        return gatherResults([self._groups.stop(), self._launchers.stop()]).addCallback(
            lambda _: None
        )

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
    ) -> IGroupTransport:
        """Start a process, as `IReactorProcess` says; it gets exactly the `childFDs`.

        Raises `OSError` (ENOENT, EACCES, ENOEXEC, E2BIG, EAGAIN, EMFILE, ...) or `ValueError` at
        once when it cannot be started. With `path`, uid, gid or usePTY it is started in the
        reactor's way, which forks: without group of its own and without guardian. For another
        working directory see `confine.prefix`.
        """
        if not self.native or usePTY or not (path is uid is gid is None):
            borrowing = _Borrowing(processProtocol)
            with HERITAGE.for_fork():
                self._reactor.spawnProcess(
                    borrowing, executable, args, env, path, uid, gid, usePTY, childFDs
                )
            assert borrowing.transport is not None
            return borrowing.transport
        mark = self._marks.next()
        process = self._spawn(
            processProtocol,
            executable,
            args,
            _marked(os.environ if env is None else env, mark),
            Ends(STANDARD if childFDs is None else childFDs),
            mark=mark,
        )
        return process

    def launch(
        self,
        protocol: IProcessProtocol,
        executable: bytes | str,
        args: Sequence[bytes | str],
        env: Mapping[AnyStr, AnyStr],
    ) -> IGroupTransport:
        """Start a script as `spawnProcess` does, but where many descriptors are open do not wait
        for the start.

        Then the transport has no pid at first, and what cannot be started may be told by
        `processEnded`, with an `OSError` as its reason.
        """
        if not self.native:
            return self.spawnProcess(protocol, executable, args, env)
        mark = self._marks.next()
        args, marked = list(args), _marked(env, mark)
        ends = Ends(STANDARD)
        # The kernel gives the lowest that is free, so it tells how many there are.
        if max(ends.ours.values()) >= CROWDED:
            process = self._launchers.launch(protocol, executable, args, marked, ends)
            if process is not None:
                process.mark(self._escapees, mark)
                return process
        return self._spawn(protocol, executable, args, marked, ends, mark=mark)

    def _start_helper(
        self,
        protocol: ProcessProtocol,
        executable: str,
        args: Sequence[str],
        child_fds: Mapping[int, int | str],
    ) -> IGroupTransport:
        # What it does not need it does not have: others of our user can read it there.
        env = {name: os.environ[name] for name in _FOR_HELPERS if name in os.environ}
        return self._spawn(protocol, executable, args, env, Ends(child_fds), guarded=False)

    def _own(self) -> Mapping[str, Any]:
        """The arguments that give a process its group; decided at the first start, as a daemon."""
        if self._group is None:
            self._group = {"setsid": True} if _has_terminal() else {"setpgroup": 0}
        return self._group

    def _spawn(
        self,
        protocol: IProcessProtocol,
        executable: bytes | str,
        args: Sequence[bytes | str],
        env: Mapping[Any, Any] | None,
        ends: Ends,
        *,
        guarded: bool = True,
        mark: bytes | None = None,
    ) -> SpawnedProcess:
        try:
            if guarded:
                self._groups.starting(ends.inode())
            actions, own = ends.actions(self._inherited), self._own()
            with HERITAGE:
                pid = os.posix_spawnp(
                    executable,
                    list(args),
                    os.environ if env is None else env,
                    file_actions=actions,
                    **own,
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
        self._children.add(pid)
        leave = self._groups.started(pid) if guarded else _nothing

        def before_reap() -> None:
            leave()
            self._children.discard(pid)

        # First, so that at the limit of descriptors there is one for the pidfd.
        ends.close_theirs()
        process = SpawnedProcess(
            self._reactor,
            self._watch,
            protocol,
            OwnChild(pid, self._watch, before_reap),
            ours=ends.ours,
            inputs=ends.inputs,
        )
        if mark is not None:
            process.mark(self._escapees, mark)
        process.begin()
        return process


def _marked(env: Mapping[Any, Any], mark: bytes) -> dict[Any, Any]:
    # Texts and bytes may stand side by side.
    marked = dict(env)
    marked[VARIABLE] = mark
    return marked


def _inheritable() -> frozenset[int]:
    """Descriptors that a process would inherit; looked for once, a daemon has few."""
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
    """Whether the daemon has a controlling terminal, as under ``twistd -n`` in a shell."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _nothing() -> None:
    pass


class _Borrowed:
    """A transport of the reactor's own, with what `IGroupTransport` adds.

    The process has no group of its own: a signal to its group reaches only the process.
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
