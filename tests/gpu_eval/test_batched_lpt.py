"""The rule of references in numpy: valid placements, DeepSeek's choices one by one, and groups that stay on nodes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_eval.balance import gpu_balance, group_violations
from gpu_eval.batched_lpt import hierarchical, without_groups
from gpu_eval.bounds import gpu_bound
from gpu_eval.invariants import check_phy2log
from gpu_eval.shapes import Shape

shapes = st.sampled_from(
    [Shape(3, 16, 24, 4, 2, 4), Shape(2, 8, 8, 8, 2, 4), Shape(1, 5, 6, 3), Shape(2, 6, 12, 4, 2, 3), Shape(2, 4, 4, 1)]
)


def literal(load: list[float], slots: int, gpus: int) -> list[int]:
    """One layer, as the rule is told."""
    copies = [1] * len(load)
    held = list(range(len(load)))
    while len(held) < slots:
        hottest = max(range(len(load)), key=lambda e: load[e] / copies[e])
        copies[hottest] += 1
        held.append(hottest)
    gpu: list[list[int]] = [[] for _ in range(gpus)]
    filled = [0.0] * gpus
    for expert in sorted(held, key=lambda e: -load[e] / copies[e]):
        free = [g for g in range(gpus) if len(gpu[g]) < slots // gpus]
        emptiest = min(free, key=lambda g: filled[g])
        gpu[emptiest].append(expert)
        filled[emptiest] += load[expert] / copies[expert]
    return [expert for experts in gpu for expert in experts]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(shapes, st.integers(0, 2**32), st.sampled_from([0.3, 2.0]))
def test_placements_are_valid_bounded_and_those_of_the_rule(shape: Shape, seed: int, sigma: float) -> None:
    rng = np.random.default_rng(seed)
    load = np.exp(sigma * rng.standard_normal((shape.layers, shape.experts))) * 1000
    anywhere, grouped = without_groups(load, shape), hierarchical(load, shape)
    for placement, by_group in ((anywhere, False), (grouped, True)):
        check_phy2log(placement, shape)
        assert gpu_balance(placement, load, shape.gpus) <= gpu_bound(load, shape, by_group) + 1e-12
    assert group_violations(grouped, shape).sum() == 0
    for layer in range(shape.layers):
        assert anywhere[layer].tolist() == literal(load[layer].tolist(), shape.slots, shape.gpus)


def test_layers_without_load_are_placed_too() -> None:
    shape = Shape(2, 8, 12, 4, 2, 2)
    for rule in (without_groups, hierarchical):
        check_phy2log(rule(np.zeros((2, 8)), shape), shape)
        check_phy2log(rule(np.array([[2**62, *[0] * 7], [1] * 8]), shape), shape)


def test_groups_that_cannot_stay_on_nodes_are_not_kept_there() -> None:
    shape = Shape(1, 9, 12, 4, 2, 3)
    load = np.arange(9.0)[None]
    assert hierarchical(load, shape).tolist() == without_groups(load, shape).tolist()
