"""The link to one launcher: the daemon asks for scripts, and the launcher tells their fate.

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
   launcher that never said a word it is sure that nothing was.
"""

import marshal
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorTime,
)
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from queuerelay.processes import guardian, launcher
from queuerelay.processes.ends import Ends
from queuerelay.processes.guarded import Start
from queuerelay.processes.interfaces import IGroupTransport
from queuerelay.processes.launched import Launched
from queuerelay.processes.watch import Watch
from queuerelay.waiters import Waiters

#: Seconds between two looks whether a launcher says something, and at how many it may say nothing.
LOOK: Final = 5.0
LOOKS: Final = 3
#: Seconds that a launcher has to go when it is no longer wanted.
GRACE: Final = 2.0
#: Seconds after which the launcher is told whom it may reap, if nothing else is to be told.
REAP: Final = 0.02
#: Packets read in one turn of the reactor.
PACKETS: Final = 16

_NOTHING: Final[list[int]] = []


class LauncherLink:
    """The link to one launcher, from its start to its end; `OSError` where it cannot be started.

    `on_lost` is called when the launcher takes no more scripts, `on_gone` when its process is gone
    as well.
    """

    _log = Logger()

    def __init__(
        self,
        start: Start,
        watch: Watch,
        *,
        clock: IReactorTime,
        session: bool,
        on_lost: "Callable[[LauncherLink], object]",
        on_gone: "Callable[[LauncherLink], object]",
    ) -> None:
        self._watch = watch
        self._clock = clock
        self._on_lost = on_lost
        self._on_gone = on_gone
        #: Scripts by number, until they are freed.
        self.scripts: dict[int, Launched] = {}
        #: Whether the launcher has ever said anything.
        self.has_answered = False
        self._last = 0
        #: Whether the launcher owes us a word, and at how many looks it has owed it.
        self._owes = False
        self._silent = 0
        self._reaped: list[int] = []
        self._telling: IDelayedCall | None = None
        self._looking: IDelayedCall | None = None
        self._ending: IDelayedCall | None = None
        self._stopping = self._lost = False
        self._gone: Waiters[None] = Waiters()
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        null = daemon = -1
        try:
            self._link.setblocking(False)
            null = os.open(os.devnull, os.O_RDWR)
            daemon = os.pidfd_open(os.getpid())
            watch.add(self._link.fileno(), self)
            program = [sys.executable, "-I", "-S", launcher.__file__]
            self._process: IGroupTransport = start(
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
        """Process id of the launcher, None when it is gone."""
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
        """Ask for a script; None where the launcher cannot be asked now."""
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
        """The script of this number may be reaped; nothing is to be heard of it any more."""
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
        """See whether the launcher still says something."""
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
        """The launcher says something, or is gone."""
        for _ in range(PACKETS):
            if self._lost or not self._hear():
                return

    def _hear(self) -> bool:
        """Handle one packet; False where there is none."""
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
        """The launcher is gone, or takes no more."""
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
        """Kill the scripts that the launcher leaves. Whoever is the parent now may reap them at any
        moment, so each is known by its pipes rather than by its number.
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
        """The launcher's process is gone, and tells no more than it has told."""
        for script in self.scripts.values():
            script.forget_signals()
        while not self._lost and self._hear():
            pass
        self.lost()

    def ended(self) -> None:
        """Nobody has the pipes of the launcher's process any more, either."""
        if self._ending is not None and self._ending.active():
            self._ending.cancel()
        self._on_gone(self)
        self._gone.fire(None)

    def stop(self) -> Deferred[None]:
        """End the launcher and its scripts; fires when it is gone."""
        self._stopping = True
        stopped = self._gone.wait()
        self.ready()
        self.lost()
        return stopped


class _Process(ProcessProtocol):
    """The launcher's own process."""

    _log = Logger()

    def __init__(self, owner: LauncherLink) -> None:
        self._owner = owner

    def errReceived(self, data: bytes) -> None:
        self._log.error("the launcher: {said}", said=data.decode("utf-8", "replace").rstrip())

    def processExited(self, reason: Failure) -> None:
        self._owner.exited()

    def processEnded(self, reason: Failure) -> None:
        self._owner.ended()
