"""Weights of experts that every rank can make anew: what a slot must hold after a move is known without asking.

Each weight is a hash of its place, its expert and its layer in whole numbers, so CPUs and GPUs make equal bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .grouped_gemm import DTYPES, ExpertWeights, Matrices
from .shapes import ExpertSize

PRECISIONS = ("fp32", "bf16")
_UNIFORM_SD = 12**-0.5
_MASK = 0xFFFFFFFF


def make_slots(
    size: ExpertSize, layer: int, experts: Sequence[int], device: torch.device, precision: str
) -> ExpertWeights:
    """Slots that hold `experts` of `layer`, in that order. ValueError on a precision but `fp32` and `bf16`."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}, expected one of {', '.join(PRECISIONS)}")
    dtype = DTYPES[precision]
    up = torch.empty(len(experts), 2 * size.intermediate, size.hidden, device=device, dtype=dtype)
    down = torch.empty(len(experts), size.hidden, size.intermediate, device=device, dtype=dtype)
    for slot, expert in enumerate(experts):
        _fill(up[slot], layer, expert, 0)
        _fill(down[slot], layer, expert, 1)
    return ExpertWeights(Matrices(up, None), Matrices(down, None))


def tensors_of(weights: ExpertWeights, slot: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Views of both matrices of one slot: all that a move of its expert must carry."""
    return weights.up.values[slot], weights.down.values[slot]


def some_slots(weights: ExpertWeights, start: int, end: int) -> ExpertWeights:
    """Views of the slots from `start` to before `end`."""
    return ExpertWeights(Matrices(weights.up.values[start:end], None), Matrices(weights.down.values[start:end], None))


def differing_slots(
    weights: ExpertWeights, size: ExpertSize, layer: int, experts: Sequence[int], precision: str
) -> list[int]:
    """Slots that do not hold the weights of their entry in `experts`, bit by bit."""
    device = weights.up.values.device
    wrong = []
    for slot, expert in enumerate(experts):
        right = tensors_of(make_slots(size, layer, [expert], device, precision), 0)
        if not all(torch.equal(*pair) for pair in zip(tensors_of(weights, slot), right, strict=True)):
            wrong.append(slot)
    return wrong


def _fill(matrix: torch.Tensor, layer: int, expert: int, part: int) -> None:
    """Uniform values with variance 1 / columns, so that outputs are about as large as inputs."""
    columns = matrix.shape[1]
    mixed = torch.arange(matrix.numel(), device=matrix.device, dtype=torch.int64)
    mixed += ((layer * 65_537 + expert) * 2 + part) * 668_265_263
    for factor in (0x2C1B3C6D, 0x297A2D39):
        mixed &= _MASK
        mixed ^= mixed >> 15
        mixed *= factor
    centred = ((mixed >> 12) & 0xFFFF).to(torch.float32) / 65_536 - 0.5
    matrix.copy_((centred * (columns**-0.5 / _UNIFORM_SD)).view_as(matrix))
