"""The records that a broker gives, and the figures that all its users share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from queuerelay.wire import dead_letter
from queuerelay.wire.storage import Storage

#: Seconds without a beat after which a node counts as dead.
NODE_SILENCE = 30.0
#: Seconds between two beats of a node.
BEAT_INTERVAL = 2.0
#: Seconds that a node's snapshot outlives its last beat.
SNAPSHOT_LIFE = 10.0
#: Seconds that an order waits for its node, and its reports for whoever gave it.
ORDER_LIFE = 30
#: Most orders that wait for one node; older ones are dropped.
MOST_ORDERS = 64
#: Longest wait for a bell, in seconds: after it the caller looks for itself.
BELL_WAIT = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDepth:
    """How much waits on a queue."""

    #: Messages on the queue, in-flight ones not among them.
    length: int
    #: Unix seconds at which the oldest was pushed, None where the queue is empty or does not say.
    oldest_at: float | None = None
    #: Messages that wait for their time, to be tried again.
    delayed: int = 0
    #: Messages that somebody has claimed.
    inflight: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A paused queue: its messages are not claimed, and relays keep new ones for themselves."""

    #: Unix seconds, by Redis, since when; 0 where unknown.
    since: float
    #: Who paused it, as they named themselves; "" where unknown.
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterEntry:
    """A dead letter: one entry of ``resque:failed``."""

    #: Place in the list, from 0 for the oldest, when it was read. It changes when others are taken
    #: out, so it is for people to see and never names the entry.
    index: int
    #: Names the entry: the SHA-1 of its bytes, 40 hex digits. Equal entries share it.
    id: str
    #: The entry's exact bytes; None where they are too many for a page.
    raw: bytes | None
    #: How many bytes the entry has.
    size: int
    #: The entry decoded, a large one as far as it was given; None where it is no JSON object.
    entry: Mapping[str, Any] | None
    #: The id of the message that failed, "" where the entry does not say.
    message_id: str = ""

    @classmethod
    def of(cls, found: "bytes | dead_letter.Excerpt", index: int) -> "DeadLetterEntry":
        """The entry that was `found` at `index`, as people see it."""
        if isinstance(found, bytes) and len(found) > dead_letter.SHOWN:
            found = dead_letter.Excerpt.of(found)
        entry = dead_letter.decode_entry(found) if isinstance(found, bytes) else found.decode()
        return cls(
            index=index,
            id=dead_letter.entry_id(found) if isinstance(found, bytes) else found.id,
            raw=found if isinstance(found, bytes) else None,
            size=len(found) if isinstance(found, bytes) else found.size,
            entry=entry,
            message_id=dead_letter.message_id(entry),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterPage:
    """A part of the dead letters."""

    #: How many there are in all.
    total: int
    #: Those asked for; fewer where they are large, so the next page begins behind these.
    items: Sequence[DeadLetterEntry]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeBeat:
    """What a node on the list has said."""

    #: Seconds since its last beat, by the clock of Redis.
    age: float
    #: What it published, None where that is too long ago.
    snapshot: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongType:
    """A key of ours or of Resque's that somebody else has made something else of."""

    key: str
    #: As TYPE calls it: ``list``, ``hash``, ``zset``.
    type: str
    #: What it should be.
    expected: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What Redis knows of everybody. A part that Redis did not tell is as if there were none."""

    #: Seconds that the first round trip took.
    latency: float = 0.0
    #: ``Redis 7.0.15``, ``Valkey 9.1.0``; None where it does not say.
    version: str | None = None
    #: Its memory and its disk.
    storage: Storage = field(default_factory=Storage)
    nodes: Mapping[str, NodeBeat] = field(default_factory=dict)
    #: Queues that somebody has ever pushed to, sorted.
    queues: Sequence[str] = ()
    #: Ids of Resque workers, sorted.
    workers: Sequence[str] = ()
    #: How many workers there are, and how many of `workers` run something.
    workers_total: int = 0
    working: int = 0
    #: Jobs, ever.
    processed: int = 0
    failed: int = 0
    #: How many dead letters there are, and how many were dropped, ever.
    dead_letters: int = 0
    dropped: int = 0
    #: Whether all workers are paused.
    paused: bool = False
