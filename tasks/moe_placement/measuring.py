"""Steps of a served trace on a device: the candidate's placements and the initial one, in turn, on equal rows.

torch is imported when the first row is measured.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import TYPE_CHECKING

from gpu_eval.row_budget import Rows
from gpu_eval.serving import ServingResult
from gpu_eval.shapes import ExpertSize

from .scenario import Scenario, trace_of

if TYPE_CHECKING:
    from gpu_eval.moe_ranks import MoeRanks


SCREENING = Rows(windows=4, layers=2, budget_s=2.0, mode="screening")
"""15 s or so for a candidate on the four cases of train; ranks that matter by the model, and some at random."""
FINAL = Rows(windows=1_000, layers=2, budget_s=12.0)
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

    rows: Rows
    """Of a case, for the candidate, and as much for the same rows of the initial placement."""
    device: str = "cuda"
    size: ExpertSize | None = None
    """Of the experts that run; None: the case's own. Another one makes sense where no GPU is, to try the path."""
    precision: str | None = None
    """Likewise."""

    def measure(self, scenario: Scenario, result: ServingResult, never: ServingResult) -> Pair:
        """Raises ValueError, one line, when the device is not there or holds too little."""
        from gpu_eval.moe_rows import measure_rows

        config = scenario.config
        with _ON_DEVICE:
            ranks = _ranks(
                self.size or config.size, config.shape.slots_per_gpu, self.device, self.precision or config.precision
            )
            both = measure_rows(trace_of(scenario), (result, never), scenario.costs, ranks, self.rows, scenario.seed)
        errors = [each.model_error for each in both if each.model_error is not None]
        return Pair(both[0].ratio, both[1].ratio, len(both[0].rank_s), fmean(errors) if errors else 0.0)


_ON_DEVICE = threading.Lock()


@lru_cache(maxsize=4)
def _ranks(size: ExpertSize, slots: int, device: str, precision: str) -> MoeRanks:
    """Weights stay on the device from one candidate to the next."""
    from gpu_eval.moe_ranks import MoeRanks

    return MoeRanks(size, slots, device, precision)
