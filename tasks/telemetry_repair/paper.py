"""The public evaluator's scoring: its 30 snapshots, its perturbations in its order of draws, its formula and faults.

Interfaces that a program does not return are not counted, plain numbers earn full confidence, any number is taken, and
a program that returns nothing gets 0.25. Only the test split exists.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from adrs_ray.task import Case, CaseResult, Combined, Split, UsageError, data_file, quality

from . import answer, recorded
from .judge import recorded_file
from .network import Floats, Network
from .perturbation import DOWN, FAMILIES, NOISE, UP
from .public_formula import public_scores

CASES = 3
"""The snapshots are handed out ten at a time: a process per snapshot would cost more than the judging."""
_SEED = 42
_FILE_ROWS = 40
_DRAWN_ROWS = 30


def cases(split: Split) -> list[Case]:
    """The public snapshots, perturbed as publicly. Raises UsageError for other splits and without the recorded file."""
    if split != "test":
        raise UsageError(f"scoring `paper` has the split test only, not {split}: use scoring `sound`")
    path = data_file(recorded_file())
    if path is None:
        raise UsageError(
            f"scoring `paper` needs {recorded_file().file}: set ADRS_DATA_DIR or run `adrs data pull telemetry_repair`"
        )
    network, truth = recorded.read(path)
    readings = _perturbed(network, truth)
    parts = zip(np.split(truth, CASES), np.split(readings, CASES), strict=True)
    return [
        Case(
            id=f"public-{i}",
            seed=_SEED + i,
            public={"readings": reading, "up": np.ones(reading.shape[:2], np.bool_), **network.public},
            hidden=part,
        )
        for i, (part, reading) in enumerate(parts)
    ]


def score(case: Case, raw: Any) -> dict[str, float]:
    """Means of the public parts over the snapshots of a case. Raises MalformedOutput for what is no answer or NaN."""
    truth: Floats = case.hidden
    public = public_scores(answer.read(raw, truth.shape), truth)
    return {
        "public_score": float(public.combined.mean()),
        "counter_accuracy": float(public.counter.mean()),
        "status_accuracy": float(public.status.mean()),
        "public_confidence": float(public.confidence.mean()),
    }


def combine(results: Sequence[CaseResult]) -> Combined:
    """The mean of the public score over snapshots; cases have equally many."""
    names = results[0].metrics
    metrics = {name: fmean(result.metrics[name] for result in results) for name in names}
    metrics.update(quality(results, value="public_score"))
    metrics["score_bound"] = 1.0
    lines = [f"{'case':<12} " + " ".join(f"{name:>18}" for name in names)]
    lines += [f"{r.case:<12} " + " ".join(f"{r.metrics[name]:>18.4f}" for name in names) for r in results]
    return Combined(score=metrics["public_score"], metrics=metrics, artifacts={"cases": "\n".join(lines)})


def _perturbed(network: Network, truth: Floats) -> Floats:
    """Readings as the public evaluator draws them from Python's generator; see the README for the order of draws."""
    rng = random.Random(_SEED)
    rng.sample(range(_FILE_ROWS), _DRAWN_ROWS)  # the draw that picked these snapshots
    return np.array([_perturbed_row(network, row, rng) for row in truth.tolist()])


def _perturbed_row(network: Network, truth: list[list[float]], rng: random.Random) -> list[list[float]]:
    family = rng.choice(FAMILIES)
    noise = 1.0 - NOISE, 1.0 + NOISE
    readings = []
    for true_rx, true_tx in truth:
        reading = [true_rx * rng.uniform(*noise), true_tx * rng.uniform(*noise)]
        if family == "dropped" and rng.random() < 0.2:
            reading = [0.0, 0.0]
        elif family == "scaled" and rng.random() < 0.2:
            reading = _scaled(reading, rng)
        readings.append(reading)
    for router in range(len(network.routers)):
        if rng.random() < 0.8 or not family.startswith("correlated"):
            continue
        for i in np.flatnonzero(network.local == router).tolist():
            # From the counters without noise, as publicly.
            readings[i] = [0.0, 0.0] if family == "correlated_dropped" else _scaled(truth[i], rng)
    return readings


def _scaled(counters: list[float], rng: random.Random) -> list[float]:
    return [counter * rng.choice([rng.uniform(*DOWN), rng.uniform(*UP)]) for counter in counters]
