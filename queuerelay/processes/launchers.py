"""A launcher where one is needed, and when another one comes after it.

Invariants:

1. One launcher at a time takes scripts; those before it are heard until they are gone.
2. Nothing here waits: where there is no launcher, or it takes nothing now, the caller starts the
   script by itself.
3. After a launcher has died another one comes when it is needed, `RETRY` seconds later; after one
   that never said a word twice as long each time.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IProcessProtocol, IReactorTime
from twisted.logger import Logger

from queuerelay.backoff import back_off
from queuerelay.processes.ends import Ends
from queuerelay.processes.guarded import RETRY, Start
from queuerelay.processes.interfaces import ISpawnReactor
from queuerelay.processes.link import LauncherLink
from queuerelay.processes.transport import SpawnedProcess
from queuerelay.processes.watch import Watch

#: Longest time until another one is tried, in seconds.
LONGEST_RETRY: Final = 60.0


class Launchers:
    """The launchers of one daemon: one at a time, started where it is needed.

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
        self._current: LauncherLink | None = None
        self._all: set[LauncherLink] = set()
        self._next_start = 0.0
        #: Launchers in a row that never said a word.
        self._mute = 0
        self._stopping = 0

    @property
    def alive(self) -> int:
        """How many scripts have been asked for and are not freed yet."""
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
        """Ask the launcher for a script; None where it cannot be asked now, and then nothing was
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

    def _new(self) -> LauncherLink | None:
        clock: IReactorTime = self._reactor
        if clock.seconds() < self._next_start or self._stopping:
            return None
        self._next_start = clock.seconds() + self._pause()
        try:
            self._current = LauncherLink(
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

    def _lost(self, one: LauncherLink) -> None:
        if self._current is one:
            self._current = None
        self._mute = 0 if one.has_answered else self._mute + 1
        self._next_start = max(self._next_start, self._reactor.seconds() + self._pause())

    def _pause(self) -> float:
        return back_off(self._mute + 1, first=RETRY, longest=LONGEST_RETRY)

    def stop(self) -> Deferred[None]:
        """End the launcher and what it has started; fires when it is gone."""
        self._stopping += 1
        return gatherResults([one.stop() for one in list(self._all)]).addCallback(self._stopped)

    def _stopped(self, _: object) -> None:
        self._stopping -= 1
        self._next_start, self._mute = 0.0, 0
