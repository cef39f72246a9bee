"""Watches descriptors for a reactor, as one descriptor of the reactor's: an epoll within its own.

A short process has three to watch, for a millisecond; what a reactor does for each descriptor that
comes and goes costs more than reading it.

1. What is ready is looked up before the first of it is handled, and each of it knows whether it has
   been closed: a number that is closed and given to a new pipe meanwhile never gets what was meant
   for the old one.
2. Whoever closes a descriptor forgets it first: the kernel would watch on for as long as anybody
   else, a forked process for one, holds the same pipe.
3. What is ready is handled within one `together`, so that what several processes lead to can leave
   us as one.
4. There is a descriptor of ours, and the reactor reads it, while there is something to watch.
"""

import select
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer


class Watched(Protocol):
    """Somebody's descriptor."""

    def ready(self) -> None:
        """It can be read, or its other end is closed. Not called for what is closed."""

    def lost(self) -> None:
        """It is no longer watched: the reactor stops, or `ready` raised."""


@implementer(IReadDescriptor)
class Watch:
    """Tells each `Watched` when its descriptor is ready."""

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorFDSet,
        together: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._reactor = reactor
        self._together = together
        self._epoll: select.epoll | None = None
        self._watched: dict[int, Watched] = {}
        self._reading = False

    def add(self, fd: int, watched: Watched) -> None:
        """Watch `fd` from now on. Raises `OSError` where the kernel cannot."""
        if self._epoll is None:
            self._epoll = select.epoll()
            self._reactor.addReader(self)
        self._watched[fd] = watched
        try:
            self._epoll.register(fd, select.EPOLLIN)
        except BaseException:
            del self._watched[fd]
            self._rest()
            raise

    def forget(self, fd: int) -> None:
        """Watch `fd` no longer; nothing if it is not watched."""
        if self._watched.pop(fd, None) is not None:
            assert self._epoll is not None
            self._epoll.unregister(fd)
            self._rest()

    def _rest(self) -> None:
        # Not within `doRead`: a reactor that finds another descriptor after it gives us up.
        if not (self._watched or self._reading) and self._epoll is not None:
            self._reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None

    # What the reactor calls

    def logPrefix(self) -> str:
        """How log lines are marked."""
        return "process"

    def fileno(self) -> int:
        """The epoll's own descriptor."""
        return self._epoll.fileno() if self._epoll is not None else -1

    def doRead(self) -> None:
        """Something is ready."""
        assert self._epoll is not None, "the reactor reads us while we watch"
        ready = [self._watched.get(fd) for fd, _ in self._epoll.poll(0)]
        self._reading = True
        try:
            with self._together():
                for watched in ready:
                    if watched is not None:
                        self._tell(watched)
        finally:
            self._reading = False
            self._rest()

    def _tell(self, watched: Watched) -> None:
        try:
            watched.ready()
        except Exception:
            self._log.failure("what a process did could not be handled")
            self._lose(watched)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops."""
        for watched in list(self._watched.values()):
            self._lose(watched)

    def _lose(self, watched: Watched) -> None:
        with self._log.failuresHandled("a process could not be let go"):
            watched.lost()
