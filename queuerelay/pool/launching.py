"""The launcher, as the daemon sees it: scripts are asked for, and their fate is told.

Invariants:

1. Nothing here waits. What the launcher cannot take at once (it is busy, the request is large, it
   has just died) is for the caller to start.
2. Every script that the launcher took is heard of: started, failed or lost with it. A launcher that
   does not answer for `BOUND` seconds, as on a file system that hangs, is killed.
3. The number of a script stays its own until `free`: the launcher, its parent, reaps it only then.
   So signals are ours to send.
4. When a launcher dies its scripts are killed, and end with a status that is not known; those that
   it had not started were not started. Another one comes when it is needed, `RETRY` seconds later;
   after one that never said a word twice as long each time.
"""

import errno
import marshal
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import (
    IDelayedCall,
    IProcessProtocol,
    IProcessTransport,
    IReactorTime,
)
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from queuerelay.pool import guardian, launcher
from queuerelay.pool.ends import Ends
from queuerelay.pool.groups import RETRY, Start
from queuerelay.pool.transport import ISpawnReactor, SpawnedProcess
from queuerelay.pool.watch import Watch

#: Seconds in which a launcher starts what it was asked for.
BOUND: Final = 10.0
#: Longest time until another one is tried, in seconds.
LONGEST_RETRY: Final = 60.0
#: Seconds that a launcher has to go when it is no longer wanted.
GRACE: Final = 2.0
#: Seconds after which the launcher is told whom it may reap, if nothing else is to be told.
REAP: Final = 0.02
#: Packets read in one turn of the reactor.
PACKETS: Final = 16


class Launchers:
    """A launcher where one is needed; one at a time.

    `session` says whether each script is to have a session of its own.
    """

    _log = Logger()

    def __init__(
        self, start: Start, reactor: ISpawnReactor, watch: Watch, *, session: Callable[[], bool]
    ) -> None:
        self._start = start
        self._reactor: Any = reactor
        self._watch = watch
        self._session = session
        self._current: Launcher | None = None
        self._all: set[Launcher] = set()
        self._next_start = 0.0
        self._pause = RETRY

    @property
    def alive(self) -> int:
        """How many scripts live that it has started."""
        return sum(len(one.scripts) for one in self._all)

    @property
    def pid(self) -> int | None:
        """Process id of the launcher, None while there is none."""
        return self._current.pid if self._current is not None else None

    def launch(
        self,
        protocol: IProcessProtocol,
        executable: bytes | str,
        args: Sequence[bytes | str],
        env: Mapping[Any, Any],
        ends: Ends,
    ) -> SpawnedProcess | None:
        """Let a script be started; None where that cannot be asked for now, and then nothing was
        done.
        """
        current = self._current or self._new()
        if current is None:
            return None
        handle = current.ask(executable, args, env, ends)
        if handle is None:
            return None
        ends.close_theirs()
        process = SpawnedProcess(
            self._reactor, self._watch, protocol, handle, ours=ends.ours, inputs=ends.inputs
        )
        process.begin()
        return process

    def _new(self) -> "Launcher | None":
        clock: IReactorTime = self._reactor
        if clock.seconds() < self._next_start:
            return None
        self._next_start = clock.seconds() + self._pause
        try:
            self._current = Launcher(
                self._start,
                self._watch,
                clock=clock,
                session=self._session(),
                on_lost=self._lost,
                on_gone=self._all.discard,
            )
        except OSError as error:
            self._log.error("no launcher: {reason}", reason=str(error))
            return None
        self._all.add(self._current)
        return self._current

    def _lost(self, one: "Launcher") -> None:
        if self._current is one:
            self._current = None
        self._pause = RETRY if one.has_answered else min(LONGEST_RETRY, 2 * self._pause)
        self._next_start = max(self._next_start, self._reactor.seconds() + self._pause)

    def stop(self) -> Deferred[None]:
        """End it, and what it has started; fires when it is gone."""
        stopping = gatherResults([one.stop() for one in list(self._all)])
        self._next_start, self._pause = 0.0, RETRY
        return stopping.addCallback(lambda _: None)


