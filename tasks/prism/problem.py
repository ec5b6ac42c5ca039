"""A placement problem, and the pressure of a placement, exact.

With W the sum of req_rate / slo and S the sum of sizes (GB) of the models on a GPU, its KV-cache pressure ratio is
KVPR = W / (80 - S); a GPU with S >= 80 has no room for a cache at all. A placement's KVPR is the largest of its GPUs'.
Sizes, rates and slos are whole numbers, and every slo divides `UNIT`: W is a whole number of UNIT-ths, and two
pressures are compared as fractions, without rounding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

GPU_MEM_SIZE = 80
"""GB per GPU."""

UNIT = 2520
"""The least common multiple of 1..10: every slo divides it."""

Models = npt.NDArray[np.int64]
"""Shape (models, 3): size in GB, requests per second, slo."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """A KVPR as the fraction demand / (UNIT * free)."""

    demand: int
    """Sum of req_rate / slo on the GPU, in UNIT-ths."""
    free: int
    """GB left for the cache, at least 1."""

    def __float__(self) -> float:
        return self.demand / (UNIT * self.free)

    def __lt__(self, other: Pressure) -> bool:
        return self.demand * other.free < other.demand * self.free

    def over(self, other: Pressure) -> float:
        """This pressure as a multiple of another, rounded once; 1.0 for equal ones."""
        return (self.demand * other.free) / (other.demand * self.free)


@dataclass(frozen=True)
class Problem:
    """Models to be placed on `gpu_num` GPUs of 80 GB."""

    gpu_num: int
    models: Models

    @cached_property
    def sizes(self) -> list[int]:
        """GB per model."""
        return [int(size) for size in self.models[:, 0]]

    @cached_property
    def demands(self) -> list[int]:
        """req_rate / slo per model, in UNIT-ths."""
        return [int(rate) * UNIT // int(slo) for _, rate, slo in self.models]

    @property
    def digest(self) -> str:
        """Of everything a program is told."""
        return hashlib.sha256(repr((self.gpu_num, self.models.tolist())).encode()).hexdigest()[:16]

    def pressure(self, placement: Mapping[int, Sequence[int]]) -> Pressure:
        """The largest pressure of a placement (GPU -> indices of models), each GPU with less than 80 GB.

        Raises ValueError, one line, for a GPU that is full or no model at all.
        """
        worst: Pressure | None = None
        for gpu, members in placement.items():
            size = sum(self.sizes[m] for m in members)
            if size >= GPU_MEM_SIZE:
                raise ValueError(f"GPU {gpu} holds {size} GB of models, expected less than {GPU_MEM_SIZE}")
            found = Pressure(sum(self.demands[m] for m in members), GPU_MEM_SIZE - size)
            if members and (worst is None or worst < found):
                worst = found
        if worst is None:
            raise ValueError("no model is placed")
        return worst

    def round_robin(self) -> Pressure | None:
        """The pressure of model k on GPU k mod gpu_num, None where that fills a GPU."""
        try:
            return self.pressure({g: range(g, len(self.sizes), self.gpu_num) for g in range(self.gpu_num)})
        except ValueError:
            return None

    @property
    def perfect_balance(self) -> float:
        """Total demand over total free memory: a lower bound, and the leaderboard's "optimum"."""
        return sum(self.demands) / UNIT / (GPU_MEM_SIZE * self.gpu_num - sum(self.sizes))


def first_fit_decreasing(gpu_num: int, sizes: Sequence[int]) -> list[list[int]] | None:
    """Indices per GPU: the largest first, on the first GPU that keeps below 80 GB. None when one fits nowhere."""
    members: list[list[int]] = [[] for _ in range(gpu_num)]
    used = [0] * gpu_num
    for m in sorted(range(len(sizes)), key=lambda m: -sizes[m]):
        gpu = next((g for g in range(gpu_num) if used[g] + sizes[m] < GPU_MEM_SIZE), None)
        if gpu is None:
            return None
        members[gpu].append(m)
        used[gpu] += sizes[m]
    return members
