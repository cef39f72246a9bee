"""Counters of all nodes, added up.

Invariants:

1. A sum never goes down while the ledger lives: of a node that has left, what it had counted last
   stays.
2. A flow counts what happened since the ledger is there: a node that was there before adds only
   what it has counted since it was first seen.
3. Nodes that have left are remembered one by one up to `REMEMBERED`, because a silent one may come
   back; what is forgotten stays in the sums.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from queuerelay.wire.histogram import NO_DURATIONS, Durations

#: How many nodes that have left may come back and be known.
REMEMBERED: Final = 256
#: Seconds: a node that is no older when first seen adds to the flow all that it has counted.
YOUNG: Final = 10.0

#: Name of a counter: ``("end", "answered")``, ``("code", "mails", "2xx")``, ...
Key = tuple[str, ...]


@dataclass(slots=True)
class Counts:
    """The counters and durations of one node since its start."""

    numbers: dict[Key, int] = field(default_factory=dict)
    durations: dict[Key, Durations] = field(default_factory=dict)
    #: Seconds since the node's start.
    uptime: float = 0.0


class Sums:
    """Sums of counters and durations, by what they count."""

    def __init__(self) -> None:
        self.numbers: dict[Key, int] = {}
        self.durations: dict[Key, Durations] = {}

    def add(self, counts: Counts, before: Counts | None = None) -> None:
        """Add what `counts` has more than `before`."""
        base, lengths = (before.numbers, before.durations) if before else ({}, {})
        for key, number in counts.numbers.items():
            more = max(0, number - base.get(key, 0))
            self.numbers[key] = self.numbers.get(key, 0) + more
        for key, (buckets, total) in counts.durations.items():
            old, old_total = lengths.get(key, NO_DURATIONS)
            mine, mine_total = self.durations.get(key, NO_DURATIONS)
            self.durations[key] = Durations(
                [one + max(0, new - o) for one, new, o in zip(mine, buckets, old, strict=True)],
                mine_total + max(0.0, total - old_total),
            )


class Ledger:
    """The counters of all nodes, added up each time that they publish them."""

    def __init__(self) -> None:
        #: Last known counts, by node; the node that was heard last stands last.
        self._last: dict[str, Counts] = {}
        #: Sums since the nodes' own starts.
        self.totals = Sums()
        #: Sums since the start of the ledger.
        self.flow = Sums()

    def update(self, nodes: Mapping[str, Counts]) -> None:
        """Add what `nodes` have counted since they last said it."""
        for node, counts in nodes.items():
            before = self._last.pop(node, None)
            self._last[node] = counts
            self.totals.add(counts, before)
            if before is None and counts.uptime > YOUNG:
                before = counts
            self.flow.add(counts, before)
        for node in list(self._last)[: max(0, len(self._last) - len(nodes) - REMEMBERED)]:
            del self._last[node]
