"""Our ends of a process's pipes.

An input that the reactor watches is closed in a later turn of it: closed earlier, its number could
be given to a new pipe, which would then get the events that still wait for the old one. All else is
watched by `watch`, which has no such trouble.
"""

import os
from typing import Any, Final, Protocol

from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.main import CONNECTION_LOST
from twisted.python.failure import Failure

from queuerelay.processes.watch import Watch

#: Bytes read from one pipe in one turn of the reactor; a pipe holds as much.
READ_SIZE: Final = 65536

DONE: Final = Failure(ConnectionDone())
ABORTED: Final = Failure(ConnectionAborted())


class Owner(Protocol):
    """The process whose pipes these are."""

    reactor: Any
    watch: Watch

    def received(self, name: int, data: bytes) -> None:
        """Output came on the pipe `name`."""

    def pipe_closed(self, name: int) -> None:
        """The pipe `name` is closed."""


class Output:
    """Our end of a pipe that the process writes to."""

    def __init__(self, process: Owner, name: int, fd: int) -> None:
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
        """Close the pipe in a later turn, as transports do; what is unread is lost."""
        self.stop()
        self._process.reactor.callLater(0, self.lost)

    abort = close

    def lost(self) -> None:
        if self._fd != -1:
            self.stop()
            os.close(self._fd)
            self._fd = -1
            self._process.pipe_closed(self._name)


class Input(FileDescriptor):
    """Our end of a pipe that the process reads from: buffered, for a producer if there is one."""

    def __init__(self, process: Owner, name: int, fd: int) -> None:
        super().__init__(process.reactor)
        self._process = process
        self._name = name
        self._fd = fd
        self._begun = False
        #: Whether bytes are left to be written.
        self._unwritten = False
        self.connected = 1

    def logPrefix(self) -> str:
        return "process"

    def fileno(self) -> int:
        return self._fd

    def startWriting(self) -> None:
        self._unwritten = True
        super().startWriting()

    def stopWriting(self) -> None:
        self._unwritten = False
        super().stopWriting()

    def start(self) -> None:
        """Watch for the process closing its end: a poller says so to readers too.

        Mostly all is written and the pipe is to be closed already; then the reactor never hears of
        it.
        """
        self._begun = True
        if not self.disconnecting:
            self.startReading()
        elif self._idle:
            self.connectionLost(DONE)

    def doRead(self) -> Exception:
        # A pipe's writing end is never readable: this is how select(2) says that it broke.
        return CONNECTION_LOST

    @property
    def _idle(self) -> bool:
        """Whether nothing is left to be written, and no producer is about to give more."""
        return not self._unwritten and self.producer is None

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
        """Close the pipe when all is written."""
        if not self._idle:
            self.loseConnection()
        elif self.connected and not self.disconnecting:
            self.disconnecting = 1
            if self._begun:
                self.stopReading()
                self._process.reactor.callLater(0, self.connectionLost, DONE)

    def abort(self) -> None:
        """Close the pipe in a later turn; what is unwritten is lost."""
        if self.connected:
            self.disconnecting = 1
            self.stopReading()
            self.stopWriting()
            self._process.reactor.callLater(0, self.connectionLost, ABORTED)

    def lost(self) -> None:
        self.connectionLost(ABORTED)

    def connectionLost(self, reason: Failure) -> None:
        if self._fd != -1:
            super().connectionLost(reason)
            os.close(self._fd)
            self._fd = -1
            # Nobody knows us any more, and what is unwritten goes with us.
            self._process.pipe_closed(self._name)
