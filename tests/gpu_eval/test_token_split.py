"""Splits of tokens are shares, never worse than even ones, and the linear program is the best of all."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpu_eval.balance import gpu_balance, gpu_loads
from gpu_eval.token_split import even_split, lp_split, water_filling

from .published_loads import place

Problem = tuple[NDArray[np.int64], NDArray[np.int64], int]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Any placement that holds every expert, also with several copies on one GPU."""
    layers, gpus, experts = draw(st.integers(1, 2)), draw(st.integers(1, 4)), draw(st.integers(1, 5))
    slots = gpus * (-(-experts // gpus) + draw(st.integers(0, 2)))
    rest = st.lists(st.integers(0, experts - 1), min_size=slots - experts, max_size=slots - experts)
    held = [draw(st.permutations([*range(experts), *draw(rest)])) for _ in range(layers)]
    load = st.lists(st.integers(0, draw(st.sampled_from([1, 100, 10**15]))), min_size=experts, max_size=experts)
    return np.array(held, np.int64), np.array([draw(load) for _ in range(layers)], np.int64), gpus


def assert_shares(split: NDArray[np.float64], phy2log: NDArray[np.int64], experts: int) -> None:
    assert split.dtype == np.float64
    assert split.shape == phy2log.shape
    assert split.min() >= 0
    for layer, held in enumerate(phy2log):
        assert np.bincount(held, split[layer], minlength=experts) == pytest.approx(1.0, abs=1e-9)


def fullest(problem: Problem, split: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    phy2log, weight, gpus = problem
    return np.asarray(gpu_loads(phy2log, weight, gpus, split).max(axis=1), np.float64)


@settings(max_examples=150, deadline=None)
@given(problem=problems())
def test_the_program_is_at_least_as_good_as_pouring_and_pouring_as_even_shares(problem: Problem) -> None:
    phy2log, weight, _ = problem
    before = phy2log.copy(), weight.copy()
    splits = [f(*problem) for f in (lp_split, water_filling)]
    splits.append(even_split(phy2log, weight.shape[1]))
    for split in splits:
        assert_shares(split, phy2log, weight.shape[1])
    exact, poured, even = (fullest(problem, split) for split in splits)
    room = 1e-6 * weight.sum(axis=1)
    assert (exact <= poured + room).all()
    assert (poured <= even + room).all()
    assert even == pytest.approx(fullest(problem))
    assert np.array_equal(phy2log, before[0])
    assert np.array_equal(weight, before[1])
    assert np.array_equal(water_filling(*problem), splits[1])


@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_pouring_long_enough_is_exact(problem: Problem) -> None:
    room = 1e-4 * problem[1].sum(axis=1)
    assert (fullest(problem, water_filling(*problem, sweeps=2000)) <= fullest(problem, lp_split(*problem)) + room).all()


@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_the_program_reaches_the_bound_of_every_set_of_gpus(problem: Problem) -> None:
    """By duality the least maximum is the largest mean load, over sets of GPUs, of the experts that lie only there."""
    phy2log, weight, gpus = problem
    found = fullest(problem, lp_split(*problem))
    for layer, held in enumerate(phy2log):
        where = [set(np.nonzero(held == e)[0] // (len(held) // gpus)) for e in range(weight.shape[1])]
        bound = 0.0
        for chosen in product([False, True], repeat=gpus):
            inside = {gpu for gpu in range(gpus) if chosen[gpu]}
            if inside:
                load = sum(int(weight[layer, e]) for e in range(weight.shape[1]) if where[e] <= inside)
                bound = max(bound, load / len(inside))
        assert found[layer] == pytest.approx(bound, rel=1e-6, abs=1e-6)


def test_by_hand() -> None:
    # Of the 20 tokens of expert 0, 15 beside the 20 of expert 1 and 5 beside the 30 of expert 2 make 35 each.
    phy2log, weight = np.array([[0, 1, 0, 2]]), np.array([[20, 20, 30]])
    for split in (lp_split(phy2log, weight, 2), water_filling(phy2log, weight, 2)):
        assert split == pytest.approx(np.array([[0.75, 1.0, 0.25, 1.0]]))
    twice = water_filling(np.array([[0, 0, 0, 1]]), np.array([[30, 10]]), 2)
    assert twice == pytest.approx(np.array([[2 / 3, 0.0, 1 / 3, 1.0]]))


def test_both_gain_when_loads_have_drifted() -> None:
    rng = np.random.default_rng(0)
    old = rng.lognormal(10, 1, (4, 64)).astype(np.int64)
    now = (old * rng.lognormal(0, 0.3, (4, 64))).astype(np.int64)
    phy2log = place(old, 80, 16)
    even, poured, exact = (
        gpu_balance(phy2log, now, 16, split)
        for split in (None, water_filling(phy2log, now, 16), lp_split(phy2log, now, 16))
    )
    assert exact >= poured > even + 0.02
    assert exact - poured < 0.1 * (exact - even)


def test_what_does_not_fit_is_refused() -> None:
    phy2log, weight = np.array([[0, 1, 0, 1]]), np.ones((1, 2))
    cases: list[tuple[Any, Any, int, str]] = [
        (phy2log[0], weight, 2, r"phy2log is \[4\], weight \[1, 2\], expected \[layers, slots\]"),
        (phy2log, np.ones((2, 2)), 2, r"phy2log is \[1, 4\], weight \[2, 2\], expected"),
        (phy2log, weight, 3, r"slots \(4\) is no multiple of gpus \(3\)"),
        (phy2log, np.ones((1, 3)), 2, "expert 2 of layer 0 has no slot"),
        (phy2log + 1, weight, 2, r"slot 1 of layer 0 holds 2, expected an expert in 0\.\.1"),
        (phy2log, np.array([[1, np.nan]]), 2, "load of layer 0, expert 1 is nan, expected finite and >= 0"),
        (phy2log, np.array([[-1, 1]]), 2, r"load of layer 0, expert 0 is -1\.0, expected finite and >= 0"),
    ]
    for split in (water_filling, lp_split):
        for placed, load, gpus, message in cases:
            with pytest.raises(ValueError, match=f"^{message}"):
                split(placed, load, gpus)
