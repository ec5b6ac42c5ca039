"""Where placement problems come from: the public recipe, and five harder families.

Every problem can be placed, and by simple rules: first fit decreasing by size finds room for all models, and so does
the public program's greedy rule, so that it has a score on every generated problem. Draws for which one of them does
not are drawn again. Sizes are whole GB, rates whole requests per second, slos from 1 to 10.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from .problem import GPU_MEM_SIZE, Models, Problem, first_fit_decreasing

PUBLIC_PROBLEMS = 50

Integers = npt.NDArray[np.int64]
Family = Callable[[np.random.Generator, int], Problem]
"""Draws a problem; the number is a factor on the GPUs."""


def public_problems() -> list[Problem]:
    """The 50 problems of the public evaluator: numpy's legacy generator, seed 42, drawn in its order."""
    state = np.random.RandomState(42)
    problems = []
    for _ in range(PUBLIC_PROBLEMS):
        gpu_num = int(state.randint(5, 10))
        drawn = [[state.randint(10, 30), state.randint(1, 10), state.randint(5, 10)] for _ in range(2 * gpu_num)]
        problems.append(Problem(gpu_num, np.array(drawn, np.int64)))
    return problems


def like_public(rng: np.random.Generator, scale: int) -> Problem:
    """The public recipe: 5 to 9 GPUs, two models each, sizes 10..29, rates 1..9, slos 5..9."""
    gpu_num = scale * int(rng.integers(5, 10))
    n = 2 * gpu_num
    return Problem(gpu_num, _models(rng.integers(10, 30, n), rng.integers(1, 10, n), rng.integers(5, 10, n)))


def tight(rng: np.random.Generator, scale: int) -> Problem:
    """Memory is short: each of 4 to 8 GPUs is cut into two or three models that leave 10 to 24 GB free."""
    gpu_num = scale * int(rng.integers(4, 9))
    sizes: list[int] = []
    for _ in range(gpu_num):
        parts = int(rng.integers(2, 4))
        weights = rng.uniform(0.5, 1.5, parts)
        filled = GPU_MEM_SIZE - int(rng.integers(10, 25))
        sizes += [max(1, int(part)) for part in filled * weights / weights.sum()]
    n = len(sizes)
    return Problem(gpu_num, _models(rng.permutation(sizes), rng.integers(1, 10, n), rng.integers(2, 10, n)))


def skewed(rng: np.random.Generator, scale: int) -> Problem:
    """A few models get most requests (lognormal rates), and slos differ tenfold."""
    gpu_num = scale * int(rng.integers(4, 9))
    n = int(2.5 * gpu_num)
    rates = np.clip(rng.lognormal(2.0, 1.1, n), 1, 400).astype(np.int64)
    return Problem(gpu_num, _models(rng.integers(8, 34, n), rates, rng.choice([1, 2, 4, 5, 10], n)))


def few_large(rng: np.random.Generator, scale: int) -> Problem:
    """Large models that share a GPU with small ones at best, and heavy traffic on the small ones."""
    gpu_num = scale * int(rng.integers(4, 9))
    large = gpu_num // 2
    small = 2 * gpu_num
    sizes = np.concatenate([rng.integers(36, 56, large), rng.integers(5, 19, small)])
    rates = np.concatenate([rng.integers(1, 6, large), rng.integers(2, 21, small)])
    order = rng.permutation(large + small)
    return Problem(gpu_num, _models(sizes[order], rates[order], rng.integers(3, 11, large + small)))


def many_gpus(rng: np.random.Generator, scale: int) -> Problem:
    """10 to 14 GPUs, weights of a catalogue (7B, 8B, 13B, 34B, ... at two bytes or half a byte), uneven rates."""
    gpu_num = scale * int(rng.integers(10, 15))
    n = int(2.2 * gpu_num)
    sizes = rng.choice([4, 6, 14, 16, 18, 26, 35, 40], n)
    rates = np.clip(rng.lognormal(2.0, 0.7, n), 1, 100).astype(np.int64)
    return Problem(gpu_num, _models(sizes, rates, rng.choice([2, 3, 5, 6, 8, 10], n)))


FAMILIES: Mapping[str, Family] = {
    "like_public": like_public,
    "tight": tight,
    "skewed": skewed,
    "few_large": few_large,
    "many_gpus": many_gpus,
}


def draw(family: Family, rng: np.random.Generator, scale: int = 1) -> Problem:
    """A problem of a family that both first fit decreasing and the public greedy rule can place."""
    while True:
        problem = family(rng, scale)
        if first_fit_decreasing(problem.gpu_num, problem.sizes) is not None and _greedy_places(problem):
            return problem


def _greedy_places(problem: Problem) -> bool:
    """Whether every model fits when those in most demand come first, each on the GPU of least pressure so far.

    As publicly a GPU may be filled to the last GB on the way; a problem on which that happens is none of ours.
    """
    free = [GPU_MEM_SIZE] * problem.gpu_num
    demand = [0] * problem.gpu_num
    for m in sorted(range(len(problem.sizes)), key=lambda m: -problem.demands[m]):
        fitting = [g for g in range(problem.gpu_num) if problem.sizes[m] <= free[g] and free[g] > 0]
        if not fitting:
            return False
        gpu = min(fitting, key=lambda g: demand[g] / free[g])
        free[gpu] -= problem.sizes[m]
        demand[gpu] += problem.demands[m]
    return min(free) > 0


def _models(sizes: Integers, rates: Integers, slos: Integers) -> Models:
    return np.stack([sizes, rates, slos], axis=1).astype(np.int64)
