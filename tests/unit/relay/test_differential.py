"""Mutated requests, read by our front, by h11 and by httptools.

Each run draws the same 20,000. Others: ``QUEUERELAY_SEED=<number>``, and
``benchmarks/differential.py`` for many more.
"""

import os
import random

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.hostile.corpus import CASES, NEXT
from tests.unit.relay.differential import (
    Reading,
    by_us,
    disagreement,
    disagreements,
    mutation,
    random_mutation,
)

SEED = int(os.environ.get("QUEUERELAY_SEED", "9112"))
#: Examples of the test below, and mutated requests in each.
EXAMPLES, EACH = 4000, 5
#: Bytes that make one of them. One draw for each example: hypothesis remembers every draw.
SIZE = 24


@pytest.mark.heavy
@seed(SEED)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.binary(min_size=SIZE * EACH // 2, max_size=SIZE * EACH))
def test_mutated_requests_end_where_others_see_their_end(drawn):
    for number in range(EACH):
        data = mutation(drawn[number::EACH])
        assert disagreements(data) == [], data


def test_others_agree_about_the_corpus():
    for case in CASES:
        assert disagreements(case.data) == [], case.name
        assert disagreements(case.data + NEXT) == [], case.name


def test_a_disagreement_is_seen():
    def read(*bodies, why="end"):
        return Reading(tuple((b"POST", body) for body in bodies), why)

    for one, other in (
        (read(b"a"), read(b"b")),
        (read(b"a", b"b"), read(b"a")),
        (read(b"a", why="stopped"), read(why="partial")),
        (read(why="partial"), read(b"a")),
        (read(b"a", b"b", why="stopped"), read(b"a")),
    ):
        assert disagreement(one, other)
        assert disagreement(other, one)
    for one, other in (
        (read(b"a"), read(b"a")),
        (read(b"a", why="stopped"), read(b"a", b"b")),
        (read(why="stopped"), read(b"a", why="partial")),
    ):
        assert disagreement(one, other) is None
        assert disagreement(other, one) is None


def test_most_mutations_are_not_refused_at_once():
    # Who refuses everything agrees with everybody.
    source = random.Random(SEED)
    accepted = sum(bool(by_us(random_mutation(source)).messages) for _ in range(500))
    assert accepted > 150
