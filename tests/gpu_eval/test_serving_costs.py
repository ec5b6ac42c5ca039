"""Costs of served traces: copies by hand and against `move_seconds`, steps against the model, the bound against all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_eval.batched_lpt import hierarchical, without_groups
from gpu_eval.communication import Network, move_seconds, plan_moves
from gpu_eval.cost_model import constants, step_seconds
from gpu_eval.serving import ServingConfig, even_split, play
from gpu_eval.serving_costs import ModelCosts, copy_seconds, least_seconds
from gpu_eval.shapes import EXPERT_SIZES, Shape
from gpu_eval.workloads import REGIMES, LoadTrace, generate

MODEL = constants("h100", "small", "bf16")
SIZE = EXPERT_SIZES["small"]
NETWORK = Network("test", nvlink_gb_s=100.0, ib_gb_s=10.0, fixed_us=5.0, origin="for tests")
SHAPE = Shape(3, 16, 24, 8, 2, 4)


def served(shape: Shape = SHAPE, tokens: int = 512, steps: int = 5) -> ModelCosts:
    return ModelCosts(MODEL, NETWORK, ServingConfig(shape, SIZE, "prefill", tokens, steps))


def placements(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Any valid placement, duplicates on a GPU included."""
    rows = [
        np.concatenate([np.arange(shape.experts), rng.integers(0, shape.experts, shape.slots - shape.experts)])
        for _ in range(shape.layers)
    ]
    return np.array([rng.permutation(row) for row in rows])


shapes = st.sampled_from(
    [
        SHAPE,
        Shape(2, 4, 4, 2),
        Shape(2, 4, 8, 1),
        Shape(1, 6, 8, 8, 2),
        Shape(2, 8, 12, 4, 4, 2),
        Shape(3, 5, 6, 2),
    ]
)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(shapes, st.integers(0, 2**32), st.sampled_from([1, 40, 3000]), st.sampled_from([0.1, 1.0, 4.0]), st.booleans())
def test_no_placement_and_no_split_takes_less_than_the_bound(shape, seed, scale, sigma, whole) -> None:
    rng = np.random.default_rng(seed)
    loads = np.exp(sigma * rng.standard_normal((shape.layers, shape.experts))) * scale
    loads[rng.random(loads.shape) < 0.2] = 0
    tokens = loads.astype(np.int64) if whole else loads
    model = replace(
        MODEL, sharpness=float(rng.choice([1.0, 3.0, np.inf])), active_s=MODEL.active_s * rng.choice([1, 20])
    )
    least = least_seconds(tokens, model, NETWORK, shape)
    for placement in (placements(shape, rng), without_groups(tokens, shape), hierarchical(tokens, shape)):
        shares = rng.exponential(size=placement.shape) * (rng.random(placement.shape) < 0.7) + 1e-12
        cells = placement + np.arange(shape.layers)[:, None] * shape.experts
        shares /= np.bincount(cells.ravel(), shares.ravel(), minlength=loads.size)[cells]
        for split in (None, shares):
            step = step_seconds(model, NETWORK, placement, tokens, shape, split=split)
            assert (step.layer_s >= least * (1 - 1e-12)).all()


def test_the_bound_is_reached_where_one_gpu_holds_all() -> None:
    shape = Shape(2, 4, 4, 1)
    tokens = np.array([[512, 256, 0, 128], [0, 0, 0, 0]])
    step = step_seconds(MODEL, NETWORK, np.array([[0, 1, 2, 3]] * 2), tokens, shape)
    np.testing.assert_allclose(least_seconds(tokens, MODEL, NETWORK, shape), step.layer_s, rtol=1e-12)


def test_the_bound_is_near_a_good_placement_in_prefill() -> None:
    shape = Shape(4, 64, 96, 8, 1, 1)
    tokens = generate(REGIMES["steady"], 4, 64, 1, 3).counts[0] // 40
    step = step_seconds(MODEL, NETWORK, without_groups(tokens, shape), tokens, shape)
    assert 0.9 < least_seconds(tokens, MODEL, NETWORK, shape).sum() / step.total_s <= 1.0


