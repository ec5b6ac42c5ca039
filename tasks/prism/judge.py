"""The trusted side: cases, exact pressures and the score of a split.

A case is a bundle of placement problems. The efficiency of a placement is the least possible KVPR of its problem over
the KVPR that it has: 1 for an optimal placement, 0.5 for twice the pressure. The score of a split is the mean
efficiency of its problems; no placement is better than the optimum, so no program scores above 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import sqrt
from statistics import fmean
from typing import Any, cast

from adrs_ray.task import Case, CaseResult, Combined, InvalidOutput, MalformedOutput, Split, quality, shown

from .optimum import optimum
from .problem import Pressure, Problem
from .splits import Named, bundles

FULL_GPU_KVPR = 1e6
"""What a GPU without room for a cache counts in the public evaluator and in the leaderboard's baseline."""

_TIMED_CPU_S = 5e-3
"""Where a case takes less, most of its CPU time is that of starting: then it says nothing about growth."""

_FIRST_SEED: Mapping[Split, int] = {"train": 7_000, "validation": 7_100, "test": 7_200, "stress": 7_300}


@dataclass(frozen=True, slots=True)
class Reference:
    """What the judge keeps of a problem: its name in reports and the least pressure that a placement can have."""

    name: str
    problem: Problem
    best: Pressure
    public: bool
    """Whether it is one of the public evaluator's problems."""


def cases(split: Split) -> list[Case]:
    """The bundles of a split. The optimum of every problem is proven here; that takes milliseconds per split."""
    return [
        Case(
            id=f"{split}-{i}",
            seed=_FIRST_SEED[split] + i,
            public=told(bundle, believe=False),
            hidden=tuple(
                Reference(named.name, named.problem, optimum(named.problem).pressure, split == "test")
                for named in bundle
            ),
        )
        for i, bundle in enumerate(bundles(split))
    ]


def told(bundle: Sequence[Named], believe: bool) -> dict[str, Any]:
    """The public part of a case: for `believe` see the adapter."""
    problems = [{"gpu_num": named.problem.gpu_num, "models": named.problem.models} for named in bundle]
    return {"problems": problems, "believe": believe}


def score(case: Case, raw: Any) -> dict[str, float]:
    """Pressures and efficiencies of one bundle, from the case's own figures: the answer only says which model is where.

    Raises MalformedOutput when an answer has not the shape of a placement, and InvalidOutput when a model is unplaced,
    unknown or placed twice, a GPU does not exist, or one holds 80 GB or more.
    """
    references: tuple[Reference, ...] = case.hidden
    answers = raw.get("answers") if isinstance(raw, Mapping) else None
    if not isinstance(answers, list | tuple) or len(answers) != len(references):
        raise MalformedOutput(f"expected {{'answers': [{len(references)} placements]}}")
    found = [_pressure(ref, answer) for ref, answer in zip(references, answers, strict=True)]
    efficiencies = [1.0 / pressure.over(ref.best) for ref, pressure in zip(references, found, strict=True)]
    return {
        "efficiency": fmean(efficiencies),
        "mean_max_kvpr": fmean(map(float, found)),
        "mean_optimal_kvpr": fmean(float(ref.best) for ref in references),
        "optimal_share": 100.0 * fmean(efficiency == 1.0 for efficiency in efficiencies),
        "leaderboard_formula": fmean(
            leaderboard_formula(ref.problem, float(pressure)) for ref, pressure in zip(references, found, strict=True)
        ),
        "leaderboard_coverage": 100.0 if all(ref.public for ref in references) else 0.0,
        "models": float(sum(len(ref.problem.sizes) for ref in references)),
        "worst": min(efficiencies),
        "worst_problem": float(efficiencies.index(min(efficiencies))),
    }


def combine(results: Sequence[CaseResult]) -> Combined:
    """Means over the problems of a split, all of whose bundles have one length. The score is the mean efficiency."""
    names = ("efficiency", "mean_max_kvpr", "mean_optimal_kvpr", "optimal_share")
    metrics = {name: fmean(result.metrics[name] for result in results) for name in names}
    metrics["inverse_mean_kvpr"] = 1.0 / metrics["mean_max_kvpr"]
    metrics["gap"] = 100.0 * (metrics["mean_max_kvpr"] / metrics["mean_optimal_kvpr"] - 1.0)
    timed = all(result.cpu_s >= _TIMED_CPU_S for result in results)
    metrics |= quality(results, value="worst", size="models" if timed else None)
    metrics["worst_decile"] = fmean(result.metrics["worst"] for result in results)  # one of ten problems per case
    for name in ("leaderboard_formula", "leaderboard_coverage"):
        metrics[name] = fmean(result.metrics[name] for result in results)
    metrics["score_bound"] = 1.0
    return Combined(score=metrics["efficiency"], metrics=metrics, artifacts={"cases": _table(results)})


