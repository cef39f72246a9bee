"""What anybody may see of ids: their beginning, wherever they stand; and no text of messages.

Whoever knows the whole id of a request that waits, and may push messages, could have a worker's
answer to something else sent to its client. Ids of jobs are cut as well: nothing tells them apart.
"""

import re
from dataclasses import replace
from typing import Final

from queuerelay.status.collect.dead_letters import DeadLetter, DeadLetters
from queuerelay.status.collect.snapshot import PoolStatus, StatusSnapshot
from queuerelay.wire.node import ExitRecord

#: Characters of an id that anybody may see; of a request the id of its relay and seven hex digits.
SHOWN: Final = 16
#: Stands for the rest.
REST: Final = "…"
#: The id of a request in a text: its relay's, what may be seen of the rest, and the rest. The
#: hyphen stands first, as texts are searched fifty times as fast for it.
_REQUEST: Final = re.compile(r"-(?<=[0-9a-f]{8}-)([0-9a-f]{7})[0-9a-f]+")


def short_id(id: str) -> str:
    """An id as anybody may see it; one that is short anyhow stays as it is."""
    return id if len(id) <= SHOWN else id[:SHOWN] + REST


def _texts(text: str) -> str:
    """What scripts and errors say, with the ids of requests in it cut."""
    return _REQUEST.sub(rf"-\1{REST}", text)


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
        items=tuple(map(_letter, failures.items)),
    )


def _letter(letter: DeadLetter) -> DeadLetter:
    # The text of a message has its arguments in it.
    return replace(
        letter,
        message=short_id(letter.message),
        text="",
        error=_texts(letter.error),
        attempts=tuple(
            replace(
                one,
                error=_texts(one.error),
                stderr=_texts(one.stderr),
                stdout=_texts(one.stdout),
            )
            for one in letter.attempts
        ),
    )


def _pool(pool: PoolStatus) -> PoolStatus:
    return replace(
        pool,
        slots=tuple(replace(one, message=_maybe_short(one.message)) for one in pool.slots),
        exits=tuple(map(_exit, pool.exits)),
    )


def _exit(exit: ExitRecord) -> ExitRecord:
    return replace(
        exit,
        message=short_id(exit.message),
        stderr=_texts(exit.stderr),
        stdout=_texts(exit.stdout),
    )
