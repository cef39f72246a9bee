"""How the body of a streamed answer ends: by chunks, by a length, or with its connection."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from queuerelay.errors import ReplyError
from queuerelay.wire.reply import NO_BODY_STATUSES, Reply

#: Zeros before the size of a chunk; sizes of ours have up to 8 digits, and common parsers take 16.
MOST_ZEROS: Final = 6


def has_body(status: int, method: bytes) -> bool:
    """Whether the answer has a body at all (RFC 9110 6.4.1)."""
    return method != b"HEAD" and status not in NO_BODY_STATUSES and status != 205


def without_body(reply: Reply) -> Reply:
    """The first frame as `response.for_reply` takes it, for a header section without a framing of
    ours: but with the length that the worker declared.
    """
    return replace(reply, body=b"")


class Framing:
    """The body of one streamed answer.

    A length that the worker declared is the client's too, as a download shows how much is still to
    come; the body is held to it: what is longer or shorter is broken off (RFC 9112 6.3).
    """

    __slots__ = ("_ahead", "_left", "chunked", "sent", "until_close")

    def __init__(self, *, chunked: bool, length: int | None) -> None:
        self.chunked = chunked
        #: Whether nothing but the end of the connection says that the body has ended.
        self.until_close = length is None and not chunked
        self._left = length
        self._ahead = 0
        #: Bytes of the body that were sent so far.
        self.sent = 0

    def ahead(self) -> bytes:
        """A byte of what comes next, b"" where it is not known: a zero before the size of the next
        chunk (RFC 9112 7.1), of which parsers take a few.
        """
        if not self.chunked or self._ahead == MOST_ZEROS:
            return b""
        self._ahead += 1
        return b"0"

    def encode(self, parts: Sequence[bytes], *, last: bool) -> bytes:
        """What to send for `parts`; with `last` the end too.

        Raises `ReplyError` where the parts do not have the declared length; then none of them may
        be sent.
        """
        size = sum(map(len, parts))
        if self._left is not None:
            self._left -= size
            if self._left < 0:
                raise ReplyError("the body is longer than its Content-Length")
            if last and self._left:
                raise ReplyError("the body is shorter than its Content-Length")
        self.sent += size
        self._ahead = 0
        if not self.chunked:
            return b"".join(parts)
        # An empty chunk would be the end (RFC 9112 7.1).
        pieces: list[bytes] = []
        for part in parts:
            if part:
                pieces += (b"%x\r\n" % len(part), part, b"\r\n")
        if last:
            pieces.append(b"0\r\n\r\n")
        return b"".join(pieces)
