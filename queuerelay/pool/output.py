"""What children print, kept within bounds.

Invariants:

1. A chunk costs time in proportion to its own length, and memory only up to the bounds, however
   much was printed before: a child that prints 2 GB costs no more than one that prints 200 KB.
2. Nothing is lost silently: what is left out is counted.
"""

import re
from typing import Final

from queuerelay.safe_text import safe_lines

_KiB: Final = 1024
#: How much of the beginning and of the end is kept, in bytes each.
HEAD: Final = 64 * _KiB
TAIL: Final = 64 * _KiB
#: How much a child may print, in bytes.
CAP: Final = 64 * _KiB * _KiB
#: Longest line of stderr, in bytes, and how much of its end goes into the attempt's record.
LINE: Final = 4 * _KiB
STDERR_TAIL: Final = 8 * _KiB
#: Lines of stderr that one child may log at once, and in each second after.
BURST: Final = 200
RATE: Final = 50.0

#: Seconds after which a line that was written over may be shown, though it has not ended.
STILL: Final = 30.0

#: Line ends.
_ENDS: Final = re.compile(rb"\r+\n")


class Tail:
    """The last `size` bytes of what is fed."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept = bytearray()

    def feed(self, chunk: bytes | memoryview) -> None:
        """Add `chunk`."""
        if len(chunk) >= self._size:
            self._kept[:] = chunk[len(chunk) - self._size :]
            return
        self._kept += chunk
        # Cut at twice the size, so that each byte is moved once.
        if len(self._kept) > 2 * self._size:
            del self._kept[: -self._size]

    def rewind(self) -> None:
        """Forget the line that has not ended."""
        del self._kept[self._kept.rfind(b"\n") + 1 :]

    def value(self) -> bytes:
        """The last bytes that were fed."""
        return bytes(self._kept[-self._size :])


class Capture:
    """The stdout of one child.

    With `whole` all of it is kept, up to `cap` bytes, for a script whose stdout is an answer;
    without, only its head and its tail. Past `cap` it is never more than head and tail: what else
    was kept is let go.
    """

    def __init__(
        self, *, whole: bool = False, cap: int = CAP, head: int = HEAD, tail: int = TAIL
    ) -> None:
        self._cap = cap
        self._head_size = min(head, cap)
        # One growing array, not a list of chunks: a child may print byte by byte.
        self._kept = bytearray()
        self._room = cap if whole else self._head_size
        self._tail = Tail(tail)
        #: Bytes that were printed.
        self.total = 0

    def feed(self, chunk: bytes) -> None:
        """Add `chunk`, which the child printed."""
        self.total += len(chunk)
        if self.over_limit and self._room > self._head_size:
            self._tail.feed(memoryview(self._kept)[self._head_size :])
            self._kept = self._kept[: self._head_size]
            self._room = self._head_size
        free = self._room - len(self._kept)
        if free >= len(chunk):
            self._kept += chunk
        else:
            rest = memoryview(chunk)
            self._kept += rest[:free]
            self._tail.feed(rest[free:])

    @property
    def over_limit(self) -> bool:
        """Whether it printed more than it may."""
        return self.total > self._cap

    @property
    def left_out(self) -> int:
        """Bytes of the middle that are not kept."""
        return self.total - len(self._kept) - len(self._tail.value())

    def value(self) -> bytes:
        """All that the child printed.

        Raises `ValueError` where some was left out: an answer without its middle is none.
        """
        if self.left_out:
            raise ValueError(f"{self.left_out} of {self.total} bytes were not kept")
        return bytes(self._kept) + self._tail.value()

    def end(self) -> str:
        """The end of the output, as readable text."""
        tail = self._tail.value()[-STDERR_TAIL:]
        if len(tail) < STDERR_TAIL:
            tail = bytes(self._kept[-STDERR_TAIL:] + tail)[-STDERR_TAIL:]
        return end_of(tail, cut=self.total > len(tail))

    def excerpt(self) -> bytes:
        """What was kept of the output, with a line in the place of what was not."""
        gap = b"\n... %d bytes left out ...\n" % self.left_out if self.left_out else b""
        return bytes(self._kept) + gap + self._tail.value()


class Lines:
    """The stderr of one child: lines for the log, and its end for the attempt's record.

    A line that is too long is cut and says so. Of one that is written over, as a progress bar is by
    carriage returns, the last state counts. Of a flood only some lines come out, by a bucket of
    `burst` lines that fills by `rate` a second; `skipped` counts the others. The tail has the end
    of everything.
    """

    def __init__(
        self,
        *,
        longest: int = LINE,
        tail: int = STDERR_TAIL,
        burst: int = BURST,
        rate: float = RATE,
    ) -> None:
        self._longest = longest
        self._tail_size = tail
        self._tail = Tail(tail)
        self._burst = burst
        self._rate = rate
        self._tokens = float(burst)
        self._since: float | None = None
        #: The line that has not ended, up to `longest`, and how much of it was dropped.
        self._line = bytearray()
        self._dropped = 0
        #: Whether what comes next writes over the line, and whether something has.
        self._returned = self._written_over = False
        #: Whether the beginning of the line came out already.
        self._shown = False
        #: Bytes that were printed.
        self.total = 0
        #: Lines that did not come out.
        self.skipped = 0

    def feed(self, chunk: bytes, now: float) -> list[str]:
        """The lines that end in `chunk`, without line ends, at `now` in seconds of any clock."""
        self.total += len(chunk)
        if self._returned or b"\r" in chunk:
            chunk = self._overwritten(chunk)
        self._tail.feed(chunk)
        if self._since is not None:
            gained = (now - self._since) * self._rate
            self._tokens = min(float(self._burst), self._tokens + max(0.0, gained))
        self._since = now
        lines: list[str] = []
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            if self._tokens < 1:
                # The rest is counted without looking at each line.
                last = chunk.rindex(b"\n")
                self.skipped += chunk.count(b"\n", start, last + 1)
                self._line.clear()
                self._dropped = 0
                start = last + 1
                break
            self._add(chunk, start, end)
            if self.unfinished or not self._shown:
                lines.append(self._take())
                self._tokens -= 1
            self._shown = False
            start = end + 1
        self._add(chunk, start, len(chunk))
        return lines

    @property
    def unfinished(self) -> bool:
        """Whether there is a line that has not ended."""
        return bool(self._line or self._dropped)

    def so_far(self, now: float) -> str:
        """What there is of a line that does not end; what follows counts as another. "" for none,
        where there were too many already, and for one that is being written over.
        """
        moving = self._written_over and now - (self._since or 0.0) < STILL
        if not self.unfinished or self._tokens < 1 or moving:
            return ""
        self._tokens -= 1
        self._written_over, self._shown = False, True
        return self._take()

    def finish(self) -> list[str]:
        """The line that has no end, if there is one: the child has closed its stderr."""
        return [self._take()] if self.unfinished else []

    def _overwritten(self, chunk: bytes) -> bytes:
        """The chunk without what is written over; also of the line that has begun."""
        returned = chunk.endswith(b"\r")
        if self._returned:
            chunk = b"\r" + chunk
        # A line's own end may be one of Windows.
        chunk = _ENDS.sub(b"\n", chunk.rstrip(b"\r") if returned else chunk)
        lines = chunk.split(b"\n")
        if b"\r" in lines[0]:
            self._line.clear()
            self._dropped = 0
            self._tail.rewind()
        over = returned or b"\r" in lines[-1]
        self._written_over = over or (self._written_over and len(lines) == 1)
        self._returned = returned
        return b"\n".join(one.rpartition(b"\r")[2] for one in lines)

    def _add(self, chunk: bytes, start: int, end: int) -> None:
        stop = min(end, start + self._longest - len(self._line))
        self._line += chunk[start:stop]
        self._dropped += end - stop

    def _take(self) -> str:
        line = bytes(self._line)
        text = readable(line)
        if self._dropped:
            text += f" [{self._dropped} bytes more]"
        self._line.clear()
        self._dropped = 0
        return text

    def tail(self) -> str:
        """The end of all that was printed, as readable text, line ends kept."""
        if not self.total:
            return ""
        kept = self._tail.value()
        return end_of(kept, cut=self.total > len(kept))


def end_of(kept: bytes, *, cut: bool) -> str:
    """The end of an output as readable text; `cut` says whether there was more before it."""
    if cut:
        # The cut may have gone through a character: drop what is left of it (RFC 3629 3).
        kept = kept[next((i for i in range(min(3, len(kept))) if kept[i] & 0xC0 != 0x80), 0) :]
    return readable(_ENDS.sub(b"\n", kept))


def readable(text: bytes) -> str:
    """`text` as UTF-8, with all else, and controls but tab and line feed, as ``\\x1b``."""
    decoded = text.decode("utf-8", "backslashreplace")
    return safe_lines(decoded)
