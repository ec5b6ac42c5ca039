"""Model placement done literally, for comparison: pressures in plain floats, optima by trying every placement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

Model = Sequence[int]
"""Size in GB, requests per second, slo."""


def largest_kvpr(placement: Mapping[int, Sequence[int]], models: Sequence[Model]) -> float:
    """The largest KVPR of the GPUs, 1,000,000 for one that is full."""
    largest = 0.0
    for members in placement.values():
        demand = 0.0
        size = 0
        for m in members:
            demand += models[m][1] / models[m][2]
            size += models[m][0]
        largest = max(largest, demand / (80 - size) if size < 80 else 1e6)
    return largest


def least_kvpr(gpu_num: int, models: Sequence[Model]) -> float:
    """The least largest KVPR over all gpu_num ** models placements, 1,000,000 when all fill a GPU."""
    return min(
        largest_kvpr({g: [m for m, at in enumerate(gpus) if at == g] for g in range(gpu_num)}, models)
        for gpus in product(range(gpu_num), repeat=len(models))
    )
