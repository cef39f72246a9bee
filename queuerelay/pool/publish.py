"""What a process with pools tells the others about them, bounded however much there is."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from queuerelay.pool.snapshot import ExitSnapshot, PoolSnapshot, SlotSnapshot

#: How much of each goes out: of all pools together, of one pool, and characters of a text.
ALL_EXITS: Final = 200
EXITS: Final = 20
ALL_SLOTS: Final = 2000
SLOTS: Final = 200
STDERR: Final = 512
TEXT: Final = 128


def published(pools: Sequence[PoolSnapshot]) -> list[dict[str, Any]]:
    """The snapshots, as JSON takes them: of each the slots that have been busy for longest and the
    last exits, with an end of their stderr. It goes to Redis every two seconds; the process itself
    knows more.
    """
    shares = max(1, len(pools))
    exits, slots = min(EXITS, ALL_EXITS // shares), min(SLOTS, ALL_SLOTS // shares)
    return [_published(pool, max(1, exits), max(1, slots)) for pool in pools]


def _published(pool: PoolSnapshot, exits: int, slots: int) -> dict[str, Any]:
    oldest = sorted(pool.slots, key=lambda slot: -(slot.age or 0.0))[:slots]
    shown = replace(
        pool,
        slots=sorted((_slot(one) for one in oldest), key=lambda slot: slot.number),
        exits=[_exit(one) for one in list(pool.exits)[:exits]],
        resting=_text(pool.resting, STDERR),
    )
    return asdict(shown)


def _slot(slot: SlotSnapshot) -> SlotSnapshot:
    return replace(slot, message=None if slot.message is None else _text(slot.message, TEXT))


def _exit(exit: ExitSnapshot) -> ExitSnapshot:
    return replace(
        exit, message=_text(exit.message, TEXT), stderr=_text(exit.stderr[-STDERR:], STDERR)
    )


def _text(text: str, longest: int) -> str:
    """Ids are other people's: halves of characters (``\\ud800``) are no text of anybody's."""
    return text[:longest].encode("utf-8", "replace").decode()
