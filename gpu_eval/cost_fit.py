"""Constants of a cost model from measured ranks: least squares of relative errors (Levenberg-Marquardt)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .cost_model import CostModel, Floats, corner
from .shapes import ExpertSize

TILES = (1, 16, 32, 64, 128, 256)
"""Tile heights tried; 1: no quantisation."""
SHARPNESS = (1.0, 2.0, 4.0, 8.0, math.inf)
MIN_SAMPLES = 8
_STEPS = 80


@dataclass(frozen=True, slots=True)
class Sample:
    """A measured rank: the tokens of each of its slots, and its seconds."""

    tokens: tuple[int, ...]
    seconds: float


def fit(samples: Sequence[Sample], device: str, size: ExpertSize, precision: str, origin: str) -> CostModel:
    """The model with the smallest root mean square of relative errors over `samples`, written to its `residual`.

    Tile height and sharpness are picked from short lists, the four times fitted for each pair, all kept at or above
    zero. Deterministic. ValueError with fewer than eight samples or one that took no time.
    """
    if len(samples) < MIN_SAMPLES:
        raise ValueError(f"{len(samples)} samples, expected at least {MIN_SAMPLES} to fit a cost model")
    seconds = np.array([sample.seconds for sample in samples])
    if not (np.isfinite(seconds) & (seconds > 0)).all():
        raise ValueError("a sample took no time or no finite time, expected seconds above 0")
    best: CostModel | None = None
    for tile in TILES:
        terms = _terms(samples, tile)
        for sharpness in SHARPNESS:
            times, residual = _least_squares(terms, seconds, sharpness)
            if best is None or best.residual is None or residual < best.residual:
                launch, token, active, per_tile = times.tolist()
                best = CostModel(
                    device, size, precision, launch, token, active, tile, per_tile, sharpness, origin, residual
                )
    assert best is not None
    return best


def relative_errors(model: CostModel, samples: Sequence[Sample]) -> Floats:
    """Model / measured - 1 of each sample."""
    predicted = np.array([float(model.rank_seconds(np.array(sample.tokens))) for sample in samples])
    errors: Floats = predicted / np.array([sample.seconds for sample in samples]) - 1.0
    return errors


def held_out(model: CostModel, samples: Sequence[Sample]) -> CostModel:
    """`model` whose origin tells its largest and median error on samples that it was not fitted to."""
    errors = np.abs(relative_errors(model, samples))
    note = f"{len(errors)} held-out ranks: median error {np.median(errors):.1%}, largest {errors.max():.1%}"
    return replace(model, origin=f"{model.origin}; {note}")


def _terms(samples: Sequence[Sample], tile: int) -> Floats:
    """[samples, 4]: 1, tokens, active slots, tiles."""
    rows = [
        (1, sum(sample.tokens), sum(n > 0 for n in sample.tokens), sum(-(-n // tile) for n in sample.tokens))
        for sample in samples
    ]
    return np.array(rows, dtype=np.float64)


def _least_squares(terms: Floats, seconds: Floats, sharpness: float) -> tuple[Floats, float]:
    """Times of launch, token, active slot and tile, and the root mean square of relative errors they leave.

    Fitted in logarithms, which keeps them above zero, from shares of the median sample.
    """
    usual = np.maximum(terms.mean(axis=0), 1.0)
    logs = np.log(np.array([seconds.min() / 2, seconds.mean() / 20, seconds.mean() / 2, seconds.mean() / 2]) / usual)
    errors, slopes = _linearised(terms, seconds, logs, sharpness)
    damping = 1e-2
    for _ in range(_STEPS):
        normal = slopes.T @ slopes
        damped = normal + damping * np.diag(np.diag(normal)) + 1e-12 * np.eye(4)
        step = np.clip(-np.linalg.solve(damped, slopes.T @ errors), -2.0, 2.0)
        tried = np.clip(logs + step, -60.0, 10.0)
        new_errors, new_slopes = _linearised(terms, seconds, tried, sharpness)
        gain = float(errors @ errors - new_errors @ new_errors)
        if gain > 0:
            logs, errors, slopes, damping = tried, new_errors, new_slopes, damping / 4
            if gain < 1e-12 * len(errors):
                break
        elif damping > 1e8:
            break
        else:
            damping *= 8
    return np.exp(logs), float(np.sqrt(np.mean(errors**2)))


def _linearised(terms: Floats, seconds: Floats, logs: Floats, sharpness: float) -> tuple[Floats, Floats]:
    """Relative errors [samples] and their derivatives by the logarithms [samples, 4]."""
    parts = terms * np.exp(logs)
    memory, compute = parts[:, 2], parts[:, 3]
    joined = corner(memory, compute, sharpness)
    if math.isinf(sharpness):
        by_memory, by_compute = (memory >= compute).astype(np.float64), (memory < compute).astype(np.float64)
    else:
        safe = np.maximum(joined, 1e-300)
        by_memory, by_compute = (memory / safe) ** (sharpness - 1), (compute / safe) ** (sharpness - 1)
    slopes = np.stack([parts[:, 0], parts[:, 1], memory * by_memory, compute * by_compute], axis=1)
    return (parts[:, 0] + parts[:, 1] + joined) / seconds - 1.0, slopes / seconds[:, None]
