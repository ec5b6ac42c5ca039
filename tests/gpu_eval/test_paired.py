"""Pairs become a ratio with an interval that says how well it is known."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_eval.paired import PROBES, Pair, Timing, caches, paired_timing, probe_cache, secret_pattern


def noisy(count: int, spread: float, ratio: float = 0.5) -> list[Pair]:
    rng = np.random.default_rng(0)
    return [Pair((ratio * (1 + spread * rng.normal()),), (1.0,)) for _ in range(count)]


def test_a_ratio_with_little_noise_is_known_to_one_percent() -> None:
    timing = paired_timing(noisy(12, 0.005))
    assert timing.ratio == pytest.approx(0.5, rel=0.01)
    assert timing.ratio_low <= timing.ratio <= timing.ratio_high
    assert timing.resolution == pytest.approx((timing.ratio_high - timing.ratio_low) / 2 / timing.ratio)
    assert timing.resolution <= 0.01
    assert timing.reached
    assert timing.note == ""
    assert (timing.pairs, timing.dropped) == (12, 0)


def test_with_much_noise_it_says_what_it_could_not_reach() -> None:
    timing = paired_timing(noisy(12, 0.2))
    assert not timing.reached
    assert timing.resolution > 0.01
    assert "after 12 pairs, 1% not reached" in timing.note
    assert f"{timing.resolution:.1%}" in timing.note


def test_one_pair_knows_nothing() -> None:
    timing = paired_timing([Pair((1.0, 1.0), (2.0,))])
    assert timing.ratio == 0.5
    assert not timing.reached
    assert "unknown" in timing.note
    with pytest.raises(ValueError, match="no values"):
        paired_timing([])


def test_pairs_whose_clocks_differ_are_left_out() -> None:
    slow = Pair((9.0,), (1.0,), candidate_mhz=1500, baseline_mhz=1980)
    steady = [Pair((0.5,), (1.0,), 1980, 1975) for _ in range(5)]
    timing = paired_timing([slow, *steady, slow])
    assert (timing.ratio, timing.candidate.p90_s, timing.pairs, timing.dropped) == (0.5, 0.5, 5, 2)
    assert timing.reached


def test_where_no_clock_was_steady_all_pairs_count_and_the_note_says_so() -> None:
    timing = paired_timing([Pair((0.5,), (1.0,), 1500, 1980)] * 3)
    assert (timing.pairs, timing.dropped, timing.reached) == (3, 0, False)
    assert "SM clock changed in all of 3 pairs" in timing.note


def test_a_timing_has_median_tail_and_interval() -> None:
    timing = Timing.of([float(second) for second in range(1, 102)])
    assert (timing.median_s, timing.p90_s, timing.calls) == (51, 91, 101)
    assert 35 < timing.low_s < 51 < timing.high_s < 67


def test_no_time_at_all_is_still_a_ratio() -> None:
    assert np.isfinite(paired_timing([Pair((0.0,), (0.0,))]).ratio)


@given(st.floats(0, 1e15), st.integers(0, 9))
def test_the_secret_pattern_is_small_and_its_seeds(mean: float, seed: int) -> None:
    pattern = secret_pattern((3, 50), mean, (seed, 1))
    assert pattern.min() >= 0
    assert pattern.max() <= max(1, mean / 1000)
    assert np.array_equal(pattern, secret_pattern((3, 50), mean, (seed, 1)))
    assert not np.array_equal(pattern, secret_pattern((3, 50), mean, (seed, 2)))


@pytest.mark.parametrize("mean", [float("nan"), float("inf"), -3.0])
def test_odd_loads_have_a_pattern(mean: float) -> None:
    assert set(np.unique(secret_pattern((100,), mean, (0,)))) == {0, 1}


def test_a_cache_is_faster_beyond_noise() -> None:
    rng = np.random.default_rng(0)
    assert caches((0.5 + 0.1 * rng.normal(size=8)).tolist())
    assert not caches((0.99 + 0.01 * rng.normal(size=8)).tolist()), "less than three percent"
    assert not caches((0.95 + 0.3 * rng.normal(size=8)).tolist()), "within noise"


@given(st.lists(st.floats(0.01, 2), min_size=PROBES - 2, max_size=PROBES - 2), st.floats(0.97, 2), st.floats(0.97, 2))
def test_two_repeats_that_are_no_faster_settle_that_there_is_no_cache(others: list[float], a: float, b: float) -> None:
    assert not caches([*others, a, b])


def test_a_cache_is_looked_for_no_longer_than_it_can_be_there() -> None:
    asked: list[tuple[int, ...]] = []

    def honest(values: tuple[int, ...]) -> float:
        asked.append(values)
        return 1.0

    assert probe_cache(honest, 5) is None
    assert len(asked) == 6
    assert asked[0] == asked[2] != asked[1]
    assert len({sum(values) for values in asked[:3]}) == 1, "one load for both"

    def remembering(values: tuple[int, ...]) -> float:
        asked.append(values)
        return 1.0 if asked.count(values) == 1 else 0.5

    asked.clear()
    assert "50% faster" in str(probe_cache(remembering, 5))
    assert len(asked) == 2 * 3 * PROBES


def test_noise_that_only_slows_looks_like_no_cache() -> None:
    accused = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        accused += probe_cache(lambda values, rng=rng: 1 + rng.exponential(0.5), seed) is not None
    assert accused == 0
    cold = itertools.cycle([1.3, 1.0, 1.0])
    assert probe_cache(lambda values: next(cold), 0) is None
