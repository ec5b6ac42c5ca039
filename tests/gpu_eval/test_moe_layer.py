import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from gpu_eval.communication import NETWORKS, exchange_seconds, expected_traffic
from gpu_eval.cost_model import Phase, constants, step_seconds, step_tokens
from gpu_eval.moe_layer import (
    MoeRanks,
    Placement,
    measure_step,
    measure_steps,
    rank_order_stability,
    sample_rows,
    whole_tokens,
)
from gpu_eval.shapes import EXPERT_SIZES, Shape

pytestmark = pytest.mark.torch

SHAPE = Shape(5, 32, 48, 16, 2)
NETWORK = NETWORKS["h100"]
TINY = EXPERT_SIZES["tiny"]
MODEL = replace(constants("h100", "small"), size=TINY, precision="bf16", token_s=1e-6)


class PlayedRanks:
    """Ranks whose times are the cost model's, without torch: what is measured is known, and counted."""

    size, slots, precision, device_name = TINY, 3, "bf16", "played"
    kernel = type("Kernel", (), {"name": "formula"})()

    def __init__(self, shake=lambda seconds: np.full(8, seconds)):
        self.asked = []
        self.shake = shake

    def seconds(self, tokens):
        self.asked.append(tuple(tokens))
        return self.shake(float(MODEL.rank_seconds(np.array(tokens))))


def problem(seed, tokens_per_gpu=64):
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(np.concatenate([np.arange(32), rng.integers(0, 32, 16)])) for _ in range(5)]
    counts = rng.lognormal(0, 0.9, (5, 32))
    return np.array(rows), step_tokens(counts, Phase("p", tokens_per_gpu), SHAPE, TINY.top_k)


def run(ranks, number=0, **options):
    phy2log, tokens = problem(number)
    return measure_step(ranks, phy2log, tokens, SHAPE, NETWORK, **options)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_step_is_measured_on_the_cpu(precision):
    ranks = MoeRanks(TINY, 3, precision=precision, replays=2, weight_sets=2)
    got = run(ranks)
    assert sorted(got.rows) == [0, 1, 2, 3, 4]
    assert got.complete
    assert got.total_s == pytest.approx(sum(got.layer_s))
    assert all(len(row) == 16 and None not in row for row in got.rank_s)
    assert (got.device, got.kernel, got.network) == (ranks.device_name, "grouped_mm", "h100")
    assert json.loads(json.dumps(got.to_json()))["complete"] is True


def test_final_mode_gives_the_models_step_when_ranks_take_what_the_model_says():
    phy2log, tokens = problem(1)
    whole = np.array(tokens)
    got = run(PlayedRanks(), 1, model=MODEL)
    expected = step_seconds(MODEL, NETWORK, phy2log, whole, SHAPE)
    # Whole tokens per slot against fractions: at most one token and one tile's edge apart.
    np.testing.assert_allclose(got.layer_s, expected.layer_s[list(got.rows)], rtol=0.05)
    assert got.model_error == pytest.approx(0.0)


def test_a_rank_holds_its_experts_and_its_exchange():
    phy2log, tokens = problem(2)
    got = run(PlayedRanks(), 2)
    copies = np.stack([np.bincount(row, minlength=32) for row in phy2log])
    slots = np.take_along_axis(tokens / copies, phy2log, axis=1)
    exchange = exchange_seconds(expected_traffic(phy2log, slots, SHAPE, TINY.top_k), SHAPE, TINY, NETWORK)
    np.testing.assert_allclose(np.array(got.rank_s) - np.array(got.experts_s), exchange[list(got.rows)])
    assert got.model_error is None


def test_screening_measures_the_ranks_that_matter_and_finds_the_slowest():
    final, screened = run(PlayedRanks(), 3), run(PlayedRanks(), 3, mode="screening", model=MODEL)
    assert screened.layer_s == final.layer_s
    assert screened.slowest_rank == final.slowest_rank
    assert {sum(value is not None for value in row) for row in screened.rank_s} == {8}
    again = run(PlayedRanks(), 3, mode="screening", model=MODEL)
    assert again.rank_s == screened.rank_s
    other = run(PlayedRanks(), 3, mode="screening", model=MODEL, seed=1)
    assert sorted(other.layer_s) == sorted(screened.layer_s)


def test_the_slowest_rank_is_picked_on_one_half_of_the_replays_and_read_from_the_other():
    """With ranks alike but for noise, the picked rank's second half is as typical as any: no bias of the maximum."""
    rng = np.random.default_rng(0)
    phy2log = np.tile(np.arange(48) % 32, (200, 1))
    tokens = np.tile(np.where(np.arange(32) < 16, 200.0, 100.0), (200, 1))
    got = measure_step(
        PlayedRanks(lambda seconds: seconds * np.exp(0.05 * rng.normal(size=8))),
        phy2log,
        tokens,
        replace(SHAPE, layers=200),
        NETWORK,
    )
    experts = np.array(got.experts_s)
    assert experts.max(axis=1).mean() > 1.03 * experts.mean()
    exchange = np.array(got.rank_s) - experts
    read = np.array(got.layer_s) - exchange[:, 0]
    assert read.mean() == pytest.approx(experts.mean(), rel=0.01)


