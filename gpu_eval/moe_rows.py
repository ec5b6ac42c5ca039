"""Steps of served traces on a device: the placements of several programs on the same windows and layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gpu_eval.moe_layer import Placement, StepMeasurement, measure_steps, sample_rows
from gpu_eval.moe_ranks import MoeRanks
from gpu_eval.serving import ServingResult, equal_split, window_tokens
from gpu_eval.serving_costs import ModelCosts
from gpu_eval.workloads import LoadTrace

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measured:
    """What the rows of one program took, measured and by the model, in seconds; and each rank of each row."""

    measured_s: float
    model_s: float
    rank_s: tuple[tuple[float, ...], ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class Rows:
    """Windows and layers that are measured, the same for all programs of a trace."""

    windows: int
    layers: int
    budget_s: float
    """For each program."""
    seed: int


def measure_rows(
    trace: LoadTrace, results: Sequence[ServingResult], costs: ModelCosts, ranks: MoeRanks, rows: Rows
) -> list[Measured]:
    """Measure what was in force at the end of the sampled windows, for all `results` in turn, every rank.

    `costs` may be of other experts than `ranks` run, where these only try the path. Raises ValueError, one line, when
    the device holds too little.
    """
    shape = costs.config.shape
    windows, layers = sample_rows(trace.windows - 1, shape.layers, rows.windows, rows.layers, rows.seed)
    last = {window: window_tokens(trace, window + 1, costs.config, 0)[-1] for window in np.unique(windows).tolist()}
    tokens = np.array([last[window][layer] for window, layer in zip(windows.tolist(), layers.tolist(), strict=True)])
    placements = [_placement(result, windows, layers, shape.experts) for result in results]
    measured = measure_steps(
        ranks,
        placements,
        tokens,
        shape,
        costs.network,
        mode="final",
        model=replace(costs.model, size=ranks.size, precision=ranks.precision),
        budget_s=rows.budget_s,
        seed=rows.seed,
    )
    return [_joined(costs, placement, tokens, step) for placement, step in zip(placements, measured, strict=True)]


def _placement(result: ServingResult, windows: Ints, layers: Ints, experts: int) -> Placement:
    placed = result.placements[windows, layers].astype(np.int64)
    chosen = [result.splits[window] for window in windows.tolist()]
    if all(split is None for split in chosen):
        return Placement(placed)
    shares = equal_split(placed, experts)
    for row, (split, layer) in enumerate(zip(chosen, layers.tolist(), strict=True)):
        if split is not None:
            shares[row] = split[layer]
    return Placement(placed, shares)


def _joined(costs: ModelCosts, placement: Placement, tokens: Ints, step: StepMeasurement) -> Measured:
    rows = list(step.rows)
    split = None if placement.split is None else placement.split[rows]
    model = costs.layer_seconds(placement.phy2log[rows], split, tokens[None, rows])
    return Measured(
        measured_s=sum(step.layer_s),
        model_s=float(model.sum()),
        rank_s=tuple(tuple(0.0 if value is None else value for value in row) for row in step.rank_s),
        complete=step.complete,
    )
