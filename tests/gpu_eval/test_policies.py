"""One program runs in the forms of vLLM and SGLang, and their policies in ours, with the same maps."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from gpu_eval.baselines import deepseek  # noqa: E402
from gpu_eval.invariants import check_placement  # noqa: E402
from gpu_eval.policies import (  # noqa: E402
    VllmState,
    as_sglang,
    as_vllm,
    from_sglang,
    from_vllm,
    inverse_maps,
    keep_slots,
    logical_window,
)
from gpu_eval.shapes import Shape  # noqa: E402
from gpu_eval.tensors import as_arrays, check_tensors  # noqa: E402

SHAPE = Shape(4, 16, 24, 8, 4, 4)
SIZES = (SHAPE.slots, SHAPE.groups, SHAPE.nodes, SHAPE.gpus)


def greedy(weight: Any, num_replicas: int, num_groups: int, num_nodes: int, num_gpus: int) -> Any:
    """Copies to the heaviest, then snake: in DeepSeek's form, groups ignored."""
    assert num_replicas % num_gpus == 0
    rows = []
    for loads in weight.tolist():
        experts = list(range(len(loads)))
        while len(experts) < num_replicas:
            experts.append(max(range(len(loads)), key=lambda e: loads[e] / experts.count(e)))
        share = [load / experts.count(expert) for expert, load in enumerate(loads)]
        experts.sort(key=share.__getitem__, reverse=True)
        lanes: list[list[int]] = [[] for _ in range(num_gpus)]
        for place, expert in enumerate(experts):
            row, lane = divmod(place, num_gpus)
            lanes[lane if row % 2 == 0 else num_gpus - 1 - lane].append(expert)
        rows.append([expert for lane in lanes for expert in lane])
    phy2log = torch.tensor(rows)
    return (phy2log, *inverse_maps(phy2log, weight.shape[1]))


def fixed(weight: Any, num_replicas: int, num_groups: int, num_nodes: int, num_gpus: int) -> Any:
    """Expert s in slot s, whatever the load; a map with spare columns."""
    phy2log = (torch.arange(num_replicas) % weight.shape[1]).repeat(weight.shape[0], 1)
    log2phy, counts = inverse_maps(phy2log, weight.shape[1])
    return phy2log, torch.nn.functional.pad(log2phy, (0, 3), value=-1), counts


def loads(*leading: int, seed: int = 0) -> Any:
    numbers = np.random.default_rng(seed).lognormal(3, 1, (*leading, SHAPE.layers, SHAPE.experts)).astype(np.int64)
    return torch.from_numpy(numbers)


PROGRAMS = pytest.mark.parametrize("program", [greedy, fixed, deepseek.rebalance_experts])


@PROGRAMS
def test_vllm_gets_one_map_of_its_shape(program: Any) -> None:
    phy2log = as_vllm(program)(loads(), *SIZES)
    assert type(phy2log) is torch.Tensor
    assert (phy2log.dtype, tuple(phy2log.shape)) == (torch.int64, (4, 24))
    assert torch.equal(phy2log, program(loads(), *SIZES)[0])


@PROGRAMS
def test_a_policy_of_vllm_gives_all_three_maps(program: Any) -> None:
    weight = loads()
    maps = from_vllm(as_vllm(program))(weight, *SIZES)
    check_tensors(maps, weight, "cpu")
    check_placement(*as_arrays(maps), SHAPE)


