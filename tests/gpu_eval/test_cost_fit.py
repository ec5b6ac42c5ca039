import math
from dataclasses import replace

import numpy as np
import pytest

from gpu_eval.calibration_design import designed_tokens
from gpu_eval.cost_fit import Sample, fit, held_out, relative_errors
from gpu_eval.cost_model import constants

SHEET = constants("h100", "small")
TRUTHS = [SHEET, replace(SHEET, sharpness=4.0, tile=64), replace(SHEET, launch_s=1e-4, token_s=1e-7, sharpness=1.0)]


def samples_of(model, noise, seed=0):
    rng = np.random.default_rng(seed)
    fitted, tried = designed_tokens(9, 4096, seed)
    return [
        [Sample(v, float(model.rank_seconds(np.array(v))) * math.exp(noise * rng.normal())) for v in vectors]
        for vectors in (fitted, tried)
    ]


@pytest.mark.parametrize("truth", TRUTHS, ids=["roofline", "round", "sum"])
def test_exact_times_give_the_constants_back(truth):
    fitted, tried = samples_of(truth, 0.0)
    found = fit(fitted, truth.device, truth.size, truth.precision, truth.origin)
    assert found.residual < 1e-6
    assert np.abs(relative_errors(found, tried)).max() < 1e-5
    assert (found.tile, found.sharpness) == (truth.tile, truth.sharpness)
    assert found.launch_s == pytest.approx(truth.launch_s, rel=1e-3)
    assert found.active_s == pytest.approx(truth.active_s, rel=1e-3)
    assert found.tile_s == pytest.approx(truth.tile_s, rel=1e-3)


@pytest.mark.parametrize("truth", TRUTHS, ids=["roofline", "round", "sum"])
def test_one_percent_of_noise_leaves_about_one_percent_of_error(truth):
    fitted, tried = samples_of(truth, 0.01)
    found = fit(fitted, truth.device, truth.size, truth.precision, truth.origin)
    assert found.residual < 0.015
    assert np.median(np.abs(relative_errors(found, tried))) < 0.02


def test_held_out_errors_are_told_with_the_origin():
    fitted, tried = samples_of(SHEET, 0.01)
    model = held_out(fit(fitted, "d", SHEET.size, "bf16", "measured"), tried)
    assert model.origin.startswith("measured; 5 held-out ranks: median error")


def test_too_little_to_fit_is_refused():
    fitted, _tried = samples_of(SHEET, 0.0)
    with pytest.raises(ValueError, match="7 samples, expected at least 8"):
        fit(fitted[:7], "d", SHEET.size, "bf16", "o")
    with pytest.raises(ValueError, match="seconds above 0"):
        fit([*fitted, Sample((1, 1), 0.0)], "d", SHEET.size, "bf16", "o")
