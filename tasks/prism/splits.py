"""The problems of each split, in bundles: a case is a bundle, as starting a process takes longer than placing models.

`test` is the public set, `train` and `validation` are drawn from the families, as many of each, and `stress` holds odd
ones, validation problems relabelled and perturbed, and families on two or three times as many GPUs. Within a split the
problems are sorted by their number of models before they are cut into bundles, so that CPU time can be held against
size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from adrs_ray.task import Split

from .families import FAMILIES, draw, public_problems
from .problem import GPU_MEM_SIZE, Models, Problem, first_fit_decreasing

BUNDLE = 10
"""Problems per case."""

_TRAIN_SEED, _VALIDATION_SEED, _STRESS_SEED = 101, 202, 303


@dataclass(frozen=True, slots=True)
class Named:
    """A problem and what it is called in reports."""

    name: str
    problem: Problem


def bundles(split: Split) -> list[list[Named]]:
    """The problems of a split, `BUNDLE` per bundle, those with the fewest models first."""
    ordered = sorted(problems(split), key=lambda named: len(named.problem.sizes))
    return [ordered[start : start + BUNDLE] for start in range(0, len(ordered), BUNDLE)]


def problems(split: Split) -> list[Named]:
    """The problems of a split, the public ones in the public order."""
    if split == "train":
        return list(_drawn(_TRAIN_SEED, 6))
    if split == "validation":
        return list(_drawn(_VALIDATION_SEED, 8))
    if split == "test":
        return [Named(f"public-{i}", problem) for i, problem in enumerate(public_problems())]
    return [*_odd(), *_varied(), *_scaled()]


def _drawn(seed: int, each: int) -> Iterator[Named]:
    rng = np.random.default_rng(seed)
    for name, family in FAMILIES.items():
        for i in range(each):
            yield Named(f"{name}-{i}", draw(family, rng))


def _odd() -> Iterator[Named]:
    rng = np.random.default_rng(_STRESS_SEED)
    yield Named("one model", _problem(1, [[30, 5, 5]]))
    yield Named(
        "one GPU, 1 GB left", _problem(1, [[20, 3, 5], [19, 9, 5], [10, 1, 9], [10, 1, 9], [10, 4, 7], [10, 2, 8]])
    )
    yield Named("more GPUs than models", _problem(8, [[10, 1, 9], [20, 9, 5], [29, 5, 7]]))
    yield Named("a GPU each", _problem(6, [[79, 1 + k, 10 - k] for k in range(6)]))
    yield Named("halves of a GPU", _problem(8, [[40, 1 + k, 8] for k in range(8)]))
    yield Named("all alike", _problem(8, [[20, 4, 8]] * 24))
    yield Named("one in demand", _problem(6, [[16, 1000, 1], *[[14, 1, 10]] * 17]))
    yield Named("rising demand", _problem(7, [[12 + k, (1 + k) ** 2, 10] for k in range(14)]))
    yield Named("filled to the last GB", _problem(5, _filled(rng, 5)))
    yield Named("large ones idle", _problem(6, [[10 + 2 * k, 2 ** (13 - k), 10] for k in range(14)]))
    yield Named("large ones busy", _problem(6, [[10 + 2 * k, 2**k, 10] for k in range(14)]))
    yield Named("alike but for size", _problem(6, [[6 + 2 * k, 5, 5] for k in range(15)]))
    yield Named("alike but for demand", _problem(6, [[24, 3 * k + 1, 7] for k in range(15)]))
    yield Named(
        "one large per GPU", _problem(5, [*[[61 + k, 1, 10] for k in range(5)], *[[7 + k, 9, 2] for k in range(5)]])
    )
    yield Named("tiny models", _problem(4, [[1, 1 + k % 7, 1 + k % 3] for k in range(20)]))


def _filled(rng: np.random.Generator, gpu_num: int) -> list[list[int]]:
    """Three models per GPU that leave 1 GB, such that first fit decreasing finds a placement."""
    while True:
        sizes: list[int] = []
        for _ in range(gpu_num):
            first, second = (int(part) for part in rng.integers(15, 36, 2))
            sizes += [first, second, GPU_MEM_SIZE - 1 - first - second]
        if first_fit_decreasing(gpu_num, sizes) is not None:
            return [[size, int(rng.integers(1, 10)), int(rng.integers(2, 10))] for size in rng.permutation(sizes)]


def _varied() -> Iterator[Named]:
    """The first validation problem of each family in another order, and the second with other figures."""
    rng = np.random.default_rng(_STRESS_SEED + 1)
    by_name = {named.name: named.problem for named in problems("validation")}
    for family in FAMILIES:
        first, second = by_name[f"{family}-0"], by_name[f"{family}-1"]
        yield Named(f"{family}, relabelled", Problem(first.gpu_num, rng.permutation(first.models)))
        yield Named(f"{family}, perturbed", _perturbed(second, rng))


def _perturbed(problem: Problem, rng: np.random.Generator) -> Problem:
    """Sizes 1 GB up or down, rates a tenth or 1 up or down; drawn again until first fit decreasing places all."""
    while True:
        models = problem.models.copy()
        n = len(models)
        models[:, 0] = np.clip(models[:, 0] + rng.integers(-1, 2, n), 1, GPU_MEM_SIZE - 1)
        models[:, 1] = np.maximum(1, models[:, 1] + rng.integers(-1, 2, n) * np.maximum(1, models[:, 1] // 10))
        varied = Problem(problem.gpu_num, models)
        if first_fit_decreasing(varied.gpu_num, varied.sizes) is not None:
            return varied


def _scaled() -> Iterator[Named]:
    rng = np.random.default_rng(_STRESS_SEED + 2)
    for name, scale in (("like_public", 2), ("skewed", 2), ("many_gpus", 2), ("few_large", 2), ("many_gpus", 3)):
        yield Named(f"{name}, GPUs times {scale}", draw(FAMILIES[name], rng, scale))


def _problem(gpu_num: int, models: Sequence[Sequence[int]]) -> Problem:
    array: Models = np.array(models, np.int64)
    return Problem(gpu_num, array)
