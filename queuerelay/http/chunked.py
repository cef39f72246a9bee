"""The chunked transfer coding (RFC 9112 7.1), as strict as the RFC lets a recipient be.

Pure. The verdict depends on the bytes alone, never on how they were cut into segments. Chunk
extensions and trailer fields are checked and dropped; neither can take more than a bounded amount
of anything.
"""

import re
from enum import Enum
from typing import Final

from queuerelay.errors import BadRequest, BodyTooLarge, HeaderTooLarge
from queuerelay.http.head import TOKEN, HeadLimits, check_field_line

#: Longest line with a chunk's size, in bytes without its end.
SIZE_LINE: Final = 1024
#: Most bytes of all size lines but for the sizes, so that tiny chunks cannot carry a stream of
#: extensions that nobody reads.
EXTENSIONS: Final = 16 * 1024

_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
#: Any number of leading zeros is a valid size, and 16 digits are more than anybody needs.
_SIZE_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,16})((?:[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?)*)"
    % (TOKEN, TOKEN, _QUOTED)
)
#: A size line as nearly all are: without extensions.
_PLAIN_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})\r\n")


class _State(Enum):
    SIZE = 1
    DATA = 2
    DATA_END = 3
    TRAILER = 4


class ChunkedDecoder:
    """Reads one chunked body, in pieces."""

    __slots__ = ("_extensions", "_fields", "_kept", "_left", "_limits", "_room", "_state",
                 "_trailer", "rest")  # fmt: skip

    def __init__(self, limits: HeadLimits, *, max_body: int) -> None:
        self._limits = limits
        self._room = max_body
        self._state = _State.SIZE
        #: The beginning of a line whose end is to come.
        self._kept = b""
        #: Bytes of the chunk that are to come.
        self._left = 0
        self._extensions = self._fields = self._trailer = 0
        #: Bytes that came after the body; None while the body goes on.
        self.rest: bytes | None = None

    def feed(self, data: bytes) -> bytes:
        """The part of the body that is in `data`.

        Raises `Refusal`. A chunk that makes the body too large is refused by its size, before any
        of it.
        """
        if self._kept:
            data, self._kept = self._kept + data, b""
        parts: list[bytes] = []
        at = 0
        while at < len(data) and self.rest is None:
            if self._state is _State.DATA:
                part = data[at : at + self._left]
                parts.append(part)
                at += len(part)
                self._left -= len(part)
                if not self._left:
                    self._state = _State.DATA_END
            elif self._state is _State.DATA_END:
                if not b"\r\n".startswith(data[at : at + 2]):
                    raise BadRequest("a chunk that is longer than its size")
                if len(data) - at < 2:
                    self._kept = data[at:]
                    break
                at += 2
                self._state = _State.SIZE
            elif end := self._whole_chunk(data, at, parts):
                at = end
            else:
                at = self._read_line(data, at)
                if not at:
                    break
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _whole_chunk(self, data: bytes, start: int, parts: list[bytes]) -> int:
        """The end of a chunk that is there as a whole, by a short way; 0 for any other chunk."""
        found = _PLAIN_SIZE.match(data, start) if self._state is _State.SIZE else None
        if found is None:
            return 0
        size = int(found[1], 16)
        end = found.end() + size
        if not 0 < size <= self._room or data[end : end + 2] != b"\r\n":
            return 0
        parts.append(data[found.end() : end])
        self._room -= size
        return end + 2

    def _read_line(self, data: bytes, start: int) -> int:
        """Where the line at `start` ends; 0 where its end is to come, and the line is kept."""
        end = data.find(b"\n", start)
        in_trailer = self._state is _State.TRAILER
        if end < 0:
            kept = self._kept = data[start:]
            length = len(kept) - kept.endswith(b"\r")
            self._check_size(length, len(kept), in_trailer=in_trailer)
            return 0
        crlf = end > start and data[end - 1] == 0x0D
        length = end - start - crlf
        self._check_size(length, end + 1 - start, in_trailer=in_trailer)
        if not crlf:
            raise BadRequest("a line that ends without CR")
        line = data[start : end - 1]
        if not in_trailer:
            self._begin_chunk(line)
        elif line:
            self._fields += 1
            self._trailer += end + 1 - start
            if self._fields > self._limits.max_fields:
                raise HeaderTooLarge(f"more than {self._limits.max_fields} trailer fields")
            check_field_line(line)
        else:
            self.rest = data[end + 1 :]
        return end + 1

    def _check_size(self, line: int, all: int, *, in_trailer: bool) -> None:
        limits = self._limits
        if not in_trailer:
            if line > SIZE_LINE:
                raise BadRequest(f"a chunk size of more than {SIZE_LINE} bytes")
        elif line > limits.max_line or self._trailer + all > limits.max_header:
            raise HeaderTooLarge("the trailer section")

    def _begin_chunk(self, line: bytes) -> None:
        found = _SIZE_LINE.fullmatch(line)
        if found is None:
            raise BadRequest("a chunk size that is none (RFC 9112 7.1)")
        self._extensions += len(found[2])
        if self._extensions > EXTENSIONS:
            raise BadRequest(f"more than {EXTENSIONS} bytes of chunk extensions")
        size = int(found[1], 16)
        if size > self._room:
            raise BodyTooLarge("in chunks")
        self._room -= size
        self._left = size
        self._state = _State.DATA if size else _State.TRAILER
