"""How much of a served trace is measured on a device. No torch: options and judges are made before it is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpu_eval.moe_layer import Mode


@dataclass(frozen=True, slots=True)
class Rows:
    """How much of a trace is measured, the same windows and layers for all programs."""

    windows: int
    """At the most."""
    layers: int
    budget_s: float
    """For each program."""
    mode: Mode = "final"
