"""What the guardian kills, and what it never does."""

import os
import signal
from collections.abc import Iterable, Iterator

import pytest

from queuerelay.processes import guardian
from queuerelay.processes.guarded import CAPACITY
from queuerelay.processes.transport import _reason, signal_number


class Kills:
    """In place of the system's: no test may kill by a number out of a table."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[tuple[str, int]] = []
        #: Pid -> group.
        self.groups: dict[int, int] = {}
        self.holders: dict[int, list[int]] = {}
        self.gone: set[int] = set()
        monkeypatch.setattr(os, "kill", lambda pid, number: self._kill("process", pid, number))
        monkeypatch.setattr(os, "killpg", lambda pid, number: self._kill("group", pid, number))
        monkeypatch.setattr(os, "getpgid", self._group)
        monkeypatch.setattr(guardian, "holders", self._holders)

    def _kill(self, kind: str, pid: int, number: int) -> None:
        assert number == signal.SIGKILL
        if pid in self.gone:
            raise ProcessLookupError
        self.done.append((kind, pid))

    def _group(self, pid: int) -> int:
        if pid in self.gone:
            raise ProcessLookupError
        return self.groups[pid]

    def _holders(self, inodes: Iterable[int]) -> Iterator[tuple[int, int]]:
        for inode in inodes:
            yield from ((pid, inode) for pid in self.holders[inode])


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> Kills:
    return Kills(monkeypatch)


def test_empty_table(kills: Kills) -> None:
    guardian.kill_all([0] * (CAPACITY + 1))
    assert kills.done == []


def test_groups(kills: Kills) -> None:
    kills.gone = {11}
    guardian.kill_all([0, 0, 10, 11, 0, -1, 12])
    assert kills.done == [("group", 10), ("group", 12)]


def test_what_was_being_started(kills: Kills) -> None:
    # 20 leads its group; 21 is still in the daemon's own group, 5; 22 ends just now.
    kills.groups = {20: 20, 21: 5}
    kills.gone = {22}
    kills.holders = {777: [20, 21, 22]}
    guardian.kill_all([777, 10])
    assert kills.done == [("group", 10), ("group", 20), ("process", 21)]


@pytest.mark.parametrize(
    ("given", "wanted"), [("TERM", 15), ("KILL", 9), ("USR1", signal.SIGUSR1), (3, 3)]
)
def test_signal_number(given: str | int, wanted: int) -> None:
    assert signal_number(given) == wanted


@pytest.mark.parametrize("name", ["", "SIGTERM", "term", "NOPE"])
def test_no_such_signal(name: str) -> None:
    with pytest.raises(ValueError, match="no such signal"):
        signal_number(name)


@pytest.mark.parametrize(
    ("status", "code", "number"),
    [(0, 0, None), (75 << 8, 75, None), (9, None, 9), (11 | 0x80, None, 11), (None, None, None)],
)
def test_reason(status: int | None, code: int | None, number: int | None) -> None:
    value = _reason(status).value
    assert (value.exitCode, value.signal, value.status) == (code, number, status)
