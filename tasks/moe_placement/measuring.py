"""Steps of a served trace on a device: the candidate's placements and the initial one, in turn, on equal rows.

A row is a window and a layer: the tokens of the window's last sample, under what was in force at its end. torch is
imported when the first row is measured.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpu_eval.serving import ServingResult, equal_split, window_tokens
from gpu_eval.serving_costs import ModelCosts
from gpu_eval.shapes import ExpertSize

from .scenario import Ints, Scenario, trace_of

if TYPE_CHECKING:
    from gpu_eval.moe_layer import Mode, Placement
    from gpu_eval.moe_ranks import MoeRanks

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much of a case is measured."""

    mode: Mode
    windows: int
    """At the most."""
    layers: int
    budget_s: float
    """For the candidate's rows of a case, and as much for the same rows of the initial placement."""


SCREENING = Effort("screening", windows=4, layers=2, budget_s=2.0)
"""15 s or so for a candidate on the four cases of train; ranks that matter by the model, and some at random."""
FINAL = Effort("final", windows=1_000, layers=2, budget_s=12.0)
"""All windows, all ranks, as far as the budget reaches: 90 s or so on train. Rows are taken in a seeded order."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Measured over modelled seconds of the rows, all together: of the candidate, and of the initial placement."""

    candidate: float
    never: float
    rows: int
    model_error: float
    """Median of |model / measured - 1| over the measured ranks' experts."""


@dataclass(frozen=True, slots=True)
class Measurer:
    """Measures cases on one device, which it holds while it does: one case at a time in a process.

    On a machine with several GPUs `cuda` is the first one that this process sees.
    """

    effort: Effort
    device: str = "cuda"
    size: ExpertSize | None = None
    """Of the experts that run; None: the case's own. Another one makes sense where no GPU is, to try the path."""
    precision: str | None = None
    """Likewise."""

    def measure(self, scenario: Scenario, result: ServingResult, never: ServingResult) -> Pair:
        """Raises ValueError, one line, when the device is not there or holds too little."""
        from gpu_eval.moe_layer import measure_steps, sample_rows

        shape, costs, effort = scenario.shape, scenario.costs, self.effort
        size = self.size or scenario.config.size
        windows, layers = sample_rows(
            scenario.windows - 1, shape.layers, effort.windows, effort.layers, seed=scenario.seed
        )
        tokens = _row_tokens(scenario, windows, layers)
        placements = [_placement(each, windows, layers, shape.experts) for each in (result, never)]
        with _ON_DEVICE:
            ranks = _ranks(size, shape.slots_per_gpu, self.device, self.precision or scenario.config.precision)
            measured = measure_steps(
                ranks,
                placements,
                tokens,
                shape,
                costs.network,
                mode=effort.mode,
                model=replace(costs.model, size=ranks.size, precision=ranks.precision),
                budget_s=effort.budget_s,
                seed=scenario.seed,
            )
        rows = list(measured[0].rows)
        modelled = [_modelled(costs, placement, tokens, rows) for placement in placements]
        candidate, initial = (
            sum(each.layer_s) / expected if expected > 0 else 1.0
            for each, expected in zip(measured, modelled, strict=True)
        )
        errors = [each.model_error for each in measured if each.model_error is not None]
        return Pair(candidate, initial, len(rows), float(np.mean(errors)) if errors else 0.0)


_ON_DEVICE = threading.Lock()


@lru_cache(maxsize=4)
def _ranks(size: ExpertSize, slots: int, device: str, precision: str) -> MoeRanks:
    """Weights stay on the device from one candidate to the next."""
    from gpu_eval.moe_ranks import MoeRanks

    return MoeRanks(size, slots, device, precision)


def _row_tokens(scenario: Scenario, windows: Ints, layers: Ints) -> Ints:
    trace, config = trace_of(scenario), scenario.config
    by_window = {window: window_tokens(trace, window + 1, config, 0)[-1] for window in np.unique(windows).tolist()}
    return np.array([by_window[w][layer] for w, layer in zip(windows.tolist(), layers.tolist(), strict=True)])


def _placement(result: ServingResult, windows: Ints, layers: Ints, experts: int) -> Placement:
    from gpu_eval.moe_layer import Placement

    phy2log = result.placements[windows, layers].astype(np.int64)
    return Placement(phy2log, _splits(result.splits, phy2log, windows, layers, experts))


def _splits(splits: Sequence[Floats | None], phy2log: Ints, windows: Ints, layers: Ints, experts: int) -> Floats | None:
    chosen = [splits[window] for window in windows.tolist()]
    if all(split is None for split in chosen):
        return None
    rows = equal_split(phy2log, experts)
    for row, (split, layer) in enumerate(zip(chosen, layers.tolist(), strict=True)):
        if split is not None:
            rows[row] = split[layer]
    return rows


def _modelled(costs: ModelCosts, placement: Any, tokens: Ints, rows: list[int]) -> float:
    """Seconds that the cost model says of the same rows, as layers of one step."""
    split = None if placement.split is None else placement.split[rows]
    return float(costs.layer_seconds(placement.phy2log[rows], split, tokens[None, rows]).sum())
