"""The table of held requests, against a model of it."""

import ast
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from queuerelay.relay.held import REMEMBERED, STEPS, Held, HeldState, HeldTable, IllegalStep
from tests.unit.relay.stage import FakeClient

ENDS = [HeldState.ANSWERED, HeldState.EXPIRED, HeldState.GONE, HeldState.REFUSED]


def make(id: str, now: float = 0.0, patience: float = 60.0, message: bytes = b"m") -> Held:
    return Held(id, "requests", message, FakeClient(), True, now, now + patience)


class Machine(RuleBasedStateMachine):
    """Adds, ends and asks in any order; the model is a plain dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.table = HeldTable()
        self.now = 1000.0
        self.made: list[Held] = []
        self.living: dict[str, Held] = {}
        self.ended: dict[str, HeldState] = {}
        self.given: set[str] = set()

    @rule(patience=st.sampled_from([0.001, 1.0, 2.5, 60.0]), size=st.integers(0, 100))
    def add(self, patience: float, size: int) -> None:
        held = make(f"id-{len(self.made)}", self.now, patience, b"x" * size)
        self.table.add(held, patience)
        self.made.append(held)
        self.living[held.id] = held

    @rule(seconds=st.sampled_from([0.0, 0.25, 0.3, 1.0, 7.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(choice=st.integers(0), state=st.sampled_from(ENDS))
    def end(self, choice: int, state: HeldState) -> None:
        if self.made:
            held = self.made[choice % len(self.made)]
            lives = held.id in self.living
            assert self.table.end(held, state) is lives
            if lives:
                del self.living[held.id]
                self.ended[held.id] = state
            # Whoever ended it first has decided.
            assert held.state is self.ended[held.id]

    @rule()
    def due(self) -> None:
        due = self.table.due(self.now)
        # Never early, the oldest first, each once, all of them, and none that has ended.
        assert [held.deadline for held in due] == sorted(held.deadline for held in due)
        expected = {
            held.id
            for held in self.living.values()
            if held.deadline <= self.now and held.id not in self.given
        }
        assert {held.id for held in due} == expected
        assert len(due) == len(expected)
        self.given |= expected

    @invariant()
    def reconciles(self) -> None:
        assert len(self.table) == len(self.living)
        assert self.table.bytes == sum(len(held.message) for held in self.living.values())
        assert {held.id for held in self.table.all()} == set(self.living)
        for held in self.made:
            assert self.table.get(held.id) is self.living.get(held.id)
            assert self.table.ended_as(held.id) is self.ended.get(held.id)
            assert held.alive is (held.id in self.living)


TestHeldTable = Machine.TestCase


def test_only_a_bounded_number_of_ends_is_remembered():
    table = HeldTable()
    for number in range(REMEMBERED + 10):
        held = make(str(number))
        table.add(held, 60.0)
        table.end(held, HeldState.ANSWERED)
    assert table.ended_as("9") is None
    assert table.ended_as("10") is HeldState.ANSWERED
    assert len(table._ended) == len(table._ended_order) == REMEMBERED


# Promise 6
def test_promise_6_what_has_ended_leaves_nothing_in_the_lanes():
    table = HeldTable()
    for number in range(1000):
        held = make(str(number), float(number), 86400.0)
        table.add(held, 86400.0)
        table.end(held, HeldState.ANSWERED)
    assert [len(lane) for lane in table._lanes.values()] == [0]


#: What brings a request that is in the table to each state; one that is in memory only was added.
WAYS = {
    HeldState.GATED: lambda table, held: table.not_sent(held),
    HeldState.QUEUED: lambda table, held: table.pushed(held),
    HeldState.ANSWERING: lambda table, held: table.begin(held),
    **{
        end: lambda table, held, end=end: table.end(held, end) for end in (*ENDS, HeldState.ABORTED)
    },
}
ALIVE = (HeldState.GATED, HeldState.QUEUED, HeldState.ANSWERING)


def standing(state: HeldState) -> tuple[HeldTable, Held]:
    """A table with a request in this state, once pushed where that is so."""
    table, held = HeldTable(), make("id")
    table.add(held, 60.0)
    if state is not HeldState.GATED:
        WAYS[state](table, held)
    assert held.state is state
    return table, held


@pytest.mark.parametrize("after", HeldState)
@pytest.mark.parametrize("before", ALIVE)
def test_only_legal_steps_are_made(before, after):
    table, held = standing(before)
    if after in STEPS[before]:
        WAYS[after](table, held)
        assert held.state is after
        assert held.alive is (after in ALIVE)
        return
    pushes, size = held.pushes, table.bytes
    with pytest.raises(IllegalStep, match="id"):
        WAYS[after](table, held)
    # And nothing has changed.
    assert (held.state, held.pushes, table.bytes) == (before, pushes, size)
    assert table.all() == [held]


def test_what_may_not_happen_is_known_by_name():
    answering = STEPS[HeldState.ANSWERING]
    for never in ("GATED", "QUEUED", "ANSWERING", "EXPIRED", "REFUSED"):
        assert HeldState[never] not in answering
    assert HeldState.GATED not in STEPS[HeldState.GATED]
    assert all(not STEPS[end] for end in HeldState if end not in ALIVE)


@pytest.mark.parametrize("after", ALIVE)
@pytest.mark.parametrize("end", [*ENDS, HeldState.ABORTED])
def test_what_has_ended_does_not_live_again(end, after):
    table, held = standing(end)
    with pytest.raises(IllegalStep):
        WAYS[after](table, held)
    with pytest.raises(IllegalStep):
        table.add(held, 60.0)
    assert (held.state, len(table), table.bytes) == (end, 0, 0)


def test_nothing_is_held_twice_and_no_life_is_an_end():
    table, held = standing(HeldState.GATED)
    with pytest.raises(IllegalStep):
        table.add(held, 60.0)
    for state in ALIVE:
        with pytest.raises(IllegalStep):
            table.end(held, state)
    assert (held.state, table.all(), table.bytes) == (HeldState.GATED, [held], 1)


def test_a_second_push_that_was_not_sent_leaves_the_first():
    table, held = standing(HeldState.QUEUED)
    table.pushed(held)
    table.not_sent(held)
    assert (held.state, held.pushes) == (HeldState.QUEUED, 1)
    table.not_sent(held)
    assert (held.state, held.pushes) == (HeldState.GATED, 0)


def test_the_table_alone_writes_states():
    import queuerelay.relay

    (folder,) = queuerelay.relay.__path__
    writers = {
        path.name
        for path in Path(folder).glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and node.attr in ("state", "pushes")
    }
    assert writers == {"held.py"}