def test_a_spent_budget_ends_the_work_after_whole_rows():
    phy2log, tokens = problem(4)
    ticks = iter([0.0, 4.0, 8.0, 12.0, 16.0, 20.0])
    ranks = PlayedRanks()
    got = measure_steps(ranks, [Placement(phy2log)], tokens, SHAPE, NETWORK, budget_s=10.0, clock=lambda: next(ticks))[
        0
    ]
    assert (len(got.rows), got.planned_rows, got.complete, got.spent_s) == (2, 5, False, 8.0)
    assert len(ranks.asked) == 2 * 16
    assert len(got.layer_s) == len(got.rank_s) == 2


def test_the_first_row_is_measured_whatever_the_budget():
    assert len(run(PlayedRanks(), budget_s=0.0).rows) == 1


def test_placements_are_measured_row_by_row_in_alternating_order():
    tokens = problem(5)[1]
    placements = [Placement(problem(number)[0]) for number in (5, 6)]
    together, alone = PlayedRanks(), [PlayedRanks(), PlayedRanks()]
    got = measure_steps(together, placements, tokens, SHAPE, NETWORK)
    for one, ranks, placement in zip(got, alone, placements, strict=True):
        assert one == replace(measure_steps(ranks, [placement], tokens, SHAPE, NETWORK)[0], spent_s=one.spent_s)
    expected = []
    for turn in range(5):
        for ranks in alone if turn % 2 == 0 else alone[::-1]:
            expected += ranks.asked[16 * turn : 16 * (turn + 1)]
    assert together.asked == expected


def test_a_split_reaches_the_ranks():
    shape = Shape(1, 2, 4, 2)
    ranks = PlayedRanks()
    ranks.slots = 2
    split = np.array([[1.0, 0.25, 0.0, 0.75]])
    measure_step(ranks, np.array([[0, 1, 0, 1]]), np.array([[8, 8]]), shape, NETWORK, split=split)
    assert ranks.asked == [(8, 2), (0, 6)]


def test_ranks_without_tokens_take_their_exchange_only():
    ranks = MoeRanks(TINY, 3, replays=2, weight_sets=1)
    got = measure_step(ranks, problem(0)[0], np.zeros((5, 32)), SHAPE, NETWORK, model=MODEL)
    assert got.total_s == pytest.approx(5 * 2 * NETWORK.fixed_us * 1e-6)
    assert got.model_error is None


@given(st.lists(st.lists(st.floats(0, 1e6), min_size=1, max_size=20), min_size=1, max_size=1))
def test_whole_tokens_stay_near_and_keep_the_sum(rows):
    expected = np.array(rows)
    whole = whole_tokens(expected)
    assert (np.abs(whole - expected) < 1.0 + 1e-6).all()
    assert (whole[expected == 0] == 0).all()
    assert (whole >= 0).all()
    assert abs(whole.sum() - expected.sum()) <= 0.5 + 1e-6


def test_rows_are_seeded_pairs_of_windows_and_layers():
    windows, layers = sample_rows(10, 58, 2, 8, 7)
    assert len(windows) == len(layers) == 16
    assert len(set(zip(windows.tolist(), layers.tolist(), strict=True))) == 16
    assert len(set(windows.tolist())) == 2
    again = sample_rows(10, 58, 2, 8, 7)
    assert (again[0].tolist(), again[1].tolist()) == (windows.tolist(), layers.tolist())
    assert sample_rows(10, 58, 2, 8, 8)[1].tolist() != layers.tolist()
    every = sample_rows(2, 3, 9, 9, 0)
    assert (every[0].tolist(), every[1].tolist()) == ([0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2])
    with pytest.raises(ValueError, match="expected at least 1"):
        sample_rows(2, 3, 0, 1, 0)


def test_rank_order_is_stable_between_equal_runs_and_turned_round_by_reversal():
    _phy2log, tokens = problem(0)
    placements = [Placement(problem(seed)[0]) for seed in range(6)]
    first, second = (measure_steps(PlayedRanks(), placements, tokens, SHAPE, NETWORK) for _ in range(2))
    assert rank_order_stability(first, second) == pytest.approx(1.0)
    turned = [replace(one, total_s=-one.total_s) for one in second]
    assert rank_order_stability(first, turned) == pytest.approx(-1.0)
    short = measure_steps(PlayedRanks(), placements, tokens, SHAPE, NETWORK, budget_s=0.0)
    with pytest.raises(ValueError, match="different rows"):
        rank_order_stability(first, short)


def test_parts_that_do_not_fit_are_refused():
    phy2log, tokens = problem(0)
    ranks = PlayedRanks()
    with pytest.raises(ValueError, match="the ranks have 3 slots, the shape 6 per GPU"):
        measure_step(ranks, phy2log, tokens, Shape(5, 32, 48, 8, 2), NETWORK)
    with pytest.raises(ValueError, match=r"tokens have shape \[5, 31\], expected \[rows, 32\]"):
        measure_step(ranks, phy2log, tokens[:, 1:], SHAPE, NETWORK)
    with pytest.raises(ValueError, match=r"a placement has shape \[4, 48\], expected \[5, 48\]"):
        measure_step(ranks, phy2log[1:], tokens, SHAPE, NETWORK)
    with pytest.raises(ValueError, match="screening picks ranks by a cost model"):
        measure_step(ranks, phy2log, tokens, SHAPE, NETWORK, mode="screening")
    with pytest.raises(ValueError, match="the cost model is for small in bf16, the ranks run tiny in bf16"):
        measure_step(ranks, phy2log, tokens, SHAPE, NETWORK, model=constants("h100", "small"))
