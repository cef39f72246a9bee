"""What a Redis does with what it is given: whether it may drop it when memory is short, and whether
it has it again after a restart. Pure: what is asked, and what the answers mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from queuerelay.wire.commands import Command
from queuerelay.wire.server import info_fields
from queuerelay.wire.url import RedisUrl

#: The only policy under which nothing is dropped.
KEEPS_ALL: Final = "noeviction"


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Memory and disk of a Redis; what it does not tell is None."""

    #: Bytes of memory that it uses, and may use; None where it has no limit.
    used: int | None = None
    most: int | None = None
    #: ``maxmemory-policy``: what it does at its limit.
    eviction: str | None = None
    #: ``aof``, ``rdb`` or ``none``: how it keeps data over a restart.
    persistence: str | None = None
    #: Whether its last write to the disk failed; False where it does not say.
    save_failed: bool = False

    @property
    def evicts(self) -> bool:
        """Whether it drops keys at its limit of memory."""
        return bool(self.most) and self.eviction not in (None, KEEPS_ALL)

    def complaints(self) -> list[tuple[str, str]]:
        """A code of health and a text for each thing that may cost messages."""
        found = []
        if self.evicts:
            found.append(
                (
                    "redis-eviction",
                    f"maxmemory-policy is {self.eviction}: when its memory is full Redis drops "
                    f"{self._dropped} without a word; redis-cli CONFIG SET maxmemory-policy "
                    f"{KEEPS_ALL}, and the same in its configuration",
                )
            )
        if self.save_failed:
            found.append(
                (
                    "redis-saving",
                    "Redis could not write to its disk: what it has is not safe, and by default "
                    "it refuses all writes until it can; its log says why",
                )
            )
        return found

    @property
    def _dropped(self) -> str:
        # Queues have no term, replies and what nodes say of themselves have one.
        volatile = (self.eviction or "").startswith("volatile-")
        return "replies" if volatile else "whole queues and replies"


def ask(url: RedisUrl) -> list[Command]:
    """What a Redis is asked of its storage; `of` takes the answers, errors as they come."""
    asked: list[Command] = [("INFO", "memory", "persistence")]
    if url.username in (None, "default"):
        # Who has a name has rights that were chosen, and CONFIG, which tells passwords too, is
        # hardly among them: each try would stand in the ACL's log.
        asked.append(("CONFIG", "GET", "save"))
    return asked


def of(answers: Sequence[Any]) -> Storage:
    """The storage by the answers to `ask`; what is no answer is not known."""
    info, save = (*answers, None, None)[:2]
    fields = info_fields(info) if isinstance(info, bytes) else {}
    return Storage(
        used=_count(fields.get("used_memory")),
        most=_count(fields.get("maxmemory")) or None,
        eviction=fields.get("maxmemory_policy") or None,
        persistence=_persistence(fields.get("aof_enabled"), save),
        save_failed="err"
        in (fields.get("rdb_last_bgsave_status"), fields.get("aof_last_write_status")),
    )


def _persistence(aof_enabled: str | None, save: Any) -> str | None:
    if aof_enabled == "1":
        return "aof"
    if aof_enabled != "0" or not isinstance(save, list) or len(save) != 2:
        return None
    return "rdb" if save[1] else "none"


def _count(value: str | None) -> int | None:
    """A whole number as Redis writes it; None where it is none."""
    return int(value) if value is not None and value.isascii() and value.isdigit() else None
