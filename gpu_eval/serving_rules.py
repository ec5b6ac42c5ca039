"""What a served trace is made of: its configuration, decisions and their checks, costs, the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .invariants import PlacementError, check_phy2log
from .precision import expert_bytes
from .shapes import ExpertSize, Shape

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Phase: TypeAlias = Literal["prefill", "decode"]

SPLIT_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class ServingConfig:
    """What is served, and the rules of a change.

    Raises ValueError, one line, for what cannot be.
    """

    shape: Shape
    size: ExpertSize
    phase: Phase
    tokens_per_gpu: int
    """That each GPU brings into a step."""
    window_steps: int
    precision: str = "bf16"
    """Of the weights."""
    overlap: float = 0.5
    """Share of a copy's seconds that is hidden behind the steps that it overlaps. Assumed, not measured."""
    stall_cap: float = 0.1
    """By how much of itself a step may be lengthened."""

    def __post_init__(self) -> None:
        expert_bytes(self.size, self.precision)
        for name in ("tokens_per_gpu", "window_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if not 0.0 <= self.overlap <= 1.0:
            raise ValueError(f"overlap is {self.overlap}, expected 0 to 1")
        if not 0.0 < self.stall_cap <= 1.0:
            raise ValueError(f"stall_cap is {self.stall_cap}, expected above 0 and at most 1")

    @property
    def routed_tokens(self) -> int:
        """Token-expert pairs of a layer and step."""
        return self.tokens_per_gpu * self.shape.gpus * self.size.top_k

    @property
    def bytes_per_expert(self) -> int:
        return expert_bytes(self.size, self.precision)

    def copying_within(self, step_s: float) -> float:
        """Seconds of copying that fit into a step of this length: what the cap allows, and no more than it lasts."""
        visible = 1.0 - self.overlap
        return step_s if visible == 0.0 else min(step_s, self.stall_cap * step_s / visible)


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What was decided after a window: a placement int [L, P], or None for going on as before.

    `split` float [L, P]: share of its expert's tokens that each slot takes; None: equal shares. It goes with a
    placement. `seconds`: what the decision took.
    """

    placement: Ints | None = None
    split: Floats | None = None
    seconds: float = 0.0


class Costs(Protocol):
    """What steps and copies take: `serving_costs.ModelCosts`, or anything else."""

    def layer_seconds(self, placement: Ints, split: Floats | None, tokens: Ints) -> Floats:
        """Seconds [S, L] of each layer in S steps with `tokens` int [S, L, E]."""
        ...

    def copying(self, old: Ints, new: Ints) -> tuple[Floats, Ints]:
        """For each layer [L], seconds of copying from placement `old` to `new`, and experts that GPUs fetch."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ServingResult:
    """A trace that was served, of W windows that count."""

    step_seconds: Floats
    """[W * window_steps]: every step, stall included."""
    window_seconds: Floats
    """[W]: steps of each window without stalls."""
    stall_seconds: float
    decision_seconds: Floats
    """[W]"""
    changes: int
    """Decisions that named a placement other than the one in force."""
    fetched: int
    """Experts that GPUs copied, all layers and changes; what a newer decision cut off is not counted."""
    balance: float
    """Sum of mean GPU loads / sum of largest GPU loads, over all windows and layers, under what was in force last."""
    placements: NDArray[np.int32]
    """[W, L, P]: in force at the end of each window."""
    splits: tuple[Floats | None, ...]
    """As `placements`; None: equal shares."""

    @property
    def seconds(self) -> float:
        """Wall time."""
        return float(self.step_seconds.sum())

    @property
    def p99_step_seconds(self) -> float:
        return float(np.quantile(self.step_seconds, 0.99))


def check_decision(placement: object, split: object, current: Ints, shape: Shape, seconds: float) -> Decision:
    """A decision of what was answered. A split without a placement is one for the placement in force, `current`.

    Raises PlacementError (a ValueError) that names layer and expert: kinds of `check_phy2log`, and `split`.
    """
    if placement is None and split is None:
        return Decision(seconds=seconds)
    placed: object = current if placement is None else placement
    check_phy2log(placed, shape)
    assert isinstance(placed, np.ndarray)
    whole = placed.astype(np.int64)
    return Decision(whole, None if split is None else _checked_split(split, whole, shape), seconds)


def _checked_split(split: object, placement: Ints, shape: Shape) -> Floats:
    """The split as float64 with sums of exactly 1, as far as floats go."""
    expected = (shape.layers, shape.slots)
    if type(split) is not np.ndarray or split.dtype.kind != "f":
        raise PlacementError("dtype", f"the split is {_type_of(split)}, expected an array of floats")
    if split.shape != expected:
        raise PlacementError("shape", f"the split is {list(split.shape)}, expected {list(expected)}")
    shares = split.astype(np.float64)
    wrong = ~((shares >= 0.0) & np.isfinite(shares))
    if wrong.any():
        layer, slot = (int(i) for i in np.argwhere(wrong)[0])
        text = f"slot {slot} has the share {shares[layer, slot]}, expected a finite one of 0 or more"
        raise PlacementError("split", text, layer, int(placement[layer, slot]))
    cells = placement + np.arange(shape.layers)[:, None] * shape.experts
    sums = np.bincount(cells.ravel(), shares.ravel(), shape.layers * shape.experts)
    off = ~(np.abs(sums - 1.0) <= SPLIT_TOLERANCE)
    if off.any():
        layer, expert = divmod(int(np.argmax(off)), shape.experts)
        raise PlacementError("split", f"its shares sum to {sums[off][0]:.6g}, expected 1", layer, expert)
    return np.asarray(shares / sums[cells], np.float64)


def _type_of(value: object) -> str:
    return f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
