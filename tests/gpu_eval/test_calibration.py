import math
from datetime import date

import numpy as np
import pytest

pytest.importorskip("torch")

from gpu_eval.calibration import calibrate
from gpu_eval.calibration_design import LEVELS, designed_tokens
from gpu_eval.cost_model import CostModel, constants
from gpu_eval.moe_ranks import MoeRanks
from gpu_eval.shapes import EXPERT_SIZES

pytestmark = pytest.mark.torch


def test_the_design_covers_levels_active_slots_and_skews_and_holds_some_back():
    fitted, tried = designed_tokens(9, 4096, 0)
    assert {(level,) * 9 for level in LEVELS if level <= 4096} <= set(fitted)
    assert {sum(n > 0 for n in vector) for vector in fitted} >= set(range(1, 10))
    assert len(tried) == 5
    assert max(sum(vector) for vector in fitted) == 9 * 4096
    assert not set(tried) & set(fitted)
    assert designed_tokens(9, 4096, 0) == (fitted, tried)
    assert designed_tokens(9, 4096, 1)[1] != tried


def test_a_calibration_names_what_it_measured():
    ranks = MoeRanks(EXPERT_SIZES["tiny"], 3, precision="fp32", replays=4)
    model = calibrate(ranks, most_tokens=256, day=date(2026, 1, 2))
    assert model.origin.startswith("measured 2026-01-02 on cpu, ")
    assert "grouped_mm" in model.origin
    assert "held-out ranks" in model.origin
    assert (model.size, model.precision) == (EXPERT_SIZES["tiny"], "fp32")
    assert CostModel.from_json(model.to_json()) == model


def test_a_calibration_finds_the_constants_of_the_device(monkeypatch):
    truth = constants("h200", "small")
    ranks = MoeRanks(EXPERT_SIZES["tiny"], 9, replays=3)
    jitter = np.array([1.0, 1.0, 5.0])
    monkeypatch.setattr(ranks, "seconds", lambda tokens: jitter * truth.rank_seconds(np.array(tokens)))
    found = calibrate(ranks)
    assert found.residual < 1e-6
    assert (found.tile, found.sharpness) == (128, math.inf)
    assert found.active_s == pytest.approx(truth.active_s, rel=1e-3)
    assert found.tile_s == pytest.approx(truth.tile_s, rel=1e-3)


def test_no_tokens_make_no_calibration():
    ranks = MoeRanks(EXPERT_SIZES["tiny"], 1, replays=2)
    with pytest.raises(ValueError, match="most_tokens is 0"):
        calibrate(ranks, most_tokens=0)
