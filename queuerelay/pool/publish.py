"""What a process with pools tells the others about them, bounded however much there is."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from queuerelay.wire.node import ExitRecord, PoolState, SlotState
from queuerelay.wire.untrusted import bounded

#: How much of each goes out: of all pools together, of one pool, and characters of a text.
ALL_EXITS: Final = 200
EXITS: Final = 20
ALL_SLOTS: Final = 2000
SLOTS: Final = 200
#: Of what a script said, on stderr and stdout together.
SAID: Final = 512
#: Of why a pool takes no work, and of why it cannot start some.
WHY: Final = 256
TEXT: Final = 128


def published(pools: Sequence[PoolState]) -> list[PoolState]:
    """Of each pool the slots that have been busy for longest and the last exits, with an end of
    what they said. It goes to Redis every two seconds; the process itself knows more.
    """
    shares = max(1, len(pools))
    exits, slots = min(EXITS, ALL_EXITS // shares), min(SLOTS, ALL_SLOTS // shares)
    return [_published(pool, max(1, exits), max(1, slots)) for pool in pools]


def _published(pool: PoolState, exits: int, slots: int) -> PoolState:
    oldest = sorted(pool.slots, key=lambda slot: -(slot.age or 0.0))[:slots]
    return replace(
        pool,
        slots=sorted((_slot(one) for one in oldest), key=lambda slot: slot.number),
        exits=[_exit(one) for one in pool.exits[:exits]],
        resting=bounded(pool.resting, WHY),
        unstartable=bounded(pool.unstartable, WHY),
    )


def _slot(slot: SlotState) -> SlotState:
    # Ids are other people's.
    return replace(slot, message=None if slot.message is None else bounded(slot.message, TEXT))


def _exit(exit: ExitRecord) -> ExitRecord:
    most = SAID // 2 if exit.stderr and exit.stdout else SAID
    return replace(
        exit,
        message=bounded(exit.message, TEXT),
        stderr=bounded(exit.stderr[-most:], most),
        stdout=bounded(exit.stdout[-most:], most),
    )
