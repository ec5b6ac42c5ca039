"""The public evaluator's figures on its 50 problems, faults included: 1 / mean(largest KVPR) + success rate.

Its faults are kept on purpose. The figures of a model are read from the objects that come back. That every model is
placed, and once, is not checked, and neither is which GPUs exist. Memory is checked only in that a full GPU counts
1,000,000. A problem on which the program fails drops out of the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adrs_ray.task import Case, CaseResult, Combined, MalformedOutput, Split, UsageError

from .judge import FULL_GPU_KVPR, told
from .problem import GPU_MEM_SIZE
from .splits import BUNDLE, problems


def cases(split: Split) -> list[Case]:
    """The public problems in the public order, in bundles. Raises UsageError for any split but `test`."""
    if split != "test":
        raise UsageError(f"prism: paper scoring knows the split test only (the public problems), not {split}")
    every = problems("test")
    return [
        Case(id=f"test-{i}", seed=7_200 + i, public=told(every[start : start + BUNDLE], believe=True))
        for i, start in enumerate(range(0, len(every), BUNDLE))
    ]


def score(case: Case, raw: Any) -> dict[str, float]:
    """Sum of the largest KVPRs over the problems that ran, and how many did.

    Raises MalformedOutput for what no adapter of ours hands out.
    """
    answers = raw.get("answers") if isinstance(raw, Mapping) else None
    wanted = len(case.public["problems"])
    if not isinstance(answers, list | tuple) or len(answers) != wanted:
        raise MalformedOutput(f"expected {{'answers': [{wanted} placements]}}")
    found = [kvpr for answer in answers if (kvpr := _largest(answer)) is not None]
    return {"kvpr_sum": sum(found), "ran": float(len(found)), "problems": float(wanted)}


def combine(results: Sequence[CaseResult]) -> Combined:
    """1 / mean + success rate; 0 when no problem ran. A mean of 0 or below (an empty answer) adds nothing."""
    ran, wanted = (sum(result.metrics[name] for result in results) for name in ("ran", "problems"))
    cpu_s = sum(result.cpu_s for result in results)
    metrics = {"success_rate": ran / wanted, "cpu_s": cpu_s, "cpu_s_per_case": cpu_s / len(results)}
    inverse = 0.0
    if ran:
        mean = sum(result.metrics["kvpr_sum"] for result in results) / ran
        inverse = 1.0 / mean if mean > 0 else 0.0
        metrics |= {"mean_max_kvpr": mean, "inverse_mean_kvpr": inverse}
    return Combined(score=inverse + ran / wanted, metrics=metrics)


def _largest(answer: Any) -> float | None:
    """The largest KVPR of an answer, by the figures it claims; None where the program or the division fails."""
    figures = answer.get("figures") if isinstance(answer, Mapping) else None
    if figures is None:
        return None
    try:
        return max((_kvpr(members) for members in figures), default=0.0)
    except (TypeError, ValueError):
        raise MalformedOutput("expected a list of [size, rate, slo] per GPU") from None
    except ArithmeticError:
        return None


def _kvpr(members: Sequence[Sequence[float]]) -> float:
    size = demand = 0.0
    for model_size, req_rate, slo in members:
        size += model_size
        demand += req_rate / slo
    return demand / (GPU_MEM_SIZE - size) if size < GPU_MEM_SIZE else FULL_GPU_KVPR
