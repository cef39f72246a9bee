"""The same bytes as h11, httptools (llhttp) and our front read them, and where they may not differ.

Who refuses more than another is not wrong. But two that accept must agree on where each request
ends, or one of them can be made to see a request that the other one does not.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import h11
import httptools

from queuerelay.http.connections import ClientLimits
from tests.hostile.corpus import CASES, NEXT
from tests.unit.relay.recorder import feed, recording_front


@dataclass(frozen=True, slots=True)
class Reading:
    """What a parser made of some bytes."""

    #: Method and body of each complete request.
    messages: tuple[tuple[bytes, bytes], ...]
    #: Why there are no more: ``end`` of the bytes, ``partial``, or ``stopped``, which says nothing
    #: about what came after: it was refused, or the connection was over.
    why: str


_front, _relay = recording_front(ClientLimits())


def by_us(data: bytes) -> Reading:
    """As our front reads it."""
    verdict = feed(_front, _relay, data)
    messages = tuple((m.method.encode("latin-1"), m.body) for m in verdict.messages)
    why = "stopped" if verdict.closed else "partial" if verdict.partial else "end"
    return Reading(messages, why)


def by_h11(data: bytes) -> Reading:
    """As h11 reads it."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024)
    messages: list[tuple[bytes, bytes]] = []
    method, body = b"", bytearray()
    try:
        connection.receive_data(data)
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                method, body = event.method, bytearray()
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                messages.append((method, bytes(body)))
                connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    return Reading(tuple(messages), "stopped")
                connection.start_next_cycle()
            elif event is h11.NEED_DATA:
                begun = connection.their_state is not h11.IDLE
                # Empty lines are nothing.
                rest = connection.trailing_data[0].strip(b"\r\n")
                return Reading(tuple(messages), "partial" if begun or rest else "end")
            else:
                return Reading(tuple(messages), "stopped")
    except h11.ProtocolError:
        return Reading(tuple(messages), "stopped")


class _Listener:
    """What httptools tells."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bytes]] = []
        self.begun = self.closing = False
        self.body = bytearray()
        self.parser: Any = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        """A request begins."""
        self.begun = True
        self.body = bytearray()

    def on_body(self, body: bytes) -> None:
        """A part of its body."""
        self.body += body

    def on_message_complete(self) -> None:
        """It is complete."""
        self.begun = False
        self.messages.append((self.parser.get_method(), bytes(self.body)))
        self.closing = self.closing or not self.parser.should_keep_alive()


def by_httptools(data: bytes) -> Reading:
    """As httptools reads it."""
    listener = _Listener()
    try:
        listener.parser.feed_data(data)
    except httptools.HttpParserError:
        return Reading(tuple(listener.messages), "stopped")
    except httptools.HttpParserUpgrade:
        # It leaves what comes behind the head to the new protocol, a body among it.
        return Reading(tuple(listener.messages[:-1]), "stopped")
    why = "stopped" if listener.closing else "partial" if listener.begun else "end"
    return Reading(tuple(listener.messages), why)


PARSERS = {"h11": by_h11, "httptools": by_httptools}


def disagreement(ours: Reading, theirs: Reading) -> str | None:
    """What cannot be true of both; None where they may both be right."""
    both = min(len(ours.messages), len(theirs.messages))
    for number, (one, other) in enumerate(
        zip(ours.messages[:both], theirs.messages[:both], strict=True), 1
    ):
        if one != other:
            return f"request {number} is {one!r} or {other!r}"
    for longer, shorter, who in ((ours, theirs, "they"), (theirs, ours, "we")):
        if len(longer.messages) > both and shorter.why != "stopped":
            return f"{who} wait for the end of request {both + 1}, or see none"
    return None


def disagreements(data: bytes) -> list[str]:
    """What any of them and we cannot both be right about."""
    ours = by_us(data)
    found = []
    for name, parser in PARSERS.items():
        difference = disagreement(ours, parser(data))
        if difference is not None:
            found.append(f"{name}: {difference}")
    return found


# --- Mutations -----------------------------------------------------------------------------------

#: What requests are made of.
SEEDS: Sequence[bytes] = [
    case.data + NEXT
    for case in CASES
    if len(case.data) < 400
    # Who is refused says little: two of three are accepted as they stand.
    for _ in range(5 if case.status is None else 1)
]
#: What has been known to be read in two ways.
TOKENS: Sequence[bytes] = [
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b"\x0b", b"\x0c", b"\x00", b"\xa0", b"\x85", b"\x1c"),
    *(b",", b";", b":", b'"', b"=", b"+", b"-", b"_", b"0", b"1", b"3", b"00", b"0x", b"a", b"f"),
    *(
        b"\r\n\r\n",
        b"\n\n",
        b"\r\n ",
        b"\r\r\n",
        b"0\r\n\r\n",
        b"3\r\nabc\r\n",
        b"GET / HTTP/1.1\r\n",
    ),
    *(b"Host: a\r\n", b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Connection: close\r\n"),
    *(b"Content-Length:", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n"),
    *(
        b"Transfer-Encoding:",
        b"chunked",
        b"identity",
        b"gzip",
        b", chunked",
        b"HTTP/1.0",
        b"HTTP/1.1",
    ),
    *(
        b"X: ",
        b"\xff",
        b"\x7f",
        b"abc",
        NEXT,
        b"Expect: 100-continue\r\n",
        b"\xef\xbc\x93",
        b"5000000000",
    ),
]


def mutation(program: bytes) -> bytes:
    """The request that `program` makes: of a seed, with another one behind it now and then, and of
    changes. Two bytes choose the seed, one the other, and four each change: its kind, its place
    (two bytes) and its token.
    """
    number = int.from_bytes(program[:2], "big")
    other = program[2] if len(program) > 2 else 1
    data = bytearray(SEEDS[number % len(SEEDS)])
    if other % 4 == 0:
        data += SEEDS[(number * 7 + other) % len(SEEDS)]
    for start in range(3, len(program) - 3, 4):
        kind, high, low, token = program[start : start + 4]
        at = (high << 8 | low) % (len(data) + 1)
        text = TOKENS[token % len(TOKENS)]
        match kind % 8:
            case 0 | 1:
                data[at:at] = text
            case 2:
                data[at : at + len(text)] = text
            case 3:
                del data[at : at + 1 + token % 12]
            case 4:
                data[at:at] = data[at : at + 1 + token % 40]
            case 5 if at < len(data):
                data[at] ^= 1 << token % 8
    return bytes(data[:4096])


def random_mutation(source: random.Random) -> bytes:
    """A mutation from `source`."""
    return mutation(source.randbytes(3 + 4 * source.choice((0, 1, 1, 1, 2, 2, 3, 5))))
