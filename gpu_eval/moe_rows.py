"""Steps of served traces on a device: the placements of several programs, in turn, on the same windows and layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gpu_eval.moe_layer import Placement, StepMeasurement, measure_steps, sample_rows
from gpu_eval.moe_ranks import MoeRanks
from gpu_eval.row_budget import Rows
from gpu_eval.serving import ServingResult, even_split, window_tokens
from gpu_eval.serving_costs import ModelCosts
from gpu_eval.workloads import LoadTrace

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measured:
    """What the rows of one program took, measured and by the model, in seconds; and each rank of each row."""

    measured_s: float
    model_s: float
    rank_s: tuple[tuple[float | None, ...], ...]
    """None: not measured."""
    model_error: float | None
    """Median of |model / measured - 1| over the measured ranks' experts."""

    @property
    def ratio(self) -> float:
        """Measured over modelled seconds; 1 for rows in which nothing happens."""
        return self.measured_s / self.model_s if self.model_s > 0 else 1.0


def measure_rows(
    trace: LoadTrace,
    results: Sequence[ServingResult],
    costs: ModelCosts,
    ranks: MoeRanks,
    rows: Rows,
    seed: int,
) -> list[Measured]:
    """Measure what was in force at the end of the windows that `seed` draws, for all `results` in turn.

    A row is a window and a layer, with the tokens of the window's last sample. `costs` may be of other experts than
    `ranks` run, where these only try the path. Raises ValueError, one line, when the device holds too little.
    """
    shape = costs.config.shape
    windows, layers = sample_rows(trace.windows - 1, shape.layers, rows.windows, rows.layers, seed)
    last = {window: window_tokens(trace, window + 1, costs.config, 0)[-1] for window in np.unique(windows).tolist()}
    tokens = np.array([last[window][layer] for window, layer in zip(windows.tolist(), layers.tolist(), strict=True)])
    placements = [_placement(result, windows, layers, shape.experts) for result in results]
    measured = measure_steps(
        ranks,
        placements,
        tokens,
        shape,
        costs.network,
        mode=rows.mode,
        model=replace(costs.model, size=ranks.size, precision=ranks.precision),
        budget_s=rows.budget_s,
        seed=seed,
    )
    return [_joined(costs, placement, tokens, step) for placement, step in zip(placements, measured, strict=True)]


def _placement(result: ServingResult, windows: Ints, layers: Ints, experts: int) -> Placement:
    placed = result.placements[windows, layers].astype(np.int64)
    chosen = [result.splits[window] for window in windows.tolist()]
    if all(split is None for split in chosen):
        return Placement(placed)
    shares = even_split(placed, experts)
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
        rank_s=step.rank_s,
        model_error=step.model_error,
    )
