"""The launcher, as the daemon sees it: scripts are asked for, and their fate is told.

Invariants:

1. Nothing here waits. What the launcher cannot take at once (it is busy, the request is large, it
   has just died) is for the caller to start.
2. Every script that the launcher took is heard of: started, failed, ended, or lost with it. While
   it has scripts it is looked at each `LOOK` seconds, and asked for a sign of life; one that owes
   us a word at `LOOKS` of them, as on a file system that hangs, is given up, and killed. Looks are
   counted, not seconds: both of us may have been frozen meanwhile.
3. The number of a script stays its own until `free`: the launcher, its parent, reaps it only then.
   So signals are ours to send. When the launcher has died, that holds no more, and none are sent
   but to what has one of the script's pipes.
4. When a launcher dies, what it had told is heard first. Then its scripts are killed, and end with
   a status that is not known: a crash, also where they may not have been started. Only of a
   launcher that never said a word it is sure that nothing was. Another one comes when it is needed,
   `RETRY` seconds later; after a silent one twice as long each time.
"""

import marshal
import os
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
    IReactorTime,
)
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from queuerelay.processes import guardian, launcher
from queuerelay.processes.ends import Ends
from queuerelay.processes.guarded import RETRY, Start
from queuerelay.processes.interfaces import ISpawnReactor
from queuerelay.processes.launched import Launched
from queuerelay.processes.transport import SpawnedProcess
from queuerelay.processes.watch import Watch

#: Seconds between two looks whether a launcher says something, and at how many it may say nothing.
LOOK: Final = 5.0
LOOKS: Final = 3
#: Longest time until another one is tried, in seconds.
LONGEST_RETRY: Final = 60.0
#: Seconds that a launcher has to go when it is no longer wanted.
GRACE: Final = 2.0
#: Seconds after which the launcher is told whom it may reap, if nothing else is to be told.
REAP: Final = 0.02
#: Packets read in one turn of the reactor.
PACKETS: Final = 16

_NOTHING: Final[list[int]] = []


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
        self._stopping = 0

    @property
    def alive(self) -> int:
        """How many scripts have been asked for whose numbers are not free."""
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
        if clock.seconds() < self._next_start or self._stopping:
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
        self._stopping += 1
        return gatherResults([one.stop() for one in list(self._all)]).addCallback(self._stopped)

    def _stopped(self, _: object) -> None:
        self._stopping -= 1
        self._next_start, self._pause = 0.0, RETRY


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
        self.scripts: dict[int, Launched] = {}
        #: Whether it has ever said anything.
        self.has_answered = False
        self._last = 0
        #: Whether it owes us a word, and at how many looks it has owed it.
        self._owes = False
        self._silent = 0
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
            self._process: Any = start(
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
    ) -> "Launched | None":
        """Ask for a script; None where it cannot be asked now."""
        number = self._last + 1
        try:
            # Not any kind of sequence or mapping, but `Spawner.launch` has seen to that.
            request = marshal.dumps((self._reaped, (number, executable, args, env)))  # type: ignore[arg-type]
        except ValueError:
            # Some other kind of text than it can write.
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
        self._owes = True
        if self._looking is None:
            self._looking = self._clock.callLater(LOOK, self._look)
        script = self.scripts[number] = Launched(self, number, executable)
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
        """Whether it still says something."""
        self._looking = None
        if not self.scripts:
            return
        if not self._owes:
            self._owes = True
            # Where there is no room for it there is enough for it to answer.
            with suppress(OSError):
                self._link.send(marshal.dumps((_NOTHING, True)))
        elif self._silent + 1 < LOOKS:
            self._silent += 1
        else:
            self._log.error(
                "the launcher has said nothing for {seconds:.0f} s; it is killed",
                seconds=LOOK * (LOOKS - 1),
            )
            self._kill()
            # Its end may not be seen: what it was about to start has copies of its descriptors.
            self.lost()
            return
        self._looking = self._clock.callLater(LOOK, self._look)

    def _end(self) -> None:
        self._kill()
        self._process.closePipes()

    def _kill(self) -> None:
        with suppress(ProcessExitedAlready):
            self._process.signalProcess("KILL")

    # From it

    def ready(self) -> None:
        """It says something, or is gone."""
        for _ in range(PACKETS):
            if self._lost or not self._hear():
                return

    def _hear(self) -> bool:
        """One packet; False where there is none."""
        try:
            packet = self._link.recv(launcher.PACKET)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            # It died before it read all we said: this comes before what it had told.
            return True
        except OSError:
            packet = b""
        if not packet:
            self.lost()
            return False
        self.has_answered, self._owes, self._silent = True, False, 0
        for number, what, value in marshal.loads(packet):
            try:
                self._told(number, what, value)
            except Exception:
                self._log.failure("news of a script could not be handled")
        return True

    def _told(self, number: int, what: int, value: Any) -> None:
        script = self.scripts[number]
        if what == launcher.STARTED:
            script.started(value)
        elif what == launcher.FAILED:
            script.failed(OSError(*value, script.executable))
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
        if not self._stopping:
            running = sum(not one.over for one in self.scripts.values())
            self._log.error("the launcher is gone, and {number} scripts with it", number=running)
        self._orphan(list(self.scripts.values()))
        # That nobody hears it any more ends it, unless it hangs. What it was about to start may
        # have copies of its pipes.
        self._ending = self._clock.callLater(GRACE, self._end)

    def _orphan(self, scripts: "Sequence[Launched]") -> None:
        """Kill what it leaves. Whoever is the parent now may reap it at any moment, so it is known
        by its pipes rather than by its number.
        """
        pipes = {inode: one for one in scripts if not one.over for inode in one.inodes()}
        if pipes:
            # The launcher itself has them while it goes, and copies of us have our ends of them.
            ourselves = {os.getpid(), self.pid or 0}
            for pid, inode in guardian.holders(pipes, written=True, but=ourselves):
                pipes[inode].found.add(pid)
        for script in scripts:
            script.orphaned()

    def exited(self) -> None:
        """Its process is gone, and tells no more than it has told."""
        for script in self.scripts.values():
            script.forget_signals()
        while not self._lost and self._hear():
            pass
        self.lost()

    def ended(self) -> None:
        """Nobody has its pipes any more, either."""
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
        self.ready()
        self.lost()
        return stopped


class _Process(ProcessProtocol):
    """The launcher's own process."""

    _log = Logger()

    def __init__(self, owner: Launcher) -> None:
        self._owner = owner

    def errReceived(self, data: bytes) -> None:
        self._log.error("the launcher: {said}", said=data.decode("utf-8", "replace").rstrip())

    def processExited(self, reason: Failure) -> None:
        self._owner.exited()

    def processEnded(self, reason: Failure) -> None:
        self._owner.ended()