def test_copies_take_what_the_busiest_end_of_each_layer_takes() -> None:
    """Two nodes of two GPUs with two slots. Layer 0: GPU 1 fetches from GPU 0, GPU 2 from GPU 3; layer 1: GPUs 2 and 3
    fetch from GPU 0; layer 2: slots change places on their GPUs."""
    shape = Shape(3, 4, 8, 4, 2)
    old = np.array([[0, 1, 2, 3, 0, 1, 2, 3], [0, 1, 2, 3, 2, 3, 2, 3], [0, 1, 2, 3, 0, 1, 2, 3]])
    new = np.array([[0, 1, 2, 0, 3, 1, 2, 3], [0, 1, 2, 3, 0, 3, 0, 3], [1, 0, 3, 2, 0, 1, 2, 3]])
    seconds, fetched = copy_seconds(plan_moves(old, new, shape), shape, 10**9, NETWORK)
    assert fetched.tolist() == [2, 2, 0]
    assert seconds.tolist() == pytest.approx([0.01 + 5e-6, 0.2 + 5e-6, 0.0])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(shapes, st.integers(0, 2**32))
def test_every_layer_is_copied_as_fast_as_if_it_were_alone(shape, seed) -> None:
    rng = np.random.default_rng(seed)
    alone = replace(shape, layers=1)
    old, new = placements(shape, rng), placements(shape, rng)
    costs = served(shape)
    seconds, fetched = costs.copying(old, new)
    each = [
        move_seconds(old[[layer]], new[[layer]], alone, costs.config.bytes_per_expert, NETWORK)
        for layer in range(shape.layers)
    ]
    assert seconds.tolist() == pytest.approx(each)
    assert ((fetched > 0) == (seconds > 0)).all()


def test_a_gpu_that_sent_for_one_layer_is_as_good_as_others_for_the_next() -> None:
    """GPUs 0 and 1 hold expert 0 in both layers. In each, GPUs 2 and 3 fetch it: one from each of the two."""
    shape = Shape(3, 3, 8, 4)
    old = np.array([[0, 1, 1, 2, 1, 2, 1, 2], [0, 1, 0, 2, 1, 2, 1, 2], [0, 1, 0, 2, 1, 2, 1, 2]])
    new = np.array([[0, 1, 1, 2, 0, 2, 0, 2], [0, 1, 0, 2, 0, 2, 0, 2], [0, 1, 0, 2, 0, 2, 0, 2]])
    apart = plan_moves(old, new, shape, layer_by_layer=True)
    assert apart.source.tolist() == [0, 0, 0, 1, 0, 1]
    assert plan_moves(old, new, shape).source.tolist() == [0, 0, 1, 1, 0, 1]


def test_steps_of_many_samples_are_those_of_each_alone() -> None:
    rng = np.random.default_rng(0)
    placement = placements(SHAPE, rng)
    tokens = rng.integers(0, 900, (4, SHAPE.layers, SHAPE.experts))
    together = served().layer_seconds(placement, even_split(placement, SHAPE.experts), tokens)
    for sample in range(4):
        alone = step_seconds(MODEL, NETWORK, placement, tokens[sample], SHAPE)
        np.testing.assert_allclose(together[sample], alone.layer_s)


def test_a_lower_fullest_gpu_shortens_prefill() -> None:
    shape = Shape(2, 8, 8, 4)
    trace = LoadTrace("ramp", "generated", np.tile(np.arange(1, 9), (2, 1, 2, 1)) * 1000)
    orders = [[0, 1, 2, 3, 4, 5, 6, 7], [0, 7, 2, 3, 4, 5, 6, 1], [0, 7, 1, 6, 2, 5, 3, 4]]
    results = [
        play(
            trace,
            lambda *_: None,
            served(shape, 8192).config,
            served(shape, 8192),
            np.array([order] * 2),
            decision_s=0.0,
        )
        for order in orders
    ]
    assert results[0].balance < results[1].balance < results[2].balance
    assert results[0].seconds > results[1].seconds > results[2].seconds


def test_decode_reads_the_weights_of_every_active_slot() -> None:
    """Eight tokens an expert: a copy that gets none of them saves the time to read it, balance saves nothing."""
    shape = Shape(1, 8, 16, 2)
    tokens = np.full((1, 1, 8), 8)
    placement = np.array([np.r_[0:8, 0:8]])
    costs = served(shape, 8)
    none_twice = np.array([[1.0] * 4 + [0.0] * 4 + [0.0] * 4 + [1.0] * 4])
    even = costs.layer_seconds(placement, None, tokens)
    once = costs.layer_seconds(placement, none_twice, tokens)
    assert even[0, 0] - once[0, 0] > 3 * MODEL.active_s


def test_a_model_of_another_expert_is_refused() -> None:
    config = served().config
    with pytest.raises(ValueError, match="of small in fp8, served is small in bf16"):
        ModelCosts(constants("h100", "small", "fp8"), NETWORK, config)
