"""What anybody may see of ids: their beginning.

Whoever knows the whole id of a request that waits, and may push messages, could have a worker's
answer to something else sent to its client. Ids of jobs are cut as well: nothing tells them apart.
"""

from dataclasses import replace
from typing import Final

from queuerelay.status.collect.dead_letters import DeadLetters
from queuerelay.status.collect.snapshot import PoolStatus, StatusSnapshot

#: Characters of an id that anybody may see; of a request the id of its relay and seven hex digits.
SHOWN: Final = 16
#: Stands for the rest.
REST: Final = "…"


def short_id(id: str) -> str:
    """An id as anybody may see it; one that is short anyhow stays as it is."""
    return id if len(id) <= SHOWN else id[:SHOWN] + REST


def _maybe_short(id: str | None) -> str | None:
    return None if id is None else short_id(id)


def for_anybody(snapshot: StatusSnapshot) -> StatusSnapshot:
    """The snapshot with all ids of messages cut."""
    return replace(
        snapshot,
        pools=tuple(map(_pool, snapshot.pools)),
        failures=failures_for_anybody(snapshot.failures),
    )


def failures_for_anybody(failures: DeadLetters) -> DeadLetters:
    """A page of dead letters with the ids of their messages cut; their own are whole."""
    return replace(
        failures,
        items=tuple(replace(one, message=short_id(one.message)) for one in failures.items),
    )


def _pool(pool: PoolStatus) -> PoolStatus:
    return replace(
        pool,
        slots=tuple(replace(one, message=_maybe_short(one.message)) for one in pool.slots),
        exits=tuple(replace(one, message=short_id(one.message)) for one in pool.exits),
    )
