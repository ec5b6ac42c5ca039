"""Cost models computed from what makers print: bounds on speed, for ranking placements before any GPU has run them.

`constants/*.json` holds what `models` gives here; a calibration on the device (`moe_layer.calibrate`) replaces it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .cost_model import CostModel
from .precision import expert_bytes
from .shapes import EXPERT_SIZES, ExpertSize

TILE = 128
"""Rows per tile of the grouped GEMMs of Hopper (DeepGEMM's m-grouped contiguous layout)."""
LAUNCH_S = 10e-6
"""Assumed: the start and the tail of a graph of three kernels."""


@dataclass(frozen=True, slots=True)
class DataSheet:
    """One GPU as printed: memory bandwidth, and dense tensor-core FLOP/s without sparsity."""

    device: str
    memory_bytes_s: float
    bf16_flops: float
    fp8_flops: float


DATA_SHEETS: dict[str, DataSheet] = {
    "h100": DataSheet("NVIDIA H100 SXM", 3.35e12, 989e12, 1979e12),
    "h200": DataSheet("NVIDIA H200 SXM", 4.8e12, 989e12, 1979e12),
}


def models(sheet: DataSheet) -> list[CostModel]:
    """The roofline of every expert size but `tiny`, in bf16 and fp8."""
    sizes = [size for size in EXPERT_SIZES.values() if size.name != "tiny"]
    return [_model(sheet, size, precision) for size in sizes for precision in ("bf16", "fp8")]


def _model(sheet: DataSheet, size: ExpertSize, precision: str) -> CostModel:
    flops = sheet.fp8_flops if precision == "fp8" else sheet.bf16_flops
    # SiLU-mul between the GEMMs reads gate and up and writes their product, bf16, and overlaps with neither.
    between = 3 * size.intermediate * 2
    return CostModel(
        device=sheet.device,
        size=size,
        precision=precision,
        launch_s=LAUNCH_S,
        token_s=between / sheet.memory_bytes_s,
        active_s=expert_bytes(size, precision) / sheet.memory_bytes_s,
        tile=TILE,
        tile_s=TILE * size.flops_per_token / flops,
        sharpness=math.inf,
        origin=(
            f"computed from data-sheet numbers, not measured: {sheet.memory_bytes_s / 1e12:g} TB/s, "
            f"{flops / 1e12:g} TFLOP/s dense, tiles of {TILE} rows and {LAUNCH_S * 1e6:g} us of launch assumed"
        ),
    )
