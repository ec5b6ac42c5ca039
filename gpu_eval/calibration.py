"""A cost model fitted to a device by measuring designed ranks on it."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import torch

from .calibration_design import designed_tokens
from .cost_fit import Sample, fit, held_out
from .cost_model import CostModel
from .moe_ranks import MoeRanks


def calibrate(ranks: MoeRanks, *, most_tokens: int = 4096, seed: int = 0, day: date | None = None) -> CostModel:
    """The model of `ranks`' device, expert size and precision; about 45 ranks are measured.

    The largest comes first and does not count: a GPU that idled needs work to reach its clock.

    `most_tokens` per slot on average at the largest: choose what prefill brings. The origin names the device, kernel,
    torch, `day` (default: today, UTC) and the errors on ranks that were not fitted.
    """
    if most_tokens < 1:
        raise ValueError(f"most_tokens is {most_tokens}, expected at least 1")
    fitted, tried = designed_tokens(ranks.slots, most_tokens, seed)
    ranks.seconds(max(fitted, key=sum))
    samples, others = (
        [Sample(tokens, float(np.median(ranks.seconds(tokens)))) for tokens in vectors] for vectors in (fitted, tried)
    )
    origin = (
        f"measured {(day or datetime.now(UTC).date()).isoformat()} on {ranks.device_name}, {ranks.precision}, "
        f"{ranks.kernel.name}, torch {torch.__version__}, {len(samples)} ranks of {ranks.slots} slots fitted"
    )
    return held_out(fit(samples, ranks.device_name, ranks.size, ranks.precision, origin), others)
