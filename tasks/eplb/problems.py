"""What programs are judged on: shapes under loads of some regime, and which of them each split holds.

A transition is a window of loads, which the program is given, and the one after it, which no program ever sees. Every
transition comes from a trace of its own, so that no window that is given says anything about another one's future.
Prefill places experts with groups kept on nodes; decode without groups (DeepSeek's own advice for it).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from adrs_ray.task import Split
from gpu_eval.bounds import gpu_bound
from gpu_eval.shapes import SHAPES, Shape
from gpu_eval.workloads import REGIMES, generate

Loads = NDArray[np.int64]

_SPLIT_NUMBERS: dict[Split, int] = {"train": 1, "validation": 2, "test": 3, "stress": 4}

TRANSITIONS = 2
"""Per problem. Each holds dozens of layers; a slow program is called two times more."""

V3, V3_WIDE, QWEN, MANY_EXPERTS, FEW_EXPERTS = SHAPES


@dataclass(frozen=True, slots=True, eq=False)
class Transition:
    """A window [L, E] and the next one, with the best balance that any placement can have under each."""

    now: Loads
    following: Loads
    now_bound: float
    following_bound: float


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """One case: transitions of one shape. `shape` is that of the call, of one group where groups do not count."""

    name: str
    shape: Shape
    transitions: tuple[Transition, ...]
    source: Literal["generated", "recorded"] = "generated"

    @property
    def grouped(self) -> bool:
        """Whether every group of experts must stay on one node."""
        return self.shape.groups > 1 and self.shape.local_groups

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """The arguments of a call after the loads."""
        return (self.shape.slots, self.shape.groups, self.shape.nodes, self.shape.gpus)


def transition(now: Loads, following: Loads, shape: Shape) -> Transition:
    """With the bounds of both windows."""
    bounds = (gpu_bound(window, shape, grouped=shape.groups > 1) for window in (now, following))
    return Transition(now, following, *bounds)


@cache
def problems(split: Split) -> tuple[Problem, ...]:
    """The generated problems of a split, equal in every process."""
    return tuple(_drawn(split, number, shape, regime) for number, (shape, regime) in enumerate(_listed(split)))


def _listed(split: Split) -> Iterable[tuple[Shape, str]]:
    """Shape and regime of each problem."""
    if split == "train":
        yield V3, "trt"
        yield V3, "decode"
        yield V3_WIDE, "steady"
        yield QWEN, "heavy"
        yield MANY_EXPERTS, "trt"
        yield FEW_EXPERTS, "adrs"
    elif split == "validation":
        yield V3, "heavy"
        yield V3_WIDE, "decode"
        yield QWEN, "trt"
        yield MANY_EXPERTS, "adrs"
        yield FEW_EXPERTS, "steady"
        yield Shape(40, 160, 168, 12, 2, 8), "trt"
        yield Shape(36, 192, 240, 24, 4, 4), "decode"
    elif split == "test":
        yield V3, "adrs"
        yield V3, "steady"
        yield V3_WIDE, "trt"
        yield QWEN, "decode"
        yield MANY_EXPERTS, "heavy"
        yield FEW_EXPERTS, "trt"
        yield Shape(27, 60, 72, 6, 2, 4), "heavy"
        yield Shape(45, 160, 180, 12, 4, 8), "decode"
    else:
        yield Shape(1, 256, 288, 32, 4, 8), "heavy"
        yield Shape(30, 128, 128, 16, 2, 8), "trt"
        yield Shape(30, 64, 64, 64, 4, 8), "steady"
        yield Shape(12, 96, 100, 1, 1, 1), "adrs"
        yield Shape(61, 384, 448, 64, 8, 8), "heavy"
        yield Shape(20, 80, 168, 21, 3, 8), "trt"


def _drawn(split: Split, number: int, shape: Shape, regime: str) -> Problem:
    if regime == "decode":
        shape = Shape(shape.layers, shape.experts, shape.slots, shape.gpus, shape.nodes)
    drawn = []
    for index in range(TRANSITIONS):
        seed = (_SPLIT_NUMBERS[split], number, index)
        now, following = generate(REGIMES[regime], shape.layers, shape.experts, 2, seed).counts
        drawn.append(transition(now, following, shape))
    phase = "decode" if regime == "decode" else f"prefill, {regime}"
    name = f"{shape.layers}x{shape.experts} in {shape.slots} slots, {phase}"
    return Problem(name, shape, tuple(drawn))


def fresh(problem: Problem, count: int, rng: np.random.Generator) -> Loads:
    """Loads [count, L, E] that no program has met and that are like the problem's own in all that costs time.

    A window of the problem, each expert's load times lognormal noise of a third of the spread of its layer, as
    skewed as before, experts relabelled per layer at random: nothing that a program has kept is of use for them.
    """
    windows = np.stack([each.now for each in problem.transitions])
    logs = np.log1p(windows[rng.integers(len(windows), size=count)].astype(np.float64))
    mean, spread = logs.mean(axis=2, keepdims=True), logs.std(axis=2, keepdims=True)
    varied = logs - mean + _NOISE * spread * rng.standard_normal(logs.shape)
    varied = mean + varied / np.sqrt(1 + _NOISE**2)  # as skewed as before
    return np.asarray(np.rint(np.expm1(rng.permuted(varied, axis=2))).clip(0), np.int64)


_NOISE = 1 / 3
