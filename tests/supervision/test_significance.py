"""The tests that detectors use, against scipy's and against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from adrs_ray.supervision.significance import drought, lower, rank_correlation, ranks, share_rose

values = st.lists(st.integers(0, 9).map(float), min_size=2, max_size=25)


@given(st.integers(1, 60), st.integers(0, 60), st.data())
def test_share_rose_is_fishers_exact_test(trials, before, data):
    hits, hits_before = data.draw(st.integers(0, trials)), data.draw(st.integers(0, before))
    table = [[hits, trials - hits], [hits_before, before - hits_before]]
    expected = stats.fisher_exact(table, alternative="greater").pvalue
    assert share_rose(hits, trials, hits_before, before) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(values)
def test_ranks_share_ties(xs):
    assert ranks(xs) == pytest.approx(stats.rankdata(xs))


@given(values, values)
def test_lower_is_mann_and_whitneys_test(xs, ys):
    if len({*xs, *ys}) == 1:
        assert lower(xs, ys) == 1
    else:
        expected = stats.mannwhitneyu(xs, ys, alternative="less", method="asymptotic").pvalue
        assert min(lower(xs, ys), 1.0) == pytest.approx(expected, rel=1e-6)


@given(values, st.randoms())
def test_rank_correlation_is_spearmans(xs, random):
    ys = random.sample(xs, len(xs))
    expected = 0.0 if len(set(xs)) == 1 else stats.spearmanr(xs, ys).statistic
    assert rank_correlation(xs, ys) == pytest.approx(expected, abs=1e-9)


def test_a_drought_is_as_likely_as_simulated_ones():
    """Over rates from which the prior draws, `chance < 0.05` is true of about 5 % of waits."""
    rng = np.random.default_rng(1)
    surprised = total = 0
    for _ in range(20_000):
        rate = np.exp(rng.uniform(np.log(0.01), np.log(0.5)))
        trials, wait = int(rng.negative_binomial(4, rate)) + 4, int(rng.geometric(rate)) - 1
        total += 1
        surprised += drought(4, trials, wait) < 0.05
    assert 0.03 < surprised / total < 0.07


@given(st.integers(1, 20), st.integers(0, 200), st.integers(0, 500))
def test_longer_waits_are_less_likely(successes, failures, wait):
    trials = successes + failures
    assert 0 < drought(successes, trials, wait + 1) < drought(successes, trials, wait) <= 1 + 1e-9
