from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.config import AdaptationConfig
from adrs_ray.selector.adaptation import ImprovementSignal

ON = AdaptationConfig(enabled=True, decay=0.9, exploration=(0.1, 0.7))
numbers = st.floats(allow_nan=False, allow_infinity=False)


def after(gains: list[float], config: AdaptationConfig = ON, scale: float = 1.0) -> ImprovementSignal:
    signal = ImprovementSignal(config, 0.2)
    for gain in gains:
        signal.update(gain, scale)
    return signal


def test_exploration_is_highest_without_gains_and_falls_as_they_come():
    levels = [after([gain] * 20).exploration for gain in (-1.0, 0.0, 0.1, 1.0, 5.0)]
    assert levels[0] == levels[1] == 0.7
    assert levels[1:] == sorted(levels[1:], reverse=True)
    assert len(set(levels)) == 4


def test_one_step_of_one_scale_gives_the_documented_level():
    signal = after([1.0])
    assert signal.signal == pytest.approx(0.1)
    assert signal.exploration == pytest.approx(0.1 + 0.6 / (1 + 0.1**0.5))


def test_exploration_comes_back_while_gains_stay_away():
    levels = [after([3.0] * 5 + [0.0] * quiet).exploration for quiet in (0, 5, 20, 100)]
    assert levels == sorted(levels)
    assert levels[-1] > 0.65


def test_the_unit_of_score_does_not_matter_and_no_scale_makes_any_gain_a_step():
    assert after([2.0, 0.0, 1.0], scale=4.0).exploration == after([200.0, 0.0, 100.0], scale=400.0).exploration
    assert after([1e-9], scale=0.0).exploration == after([1.0], scale=1.0).exploration


def test_one_huge_gain_does_not_end_exploration():
    assert after([1e300], scale=1e-300).exploration == after([10.0]).exploration
    assert after([1e300] + [0.0] * 60, scale=1e-300).exploration > 0.5


def test_without_adaptation_exploration_is_that_of_the_selector():
    signal = after([1.0, 0.0, 5.0], AdaptationConfig(enabled=False))
    assert signal.exploration == 0.2


@given(st.lists(st.tuples(numbers, numbers), max_size=30))
def test_exploration_stays_between_its_bounds(updates):
    signal = ImprovementSignal(ON, 0.2)
    for gain, scale in updates:
        signal.update(gain, scale)
        assert 0.1 <= signal.exploration <= 0.7


def test_a_shift_is_due_after_so_many_candidates_without_gain_and_again_later():
    config = AdaptationConfig(shift_after=3)
    assert not after([0.0, 0.0], config).shift_due
    assert not after([0.0, 0.0, 1.0], config).shift_due
    signal = after([0.0, -1.0, 0.0], config)
    assert signal.shift_due
    assert signal.since_gain == 3
    signal.shifted()
    assert not signal.shift_due
    for due in (False, False, True):
        signal.update(0.0, 1.0)
        assert signal.shift_due == due


def test_no_shift_is_due_unless_asked_for():
    assert not after([0.0] * 500, AdaptationConfig(enabled=True)).shift_due