def leaderboard_formula(problem: Problem, kvpr: float) -> float:
    """The ADRS leaderboard's score of one problem, 0..100; comparable only as the mean over the public problems.

    100 * sqrt((B - kvpr) / (B - P)), clipped to 0..100: B the pressure of round robin, FULL_GPU_KVPR where that fills a
    GPU, and P perfect balance, which no placement of whole models need reach.
    """
    round_robin = problem.round_robin()
    baseline = FULL_GPU_KVPR if round_robin is None else float(round_robin)
    if baseline <= problem.perfect_balance:
        return 100.0 if kvpr <= baseline else 0.0
    return 100.0 * sqrt(min(1.0, max(0.0, (baseline - kvpr) / (baseline - problem.perfect_balance))))


def _pressure(reference: Reference, answer: Any) -> Pressure:
    """Of a placement that keeps all rules."""
    if isinstance(answer, str):
        raise MalformedOutput(f"{reference.name}: {answer[:200]}")
    gpus = answer.get("gpus") if isinstance(answer, Mapping) else None
    models = answer.get("models") if isinstance(answer, Mapping) else None
    if not isinstance(gpus, list | tuple) or not isinstance(models, list | tuple) or len(gpus) != len(models):
        raise MalformedOutput(f"{reference.name}: expected GPU ids and as many lists of models")
    placement: dict[int, list[int]] = {}
    seen: set[int] = set()
    for gpu, members in zip(gpus, models, strict=True):
        if type(gpu) is not int or not 0 <= gpu < reference.problem.gpu_num:
            known = f"an int in 0..{reference.problem.gpu_num - 1}"
            raise InvalidOutput(f"{reference.name}: GPU id {_said(gpu)}, expected {known}")
        if gpu in placement:
            raise InvalidOutput(f"{reference.name}: GPU {gpu} is named twice")
        if not isinstance(members, list | tuple):
            raise MalformedOutput(f"{reference.name}: GPU {gpu} holds {_said(members)}, expected a list of models")
        placement[gpu] = [_new(reference, gpu, model, seen) for model in members]
    missing = next((model for model in range(len(reference.problem.sizes)) if model not in seen), None)
    if missing is not None:
        placed = f"{len(seen)} of {len(reference.problem.sizes)} models placed"
        raise InvalidOutput(f"{reference.name}: {placed}, model_{missing} is missing")
    try:
        return reference.problem.pressure(placement)
    except ValueError as error:
        raise InvalidOutput(f"{reference.name}: {error}") from None


def _said(value: Any) -> str:
    """Texts are the adapter's words for what cannot travel."""
    return value[:80] if isinstance(value, str) else shown(value)


def _new(reference: Reference, gpu: int, model: Any, seen: set[int]) -> int:
    """A model that exists and has not been placed before."""
    if type(model) is not int or not 0 <= model < len(reference.problem.sizes):
        raise InvalidOutput(f"{reference.name}: GPU {gpu} holds {_said(model)}, which is none of the given models")
    if model in seen:
        raise InvalidOutput(f"{reference.name}: model_{model} is placed a second time, on GPU {gpu}")
    seen.add(model)
    return model


def _table(results: Sequence[CaseResult]) -> str:
    lines = [f"{'case':<14} {'models':>6} {'mean KVPR':>10} {'optimum':>8} {'efficiency':>11}  worst problem"]
    for result in results:
        m = result.metrics
        lines.append(
            f"{result.case:<14} {m['models']:>6.0f} {m['mean_max_kvpr']:>10.4f} {m['mean_optimal_kvpr']:>8.4f}"
            f" {m['efficiency']:>11.4f}  {m['worst']:.4f} ({_names(result.case)[int(m['worst_problem'])]})"
        )
    return "\n".join(lines)


@cache
def _names(case: str) -> list[str]:
    """What the problems of a case are called."""
    split, _, index = case.rpartition("-")
    return [named.name for named in bundles(cast(Split, split))[int(index)]]
