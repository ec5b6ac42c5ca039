"""The least possible KVPR of a problem, exact.

A placement stays below the pressure N / (UNIT * D) exactly if on every GPU demand * D + size * N < 80 * N, for
demand / (80 - size) < N / D says just that. With a weight of demand * D + size * N per model the question is whether
the models fit into bins of 80 * N - 1: bin packing of integers, which `packing` answers exactly. From a placement at
hand: ask for a better one, take it, ask again; when there is none, the last was the best. Bisection on the pressure
first saves most of these steps.

`python -m tasks.prism.optimum` prints the optimum of every problem and what it cost to prove.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from time import process_time

import numpy as np

from adrs_ray.task import SPLITS

from .packing import DOES_NOT_FIT, FITS, pack
from .problem import GPU_MEM_SIZE, Pressure, Problem
from .splits import problems

MAX_NODES = 5_000_000
"""Placements tried per packing that has to be proven impossible."""

_BISECTION_NODES = 20_000
_BISECTION_STEPS = 12
_BISECTION_DENOMINATOR = 1_000


class NotProven(Exception):
    """The search gave up before the optimum was proven."""


@dataclass(frozen=True, slots=True)
class Optimum:
    """The least pressure of a problem and a placement that has it: indices of models per GPU."""

    pressure: Pressure
    members: tuple[tuple[int, ...], ...]


def optimum(problem: Problem, max_nodes: int = MAX_NODES) -> Optimum:
    """A placement of least pressure.

    Raises NotProven when a packing took more than `max_nodes`, ValueError when the models have no placement at all.
    """
    start = _pack(problem.gpu_num, problem.sizes, GPU_MEM_SIZE - 1, max_nodes)
    if start is None:
        raise ValueError(f"{len(problem.sizes)} models cannot be placed on {problem.gpu_num} GPUs")
    best = _bisect(problem, _placed(problem, start))
    while True:
        members = _below(problem, best.pressure, max_nodes)
        if members is None:
            return best
        best = _placed(problem, members)


def _bisect(problem: Problem, best: Optimum) -> Optimum:
    """Better placements for thresholds between a lower bound and the best known one, each given up early."""
    free = GPU_MEM_SIZE * problem.gpu_num - sum(problem.sizes)
    alone = (demand / (GPU_MEM_SIZE - size) for demand, size in zip(problem.demands, problem.sizes, strict=True))
    low = max(sum(problem.demands) / free, *alone)
    for _ in range(_BISECTION_STEPS):
        high = best.pressure.demand / best.pressure.free
        if high <= low * (1 + 1e-6):
            break
        middle = Fraction((low * high) ** 0.5).limit_denominator(_BISECTION_DENOMINATOR)
        try:
            members = _below(problem, Pressure(middle.numerator, middle.denominator), _BISECTION_NODES)
        except NotProven:
            members = None
        if members is None:
            low = float(middle)
        else:
            best = _placed(problem, members)
    return best


def _below(problem: Problem, limit: Pressure, max_nodes: int) -> list[list[int]] | None:
    """A placement with a pressure strictly below `limit`, None when there is none."""
    weights = [
        demand * limit.free + size * limit.demand for demand, size in zip(problem.demands, problem.sizes, strict=True)
    ]
    return _pack(problem.gpu_num, weights, GPU_MEM_SIZE * limit.demand - 1, max_nodes)


def _pack(bins: int, weights: Sequence[int], capacity: int, max_nodes: int) -> list[list[int]] | None:
    order = sorted(range(len(weights)), key=lambda m: -weights[m])
    bin_of = np.empty(len(order), np.int64)
    answer = pack(np.array([weights[m] for m in order], np.int64), bins, capacity, max_nodes, bin_of)
    if answer not in (FITS, DOES_NOT_FIT):
        raise NotProven(f"no answer within {max_nodes} placements of {len(order)} models on {bins} GPUs")
    if answer == DOES_NOT_FIT:
        return None
    members: list[list[int]] = [[] for _ in range(bins)]
    for m, b in zip(order, bin_of.tolist(), strict=True):
        members[b].append(m)
    return members


def _placed(problem: Problem, members: Sequence[Sequence[int]]) -> Optimum:
    return Optimum(problem.pressure(dict(enumerate(members))), tuple(tuple(sorted(group)) for group in members))


def _main() -> None:
    """Print the optimum of every problem of every split and the CPU time of its proof."""
    for split in SPLITS:
        print(f"{split}: {'problem':<34} {'GPUs':>4} {'models':>6} {'optimum':>10} {'/ balance':>9} {'CPU ms':>8}")
        for named in problems(split):
            start = process_time()
            least = float(optimum(named.problem).pressure)
            spent_ms = 1e3 * (process_time() - start)
            above = least / named.problem.perfect_balance
            gpus, models = named.problem.gpu_num, len(named.problem.sizes)
            indent = " " * (len(split) + 1)
            print(f"{indent} {named.name:<34} {gpus:>4} {models:>6} {least:>10.6f} {above:>9.4f} {spent_ms:>8.2f}")


if __name__ == "__main__":
    _main()
