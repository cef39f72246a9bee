"""Request line and header section of a request (RFC 9112 2 to 7), judged as a whole.

Pure: bytes in, a `Head` or a `Refusal` out.

Invariants:

1. The verdict depends on the bytes alone, never on how they were cut into segments: the first line
   that is wrong decides, and within a line its size comes before its content.
2. What could be read in two ways is refused, not repaired. Nothing is stripped but SP and HTAB
   around a field value (RFC 9110 5.5), and no number is made of anything but ASCII digits.
3. Nothing is kept beyond the limits, whatever is sent.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from queuerelay.errors import (
    BadRequest,
    ExpectationFailed,
    HeaderTooLarge,
    MethodNotAllowed,
    NotSupported,
    Refusal,
    TargetTooLong,
    VersionNotSupported,
)

#: One header field in the order of arrival: its name in lower case, and its value.
Field = tuple[bytes, tuple[bytes]]

#: RFC 9112 2.2: empty lines before a request are ignored, up to so many.
EMPTY_LINES: Final = 8

#: Bytes at the beginning of a request in which another protocol shows.
METHOD_LOOK: Final = 32

#: A token (RFC 9110 5.6.2).
TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
#: Text of a field value (RFC 9110 5.5): it may have bytes of 0x80 and more (obs-text), and no
#: control but HTAB.
TEXT: Final = rb"[\t\x20-\x7e\x80-\xff]"
#: RFC 9112 3.2, RFC 3986: visible ASCII without "#". Bytes of 0x80 and more are not a URI.
_TARGET: Final = rb"[!\"$-~]+"

_WHOLE: Final = re.compile(
    rb"(%b) (%b) HTTP/1\.([01])\r\n((?:%b:%b*\r\n)*)\r\n" % (TOKEN, _TARGET, TOKEN, TEXT)
)
_FIELD: Final = re.compile(rb"(%b):(%b*)\r\n" % (TOKEN, TEXT))
_FIELD_LINE: Final = re.compile(rb"%b:%b*" % (TOKEN, TEXT))
#: What a request line can begin with, or an empty line before it.
_METHOD_SO_FAR: Final = re.compile(rb"\r?\n|\r?\Z|%b(?:[ \r\n]|\Z)" % TOKEN)
_REQUEST_LINE: Final = re.compile(rb"(%b) (%b) HTTP/([0-9])\.([0-9])" % (TOKEN, _TARGET))
#: RFC 9110 7.2, RFC 3986 3.2.2; an empty host makes an invalid URI (RFC 9110 4.2.1), and user
#: information is an error there (4.2.4).
_AUTHORITY: Final = re.compile(
    rb"(?:(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+|\[[0-9A-Fa-f:.]+\])"
    rb"(?::(?:[0-9]{0,4}|[0-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
)
_ABSOLUTE: Final = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?]*)(.*)")
#: RFC 9110 8.6, as many digits as any length that could be meant.
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
#: RFC 9112 7: the name of a transfer coding, and what may follow it.
_CODING: Final = re.compile(rb"[ \t]*(%b)[ \t]*(;[^,]*)?" % TOKEN)

#: The fields that decide how a request is read.
_READ: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"}
)
_REFUSED: Final = frozenset({b"CONNECT", b"TRACE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLimits:
    """How large a head may be."""

    #: Bytes of one line, without its end.
    max_line: int = 8 * 1024
    #: Bytes of all lines with their ends, the request line and the last, empty line among them.
    max_header: int = 32 * 1024
    #: Header fields.
    max_fields: int = 100


class Head:
    """Request line and header section of one request, and what they say of its body."""

    __slots__ = (
        "continues",
        "fields",
        "keep_alive",
        "length",
        "method",
        "refusal",
        "target",
        "version",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        version: bytes,
        fields: list[Field],
        length: int | None = 0,
        keep_alive: bool = True,
        continues: bool = False,
        refusal: Refusal | None = None,
    ) -> None:
        self.method = method
        #: Path and query, or ``*``.
        self.target = target
        #: ``HTTP/1.0`` or ``HTTP/1.1``.
        self.version = version
        self.fields = fields
        #: Bytes of the body, None for a chunked one.
        self.length = length
        #: Whether the client wants to keep the connection.
        self.keep_alive = keep_alive
        #: Whether the client waits for a 100 before it sends the body.
        self.continues = continues
        #: The refusal that answers the request; None for one that is all right so far.
        self.refusal = refusal


def read_head(data: bytes, limits: HeadLimits) -> tuple[Head, int] | None:
    """The head that `data` begins with, and where it ends.

    The short way for what nearly every request is: whole, valid, and of moderate size. None for
    all else, which is a `HeadReader`'s.
    """
    found = _WHOLE.match(data, 0, limits.max_line)
    if found is None:
        return None
    method, target, minor, section = found.groups()
    fields = _FIELD.findall(section)
    if len(fields) > limits.max_fields:
        return None
    return _judged(method, target, minor, fields), found.end()


class HeadReader:
    """A head that comes in pieces, or is not as it should be."""

    __slots__ = (
        "_buffer",
        "_empty",
        "_fields",
        "_limits",
        "_line",
        "_searched",
        "_start",
    )

    def __init__(self, limits: HeadLimits) -> None:
        self._limits = limits
        self._buffer = bytearray()
        #: Where the line that is being read begins, and how far its end was looked for.
        self._start = self._searched = 0
        self._empty = 0
        self._line: tuple[bytes, bytes, bytes] | None = None
        self._fields: list[tuple[bytes, bytes]] = []

    @property
    def request_line(self) -> tuple[bytes, bytes, bytes] | None:
        """Method, target and version, once they were read and found valid."""
        if self._line is None:
            return None
        method, target, minor = self._line
        return method, target, b"HTTP/1." + minor

    @property
    def weight(self) -> int:
        """Bytes of memory that this takes, about."""
        # A field is two bytes objects in a tuple, beside the buffer.
        return 2 * len(self._buffer) + 160 * len(self._fields)

    @property
    def begun(self) -> bool:
        """Whether a part of a request was read; empty lines are no part."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> tuple[Head, bytes] | None:
        """The head and what comes after it once `data` completes it, else None.

        Raises `Refusal` at the first line that is wrong.
        """
        buffer = self._buffer
        buffer += data
        while True:
            if self._line is None:
                self._check_protocol()
            start, end = self._start, buffer.find(b"\n", self._searched)
            if end < 0:
                self._searched = len(buffer)
                # A CR at the end may be that of the line's end.
                self._check_size(len(buffer) - start - buffer.endswith(b"\r"), len(buffer))
                return None
            crlf = end > start and buffer[end - 1] == 0x0D
            self._check_size(end - start - crlf, end + 1)
            if not crlf:
                raise BadRequest("a line that ends without CR")
            self._start = self._searched = end + 1
            line = bytes(buffer[start : end - 1])
            if self._line is None:
                if line:
                    self._line = _request_line(line)
                else:
                    self._skip_empty()
            elif line:
                self._add_field(line)
            else:
                return _judged(*self._line, self._fields), bytes(buffer[end + 1 :])

    def _check_protocol(self) -> None:
        # Other protocols may have no end of a line for long: TLS, to begin with.
        so_far = bytes(self._buffer[self._start : self._start + METHOD_LOOK])
        if _METHOD_SO_FAR.match(so_far) is None:
            raise BadRequest("a request line that is none (RFC 9112 3)")

    def _check_size(self, line: int, all: int) -> None:
        limits = self._limits
        if line > limits.max_line:
            if self._line is None:
                raise TargetTooLong(f"more than {limits.max_line} bytes")
            raise HeaderTooLarge(f"a line of more than {limits.max_line} bytes")
        if all > limits.max_header:
            raise HeaderTooLarge(f"more than {limits.max_header} bytes")

    def _skip_empty(self) -> None:
        self._empty += 1
        if self._empty > EMPTY_LINES:
            raise BadRequest(f"more than {EMPTY_LINES} empty lines before a request")
        del self._buffer[: self._start]
        self._start = self._searched = 0

    def _add_field(self, line: bytes) -> None:
        if len(self._fields) >= self._limits.max_fields:
            raise HeaderTooLarge(f"more than {self._limits.max_fields} fields")
        check_field_line(line)
        name, _, value = line.partition(b":")
        self._fields.append((name, value))


