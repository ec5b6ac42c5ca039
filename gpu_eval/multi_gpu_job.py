"""What a measurement on several GPUs is asked for: placements, tokens and their experts, and how often."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .expert_weights import PRECISIONS
from .shapes import ExpertSize, Shape

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MultiGpuJob:
    """What to measure. Tokens stand in equal blocks by process; ValueError, one line, for what cannot be run."""

    shape: Shape
    """Of the layers that a step has; `gpus` are the ranks of the placement, several of which a process may play."""
    size: ExpertSize
    placements: tuple[tuple[str, Ints], ...]
    """Names and `phy2log` [layers, slots]; measured in this order, moving from each to the next."""
    choices: NDArray[np.integer]
    """[layers, tokens, top_k]: the experts of every token."""
    gates: NDArray[np.float32]
    """[layers, tokens, top_k]: their weights in the token's sum."""
    precision: str = "bf16"
    repeats: int = 20
    warm_up: int = 3
    seed: int = 0
    """Of the tokens' values."""
    checked_tokens: int = 4
    """Of each process, compared with the plain computation in every layer and placement."""
    keep_outputs: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision!r}, expected one of {', '.join(PRECISIONS)}")
        if self.choices.ndim != 3 or self.choices.shape != self.gates.shape or len(self.choices) != self.shape.layers:
            raise ValueError(
                f"choices {list(self.choices.shape)} and gates {list(self.gates.shape)}: expected both "
                f"[{self.shape.layers}, tokens, top_k]"
            )
        if self.choices.size and not 0 <= self.choices.min() <= self.choices.max() < self.shape.experts:
            raise ValueError(f"choices name experts outside 0 to {self.shape.experts - 1}")
        if not self.placements or self.repeats < 1:
            raise ValueError("a measurement needs a placement and a repeat")
        for name, placement in self.placements:
            if placement.shape != (self.shape.layers, self.shape.slots):
                raise ValueError(f"placement {name}: {list(placement.shape)}, expected {self.shape.name}")
            present = np.sort(placement, axis=1)
            lacking = (np.diff(present, axis=1, prepend=-1, append=self.shape.experts) > 1).any()
            if present.min() < 0 or present.max() >= self.shape.experts or lacking:
                raise ValueError(
                    f"placement {name}: expected every expert of 0 to {self.shape.experts - 1} in each layer"
                )


def hidden_block(job: MultiGpuJob, index: int, world: int) -> Tensor:
    """The tokens' values [tokens, hidden] that process `index` starts every layer with, float32 on the CPU."""
    generator = torch.Generator().manual_seed(job.seed * 1_000_003 + index)
    return torch.randn(job.choices.shape[1] // world, job.size.hidden, generator=generator)
