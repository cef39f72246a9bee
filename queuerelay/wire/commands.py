"""What is asked of Redis with our scripts: for each its KEYS, its ARGV and what its answer means.

Pure values for any transport: the broker sends them with Twisted, workers with redis-py. The first
argument of each function is `Keys`, then come the keys' variable parts, then the rest. Durations
are in seconds here, and become what the script takes.

Plain commands that both sides send are tuples (`Command`), as both clients take them.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from queuerelay.wire import scripts
from queuerelay.wire.claim import Claim, read_meta
from queuerelay.wire.dead_letter import SHOWN, Excerpt, Requeue
from queuerelay.wire.keys import Keys
from queuerelay.wire.recovery import Drop, Retry, Verdict

#: Seconds that a reply waits where nobody reads it. The relay that reads an inbox renews this, and
#: so does each further reply on a job's list.
REPLY_LIFE: Final = 3600
#: Replies that are kept on a job's list; the oldest are dropped.
MOST_RESULTS: Final = 1000

#: Seconds that a fence is kept from its last raising on; a connection that lives longer raises it
#: again when it is told so.
FENCE_LIFE: Final = 86400

Argument = str | bytes | int | float
#: A command as a client takes it.
Command = tuple[Argument, ...]

_T = TypeVar("_T")


class Call(NamedTuple, Generic[_T]):
    """One run of a script."""

    #: Its name, one of `scripts.NAMES`.
    script: str
    keys: Sequence[str]
    args: Sequence[Argument]
    #: Makes of the answer what it means.
    decode: Callable[[Any], _T]

    def command(self) -> Command:
        """The call of a script that the server knows."""
        return ("EVALSHA", scripts.sha(self.script), len(self.keys), *self.keys, *self.args)

    def whole(self) -> Command:
        """The call with the text of the script; the server knows it from then on."""
        return ("EVAL", scripts.source(self.script), len(self.keys), *self.keys, *self.args)


def load() -> list[Command]:
    """Makes all scripts known to a server."""
    return [("SCRIPT", "LOAD", scripts.source(name)) for name in scripts.NAMES]


# Leases


def claim(
    keys: Keys, queues: Sequence[str], tokens: Sequence[str], *, holder: str, lease: float
) -> Call[list[Claim]]:
    """Take a message for each token, from the first queues that have some and are not paused."""

    def decode(answer: list[Any]) -> list[Claim]:
        now, *found = answer
        return [
            Claim(
                queue=queues[number - 1],
                token=token,
                message=message,
                since=now / 1000,
                holder=holder,
            )
            for token, number, message in zip(tokens, found[::2], found[1::2], strict=False)
        ]

    args: list[Argument] = [_ms(lease), holder, *queues, *tokens]
    return Call("claim", keys.claim(queues), args, decode)


def renew(keys: Keys, queue: str, tokens: Sequence[str], *, lease: float) -> Call[list[bool]]:
    """Prolong leases; gives for each whether it is still held."""
    return Call("renew", keys.lease(queue), [_ms(lease), *tokens], _each_is_one)


def ack(
    keys: Keys, queue: str, token: str, *, reply_to: str | None = None, reply: bytes = b""
) -> Call[bool]:
    """End a lease, and push the reply where there is one; False where the lease was lost."""
    names = keys.lease(queue)
    if reply_to is None:
        return Call("ack", names, [token], _is_one)
    args: list[Argument] = [token, reply, REPLY_LIFE, _most(keys, reply_to)]
    return Call("ack", [*names, reply_to], args, _is_one)


def retry(keys: Keys, queue: str, token: str, message: bytes) -> Call[bool]:
    """End a lease, and put `message` at the head of its queue; False where the lease was lost."""
    return Call("retry", [*keys.lease(queue), keys.queue(queue)], [token, message], _is_one)


def fail(
    keys: Keys,
    queue: str,
    token: str,
    entry: bytes,
    *,
    reply_to: str | None = None,
    reply: bytes | None = None,
) -> Call[bool]:
    """End a lease, append `entry` to the dead letters, and push the reply where there is one;
    False where the lease was lost.
    """
    names = [*keys.lease(queue), keys.failed]
    if reply_to is None or reply is None:
        return Call("fail", names, [token, entry], _is_one)
    args: list[Argument] = [token, entry, reply, REPLY_LIFE, _most(keys, reply_to)]
    return Call("fail", [*names, reply_to], args, _is_one)


def conclude(keys: Keys, queue: str, token: str, verdict: Verdict) -> Call[bool]:
    """End a lease as `verdict` says; False where the lease was lost."""
    if isinstance(verdict, Drop):
        return ack(keys, queue, token)
    if isinstance(verdict, Retry):
        return retry(keys, queue, token, verdict.message)
    return fail(keys, queue, token, verdict.entry, reply_to=verdict.reply_to, reply=verdict.reply)


def delay(keys: Keys, queue: str, token: str, message: bytes, *, seconds: float) -> Call[bool]:
    """End a lease, and keep `message` until it is due; False where the lease was lost."""
    names = [*keys.lease(queue), keys.delayed(queue)]
    return Call("delay", names, [token, message, _ms(seconds)], _is_one)


def reap(
    keys: Keys, queue: str, tokens: str, *, lease: float, most: int, overdue: float = 0.0
) -> Call[list[Claim]]:
    """Take over leases that expired `overdue` seconds ago or more, under new tokens that begin with
    `tokens`.
    """

    def decode(answer: list[list[bytes]]) -> list[Claim]:
        claims = []
        for token, message, meta in answer:
            since, holder = read_meta(meta)
            claims.append(
                Claim(
                    queue=queue,
                    token=token.decode("ascii"),
                    message=message,
                    since=since or 0.0,
                    holder=holder,
                )
            )
        return claims

    args: list[Argument] = [tokens, _ms(lease), most, _ms(overdue)]
    return Call("reap", keys.lease(queue), args, decode)


class Progress(NamedTuple):
    """How things stand with a streamed reply."""

    #: 1 where the frame was pushed, 0 where the lease was lost, 2 where the client has left.
    state: int
    #: Bytes that the client has taken.
    taken: int


def frame(
    keys: Keys, queue: str, token: str, reply_to: str, node_id: str, frame: bytes
) -> Call[Progress]:
    """Push a part of the streamed reply to the request `node_id`; an empty one only looks."""
    names = [keys.inflight(queue), reply_to, keys.gone(node_id), keys.taken(node_id)]
    return Call("frame", names, [token, frame, REPLY_LIFE], Progress._make)


def find(keys: Keys, queues: Sequence[str], token: str) -> list[Command]:
    """What `token` holds on each queue, message or None; then the time.

    For a claim whose answer was lost with its connection.
    """
    return [*(("HGET", keys.inflight(queue), token) for queue in queues), ("TIME",)]


# Fences: what a connection that was given up had sent may come late, and changes nothing then


def fence(key: str, token: str) -> Call[frozenset[int] | None]:
    """Let only the connection with `token` trim or push behind the fence `key`. Gives the numbers
    of pushes that were executed and not heard of; None where the fence was not there.
    """

    def decode(answer: list[Any]) -> frozenset[int] | None:
        was, *fields = answer
        return frozenset(int(field) for field in fields if field != b"token") if was else None

    return Call("fence", [key], [token, FENCE_LIFE], decode)


def trim(key: str, fence_key: str, token: str, count: int) -> Call[None]:
    """Drop `count` items from the head of the list, unless the fence was raised since."""
    return Call("trim", [key, fence_key], [token, count], lambda _: None)


def push(
    key: str,
    fence_key: str,
    token: str,
    number: int,
    notes: Sequence[int],
    messages: Sequence[bytes],
) -> Call[int]:
    """Append `messages` to the list and note `number`, unless the fence was raised since; drop
    the `notes` of earlier pushes. Gives the length of the list.
    """
    return Call("push", [key, fence_key], [token, number, len(notes), *notes, *messages], int)


# Queues


def depth(keys: Keys, queue: str) -> Call[tuple[int, float | None, int, int]]:
    """Length of the queue, Unix seconds at which its oldest message was pushed or None, how many
    are delayed, and how many in flight.
    """
    names = [keys.queue(queue), keys.delayed(queue), keys.inflight(queue)]
    return Call("depth", names, [], _depth)


def _depth(answer: list[Any]) -> tuple[int, float | None, int, int]:
    length, oldest, delayed, inflight = answer
    try:
        oldest_at = float(oldest) if oldest is not None else None
    except ValueError:
        # Anybody may have written the message.
        oldest_at = None
    return length, oldest_at, delayed, inflight


def promote(keys: Keys, queues: Sequence[str], *, most: int) -> Call[int]:
    """Put delayed messages that are due at the head of their queues; gives how many."""
    names = [name for queue in queues for name in (keys.delayed(queue), keys.queue(queue))]
    return Call("promote", names, [most], int)


def pause(keys: Keys, queue: str, by: bytes) -> Call[bool]:
    """Pause a queue; False where it was paused. `by` is who does it, as JSON."""
    return Call("pause", [keys.gate], [queue, by], _is_one)


def is_paused(keys: Keys, queue: str) -> Command:
    """Gives 1 where the queue is paused, else 0."""
    return ("HEXISTS", keys.gate, queue)


class Unanswered(tuple[Argument, ...]):
    """A command that gets no answer."""

    __slots__ = ()


def unheard(command: Command) -> tuple[Command, Command]:
    """Send `command` and have Redis keep its answer."""
    return Unanswered(("CLIENT", "REPLY", "SKIP")), Unanswered(command)


def wait_for(key: str, seconds: float) -> Command:
    """Wait until the list has something, `seconds` at most; gives its first item, or None.

    From its head to its head: nothing moves, so nothing is lost when the answer is.
    """
    return ("BLMOVE", key, key, "LEFT", "LEFT", seconds)


# Inboxes and nodes


class TooLarge(NamedTuple):
    """In place of an item of a list that is too large to be fetched."""

    #: Its bytes.
    size: int
    #: Whom the reply was for, "" where that is not to be seen.
    node_id: str


def peek(
    key: str, first: int, most: int, room: int, *, largest: int
) -> Call[list[bytes | TooLarge]]:
    """`most` items of a list from place `first` on, fewer where they are more than `room` bytes;
    none of more than `largest` bytes is fetched.
    """
    return Call("peek", [key], [first, most, room, largest], _peeked)


def _peeked(answer: Any) -> list[bytes | TooLarge]:
    return [
        TooLarge(item[0], item[1].decode("ascii")) if type(item) is list else item
        for item in answer
    ]


def move(source: str, key: str, most: int) -> Call[int]:
    """Move items from the head of the list `source` to the tail of another; gives how many."""
    return Call("move", [source, key], [most], int)


def beat(
    keys: Keys, node_id: str, snapshot: bytes, *, life: float, inbox_life: float, silence: float
) -> Call[list[str]]:
    """Say that a node lives, and publish its snapshot for `life` seconds; gives the nodes that have
    been silent for longer than `silence`.
    """
    names = [keys.nodes, keys.node(node_id), keys.inbox(node_id)]
    args: list[Argument] = [node_id, snapshot, _ms(life), int(inbox_life), _ms(silence)]
    return Call("beat", names, args, _texts)


def bury(
    keys: Keys, node_id: str, *, silence: float, inbox_life: float, legacy: str | None
) -> Call[bool]:
    """Take a node off the list, unless it spoke within `silence` seconds: then False. What it took
    from the list `legacy` and did not sort goes back.
    """
    names = [keys.nodes, keys.inbox(node_id)]
    if legacy is not None:
        names += [keys.legacy_inbox(node_id), legacy]
    return Call("bury", names, [node_id, _ms(silence), int(inbox_life)], _is_one)


# Dead letters


def failures(
    keys: Keys, start: int, count: int, *, newest: bool, room: int
) -> Call[tuple[int, list[bytes]]]:
    """How many dead letters there are, and `count` of them from the `start`-th on, fewer where they
    are more than `room` bytes.
    """
    args = [start, count, int(newest), room, 0]
    return Call("failures", [keys.failed], args, lambda answer: (answer[0], answer[1:]))


def shown_failures(
    keys: Keys, start: int, count: int, *, newest: bool, room: int
) -> Call[tuple[int, list[bytes | Excerpt]]]:
    """As `failures`, for people to see: of what is large its beginning and its end."""

    def decode(answer: list[Any]) -> tuple[int, list[bytes | Excerpt]]:
        total, *found = answer
        return total, [one if isinstance(one, bytes) else Excerpt(*one) for one in found]

    args = [start, count, int(newest), room, SHOWN]
    return Call("failures", [keys.failed], args, decode)


def prune(keys: Keys, max_count: int, max_bytes: int, before: float) -> Call[int]:
    """Drop the oldest dead letters until they are within these bounds; gives how many."""
    stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(max(0.0, before)))
    return Call("prune", [keys.failed, keys.dropped], [max_count, max_bytes, stamp], int)


def requeue(keys: Keys, entry: bytes, back: Requeue | None = None) -> Call[bool]:
    """Take a dead letter out, and put its message on its queue where `back` is given; False where
    there is no such entry.
    """
    if back is None:
        return Call("requeue", [keys.failed], [entry], _is_one)
    names = [keys.failed, keys.queue(back.queue), keys.queues]
    return Call("requeue", names, [entry, back.message, back.queue], _is_one)


def _most(keys: Keys, reply_to: str) -> int:
    """How many replies the list keeps: a job's is bounded, a relay's inbox (0) loses nothing."""
    return MOST_RESULTS if reply_to.startswith(keys.results) else 0


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def _is_one(answer: Any) -> bool:
    return bool(answer == 1)


def _each_is_one(answer: list[Any]) -> list[bool]:
    return [one == 1 for one in answer]


def _texts(answer: list[bytes]) -> list[str]:
    return [one.decode("utf-8", "replace") for one in answer]