def check_field_line(line: bytes) -> None:
    """Raise `BadRequest` for a line that is no header field; folded ones (obs-fold) are none."""
    if _FIELD_LINE.fullmatch(line) is None:
        raise BadRequest("a header field that is none (RFC 9112 5)")


def _request_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise BadRequest("a request line that is none (RFC 9112 3)")
    method, target, major, minor = found.groups()
    # HTTP/1.2 might be treated as 1.1 (RFC 9110 2.5); there is none, so who says so is no client.
    if line == b"PRI * HTTP/2.0":
        # The preface of HTTP/2 (RFC 9113 3.4), made to be no request.
        raise BadRequest("HTTP/2")
    if major != b"1" or minor not in (b"0", b"1"):
        raise VersionNotSupported
    return method, target, minor


def _judged(method: bytes, target: bytes, minor: bytes, lines: list[tuple[bytes, bytes]]) -> Head:
    """The head with these parts, each of which is valid by itself."""
    fields: list[Field] = []
    read: dict[bytes, list[bytes]] = {}
    for written, text in lines:
        name, value = written.lower(), text.strip(b" \t")
        fields.append((name, (value,)))
        if name in _READ:
            if name in read:
                read[name].append(value)
            else:
                read[name] = [value]
    if (
        minor == b"1"
        and len(read) == 1
        and b"host" in read
        and target[0] == 0x2F
        and method not in _REFUSED
        and len(read[b"host"]) == 1
        and _AUTHORITY.fullmatch(read[b"host"][0])
    ):
        return Head(method, target, b"HTTP/1.1", fields)
    return _with_all(Head(method, target, b"HTTP/1." + minor, fields), read)


