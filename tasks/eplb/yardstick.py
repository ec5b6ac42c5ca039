"""The baseline that programs are timed against: heap LPT, run by the referee on the inputs that the program gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adrs_ray.task import UsageError
from gpu_eval.registry import BASELINES
from gpu_eval.shapes import Shape

NAME = "heap_lpt"


@cache
def _program() -> tuple[Any, Callable[..., Any]]:
    """torch and the baseline's function, compiled. Raises UsageError, one line, where it cannot run."""
    try:
        module = BASELINES[NAME].load()
    except ValueError as error:
        raise UsageError(f"task eplb times programs against {NAME}: {error}") from None
    return module.torch, module.rebalance_experts


def placed(windows: NDArray[np.int64], shape: Shape) -> tuple[list[NDArray[np.int64]], list[float]]:
    """The placement of each window [n, L, E] and the seconds that it took, answers held until the last is there."""
    torch, rebalance = _program()
    inputs = [torch.from_numpy(window.copy()) for window in windows]
    answers: list[Any] = []
    seconds: list[float] = []
    for weight in inputs:
        started = perf_counter_ns()
        answers.append(rebalance(weight, shape.slots, shape.groups, shape.nodes, shape.gpus))
        seconds.append((perf_counter_ns() - started) * 1e-9)
    return [answer[0].numpy() for answer in answers], seconds


def ready(shapes: Sequence[Shape]) -> None:
    """Load and compile it before a clock runs. Raises UsageError, one line, where it cannot run."""
    for shape in shapes:
        placed(np.ones((1, shape.layers, shape.experts), np.int64), shape)
