"""No valid placement beats the bounds: every one of tiny shapes is tried."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpu_eval import bounds
from gpu_eval.balance import gpu_balance, group_violations, slot_balance
from gpu_eval.bounds import gpu_bound, gpu_load_bounds, slot_bound, slot_load_bounds
from gpu_eval.shapes import SHAPES, Shape
from gpu_eval.workloads import REGIMES, generate

from .published_loads import place

TINY = (
    Shape(1, 3, 4, 2),
    Shape(1, 4, 4, 2),
    Shape(1, 6, 6, 2),
    Shape(1, 6, 6, 3),
    Shape(1, 2, 4, 4),
    Shape(1, 3, 5, 5),
    Shape(1, 3, 6, 3),
    Shape(1, 2, 6, 2),
    Shape(1, 4, 6, 2, 2, 2),
    Shape(1, 4, 6, 6, 2, 4),
    Shape(1, 4, 6, 2, 2, 4),
    Shape(1, 4, 4, 4, 2, 4),
    Shape(1, 3, 6, 6, 3, 3),
    Shape(1, 3, 6, 2, 2, 3),
)


@cache
def every_placement(shape: Shape) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """All valid placements of one layer, and which keep groups on nodes."""
    every = np.array(list(product(range(shape.experts), repeat=shape.slots)), np.int64)
    complete = np.all([(every == expert).any(axis=1) for expert in range(shape.experts)], axis=0)
    every = every[complete]
    return every, group_violations(every, shape) == 0


def least_maxima(shape: Shape, loads: NDArray[np.int64], grouped: bool) -> tuple[float, float]:
    """The smallest largest GPU load and the smallest largest slot load with even shares."""
    every, local = every_placement(shape)
    if grouped:
        every = every[local]
    copies = np.stack([(every == expert).sum(axis=1) for expert in range(shape.experts)], axis=1)
    by_slot = np.take_along_axis(loads / copies, every, axis=1)
    by_gpu = by_slot.reshape(len(every), shape.gpus, -1).sum(axis=2)
    return float(by_gpu.max(axis=1).min()), float(by_slot.max(axis=1).min())


@settings(max_examples=120, deadline=None)
@given(data=st.data(), shape=st.sampled_from(TINY), grouped=st.booleans())
def test_no_placement_beats_the_bounds(data: st.DataObject, shape: Shape, grouped: bool) -> None:
    loads = np.array(data.draw(st.lists(st.integers(0, 30), min_size=shape.experts, max_size=shape.experts)))
    least_gpu, least_slot = least_maxima(shape, loads, grouped)
    gpu = gpu_load_bounds(loads[None], shape, grouped)[0]
    slot = slot_load_bounds(loads[None], shape, grouped)[0]
    assert gpu <= least_gpu + 1e-9
    assert slot == pytest.approx(least_slot), "the slot bound is reached"
    if shape.slots_per_gpu == 1:
        assert gpu == pytest.approx(least_gpu), "one slot per GPU: the bound is reached"
    if loads.any():
        assert gpu_bound(loads[None], shape, grouped) == pytest.approx(loads.sum() / shape.gpus / gpu)
        assert slot_bound(loads[None], shape, grouped) == pytest.approx(loads.sum() / shape.slots / slot)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), shape=st.sampled_from([s for s in TINY if s.slots > s.experts]))
def test_uneven_splits_do_not_beat_the_bound(data: st.DataObject, shape: Shape) -> None:
    loads = np.array(data.draw(st.lists(st.integers(0, 30), min_size=shape.experts, max_size=shape.experts)))
    every, _ = every_placement(shape)
    phy2log = every[[data.draw(st.integers(0, len(every) - 1))]]
    shares = np.array(data.draw(st.lists(st.integers(1, 9), min_size=shape.slots, max_size=shape.slots)), float)[None]
    for expert in range(shape.experts):
        mine = phy2log == expert
        shares[mine] /= shares[mine].sum()
    assert gpu_balance(phy2log, loads[None], shape.gpus, shares) <= gpu_bound(loads[None], shape, False) + 1e-9


def test_without_spare_slots_heavy_experts_must_share_gpus() -> None:
    loads = np.array([[10, 10, 10, 0, 0, 0]])
    assert gpu_load_bounds(loads, Shape(1, 6, 6, 2), False)[0] == 20
    assert gpu_load_bounds(loads, Shape(1, 6, 6, 3), False)[0] == 10
    assert gpu_load_bounds(np.array([[9, 1, 1, 1]]), Shape(1, 4, 4, 2), False)[0] == 10


def test_groups_bind_only_where_they_can_stay() -> None:
    loads = np.array([[9, 9, 1, 1]])
    assert gpu_bound(loads, Shape(1, 4, 8, 4, 2, 2), True) == pytest.approx(20 / 4 / 9)
    assert gpu_bound(loads, Shape(1, 4, 8, 4, 2, 2), False) == 1.0
    unequal = Shape(1, 4, 8, 4, 4, 2)
    assert not unequal.local_groups
    assert gpu_bound(loads, unequal, True) == gpu_bound(loads, unequal, False)


def test_partitions_are_all_and_distinct() -> None:
    for groups, per_node, expected in ((8, 2, 105), (8, 4, 35), (8, 1, 1), (8, 8, 1), (6, 3, 10)):
        sets, partitions = bounds._partitions(groups, per_node)
        assert len(partitions) == bounds._partition_count(groups, per_node) == expected
        members = sets[partitions].reshape(expected, groups)
        assert (np.sort(members, axis=1) == np.arange(groups)).all()
        assert len({frozenset(row) for row in partitions.tolist()}) == expected


def test_too_many_partitions_fall_back_to_the_global_bound() -> None:
    shape = Shape(2, 16, 32, 8, 8, 16)
    loads = generate(REGIMES["heavy"], 2, 16, 1, 3).counts[0]
    assert bounds._partition_count(16, 2) > bounds.PARTITION_LIMIT
    assert gpu_bound(loads, shape, True) == gpu_bound(loads, shape, False)
    assert slot_bound(loads, shape, True) == slot_bound(loads, shape, False)


def test_layers_without_load_bound_nothing() -> None:
    shape = Shape(2, 4, 8, 4, 2, 2)
    assert gpu_bound(np.zeros((2, 4)), shape, True) == slot_bound(np.zeros((2, 4)), shape, False) == 1.0
    loads = np.array([[0, 0, 0, 0], [9, 9, 1, 1]])
    assert gpu_bound(loads, shape, True) == pytest.approx(20 / 4 / 9)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize("regime", ["adrs", "heavy"])
def test_greedy_placement_nears_the_global_bound_and_reaches_the_slot_bound(shape: Shape, regime: str) -> None:
    loads = generate(REGIMES[regime], shape.layers, shape.experts, 1, 3).counts[0]
    phy2log = place(loads, shape.slots, shape.gpus)
    reached, bound = gpu_balance(phy2log, loads, shape.gpus), gpu_bound(loads, shape, False)
    assert 0.96 * bound < reached <= bound
    assert slot_balance(phy2log, loads) == pytest.approx(slot_bound(loads, shape, False))
    assert gpu_bound(loads, shape, True) <= bound
    assert slot_bound(loads, shape, True) <= slot_bound(loads, shape, False) + 1e-12