def _with_all(head: Head, read: dict[bytes, list[bytes]]) -> Head:
    """`head`, completed by the fields in `read`, or with its refusal."""
    new = head.version == b"HTTP/1.1"
    options = _options(read.get(b"connection", ()))
    head.keep_alive = b"close" not in options and (new or b"keep-alive" in options)
    try:
        _settle_host(head, read.get(b"host", []))
        head.length = _length(read, new=new)
        _check_method(head.method)
        _check_codings(read.get(b"transfer-encoding", ()))
        expected = _options(read.get(b"expect", ()))
        if expected - {b"100-continue"} or (b"expect" in read and not expected):
            raise ExpectationFailed
        # RFC 9110 10.1.1: an expectation of HTTP/1.0 is ignored.
        head.continues = bool(expected) and new and head.length != 0
    except Refusal as refusal:
        head.refusal = refusal
    return head


def _options(values: Sequence[bytes]) -> set[bytes]:
    """The members of a list field, lower-case (RFC 9110 5.6.1)."""
    return {one.strip(b" \t") for one in b",".join(values).lower().split(b",")} - {b""}


def _settle_host(head: Head, hosts: list[bytes]) -> None:
    """Leave one valid ``Host``, and a target in origin-form or asterisk-form (RFC 9112 3.2)."""
    if len(hosts) > 1:
        raise BadRequest("more than one Host")
    if hosts:
        _check_authority(hosts[0])
    elif head.version == b"HTTP/1.1":
        raise BadRequest("no Host")
    target = head.target
    if head.method == b"CONNECT" or target.startswith(b"/"):
        return
    if target == b"*":
        if head.method != b"OPTIONS":
            raise BadRequest("a target of * is for OPTIONS only")
        return
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise BadRequest("a target in none of the forms of RFC 9112 3.2")
    authority, rest = absolute.groups()
    _check_authority(authority)
    if not rest.startswith(b"/"):
        # RFC 9112 3.2.4: this is how OPTIONS * looks to a proxy.
        rest = b"*" if head.method == b"OPTIONS" and not rest else b"/" + rest
    head.target = rest
    # RFC 9112 3.2.2: Host is ignored, and replaced.
    fields = [(name, (authority,)) if name == b"host" else (name, value)
              for name, value in head.fields]  # fmt: skip
    if not hosts:
        fields.insert(0, (b"host", (authority,)))
    head.fields = fields


def _check_authority(authority: bytes) -> None:
    if _AUTHORITY.fullmatch(authority) is None:
        raise BadRequest("a host that is none (RFC 9110 7.2)")


def _length(read: dict[bytes, list[bytes]], *, new: bool) -> int | None:
    """Bytes of the body, None for a chunked one (RFC 9112 6.3)."""
    lengths = read.get(b"content-length")
    if b"transfer-encoding" in read:
        # Either is an attempt to be read in two ways (RFC 9112 6.1, 11.2).
        if not new:
            raise BadRequest("Transfer-Encoding in HTTP/1.0")
        if lengths is not None:
            raise BadRequest("Transfer-Encoding and Content-Length")
        return None
    if lengths is None:
        return 0
    # RFC 9110 8.6 would let equal ones pass.
    if len(lengths) > 1 or _LENGTH.fullmatch(lengths[0]) is None:
        raise BadRequest("a Content-Length that is none")
    return int(lengths[0])


def _check_method(method: bytes) -> None:
    if method == b"CONNECT":
        raise NotSupported("CONNECT")
    if method == b"TRACE":
        raise MethodNotAllowed("TRACE")


def _check_codings(values: Sequence[bytes]) -> None:
    """Refuse all transfer codings but ``chunked``, once and alone (RFC 9112 6.1, 7)."""
    if not values or (values[0].lower() == b"chunked" and len(values) == 1):
        return
    codings = []
    for one in b",".join(values).lower().split(b","):
        found = _CODING.fullmatch(one)
        if found is None or found[1] == b"identity" or (found[1] == b"chunked" and found[2]):
            raise BadRequest("a transfer coding that is none (RFC 9112 7)")
        codings.append(found[1])
    if b"chunked" in codings[:-1]:
        raise BadRequest("chunked is not the last transfer coding, or not the only one of its kind")
    raise NotSupported("a transfer coding")