class Launcher:
    """One launcher, from its start to its end. Raises `OSError` where it cannot be started.

    `on_lost` is called when it takes no more, `on_gone` when its process is gone as well.
    """

    _log = Logger()

    def __init__(
        self,
        start: Start,
        watch: Watch,
        *,
        clock: IReactorTime,
        session: bool,
        on_lost: "Callable[[Launcher], object]",
        on_gone: "Callable[[Launcher], object]",
    ) -> None:
        self._watch = watch
        self._clock = clock
        self._on_lost = on_lost
        self._on_gone = on_gone
        #: By number, until they are freed.
        self.scripts: dict[int, _Launched] = {}
        #: Whether it has ever said anything.
        self.has_answered = False
        self._last = 0
        #: When those were asked for that it has not answered for, the oldest first.
        self._asked: dict[int, float] = {}
        self._reaped: list[int] = []
        self._telling: IDelayedCall | None = None
        self._looking: IDelayedCall | None = None
        self._ending: IDelayedCall | None = None
        self._stopping = self._lost = False
        self._gone: list[Deferred[None]] = []
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        null = daemon = -1
        try:
            self._link.setblocking(False)
            null = os.open(os.devnull, os.O_RDWR)
            daemon = os.pidfd_open(os.getpid())
            watch.add(self._link.fileno(), self)
            program = [sys.executable, "-I", "-S", launcher.__file__]
            self._process: IProcessTransport = start(
                _Process(self),
                program[0],
                [*program, "session"] if session else program,
                {0: null, 1: null, 2: "r", launcher.LINK: theirs.fileno(), launcher.DAEMON: daemon},
            )
        except BaseException:
            watch.forget(self._link.fileno())
            self._link.close()
            raise
        finally:
            theirs.close()
            for fd in (null, daemon):
                if fd != -1:
                    os.close(fd)

    @property
    def pid(self) -> int | None:
        """Process id, None when it is gone."""
        pid: int | None = self._process.pid
        return pid

    # To it

    def ask(
        self,
        executable: bytes | str,
        args: Sequence[bytes | str],
        env: Mapping[Any, Any],
        ends: Ends,
    ) -> "_Launched | None":
        """Ask for a script; None where it cannot be asked now."""
        number = self._last + 1
        try:
            request = marshal.dumps((self._reaped, (number, executable, list(args), dict(env))))
        except ValueError:
            # Some other kind of text or mapping than it can write.
            return None
        if len(request) > launcher.PACKET:
            return None
        given = [ends.given[to] for to in (0, 1, 2)]
        try:
            socket.send_fds(self._link, [request], given)
        except OSError:
            # Its buffer is full, or it has died, which `ready` will say.
            return None
        self._last = number
        self._reaped = []
        self._asked[number] = self._clock.seconds()
        if self._looking is None:
            self._looking = self._clock.callLater(BOUND, self._look)
        script = self.scripts[number] = _Launched(self, number)
        return script

    def free(self, number: int, *, started: bool) -> None:
        """Nothing is to be heard of this one any more, and it may be reaped."""
        del self.scripts[number]
        if self._lost or not started:
            return
        self._reaped.append(number)
        if self._telling is None:
            self._telling = self._clock.callLater(REAP, self._tell)

    def _tell(self) -> None:
        self._telling = None
        if not self._reaped or self._lost:
            return
        # Each takes five bytes; the rest goes with the next.
        some = self._reaped[: launcher.PACKET // 16]
        try:
            self._link.send(marshal.dumps((some, None)))
        except BlockingIOError:
            pass
        except OSError:
            # It has died, which `ready` will say.
            return
        else:
            del self._reaped[: len(some)]
        if self._reaped:
            self._telling = self._clock.callLater(REAP, self._tell)

    def _look(self) -> None:
        """Whether it still answers."""
        self._looking = None
        if not self._asked:
            return
        left = next(iter(self._asked.values())) + BOUND - self._clock.seconds()
        if left > 0:
            self._looking = self._clock.callLater(left, self._look)
            return
        self._log.error(
            "the launcher has not answered for {bound:.0f} s; it is killed", bound=BOUND
        )
        self._kill()

    def _kill(self) -> None:
        with suppress(ProcessExitedAlready):
            self._process.signalProcess("KILL")

    # From it

    def ready(self) -> None:
        """It says something, or is gone."""
        for _ in range(PACKETS):
            if self._lost:
                return
            try:
                packet = self._link.recv(launcher.PACKET)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self.lost()
                return
            self.has_answered = True
            for number, what, value in marshal.loads(packet):
                self._heard(number, what, value)

    def _heard(self, number: int, what: int, value: Any) -> None:
        self._asked.pop(number, None)
        script = self.scripts[number]
        if what == launcher.STARTED:
            script.started(value)
        elif what == launcher.FAILED:
            script.failed(OSError(*value))
        else:
            script.exited(value)

    def lost(self) -> None:
        """There is nobody at the other end any more."""
        if self._lost:
            return
        self._lost = True
        self._watch.forget(self._link.fileno())
        self._link.close()
        for call in (self._telling, self._looking):
            if call is not None and call.active():
                call.cancel()
        self._on_lost(self)
        scripts = list(self.scripts.values())
        if not self._stopping:
            running = sum(not one.over for one in scripts)
            self._log.error("the launcher is gone, and {number} scripts with it", number=running)
        for script in scripts:
            script.orphaned()
        # That nobody hears it any more ends it, unless it hangs.
        self._ending = self._clock.callLater(GRACE, self._kill)

    def gone(self) -> None:
        """Its process is gone."""
        self.lost()
        if self._ending is not None and self._ending.active():
            self._ending.cancel()
        self._on_gone(self)
        waiting, self._gone = self._gone, []
        for one in waiting:
            one.callback(None)

    def stop(self) -> Deferred[None]:
        """End it, and its scripts; fires when it is gone."""
        self._stopping = True
        stopped: Deferred[None] = Deferred()
        self._gone.append(stopped)
        self.lost()
        return stopped


class _Launched:
    """The `Handle` of a script whose parent is the launcher."""

    def __init__(self, parent: Launcher, number: int) -> None:
        self._parent = parent
        self._number = number
        self._process: SpawnedProcess | None = None
        self.pid: int | None = None
        #: Whether its end has been told.
        self.over = False
        #: Whether somebody else is its parent, so that its number may be anybody's.
        self._adrift = False
        self._discarded = False
        #: What to send as soon as it is there, as signals to it or to its group.
        self._waiting: list[tuple[Callable[[int, int], None], int]] = []

    # What its launcher says

    def started(self, pid: int) -> None:
        """It runs."""
        self.pid = pid
        waiting, self._waiting = self._waiting, []
        for send, number in waiting:
            with suppress(ProcessLookupError, PermissionError):
                send(pid, number)

    def failed(self, error: OSError) -> None:
        """It could not be started."""
        self.over = True
        process, self._process = self._process, None
        if process is not None:
            process.not_started(error)
        else:
            self.free()

    def exited(self, status: int | None) -> None:
        """It is gone; None where nobody knows how."""
        self.over = True
        process, self._process = self._process, None
        if process is not None:
            process.exited(status)
        elif self._discarded:
            self.free()

    def orphaned(self) -> None:
        """Its launcher is gone. Whoever is its parent now will reap it, so this is the moment."""
        self._adrift = True
        if self.over:
            return
        found = [self.pid] if self.pid is not None else self._holders()
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                (os.killpg if os.getpgid(pid) == pid else os.kill)(pid, signal.SIGKILL)
        if found:
            self.exited(None)
        else:
            self.failed(OSError(errno.ESRCH, "its launcher ended before it was started"))

    def _holders(self) -> list[int]:
        """Those that have one of its pipes, where we were not told its process id."""
        inode = self._process.inode() if self._process is not None else 0
        # The launcher itself, while it goes, is none of them.
        strangers = {os.getpid(), self._parent.pid}
        return [pid for pid in guardian.holders(inode) if pid not in strangers] if inode else []

    # Handle

    def begin(self, process: SpawnedProcess) -> None:
        """Tell `process` of its end."""
        self._process = process

    def signal(self, number: int) -> None:
        """Send a signal to it alone, as soon as it is there."""
        self._send(os.kill, number)

    def signal_group(self, number: int) -> None:
        """Send a signal to its group, as soon as it is there."""
        self._send(os.killpg, number)

    def _send(self, send: Callable[[int, int], None], number: int) -> None:
        if self._adrift:
            raise ProcessLookupError
        if self.pid is None:
            self._waiting.append((send, number))
        else:
            send(self.pid, number)

    def free(self) -> None:
        """Its number may go to somebody else."""
        self._parent.free(self._number, started=self.pid is not None)

    def discard(self) -> None:
        """Kill it, and `free` when it is gone: nobody is to be told of it."""
        self._process, self._discarded = None, True
        with suppress(ProcessLookupError):
            self.signal_group(signal.SIGKILL)


class _Process(ProcessProtocol):
    """The launcher's own process."""

    _log = Logger()

    def __init__(self, owner: Launcher) -> None:
        self._owner = owner

    def errReceived(self, data: bytes) -> None:
        self._log.error("the launcher: {said}", said=data.decode("utf-8", "replace").rstrip())

    def processEnded(self, reason: Failure) -> None:
        self._owner.gone()
