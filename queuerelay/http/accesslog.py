"""The access log: one line for each request.

What a line has is in `queuerelay.log_format`: as text the combined format, and behind it
``queue``, ``wait``, ``run``, ``total``, ``end`` and ``id``, each as ``name=value`` without blanks,
in this order; or one object of JSON.

Invariants:

1. Foreign text is escaped; see `queuerelay.log_format`.
2. Lines wait in memory until `FLUSH_BYTES` or one second, and never more than `BUFFER_BYTES`: where
   the disk does not keep up, lines are dropped and counted, and requests go on.
3. Of a line that a full disk cut nothing stays in the file, and each line that is not in it counts
   once as lost.
4. A line is whole in one file, whenever that is renamed and `reopen` is called.
"""

import os
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Final

from twisted.logger import Logger

from queuerelay.log_format import ACCESS, TEXT, Entry
from queuerelay.own_files import open_to_append

FLUSH_BYTES: Final = 64 * 1024
BUFFER_BYTES: Final = 4 * 1024 * 1024


class AccessLog:
    """Writes entries to a file, in batches."""

    _log = Logger()

    def __init__(
        self, path: str, *, wall_clock: Callable[[], float], log_format: str = TEXT
    ) -> None:
        self._path = Path(path)
        self._format = ACCESS[log_format]
        self._wall_clock = wall_clock
        self._file: FileIO | None = None
        self._lines: list[bytes] = []
        self._size = 0
        self._failing = False
        #: Whether the first of the waiting lines is only the rest of a line.
        self._torn = False
        #: Lines that were dropped.
        self.dropped = 0

    def open(self) -> None:
        """Open the file to append to it; raises `OSError`."""
        self._file = open_to_append(self._path)

    def reopen(self) -> None:
        """Write the waiting lines to the open file, and go on in the file that has its name now."""
        self.flush()
        try:
            file = open_to_append(self._path)
        except OSError as error:
            self._log.warn(
                "the access log cannot be opened again, it goes on in the old file: {reason}",
                reason=str(error),
            )
            return
        if self._file is not None:
            self._file.close()
        self._file = file
        if self._torn:
            # The disk was full: the beginning of this line is in the old file.
            _, _, rest = b"".join(self._lines).partition(b"\n")
            self._lines, self._size = [rest] if rest else [], len(rest)
            self._torn = False
            self.dropped += 1

    def add(self, entry: Entry) -> None:
        """Note `entry`; its line is written a little later."""
        line = self._format(entry, self._wall_clock())
        if self._size + len(line) > BUFFER_BYTES:
            self.dropped += 1
            return
        self._lines.append(line)
        self._size += len(line)
        # Where the last write failed, the next try is the timer's: not one for each request.
        if self._size >= FLUSH_BYTES and not self._failing:
            self.flush()

    def flush(self) -> None:
        """Write the lines that wait; they wait on where the file cannot be written."""
        if not self._lines or self._file is None:
            return
        waiting = b"".join(self._lines)
        try:
            # Less than all of it where the disk becomes full.
            written = self._file.write(waiting)
        except OSError as error:
            self._lines = [waiting]
            if not self._failing:
                self._failing = True
                self._log.warn("the access log cannot be written: {reason}", reason=str(error))
            return
        if written:
            whole = waiting.rfind(b"\n", 0, written) + 1
            self._torn = whole != written and not self._take_back(written - whole)
            written = written if self._torn else whole
        rest = waiting[written:]
        self._lines = [rest] if rest else []
        self._size = len(rest)
        if self._failing and not rest:
            self._failing = False
            self._log.warn(
                "the access log can be written again; {dropped} lines were dropped so far",
                dropped=self.dropped,
            )

    def _take_back(self, size: int) -> bool:
        """Take the last `size` bytes out of the file; False where it is none that lets us."""
        assert self._file is not None
        try:
            file = self._file.fileno()
            os.ftruncate(file, os.fstat(file).st_size - size)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Write the rest, and close the file."""
        self.flush()
        self.dropped += sum([line.count(b"\n") for line in self._lines])
        self._lines, self._size = [], 0
        if self.dropped:
            self._log.warn(
                "the access log is not complete: {dropped} lines were lost", dropped=self.dropped
            )
        if self._file is not None:
            self._file.close()
            self._file = None
