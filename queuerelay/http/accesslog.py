"""The access log: one line for each request, in the combined format and a little more.

Behind what the combined format has come ``queue``, ``wait``, ``run``, ``total``, ``end`` and
``id``, each as ``name=value`` without blanks, in this order; ``-`` is what is not known. Programs
that know the combined format stop before them.

Invariants:

1. Foreign text is escaped: no control character and no quote of a client's reaches a line, and no
   blank gets into a field that is not quoted.
2. Lines wait in memory until `FLUSH_BYTES` or one second, and never more than `BUFFER_BYTES`: where
   the disk does not keep up, lines are dropped and counted, and requests go on.
3. Of a line that a full disk cut nothing stays in the file, and each line that is not in it counts
   once as lost.
4. A line is whole in one file, whenever that is renamed and `reopen` is called.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from io import FileIO
from pathlib import Path
from time import gmtime, strftime
from typing import Any, Final, Protocol

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.logger import Logger

from queuerelay.own_files import open_to_append

FLUSH_BYTES: Final = 64 * 1024
BUFFER_BYTES: Final = 4 * 1024 * 1024
_UNSAFE: Final = re.compile(rb'[^\x20-\x7e]|["\\]')
#: Bytes that `_UNSAFE` does not match.
_SAFE: Final = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\')
#: Longest address or queue, in characters.
_LONGEST_NAME: Final = 256
#: Longest foreign text in a line, in bytes.
_LONGEST: Final = 2048


class Fields(Protocol):
    """Header fields, twisted.web's own or the front's."""

    def getRawHeaders(self, name: bytes) -> Any:
        """All values of `name`, None where there is none."""


@dataclass(slots=True, kw_only=True)
class Entry:
    """One request that is over."""

    #: Address of the client as text, "" where it has none, or the peer of its connection.
    client: Any
    method: bytes
    target: bytes
    version: bytes
    status: int
    #: Bytes of the body that was sent.
    length: int
    headers: Fields
    #: X-Request-Id.
    id: bytes
    #: How the request ended: ``answered``, ``expired``, ``gone``, ``refused``, ``aborted`` (the
    #: values of `queuerelay.relay.held.HeldState`), or ``early``, answered before it was complete.
    end: str
    #: Name of the queue, "" for a request that came to none.
    queue: str = ""
    #: Seconds in the queue and in the worker, as the worker measured them; None where it did not.
    wait: float | None = None
    run: float | None = None
    #: Seconds from the complete request to the end of the answer, None where it was never complete
    #: or not held.
    total: float | None = None


def escape(text: bytes) -> bytes:
    """`text` without anything that could end its field or its line."""
    text = text[:_LONGEST]
    # Nearly always, and in a twentieth of the time.
    if not text.translate(None, _SAFE):
        return text
    return _UNSAFE.sub(lambda found: b"\\x%02x" % found.group()[0], text)


@lru_cache(maxsize=1024)
def _word(text: str) -> bytes:
    """`text` as one word."""
    return escape(text[:_LONGEST_NAME].encode()).replace(b" ", b"\\x20") or b"-"


def _time(seconds: float | None) -> bytes:
    return b"-" if seconds is None else b"%.3f" % seconds


class AccessLog:
    """Writes entries to a file, in batches."""

    _log = Logger()

    def __init__(self, path: str, *, wall_clock: Callable[[], float]) -> None:
        self._path = Path(path)
        self._wall_clock = wall_clock
        self._file: FileIO | None = None
        self._lines: list[bytes] = []
        self._size = 0
        self._failing = False
        #: Whether the first of the waiting lines is only the rest of a line.
        self._torn = False
        self._second = -1
        self._time = b""
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
        now = int(self._wall_clock())
        if now != self._second:
            self._second = now
            self._time = strftime("%d/%b/%Y:%H:%M:%S +0000", gmtime(now)).encode("ascii")
        client = entry.client
        if isinstance(client, IPv4Address | IPv6Address):
            client = client.host
        referer = entry.headers.getRawHeaders(b"referer") or (b"-",)
        agent = entry.headers.getRawHeaders(b"user-agent") or (b"-",)
        line = (
            b'%b - - [%b] "%b %b %b" %d %d "%b" "%b" '
            b"queue=%b wait=%b run=%b total=%b end=%b id=%b\n"
        ) % (
            _word(client if isinstance(client, str) else ""),
            self._time,
            escape(entry.method),
            escape(entry.target),
            escape(entry.version),
            entry.status,
            entry.length,
            escape(referer[0]),
            escape(agent[0]),
            _word(entry.queue),
            _time(entry.wait),
            _time(entry.run),
            _time(entry.total),
            entry.end.encode("ascii"),
            escape(entry.id),
        )
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
