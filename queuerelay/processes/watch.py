"""Watches descriptors for a reactor, as one descriptor of the reactor's: an epoll within its own.

A short process has three to watch, for a millisecond; what a reactor does for each descriptor that
comes and goes costs more than reading it.

1. What is ready is looked up before the first of it is handled, and told only what is watched
   still: a number that is closed and given to a new pipe meanwhile never gets what was meant for
   the old one.
2. Whoever closes a descriptor forgets it first: the kernel would watch on for as long as anybody
   else, a forked process for one, holds the same pipe.
3. What is ready is handled within one `together`, so that what several processes lead to can leave
   us as one.
4. There is a descriptor of ours, and the reactor reads it, while there is something to watch.
"""

import select
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer


class WatchedDescriptor(Protocol):
    """The owner of a descriptor that is watched."""

    def ready(self) -> None:
        """The descriptor can be read, or its other end is closed; never after it was forgotten."""

    def lost(self) -> None:
        """The descriptor is no longer watched: the reactor stops, or `ready` raised."""


class Watch:
    """Tells each `WatchedDescriptor` when its descriptor is ready."""

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorFDSet,
        together: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._reactor = reactor
        self._together = together
        self._epoll: _Epoll | None = None
        self._watched: dict[int, WatchedDescriptor] = {}

    def add(self, fd: int, watched: WatchedDescriptor) -> None:
        """Watch `fd` from now on; nothing if it is watched. Raises `OSError` where the kernel
        cannot.
        """
        if self._watched.get(fd) is watched:
            return
        if self._epoll is None:
            epoll = _Epoll(self)
            try:
                self._reactor.addReader(epoll)
            except BaseException:
                epoll.descriptors.close()
                raise
            self._epoll = epoll
        try:
            self._epoll.descriptors.register(fd, select.EPOLLIN)
        except BaseException:
            self._rest()
            raise
        self._watched[fd] = watched

    def forget(self, fd: int) -> None:
        """Watch `fd` no longer; nothing if it is not watched."""
        if self._watched.pop(fd, None) is not None:
            assert self._epoll is not None
            self._epoll.descriptors.unregister(fd)
            self._rest()

    def _rest(self) -> None:
        if not self._watched and self._epoll is not None:
            epoll, self._epoll = self._epoll, None
            self._reactor.removeReader(epoll)
            epoll.descriptors.close()

    def tell(self, numbers: Iterable[int]) -> None:
        """Handle the descriptors of these numbers, which are ready."""
        ready = [(fd, self._watched.get(fd)) for fd in numbers]
        with self._together():
            for fd, watched in ready:
                # Another one of this turn may have seen to it.
                if watched is None or self._watched.get(fd) is not watched:
                    continue
                try:
                    watched.ready()
                except Exception:
                    self._log.failure("what a process did could not be handled")
                    self._lose(watched)

    def lose(self) -> None:
        """Forget all descriptors, as the reactor stops."""
        for watched in list(self._watched.values()):
            self._lose(watched)

    def _lose(self, watched: WatchedDescriptor) -> None:
        with self._log.failuresHandled("a process could not be let go"):
            watched.lost()


@implementer(IReadDescriptor)
class _Epoll:
    """An epoll as the reactor sees it. Each is used once: a reactor may give up one that it finds
    closed, also where there has long been another.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.descriptors = select.epoll()

    def logPrefix(self) -> str:
        return "process"

    def fileno(self) -> int:
        return -1 if self.descriptors.closed else self.descriptors.fileno()

    def doRead(self) -> None:
        self._watch.tell([fd for fd, _ in self.descriptors.poll(0)])

    def connectionLost(self, reason: Failure) -> None:
        if not self.descriptors.closed:
            self._watch.lose()
