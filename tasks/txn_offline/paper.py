"""The public evaluator's numbers, faults included: `load_task("txn_offline", scoring="paper")`.

The public score is 1e6 / (1 + m), m being the makespan that the program reports, and nothing recomputes it. A validity
is worked out beside it and changes nothing: schedules that are too short pass. So `return 0, [[0]], 0.0` is a perfect
and valid answer here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from adrs_ray.task import Case, CaseResult, Combined, MalformedOutput, Split, UsageError

from . import judge
from .scoring import leaderboard_formula
from .triples import Reference, split_note

__all__ = ["cases", "combine", "score", "split_note"]


def cases(split: Split) -> list[Case]:
    """The test split. Raises UsageError for another one: the public evaluator has no more."""
    if split != "test":
        raise UsageError(f"txn_offline: scoring paper has the split test only, not {split}")
    return judge.cases(split)


def score(case: Case, raw: Any) -> dict[str, float]:
    """`public_score` from the reported makespan, and `validity`, which is not part of it.

    Raises MalformedOutput when the program reports no number, or -1, for which the formula has no value.
    """
    reference: Reference = case.hidden
    reported = raw.get("reported") if isinstance(raw, Mapping) else None
    if isinstance(reported, bool) or not isinstance(reported, int | float):
        raise MalformedOutput(reported[:200] if isinstance(reported, str) else "no makespan was reported")
    if reported == -1:
        raise MalformedOutput("the reported makespan is -1: 1e6 / (1 + makespan) has no value")
    schedules = raw.get("schedules")
    sizes = [workload.num_txns for workload in reference.workloads]
    return {
        "public_score": 1e6 / (1.0 + reported),
        "reported_makespan": float(reported),
        "validity": 1.0 if isinstance(schedules, list) and _passes(schedules, sizes) else 0.0,
        "leaderboard_formula": leaderboard_formula(reported, reference.arrival, reference.longest),
        "leaderboard_coverage": 100.0 if reference.recorded else 0.0,
    }


def combine(results: Sequence[CaseResult]) -> Combined:
    """Means over the cases (there is one); the score is `public_score`. No bound: a report may be any number."""
    metrics = {name: fmean(result.metrics[name] for result in results) for name in results[0].metrics}
    metrics["cpu_s"] = sum(result.cpu_s for result in results)
    lines = [f"{'case':<18} {'reported':>10} {'public score':>14} {'validity':>9}"]
    for result in results:
        m = result.metrics
        lines.append(
            f"{result.case:<18} {m['reported_makespan']:>10.6g} {m['public_score']:>14.6f} {m['validity']:>9.0f}"
        )
    return Combined(score=metrics["public_score"], metrics=metrics, artifacts={"cases": "\n".join(lines)})


def _passes(schedules: Sequence[Any], sizes: Sequence[int]) -> bool:
    """Whether each schedule names ids of its workload, none twice; that some are missing is not looked at."""
    return all(
        isinstance(schedule, list)
        and all(type(txn) is int and 0 <= txn < size for txn in schedule)
        and len(set(schedule)) == len(schedule)
        for schedule, size in zip(schedules, sizes, strict=False)
    )
