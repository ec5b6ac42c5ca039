"""Figures of few measurements agree with scipy and with what is known."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from gpu_eval.statistics import bootstrap_interval, geometric_mean, median, quantile, spearman

numbers = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=20), st.randoms())
def test_rank_correlation_is_scipys(values: list[int], random: object) -> None:
    other = np.random.default_rng(len(values)).integers(0, 5, len(values))
    found = spearman(values, other)
    if len(set(values)) == 1 or len(set(other.tolist())) == 1:
        assert found == 0
    else:
        assert found == pytest.approx(scipy.stats.spearmanr(values, other).statistic)


def test_rank_correlation_needs_pairs() -> None:
    with pytest.raises(ValueError, match="found 2, 3"):
        spearman([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="at least 2"):
        spearman([1], [2])


@given(st.lists(numbers, min_size=1, max_size=15))
def test_an_interval_lies_within_the_values_and_is_repeatable(values: list[float]) -> None:
    low, high = bootstrap_interval(values, resamples=50)
    assert min(values) <= low <= high <= max(values)
    assert (low, high) == bootstrap_interval(values, resamples=50)


def test_the_interval_of_a_mean_has_the_known_width() -> None:
    values = np.random.default_rng(1).normal(10, 2, 400)
    low, high = bootstrap_interval(values, statistic=lambda row: float(row.mean()))
    assert (high - low) / 2 == pytest.approx(1.96 * 2 / 20, rel=0.15)
    assert low < values.mean() < high


def test_levels_widen_the_interval() -> None:
    values = list(range(30))
    narrow, wide = (bootstrap_interval(values, level=level) for level in (0.5, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_simple_figures() -> None:
    assert median([3, 1, 2]) == 2
    assert quantile([0, 10], 0.9) == pytest.approx(9)
    assert geometric_mean([1, 100]) == pytest.approx(10)
    with pytest.raises(ValueError, match="above zero"):
        geometric_mean([1, 0])
    for figure in (median, geometric_mean, bootstrap_interval):
        with pytest.raises(ValueError, match="no values"):
            figure([])