def test_experts_that_stay_on_a_gpu_keep_their_slot() -> None:
    policy = as_vllm(greedy)
    old = policy(loads(seed=1), *SIZES)
    new, kept = policy(loads(seed=2), *SIZES), policy(loads(seed=2), *SIZES, old)
    by_gpu = (SHAPE.layers, SHAPE.gpus, -1)
    assert torch.equal(new.view(by_gpu).sort(-1).values, kept.view(by_gpu).sort(-1).values)
    assert (kept == old).sum() > (new == old).sum()
    assert torch.equal(policy(loads(seed=2), *SIZES, old[:, :16]), new), "the old map is of another size"


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 99))
def test_slots_are_kept_wherever_they_can_be(gpus: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    old, new = (torch.from_numpy(rng.integers(0, 4, (2, gpus * size))) for _ in range(2))
    kept = keep_slots(new, old, gpus).view(2 * gpus, size).tolist()
    for result, before, after in zip(
        kept, old.view(2 * gpus, size).tolist(), new.view(2 * gpus, size).tolist(), strict=True
    ):
        assert sorted(result) == sorted(after)
        common = sum(min(before.count(expert), after.count(expert)) for expert in range(4))
        assert sum(a == b for a, b in zip(result, before, strict=True)) >= common


def test_vllms_state_sums_its_window_and_keeps_its_map() -> None:
    told: list[Any] = []

    def recording(weight: Any, replicas: int, groups: int, nodes: int, ranks: int, old: Any = None) -> Any:
        told.append((weight, (replicas, groups, nodes, ranks), old))
        return as_vllm(greedy)(weight, replicas, groups, nodes, ranks, old)

    state = VllmState(recording, SHAPE.layers, SHAPE.experts, *SIZES)
    start = state.phy2log
    assert start[0].tolist() == [*range(16), *range(8)]
    window = loads(5)
    first = state.rebalance(window)
    assert torch.equal(told[0][0], window.sum(0))
    assert told[0][1] == SIZES
    assert torch.equal(told[0][2], start)
    second = state.rebalance(loads(5, seed=3))
    assert torch.equal(told[1][2], first)
    assert state.phy2log is second


def test_a_physical_window_is_the_logical_one_seen_through_the_map() -> None:
    phy2log = greedy(loads(), *SIZES)[0]
    physical = torch.from_numpy(np.random.default_rng(4).integers(0, 99, (5, SHAPE.layers, SHAPE.slots)))
    logical = logical_window(physical, phy2log, SHAPE.experts)
    assert tuple(logical.shape) == (5, SHAPE.layers, SHAPE.experts)
    for expert in range(SHAPE.experts):
        assert torch.equal(logical[:, :, expert], (physical * (phy2log == expert)).sum(-1))
    state = VllmState(as_vllm(greedy), SHAPE.layers, SHAPE.experts, *SIZES)
    other = VllmState(as_vllm(greedy), SHAPE.layers, SHAPE.experts, *SIZES)
    expected = other.rebalance(logical_window(physical, state.phy2log, SHAPE.experts))
    assert torch.equal(state.rebalance_physical(physical), expected)


@PROGRAMS
@pytest.mark.parametrize("steps", [None, 1, 6])
def test_sglang_gets_three_maps_padded_to_one_width(program: Any, steps: int | None) -> None:
    tokens = loads() if steps is None else loads(steps)
    maps = as_sglang(program)(tokens, SHAPE.slots, SHAPE.slots_per_gpu, SHAPE.groups, SHAPE.nodes)
    assert tuple(maps[1].shape) == (4, 16, 24 - 16 + 1)
    check_placement(*as_arrays(maps), SHAPE)
    summed = tokens if steps is None else tokens.sum(0)
    assert torch.equal(maps[0], program(summed, *SIZES)[0])


def test_without_groups_there_is_one() -> None:
    def told(weight: Any, replicas: int, groups: int, nodes: int, gpus: int) -> Any:
        assert (groups, gpus) == (1, 8)
        return greedy(weight, replicas, groups, nodes, gpus)

    as_sglang(told)(loads(3), SHAPE.slots, SHAPE.slots_per_gpu, None, SHAPE.nodes)


@PROGRAMS
def test_an_algorithm_of_sglang_is_a_program(program: Any) -> None:
    weight = loads()
    maps = from_sglang(as_sglang(program))(weight, *SIZES)
    check_placement(*as_arrays(maps), SHAPE)
    assert torch.equal(maps[0], program(weight, *SIZES)[0])
