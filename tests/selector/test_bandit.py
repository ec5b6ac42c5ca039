from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.selector.bandit import Arm, Bandit

SMALL, STRONG, NONE = ("small", "diff"), ("strong", "diff"), ("small", "rewrite")


def play(bandit: Bandit, arms: dict[Arm, tuple[float, float]], tries: int, unit: float = 1.0) -> Counter[Arm]:
    """Tries with arms that gain with a chance and cost something."""
    rng = np.random.default_rng(0)
    drawn: Counter[Arm] = Counter()
    for _ in range(tries):
        arm = bandit.choose(rng)
        chance, cost = arms[arm]
        gain = unit * float(rng.exponential()) if rng.random() < chance else None
        bandit.update(arm, gain, cost)
        drawn[arm] += 1
    return drawn


def equal(*arms: Arm) -> dict[Arm, float]:
    return dict.fromkeys(arms, 1.0)


def test_without_learning_the_shares_are_the_weights():
    bandit = Bandit({SMALL: 3.0, STRONG: 1.0}, learn=False)
    drawn = play(bandit, {SMALL: (0.0, 1.0), STRONG: (1.0, 1.0)}, 4000)
    assert abs(drawn[SMALL] - 3000) < 120
    assert bandit.figures()[SMALL].share == 0.75


def test_the_shares_are_the_weights_until_something_is_gained():
    bandit = Bandit({SMALL: 3.0, STRONG: 1.0}, learn=True)
    for gain in (None, 0.0, -5.0):
        bandit.update(SMALL, gain, 1.0)
    assert bandit.figures()[SMALL].share == 0.75


def test_an_arm_that_gains_more_often_wins():
    drawn = play(Bandit(equal(SMALL, STRONG), learn=True), {SMALL: (0.1, 1.0), STRONG: (0.4, 1.0)}, 400)
    assert drawn[STRONG] > 280
    assert drawn[SMALL] > 15


def test_an_arm_that_gains_half_as_often_at_a_tenth_of_the_cost_wins():
    drawn = play(Bandit(equal(SMALL, STRONG), learn=True), {SMALL: (0.1, 1.0), STRONG: (0.2, 10.0)}, 400)
    assert drawn[SMALL] > 300


def test_larger_gains_win_at_equal_chances():
    bandit = Bandit(equal(SMALL, STRONG), learn=True)
    rng = np.random.default_rng(0)
    for _ in range(300):
        arm = bandit.choose(rng)
        bandit.update(arm, (10.0 if arm == STRONG else 1.0) if rng.random() < 0.3 else None, 1.0)
    figures = bandit.figures()
    assert figures[STRONG].share > 2 * figures[SMALL].share


def test_shares_move_on_when_another_arm_begins_to_gain():
    bandit = Bandit(equal(SMALL, STRONG), learn=True)
    play(bandit, {SMALL: (0.4, 1.0), STRONG: (0.05, 1.0)}, 200)
    before = bandit.figures()
    play(bandit, {SMALL: (0.05, 1.0), STRONG: (0.4, 1.0)}, 200)
    after = bandit.figures()
    assert before[SMALL].share > 0.5 > after[SMALL].share


def test_neither_the_unit_of_score_nor_of_cost_matters():
    drawn = [
        play(Bandit(equal(SMALL, STRONG), learn=True), {SMALL: (0.2, cost), STRONG: (0.3, 4 * cost)}, 200, unit)
        for unit, cost in ((1.0, 1.0), (1e-6, 1.0), (1024.0, 1024.0))
    ]
    assert drawn[0] == drawn[1] == drawn[2]


def test_an_arm_of_weight_0_is_never_drawn_and_its_updates_are_left_out():
    bandit = Bandit({SMALL: 1.0, STRONG: 1.0, NONE: 0.0}, learn=True)
    for _ in range(50):
        bandit.update(NONE, 100.0, 0.0)
        bandit.update(("unheard", "of"), 100.0, 0.0)
    rng = np.random.default_rng(0)
    assert NONE not in {bandit.choose(rng) for _ in range(300)}
    assert set(bandit.figures()) == {SMALL, STRONG}
    assert bandit.figures()[SMALL].share == 0.5


def test_only_allowed_arms_are_drawn_in_proportion():
    bandit = Bandit({SMALL: 3.0, STRONG: 1.0, NONE: 4.0}, learn=False)
    rng = np.random.default_rng(0)
    drawn = Counter(bandit.choose(rng, {SMALL, STRONG}) for _ in range(2000))
    assert abs(drawn[SMALL] - 1500) < 100
    assert set(drawn) == {SMALL, STRONG}
    with pytest.raises(ValueError, match="none of the arms allowed"):
        bandit.choose(rng, [("unheard", "of")])


def test_weights_that_leave_nothing_to_draw_are_refused():
    for weights in ({}, {SMALL: 0.0}, {SMALL: 1.0, STRONG: -1.0}):
        with pytest.raises(ValueError, match="weights"):
            Bandit(weights, learn=True)


def test_figures_are_plain_means():
    bandit = Bandit(equal(SMALL, STRONG), learn=True)
    for gain, cost in ((2.0, 1.0), (None, 2.0), (-7.0, 3.0), (4.0, 2.0)):
        bandit.update(SMALL, gain, cost)
    figures = bandit.figures()
    assert (figures[SMALL].tried, figures[SMALL].mean_gain, figures[SMALL].mean_cost) == (4, 1.5, 2.0)
    assert (figures[STRONG].tried, figures[STRONG].mean_gain, figures[STRONG].mean_cost) == (0, 0.0, 0.0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([SMALL, STRONG, NONE]),
            st.none() | st.floats(allow_nan=False),
            st.floats(0, 1e9, allow_subnormal=True),
        ),
        max_size=40,
    )
)
def test_no_arm_starves_whatever_happens_and_the_same_history_gives_the_same_shares(history):
    weights = {SMALL: 2.0, STRONG: 1.0, NONE: 1.0}
    bandits = [Bandit(weights, learn=True), Bandit(weights, learn=True)]
    for bandit in bandits:
        for arm, gain, cost in history:
            bandit.update(arm, gain, cost)
    figures = bandits[0].figures()
    assert figures == bandits[1].figures()
    assert sum(f.share for f in figures.values()) == pytest.approx(1.0)
    assert all(figures[arm].share >= 0.1 * weight / 4 - 1e-12 for arm, weight in weights.items())
