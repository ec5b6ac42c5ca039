import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_eval.communication import NETWORKS, exact_traffic
from gpu_eval.cost_model import (
    PHASES,
    CostModel,
    Phase,
    constants,
    corner,
    read_models,
    save_models,
    step_seconds,
    step_tokens,
)
from gpu_eval.data_sheet import DATA_SHEETS, models
from gpu_eval.shapes import SHAPES, ExpertSize, Shape

SIZE = ExpertSize("e", 256, 64, 2)
MODEL = CostModel("d", SIZE, "bf16", 1.0, 0.01, 10.0, 128, 20.0, math.inf, "made up")


def test_a_rank_by_hand():
    # 3 active slots: 30; tiles 1 + 2 + 1: 80.
    assert MODEL.rank_seconds(np.array([1, 129, 0, 128])) == pytest.approx(1 + 2.58 + 80)
    assert MODEL.rank_seconds(np.array([1, 0, 0, 0])) == pytest.approx(1 + 0.01 + 20)
    assert replace(MODEL, tile_s=1.0).rank_seconds(np.array([5, 5, 0, 0])) == pytest.approx(1 + 0.1 + 20)
    assert MODEL.rank_seconds(np.zeros((3, 2, 4))).tolist() == [[1, 1]] * 3


def test_129_tokens_cost_as_256_but_for_what_each_token_costs():
    quantised = replace(MODEL, token_s=0.0)
    assert quantised.rank_seconds(np.array([129])) == quantised.rank_seconds(np.array([256]))
    assert quantised.rank_seconds(np.array([128])) < quantised.rank_seconds(np.array([129]))


@given(st.floats(0, 1e3), st.floats(0, 1e3), st.sampled_from([1.0, 2.0, 8.0, math.inf]))
def test_the_corner_lies_between_the_larger_and_the_sum(memory, compute, sharpness):
    got = float(corner(np.array(memory), np.array(compute), sharpness))
    assert max(memory, compute) <= got * (1 + 1e-12)
    assert got <= (memory + compute) * (1 + 1e-12)


def test_models_survive_a_file(tmp_path):
    kept = [replace(MODEL, residual=0.01), replace(MODEL, sharpness=4.0)]
    save_models(kept, tmp_path / "m.json")
    assert read_models(tmp_path / "m.json") == kept


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("launch_s", -1, "launch_s is -1"),
        ("tile_s", float("nan"), "tile_s is nan"),
        ("tile", 0, "tile is 0"),
        ("tile", 1.5, "tile is 1.5"),
        ("sharpness", 0.5, "sharpness is 0.5"),
        ("active_s", "1", "active_s is '1'"),
        ("size", {"name": "e"}, "size has a text name"),
        ("size", 3, "size has a text name"),
        ("size", {"name": "e", "hidden": "1", "intermediate": 1, "top_k": 1}, "size has a text name"),
        ("device", 3, "device is 3"),
        ("residual", "x", "residual is 'x'"),
        ("tile", True, "tile is True"),
        ("more", 3, "exactly the keys"),
    ],
)
def test_a_foreign_model_is_refused_in_one_line(tmp_path, key, value, message):
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"models": [{**MODEL.to_json(), key: value}]}))
    with pytest.raises(ValueError, match=message) as caught:
        read_models(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "3", '{"models": 3}', "[" * 100_000, '{"models": [null]}'])
def test_a_file_of_something_else_is_refused(tmp_path, text):
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="no file of cost models"):
        read_models(path)


@pytest.mark.parametrize("name", sorted(DATA_SHEETS))
def test_the_constants_are_the_arithmetic_of_data_sheets_and_say_so(name):
    for model in models(DATA_SHEETS[name]):
        assert constants(name, model.size.name, model.precision) == model
        assert "not measured" in model.origin


def test_constants_that_are_missing_are_named_with_those_that_exist():
    with pytest.raises(ValueError, match="no constants for device 'a100', expected one of h100, h200"):
        constants("a100")
    with pytest.raises(ValueError, match="expected one of deepseek_v3 bf16"):
        constants("h100", "tiny")


def test_the_ridge_lies_where_data_sheets_put_it():
    """About 295 tokens per expert on an H100 and 206 on an H200, bf16."""
    for name, ridge in (("h100", 295), ("h200", 206)):
        model = constants(name)
        assert model.active_s / (model.tile_s / model.tile) == pytest.approx(ridge, rel=0.01)


