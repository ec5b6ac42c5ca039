"""Balance of placements against plain loops, and what counts as a duplicate or a group off its node."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpu_eval.balance import (
    Balance,
    duplicates,
    gpu_balance,
    gpu_loads,
    group_violations,
    measure,
    slot_balance,
    slot_loads,
    worst_layer,
)
from gpu_eval.shapes import SHAPES, Shape


@st.composite
def placements(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.int64], Shape]:
    """Any valid placement with loads, also far from balanced ones."""
    layers, gpus, per_gpu = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    slots = gpus * per_gpu
    shape = Shape(layers, draw(st.integers(1, slots)), slots, gpus)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    spare = rng.integers(0, shape.experts, (layers, slots - shape.experts))
    once = np.broadcast_to(np.arange(shape.experts), (layers, shape.experts))
    phy2log = rng.permuted(np.concatenate([once, spare], axis=1), axis=1)
    weight = rng.integers(0, draw(st.sampled_from([1, 2, 50, 10**12])), (layers, shape.experts))
    return phy2log, weight, shape


@given(placements())
def test_loads_and_balance_equal_plain_loops(case: tuple[NDArray[np.int64], NDArray[np.int64], Shape]) -> None:
    phy2log, weight, shape = case
    means = maxima = slot_means = slot_maxima = Fraction(0)
    worst = Fraction(1)
    for placed, loads in zip(phy2log.tolist(), weight.tolist(), strict=True):
        by_slot = [Fraction(loads[expert], placed.count(expert)) for expert in placed]
        size = shape.slots_per_gpu
        by_gpu = [sum(by_slot[gpu * size : (gpu + 1) * size]) for gpu in range(shape.gpus)]
        assert sum(by_slot) == sum(loads)
        means, maxima = means + Fraction(sum(loads), shape.gpus), maxima + max(by_gpu)
        slot_means, slot_maxima = slot_means + Fraction(sum(loads), shape.slots), slot_maxima + max(by_slot)
        if sum(loads):
            worst = min(worst, Fraction(sum(loads), shape.gpus) / max(by_gpu))
    assert gpu_balance(phy2log, weight, shape.gpus) == pytest.approx(float(means / maxima) if maxima else 1.0)
    assert slot_balance(phy2log, weight) == pytest.approx(float(slot_means / slot_maxima) if maxima else 1.0)
    assert worst_layer(phy2log, weight, shape.gpus)[1] == pytest.approx(float(worst))


@given(placements())
def test_measure_gives_every_figure_and_stays_in_its_range(
    case: tuple[NDArray[np.int64], NDArray[np.int64], Shape],
) -> None:
    phy2log, weight, shape = case
    index, worst = worst_layer(phy2log, weight, shape.gpus)
    figures = measure(phy2log, weight, shape)
    assert figures == Balance(
        gpu=gpu_balance(phy2log, weight, shape.gpus),
        slot=slot_balance(phy2log, weight),
        worst_layer=worst,
        worst_layer_index=index,
        duplicates=int(duplicates(phy2log, shape.gpus).sum()),
        group_violations=0,
    )
    assert 0 < figures.worst_layer <= figures.gpu + 1e-12 <= 1 + 1e-12
    assert 0 < figures.slot <= figures.gpu + 1e-12 <= 1 + 1e-12


def test_a_split_replaces_equal_shares() -> None:
    phy2log = np.array([[0, 1, 0, 2]])
    weight = np.array([[8, 1, 3]])
    split = np.array([[0.625, 1.0, 0.375, 1.0]])
    assert slot_loads(phy2log, weight).tolist() == [[4, 1, 4, 3]]
    assert slot_loads(phy2log, weight, split).tolist() == [[5, 1, 3, 3]]
    assert gpu_loads(phy2log, weight, 2, split).tolist() == [[6, 6]]
    assert gpu_balance(phy2log, weight, 2, split) == 1.0
    assert measure(phy2log, weight, Shape(1, 3, 4, 2), split).gpu == 1.0
    assert gpu_balance(phy2log, weight, 2) == pytest.approx(6 / 7)


def test_layers_are_barriers() -> None:
    phy2log = np.array([[0, 1], [0, 1]])
    opposite = np.array([[3, 1], [1, 3]])
    assert gpu_balance(phy2log, opposite, 2) == pytest.approx(4 / 6)
    assert worst_layer(phy2log, np.array([[1, 1], [1, 3]]), 2) == (1, pytest.approx(2 / 3))


def test_layers_without_load_count_for_nothing() -> None:
    phy2log = np.array([[0, 1], [0, 1]])
    assert gpu_balance(phy2log, np.array([[0, 0], [1, 3]]), 2) == pytest.approx(2 / 3)
    assert worst_layer(phy2log, np.array([[0, 0], [1, 3]]), 2) == (1, pytest.approx(2 / 3))
    assert gpu_balance(phy2log, np.zeros((2, 2)), 2) == slot_balance(phy2log, np.zeros((2, 2))) == 1.0
    assert worst_layer(phy2log, np.zeros((2, 2)), 2) == (0, 1.0)


def test_huge_loads_neither_overflow_nor_exceed_one() -> None:
    phy2log = np.arange(8)[None]
    weight = np.full((1, 8), np.iinfo(np.int64).max)
    assert gpu_balance(phy2log, weight, 4) == 1.0


def test_duplicates_are_counted_per_gpu() -> None:
    assert duplicates(np.array([[0, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1]]), 2).tolist() == [0, 2, 1]
    assert duplicates(np.array([[0, 0, 0, 1]]), 1).tolist() == [2]


def test_group_violations_find_the_homes_of_groups() -> None:
    shape = Shape(1, 4, 8, 4, nodes=2, groups=2)
    assert shape.local_groups
    for phy2log, off in (
        ([0, 1, 0, 1, 2, 3, 2, 3], 0),
        ([2, 3, 3, 3, 0, 1, 0, 1], 0),
        ([0, 1, 0, 2, 2, 3, 2, 3], 1),
        ([0, 1, 2, 3, 0, 1, 2, 3], 4),
    ):
        assert group_violations(np.array([phy2log]), shape).tolist() == [off]


def test_two_groups_on_the_node_of_one_are_violations() -> None:
    shape = Shape(1, 4, 16, 2, nodes=2, groups=4)
    crowded = np.array([[0, 1, 2, 0, 1, 2, 0, 1, 3, 3, 3, 3, 3, 3, 3, 3]])
    assert group_violations(crowded, shape).tolist() == [2]


def test_nothing_is_violated_where_groups_cannot_stay() -> None:
    for shape in (Shape(1, 4, 8, 4, 4, 2), Shape(1, 4, 8, 4, 1, 4), Shape(1, 6, 8, 4, 2, 3)):
        phy2log = np.resize(np.arange(shape.experts), (1, 8))
        assert group_violations(phy2log, shape).tolist() == [0]


@settings(max_examples=30, deadline=None)
@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 2**32), moved=st.integers(0, 3))
def test_violations_are_zero_just_for_local_placements(shape: Shape, seed: int, moved: int) -> None:
    """Groups on nodes at random; then slots of different nodes change places."""
    rng = np.random.default_rng(seed)
    layers, per_node = 3, shape.slots // shape.nodes
    phy2log = np.empty((layers, shape.slots), np.int64)
    for row in phy2log:
        maps = rng.permutation(shape.groups).reshape(shape.nodes, -1)
        for node, groups in enumerate(maps):
            experts = (groups[:, None] * shape.experts_per_group + np.arange(shape.experts_per_group)).ravel()
            spare = rng.choice(experts, per_node - len(experts))
            row[node * per_node : (node + 1) * per_node] = rng.permutation(np.concatenate([experts, spare]))
    assert group_violations(phy2log, shape).tolist() == [0] * layers
    for slot in range(moved):
        a, b = slot, per_node + slot
        phy2log[:, [a, b]] = phy2log[:, [b, a]]
    assert group_violations(phy2log, shape).tolist() == [2 * moved] * layers
