"""How faithful a cheap stage is: figures that are known, figures that must hold for any scores, and the alarm."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrs_ray.fidelity import CALIBRATION, Growth, Interval, Pair, fidelity, growth_along, growths, line_to

LARGEST = sys.float_info.max
SCORES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, LARGEST, -LARGEST, 5e-324]),
    st.integers(-2, 2).map(float),
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def pairs_of(cheap: list[float], dear: list[float], weights: list[float] | None = None) -> list[Pair]:
    """A line: each candidate is the parent of the next."""
    weights = weights or [1.0] * len(cheap)
    return [
        Pair(str(i), str(i - 1) if i else None, x, y, w)
        for i, (x, y, w) in enumerate(zip(cheap, dear, weights, strict=True))
    ]


def test_a_simulator_that_is_off_by_a_constant_has_that_bias_and_costs_nothing():
    truth = list(rng().normal(size=50))
    found = fidelity("sim", "real", pairs_of([x + 2 for x in truth], truth), rng())
    assert found.one_scale
    assert found.spearman == Interval(pytest.approx(1.0), pytest.approx(1.0), pytest.approx(1.0))
    assert found.bias is not None
    assert found.bias.value == pytest.approx(-2.0)
    assert found.regret == 0.0
    assert "bias (real - sim) -2" in found.text


def test_a_simulator_of_another_scale_has_no_bias_while_the_line_holds():
    truth = list(rng().normal(size=80))
    found = fidelity("sim", "real", pairs_of([1000 * x for x in truth], truth), rng())
    assert not found.one_scale
    assert found.bias is not None
    assert found.bias.value == pytest.approx(0.0, abs=1e-9)
    assert "scales differ" in found.text


def test_another_scale_that_flatters_later_has_a_negative_bias():
    truth = list(rng().normal(size=80))
    cheap = [1000 * (x + (0.5 if i >= CALIBRATION else 0.0)) for i, x in enumerate(truth)]
    found = fidelity("sim", "real", pairs_of(cheap, truth), rng())
    assert found.bias is not None
    assert found.bias.high < 0
    assert found.bias.value == pytest.approx(-0.5)


def test_the_interval_of_the_rank_correlation_holds_the_truth():
    """Normal scores with correlation 0.7 have Spearman 6/pi asin(0.35) = 0.683."""
    true, inside = 6 / math.pi * math.asin(0.35), 0
    for seed in range(40):
        x = rng(seed).normal(size=100)
        y = 0.7 * x + math.sqrt(1 - 0.49) * rng(1000 + seed).normal(size=100)
        spearman = fidelity("sim", "real", pairs_of(list(x), list(y)), rng(seed)).spearman
        assert spearman is not None
        inside += spearman.low <= true <= spearman.high
    assert inside >= 34


def test_regret_is_what_the_simulators_favourite_lacks():
    dear = [1.0, 5.0, 9.0, 2.0, 3.0, 4.0, 1.0, 0.0]
    cheap = [0.0, 7.0, 3.0, 1.0, 2.0, 2.0, 1.0, 0.0]
    assert fidelity("sim", "real", pairs_of(cheap, dear), rng()).regret == 4.0
    cheap[0] = 7.0  # two favourites: their mean
    assert fidelity("sim", "real", pairs_of(cheap, dear), rng()).regret == 6.0


def test_what_passed_at_random_stands_for_what_was_held_back():
    """The gate let the upper half through; with the rejects' stand-ins agreement is that of all candidates."""
    x = rng(3).normal(size=3000)
    y = x + rng(4).normal(size=3000)
    passes, drawn = x > 0, rng(5).random(3000) < 0.1
    measured = [i for i in range(3000) if passes[i] or drawn[i]][:1500]
    among = pairs_of([float(x[i]) for i in measured], [float(y[i]) for i in measured])
    weighted = [replace(pair, weight=1.0 if passes[i] else 10.0) for pair, i in zip(among, measured, strict=True)]
    truth = 6 / math.pi * math.asin(math.sqrt(0.5) / 2)
    restricted, whole = (fidelity("sim", "real", pairs, rng()).spearman for pairs in (among, weighted))
    assert restricted is not None
    assert whole is not None
    assert abs(whole.value - truth) < abs(restricted.value - truth)
    assert whole.low <= truth <= whole.high


def test_of_few_pairs_nothing_is_said():
    found = fidelity("sim", "real", pairs_of([1.0] * 7, [1.0] * 7), rng())
    assert found.spearman is None
    assert "too few" in found.text


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(SCORES, SCORES), min_size=8, max_size=40))
def test_any_finite_scores_give_finite_figures(scores):
    pairs = pairs_of([x for x, _ in scores], [y for _, y in scores])
    found = fidelity("sim", "real", pairs, rng())
    figures = [found.regret, *(vars_of(found.spearman)), *(vars_of(found.bias))]
    for growth in found.growths:
        figures += vars_of(growth.slope)
    assert all(figure is not None and math.isfinite(figure) for figure in figures)
    assert found.spearman is not None
    assert -1 - 1e-9 <= found.spearman.low <= found.spearman.high <= 1 + 1e-9
    assert "\n" not in found.text


def vars_of(interval: Interval | None) -> list[float]:
    assert interval is not None
    return [interval.value, interval.low, interval.high]


def test_growth_along_a_line_is_found_with_its_slope():
    dear = [float(i) for i in range(40)]
    wobble = rng(1).normal(0, 0.1, size=40)
    cheap = [y + 0.5 * max(0, i - 10) + w for i, (y, w) in enumerate(zip(dear, wobble, strict=True))]
    growth = growth_along(pairs_of(cheap, dear)[9:], pairs_of(cheap, dear)[:10])
    assert growth is not None
    assert growth.steps == 30
    assert growth.slope.value == pytest.approx(29 * 0.5 / 30, abs=0.02)
    assert growth.is_exploited


def test_a_growth_that_is_small_beside_the_rise_is_none():
    assert not Growth("a", 10, Interval(0.01, 0.005, 0.015), rise=10.0).is_exploited
    assert Growth("a", 10, Interval(0.2, 0.1, 0.3), rise=10.0).is_exploited
    assert not Growth("a", 10, Interval(0.2, -0.1, 0.5), rise=1.0).is_exploited


def test_lines_go_back_as_far_as_both_stages_measured_and_are_told_once():
    pairs = pairs_of([float(i) for i in range(20)], [float(i) for i in range(20)])
    known = {pair.candidate: pair for pair in pairs if pair.candidate != "9"}
    assert [pair.candidate for pair in line_to(pairs[-1], known)] == [str(i) for i in range(10, 20)]
    (only,) = growths(pairs, lines=5)
    assert (only.candidate, only.steps) == ("19", 19)


def test_a_line_that_bites_its_tail_ends():
    one, other = Pair("a", "b", 1.0, 1.0), Pair("b", "a", 1.0, 1.0)
    assert len(line_to(one, {"a": one, "b": other})) == 2