def test_a_steps_tokens_are_those_of_all_gpus_and_a_layer_without_counts_gets_none():
    counts = np.array([[1, 3, 0, 0], [0, 0, 0, 0]])
    shape = Shape(2, 4, 4, 2)
    expected = step_tokens(counts, Phase("p", 50), shape, 2)
    assert expected.tolist() == [[50, 150, 0, 0], [0, 0, 0, 0]]
    drawn = step_tokens(counts, Phase("p", 50), shape, 2, np.random.default_rng(0))
    assert drawn.dtype == np.int64
    assert drawn.sum(axis=1).tolist() == [200, 0]
    assert (drawn[0, 2:] == 0).all()


def skewed(seed, shape=SHAPES[0]):
    """A placement with random copies, and counts."""
    rng = np.random.default_rng(seed)
    spare = shape.slots - shape.experts
    rows = [
        rng.permutation(np.concatenate([np.arange(shape.experts), rng.integers(0, shape.experts, spare)]))
        for _ in range(shape.layers)
    ]
    return np.array(rows), rng.lognormal(0, 0.95, (shape.layers, shape.experts))


def test_a_step_is_the_sum_of_its_slowest_ranks():
    phy2log, counts = skewed(0)
    tokens = step_tokens(counts, PHASES["prefill"], SHAPES[0], 8)
    step = step_seconds(constants(), NETWORKS["h100"], phy2log, tokens, SHAPES[0])
    assert step.rank_s.shape == (58, 32)
    np.testing.assert_array_equal(step.layer_s, step.rank_s.max(axis=1))
    assert step.total_s == pytest.approx(step.layer_s.sum())


def test_imbalance_costs_prefill_more_than_decode():
    """Decode streams the weights of all its slots whatever their tokens; prefill waits for the fullest rank."""
    phy2log, counts = skewed(1)
    ratios = {}
    for name, phase in PHASES.items():
        times = [
            step_seconds(
                constants(), NETWORKS["h100"], phy2log, step_tokens(load, phase, SHAPES[0], 8), SHAPES[0]
            ).total_s
            for load in (counts, np.bincount(phy2log.ravel(), minlength=256) * np.ones((58, 1)))
        ]
        ratios[name] = times[0] / times[1]
    assert ratios["prefill"] > ratios["decode"] > 1.0
    assert ratios["decode"] < 1.1


def test_a_split_moves_time_to_where_it_sends_tokens():
    shape = Shape(1, 2, 4, 2)
    phy2log = np.array([[0, 1, 0, 1]])
    tokens = np.array([[4000.0, 4000.0]])
    even = step_seconds(MODEL, NETWORKS["h100"], phy2log, tokens, shape)
    left = step_seconds(MODEL, NETWORKS["h100"], phy2log, tokens, shape, split=np.array([[1.0, 1.0, 0.0, 0.0]]))
    assert even.rank_s[0, 0] == pytest.approx(even.rank_s[0, 1])
    assert left.rank_s[0, 0] > even.rank_s[0, 0] > left.rank_s[0, 1]


def test_known_tokens_take_the_place_of_the_expectation():
    shape = Shape(1, 4, 4, 2)
    choices = np.array([[[0, 1]] * 500 + [[2, 3]] * 500])
    tokens = np.full((1, 4), 500.0)
    free = replace(MODEL, launch_s=0.0, token_s=0.0, active_s=0.0, tile_s=0.0)
    near, far = np.array([[0, 1, 2, 3]]), np.array([[0, 2, 1, 3]])
    blind = [step_seconds(free, NETWORKS["h100"], phy2log, tokens, shape).total_s for phy2log in (near, far)]
    seen = [
        step_seconds(
            free, NETWORKS["h100"], phy2log, tokens, shape, traffic=exact_traffic(choices, phy2log, shape)
        ).total_s
        for phy2log in (near, far)
    ]
    assert blind[0] == blind[1]
    assert seen[0] < blind[0] < seen[1]


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000))
def test_windows_stack_as_layers(seed):
    shape = Shape(3, 8, 12, 4, 2)
    phy2log, counts = skewed(seed, shape)
    tokens = step_tokens(counts, PHASES["decode"], shape, 2)
    once = step_seconds(MODEL, NETWORKS["h800"], phy2log, tokens, shape)
    twice = step_seconds(MODEL, NETWORKS["h800"], np.tile(phy2log, (2, 1)), np.tile(tokens, (2, 1)), shape)
    np.testing.assert_array_equal(np.tile(once.layer_s, 2), twice.layer_s)


def test_the_formulas_start_without_torch():
    code = "import sys, gpu_eval.cost_model, gpu_eval.communication; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
