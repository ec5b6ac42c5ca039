"""The gate between two stages: what it lets through, for any scores."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrs_ray.cascade import WINDOW, Cascade, Gate
from adrs_ray.config import CascadeConfig

NEVER = CascadeConfig(random_pass=0.0)
LARGEST = sys.float_info.max
SCORES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, LARGEST, -LARGEST, sys.float_info.min, 5e-324]),
    st.integers(-3, 3).map(float),
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def gate_of(pairs: list[tuple[float, float]], config: CascadeConfig = NEVER) -> Gate:
    gate = Gate(config)
    for cheap, dear in pairs:
        gate.learn(cheap, dear)
    return gate


def faithful(count: int = 40) -> Gate:
    return gate_of([(float(i), 10.0 * i) for i in range(count)])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(SCORES, SCORES), min_size=2, max_size=60), SCORES, SCORES)
def test_a_higher_cheap_score_is_never_less_likely_to_pass(pairs, one, other):
    gate = gate_of(pairs, CascadeConfig(open_until=2, random_pass=0.0))
    low, high = sorted((one, other))
    (chance, predicted), (chance_high, predicted_high) = gate.estimate(low), gate.estimate(high)
    assert 0.0 < chance <= chance_high < 1.0
    assert -LARGEST <= predicted <= predicted_high <= LARGEST
    assert gate.decide(low, rng()).passes <= gate.decide(high, rng()).passes


@given(st.lists(st.tuples(SCORES, SCORES), max_size=29), SCORES)
@settings(max_examples=50, deadline=None)
def test_it_never_closes_before_enough_pairs_are_known(pairs, score):
    assert gate_of(pairs).decide(score, rng()).by == "open"


@given(st.lists(SCORES, min_size=40, max_size=60), SCORES, SCORES)
@settings(max_examples=50, deadline=None)
def test_constant_scores_of_either_stage_hold_nothing_back(scores, constant, asked):
    assert gate_of([(constant, score) for score in scores]).decide(asked, rng()).by == "chance"
    assert gate_of([(score, constant) for score in scores]).decide(asked, rng()).by == "chance"


def test_a_faithful_stage_holds_back_what_is_low_and_lets_through_what_is_high():
    decision = faithful().decide(1.0, rng())
    assert decision.by == "held"
    assert not decision.passes
    assert decision.chance < 0.1
    assert decision.predicted == pytest.approx(10.0)
    assert faithful().decide(30.0, rng()).by == "chance"
    assert faithful().decide(-1e300, rng()).by == "held"


def test_equal_cheap_scores_are_one_point_whatever_came_first():
    pairs = [(1.0, float(i % 2)) for i in range(40)]
    assert gate_of(pairs).estimate(1.0) == gate_of(pairs[::-1]).estimate(1.0)


def test_the_share_that_passes_at_random_is_as_configured():
    gate = gate_of([(float(i), float(i)) for i in range(40)], CascadeConfig(random_pass=0.1))
    by = [gate.decide(0.0, np.random.default_rng([7, 0, decision])).by for decision in range(2000)]
    assert set(by) == {"random", "held"}
    assert 0.08 < by.count("random") / len(by) < 0.12


def test_it_forgets_what_the_simulator_was_long_ago():
    gate = gate_of([(float(i), float(-i)) for i in range(100)])
    assert gate.decide(0.0, rng()).by == "chance"
    for i in range(WINDOW):
        gate.learn(float(i), float(i))
    assert gate.decide(0.0, rng()).by == "held"


@pytest.mark.parametrize("score", [float("inf"), float("-inf"), float("nan")])
def test_scores_that_are_not_finite_are_refused(score):
    with pytest.raises(ValueError, match="finite"):
        faithful().learn(score, 0.0)
    with pytest.raises(ValueError, match="finite"):
        faithful().learn(0.0, score)
    with pytest.raises(ValueError, match="finite"):
        faithful().decide(score, rng())


def test_gates_of_three_stages_learn_from_what_came_as_far():
    cascade = Cascade(("a", "b", "c"), NEVER)
    for i in range(40):
        cascade.learn({"a": float(i), "b": float(i)})
    assert cascade.decide("a", 0.0, (0, 0, 1)).by == "held"
    assert cascade.decide("b", 0.0, (0, 0, 1)).by == "open"
    for i in range(40):
        cascade.learn({"a": float(i), "b": float(i), "c": float(i)})
    assert cascade.decide("b", 0.0, (0, 0, 1)).by == "held"


def test_a_task_without_stages_has_no_gate():
    cascade = Cascade(("full",), NEVER)
    cascade.learn({"full": 1.0})
    with pytest.raises(ValueError, match="full"):
        cascade.decide("full", 1.0, (0, 0, 1))


@pytest.mark.parametrize(("agreement", "least_saved"), [(0.0, 0.0), (0.9, 0.15)])
def test_it_saves_measurements_without_losing_the_best(agreement, least_saved):
    """Of 300 candidates the best tenth gets through, whether the simulator is any good or not."""
    held = lost = 0
    for seed in range(5):
        draws, gate = np.random.default_rng(seed), Gate(CascadeConfig())
        dear = draws.normal(size=300)
        cheap = agreement * dear + np.sqrt(1 - agreement**2) * draws.normal(size=300)
        for i in range(300):
            decision = gate.decide(float(cheap[i]), np.random.default_rng((seed, i)))
            if decision.passes:
                gate.learn(float(cheap[i]), float(dear[i]))
            else:
                held += 1
                lost += dear[i] >= np.quantile(dear, 0.9)
    assert least_saved <= held / 1500 < 0.5
    assert lost / 150 < 0.02
