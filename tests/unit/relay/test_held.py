"""The table of held requests, against a model of it."""

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from queuerelay.relay.held import REMEMBERED, Held, HeldTable, State
from tests.unit.relay.stage import FakeClient

ENDS = [State.ANSWERED, State.EXPIRED, State.GONE, State.REFUSED]


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
        self.ended: dict[str, State] = {}
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
    def end(self, choice: int, state: State) -> None:
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
        table.end(held, State.ANSWERED)
    assert table.ended_as("9") is None
    assert table.ended_as("10") is State.ANSWERED
    assert len(table._ended) == len(table._ended_order) == REMEMBERED


# Promise 6
def test_promise_6_what_has_ended_leaves_nothing_in_the_lanes():
    table = HeldTable()
    for number in range(1000):
        held = make(str(number), float(number), 86400.0)
        table.add(held, 86400.0)
        table.end(held, State.ANSWERED)
    assert [len(lane) for lane in table._lanes.values()] == [0]
