"""The daemon's own log: the file of twistd's ``--logfile``, or what the process has for stdout.

twistd's own writer makes a new file for each megabyte and keeps all of them, and ends a line in the
middle where the disk is full.

Invariants:

1. The file is opened when the process has become the user of ``--uid`` (`open`); what is logged
   until then waits for it.
2. Lines are whole. What the file does not take is dropped and counted, and the log says how many
   lines were lost as soon as it can say anything; nobody who logs waits, or gets an error.
3. There are never more than `keep` old files: ``log.1`` is the youngest of them.
"""

import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from typing import Final

from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel
from zope.interface import implementer

from queuerelay.errors import ConfigError
from queuerelay.log_format import EVENT
from queuerelay.own_files import open_to_append

#: Bytes that may wait for the file to be opened.
_EARLY: Final = 1024 * 1024


class LogFile:
    """Lines in one file; `lost` makes the line that says how many others could not be written.

    With `largest` bytes the file gets another name, and `keep` of those are kept; 0 for one file
    that others take away.
    """

    _log = Logger()

    def __init__(self, path: str, *, largest: int, keep: int, lost: Callable[[int], bytes]) -> None:
        self._path = os.path.abspath(path)
        self._largest = largest
        self._keep = keep
        self._lost = lost
        self._file: FileIO | None = None
        #: Whether it is a file on a disk. Pipes and terminals have no end, and no other name.
        self._is_file = False
        #: Bytes in the file; before it is open, in the lines that wait for it.
        self._size = 0
        self._early: list[bytes] = []
        #: The end of a line whose beginning is written.
        self._rest = b""
        #: Lines that were dropped since the log last said so.
        self._dropped = 0

    def open(self) -> None:
        """Open the file, and write what waits for it; nothing where it is open already. Raises
        `ConfigError`.
        """
        if self._file is not None:
            return
        try:
            self._use(open_to_append(self._path))
        except OSError as error:
            raise ConfigError.of("--logfile", self._path, f"a writable file ({error})") from error
        early, self._early = self._early, []
        # Those came after the early ones.
        dropped, self._dropped = self._dropped, 0
        for line in early:
            self.write(line)
        self._dropped += dropped

    def _use(self, file: FileIO) -> None:
        if self._file is not None:
            self._file.close()
        self._file = file
        found = os.fstat(file.fileno())
        self._is_file = stat.S_ISREG(found.st_mode)
        self._size = found.st_size
        if self._rest:
            # Its beginning is in the file before.
            self._rest = b""
            self._dropped += 1

    def write(self, line: bytes) -> None:
        """Write a line, which ends as one; where that cannot be, it is dropped and counted."""
        if self._file is None:
            self._keep_early(line)
            return
        if self._is_file and self._largest and 0 < self._size > self._largest - len(line):
            self.rotate()
        if self._put(b""):
            if self._dropped and self._put(self._lost(self._dropped)):
                self._dropped = 0
            if not self._dropped and self._put(line):
                return
        self._dropped += 1

    def _keep_early(self, line: bytes) -> None:
        if self._size + len(line) > _EARLY:
            self._dropped += 1
        else:
            self._early.append(line)
            self._size += len(line)

    def _put(self, line: bytes) -> bool:
        """Write what is left of the line before, and `line`; whether a part of it is written."""
        assert self._file is not None
        waiting, before = self._rest + line, len(self._rest)
        if not waiting:
            return True
        try:
            written = self._file.write(waiting) or 0
        except (OSError, ValueError):
            return False
        self._size += written
        if written > before or (written == before and not line):
            self._rest = waiting[written:]
            return True
        self._rest = self._rest[written:]
        return False

    def rotate(self) -> None:
        """Go on in a new file: the old one gets the next name. Where it has been taken away by
        somebody else, or is for others to take, only go on in the file that has its name now. A
        device keeps its name.
        """
        if self._largest and self._is_file and self._is_ours():
            try:
                for number in range(self._keep - 1, 0, -1):
                    with suppress(FileNotFoundError):
                        os.replace(f"{self._path}.{number}", f"{self._path}.{number + 1}")
                os.replace(self._path, f"{self._path}.1")
            except OSError as error:
                # Again when as much has come again.
                self._size = 0
                self._log.warn("the log stays one file: {reason}", reason=str(error))
                return
        self.reopen()

    def reopen(self) -> None:
        """Go on in the file that has the name now; where it cannot be opened, in the old one."""
        if self._file is not None and self._is_file:
            with suppress(OSError):
                self._use(open_to_append(self._path))

    def _is_ours(self) -> bool:
        """Whether the name still leads to the file that is open."""
        try:
            named = os.lstat(self._path)
        except OSError:
            return False
        return self._file is not None and os.path.samestat(named, os.fstat(self._file.fileno()))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Stream(LogFile):
    """Lines for what the process has for stdout, such as a pipe to systemd's journal."""

    def __init__(self, fd: int, *, lost: Callable[[int], bytes]) -> None:
        super().__init__("stdout", largest=0, keep=0, lost=lost)
        self._use(FileIO(os.dup(fd), "wb"))

    def open(self) -> None:
        """Do nothing: it is open."""

    def reopen(self) -> None:
        """Do nothing: it has no name that we know."""


@implementer(ILogObserver)
class DaemonLog:
    """What twistd gives the events of the daemon; `log_format` says how its lines look.

    `path` is the file, None for descriptor `stdout`.
    """

    def __init__(
        self, path: str | None, *, stdout: int, log_format: str, largest: int, keep: int
    ) -> None:
        self._format = EVENT[log_format]
        self.file = (
            Stream(stdout, lost=self._lost)
            if path is None
            else LogFile(path, largest=largest, keep=keep, lost=self._lost)
        )

    def open(self) -> None:
        """Open the file; raises `ConfigError`."""
        self.file.open()

    def __call__(self, event: LogEvent) -> None:
        """Write an event."""
        line = self._format(event)
        if line:
            self.file.write(line)

    def _lost(self, count: int) -> bytes:
        return self._format(
            {
                "log_level": LogLevel.warn,
                "log_namespace": __name__,
                "log_time": time.time(),
                "log_format": "{count} lines of this log could not be written",
                "count": count,
            }
        )
